"""Data/MC of the discriminators: does the distribution of a tagger agree, whatever its efficiencies do?"""

from dataclasses import dataclass

import numpy as np

from common.distances import js_distance
from common.errors import AdvtagError
from plots.compare import Bins, chi2_test, js_null
from study.counts import Array, Bootstrap, count
from study.jets import Floats, Jets

BINS = 20


@dataclass(frozen=True)
class Agreement:
    """Shape of a discriminator in data and MC."""

    variant: str
    process: str
    tagger: str
    chi2: float
    """Statistical errors of both, see `plots.compare.chi2_test`."""
    ndf: int
    p: float
    js: float
    """Jensen-Shannon distance, base 2."""
    js_null: float
    """Its mean if data follow the MC."""


def agreement(
    key: tuple[str, str, str],
    pair: tuple[Jets, Jets],
    pt_edges: tuple[float, ...],
    scores: tuple[Floats, Floats],
    bootstrap: Bootstrap,
) -> tuple[Agreement, Array]:
    """Compare the shapes of a discriminator in all jets of a process; MC has the pt spectrum of the data.

    The bins hold equal parts of the MC, whose statistics does not depend on how a tagger stretches its scale.

    Args:
        key: variant, process and tagger
        pair: jets of data and of MC
        pt_edges: GeV, between pt bins
        scores: of data and of MC
        bootstrap: replicas

    Returns:
        The comparison, and the Jensen-Shannon distance in each replica.

    Raises:
        AdvtagError: MC has no jets of the pt of the data
    """
    data, mc = pair
    once = Bootstrap(0, 0)
    observed, expected = (_fill(jets.pt, pt_edges, jets.weights["jets"], jets, once) for jets in pair)
    factor = np.divide(observed[0], expected[0], out=np.zeros_like(expected[0]), where=expected[0] > 0)
    weight = mc.weights["jets"] * factor[np.searchsorted(pt_edges, mc.pt, side="right")]
    if not weight.sum() > 0:
        raise AdvtagError(
            f"{key[1]}: no jets of the sample 'mc' in the pt bins of those of 'data-{key[0]}'; simulate more events "
            "(the keys `mc.events` and `data.events`)"
        )
    order = np.argsort(scores[1])
    below = np.cumsum(weight[order]) / weight.sum()
    edges = tuple(np.unique(scores[1][order][np.searchsorted(below, np.arange(1, BINS) / BINS)]).tolist())
    content = _fill(scores[0], edges, data.weights["jets"], data, bootstrap)
    simulated = _fill(scores[1], edges, weight, mc, bootstrap)
    squares = _fill(scores[1], edges, weight**2, mc, once)[0]
    bins = Bins(content[0], content[0], simulated[0], squares)
    distances = js_distance(content, simulated)
    return Agreement(*key, *chi2_test(bins, shape=True), float(distances[0]), js_null(bins, seed=1)[0]), distances


def _fill(values: Floats, edges: tuple[float, ...], weight: Floats, jets: Jets, bootstrap: Bootstrap) -> Array:
    """Histogram of values in every replica, [replicas, bins]."""
    nothing = np.zeros((1, len(jets)), np.bool_)
    found: Array = count(values, edges, None, weight, nothing, bootstrap.weights(jets.event)).all[..., 0]
    return found
