"""Data/MC of the discriminators: does the distribution of a tagger agree, whatever its efficiencies do?"""

from dataclasses import dataclass

import numpy as np

from common.distances import js_distance
from plots.compare import Bins, chi2_test, js_null
from study.counts import Bootstrap, count, like_data
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
    key: tuple[str, str, str], data: Jets, mc: Jets, pt_edges: tuple[float, ...], scores: tuple[Floats, Floats]
) -> Agreement:
    """Compare the shapes of a discriminator in all jets of a process; MC has the pt spectrum of the data.

    The bins hold equal parts of the MC, whose statistics does not depend on how a tagger stretches its scale.

    Args:
        key: variant, process and tagger
        data: jets
        mc: jets
        pt_edges: GeV, between pt bins
        scores: of data and of MC
    """
    once = Bootstrap(0, 0)
    observed, expected = (
        count(
            jets.pt,
            pt_edges,
            jets.flavour,
            jets.weights["jets"],
            np.ones((1, len(jets)), np.bool_),
            once.weights(jets.event),
        )
        for jets in (data, mc)
    )
    before, after = expected.all.sum(axis=-1)[0], like_data(expected, observed).all.sum(axis=-1)[0]
    factor = np.divide(after, before, out=np.zeros_like(after), where=before > 0)
    weight = mc.weights["jets"] * factor[np.searchsorted(pt_edges, mc.pt, side="right")]
    order = np.argsort(scores[1])
    below = np.cumsum(weight[order]) / weight.sum()
    edges = np.unique(scores[1][order][np.searchsorted(below, np.arange(1, BINS) / BINS)])

    def fill(values: Floats, weights: Floats) -> Floats:
        return np.bincount(np.searchsorted(edges, values, side="right"), weights, len(edges) + 1)

    content = fill(scores[0], data.weights["jets"])
    bins = Bins(content, content, fill(scores[1], weight), fill(scores[1], weight**2))
    return Agreement(*key, *chi2_test(bins, shape=True), float(js_distance(content, bins.mc)), js_null(bins, seed=1)[0])
