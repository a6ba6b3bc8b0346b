"""Where an attack moves an input, by the true flavour of the jets.

An attack on a tagger that separates by the sign of an impact parameter moves b jets one way and light jets the other:
the shapes become alike. One that finds no such slope moves either flavour both ways.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attacks.distances import bin_edges
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from training.columns import Sample
from training.scan import ranking

Array = NDArray[np.float64]
IMPACT = ("trackSip2dSig_0", "trackSip2dSig_1", "trackSip3dSig_0")
"""Looked at where the card has them: the significances of the impact parameters of the first tracks."""


def shown_inputs(sample: Sample, features: FeatureSet, classes: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Inputs whose shifts are looked at: `names`; without any, those of `IMPACT`; and where the card has none of these,
    the three that separate b from light jets best by themselves and can move (see `training.scan.ranking`).

    Raises:
        AdvtagError: a name that the card does not have, or no jets to rank the inputs with
    """
    for name in names:
        if name not in features.names:
            known = get_close_matches(name, features.names, 3, 0) or features.names[:3]
            raise AdvtagError(f"no input {name!r} in feature card {features.name!r}; did you mean {', '.join(known)}?")
    if found := tuple(names) or tuple(name for name in IMPACT if name in features.names):
        return found
    fixed = features.integer | features.frozen
    return tuple(name for name in ranking(sample, features, classes) if not fixed[features.names.index(name)])[:3]


def raw_shapes(
    features: FeatureSet, name: str, clean: Inputs, target: Tensor, classes: Sequence[str]
) -> dict[str, Any]:
    """One input before an attack: `edges` of the card's bins, and for each flavour `jets` that have the entry, and
    `raw`, sums of |w| with underflow and overflow.
    """
    k, edges = features.names.index(name), edges_of(features, name)
    table: dict[str, Any] = {"edges": edges.tolist(), "flavours": {}}
    for code, flavour in enumerate(classes):
        values, weight = _entries(clean, clean, target, code, k)[::2]
        raw = np.bincount(_place(edges, values), weight, len(edges) + 1)
        table["flavours"][flavour] = {"jets": len(values), "raw": raw.tolist()}
    return table


def shift_table(
    features: FeatureSet, name: str, clean: Inputs, moved: Inputs, target: Tensor, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """One input after an attack, for each flavour; a jet counts with |w|.

    Returns:
        by flavour `attacked`, sums of weights in the bins of `raw_shapes`; `up` and `down`, the parts of the jets whose
        entry became larger and smaller; `mean`, the average of attacked - raw; and against the raw value, in the same
        bins, `shift`, the average of attacked - raw, and `error`, its statistical error: nan with fewer than two jets
    """
    k, edges, table = features.names.index(name), edges_of(features, name), {}
    for code, flavour in enumerate(classes):
        raw, attacked, weight = _entries(clean, moved, target, code, k)
        shift, place, bins = attacked - raw, _place(edges, raw), len(edges) + 1
        mean, error = _profile(shift, weight, place, bins)
        table[flavour] = {
            "attacked": np.bincount(_place(edges, attacked), weight, bins).tolist(),
            "up": _average((shift > 0).astype(np.float64), weight),
            "down": _average((shift < 0).astype(np.float64), weight),
            "mean": _average(shift, weight),
            "shift": mean.tolist(),
            "error": error.tolist(),
        }
    return table


def edges_of(features: FeatureSet, name: str) -> Array:
    """Edges of the bins in which the card draws an input."""
    return bin_edges(features.inputs[features.names.index(name)])


def _entries(clean: Inputs, moved: Inputs, target: Tensor, code: int, k: int) -> tuple[Array, Array, Array]:
    """Clean and moved values of the input and |w| of the jets of a class that have it."""
    mask = ((target == code) & clean.present[:, k]).cpu().numpy()
    raw, attacked = (inputs.values[:, k].cpu().numpy()[mask].astype(np.float64) for inputs in (clean, moved))
    weight = np.ones(len(mask)) if clean.weight is None else np.abs(clean.weight.cpu().numpy().astype(np.float64))
    return raw, attacked, weight[mask]


def _place(edges: Array, values: Array) -> NDArray[np.intp]:
    """Bin of each value, 0 for the underflow; edges as float32, which the values are."""
    return np.searchsorted(edges.astype(np.float32), values.astype(np.float32), side="right")


def _average(x: Array, weight: Array) -> float:
    return float(x @ weight / weight.sum()) if weight.sum() > 0 else float("nan")


def _profile(x: Array, weight: Array, place: NDArray[np.intp], bins: int) -> tuple[Array, Array]:
    """Weighted mean of x in each bin, and its error: the width over the square root of the effective number - 1."""
    total, squares = np.bincount(place, weight, bins), np.bincount(place, weight**2, bins)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 in empty bins
        mean = np.bincount(place, weight * x, bins) / total
        variance = np.bincount(place, weight * (x - mean[place]) ** 2, bins) / total
        number = total**2 / squares
        error = np.sqrt(variance / np.where(number > 1.5, number - 1, np.nan))
    return mean, error
