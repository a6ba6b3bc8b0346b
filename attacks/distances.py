"""What an attack did to the distributions of the inputs, and what chance alone would do.

Everything here counts a jet with |w|: a histogram with negative bins is no probability, and has no distance. Absent
entries count nowhere. p-values and the null of the distance are those of two independent samples. Clean and moved jets
are the same jets, so an attack can stay far below what independent samples would show, and its p-values are then
close to 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from attacks.budget import Interval
from common.distances import js_distance
from common.errors import AdvtagError
from models.features import FeatureSet, Input
from models.inputs import Inputs

Array = NDArray[np.float64]
DRAWS = 200
"""Pairs of samples behind the null of the distance: its 95 % quantile is then known to about 2 % of probability."""
ENOUGH = 10.0
"""Effective entries, of both samples together, that a bin of a chi2 test needs."""
CHUNK = 16_384
"""Jets whose products of features are in memory at once."""


def bin_edges(feature: Input) -> Array:
    """Edges of the inner bins: those of the plots; unit bins for an integer."""
    number, low, high = feature.bins
    return np.arange(int(low), int(high) + 1.0) if feature.integer else np.linspace(low, high, number + 1)


def _entries(inputs: Inputs) -> Iterator[tuple[NDArray[np.floating], Array]]:
    """Present values and their |w|, feature by feature."""
    weight = _weights(inputs)
    values, present = inputs.values.detach().cpu().numpy(), inputs.present.cpu().numpy()
    for value, there in zip(values.T, present.T, strict=True):
        yield value[there], weight[there]


def _weights(inputs: Inputs) -> Array:
    weight = torch.ones(len(inputs)) if inputs.weight is None else inputs.weight
    return np.abs(weight.detach().cpu().numpy().astype(np.float64))


def histograms(features: FeatureSet, inputs: Inputs) -> tuple[Array, Array]:
    """Sums of |w| and of w^2 in the bins of the card between underflow and overflow, float64 [features, bins] each.

    Empty bins fill up the shorter binnings; no distance or test here sees them.
    """
    edges = [bin_edges(feature) for feature in features.inputs]
    sums, squares = np.zeros((2, len(features), 1 + max(map(len, edges))))
    for k, (values, weight) in enumerate(_entries(inputs)):
        # edges as values of this type: float32(0.3) is above 0.3, and a bound is often an edge
        place = np.searchsorted(edges[k].astype(values.dtype), values, side="right")
        sums[k] = np.bincount(place, weight, sums.shape[1])
        squares[k] = np.bincount(place, weight**2, sums.shape[1])
    return sums, squares


def js_distances(features: FeatureSet, clean: Inputs, moved: Inputs) -> Array:
    """Jensen-Shannon distance of each feature, float64 [features], in [0, 1]; nan where one of them has no entry.

    See `common.distances.js_distance`. A move inside a bin, or inside the overflow, is not seen.
    """
    return js_distance(histograms(features, clean)[0], histograms(features, moved)[0])


def js_null(features: FeatureSet, clean: Inputs, *, seed: int, draws: int = DRAWS) -> tuple[Array, Array]:
    """Distance between two independent samples of the size of this one: mean and 95 % quantile, [features] each.

    Each sample is drawn bin by bin: a Poisson number of jets with the effective number of entries of the bin as its
    mean, each of them with the bin's sum w^2 / sum w. That has the mean and the variance of the weighted sum (G. Bohm,
    G. Zech, Nucl. Instrum. Meth. A 748 (2014) 1, arXiv:1309.1287), and where all weights are alike it is the Poisson
    sample of n_eff jets. For B filled bins and n jets the root mean square is about sqrt((B-1)/(8 ln 2) 2/n).
    """
    sums, squares = histograms(features, clean)
    weight = np.divide(squares, sums, out=np.zeros_like(sums), where=sums > 0)
    mean = np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0)
    generator = np.random.default_rng(seed)
    drawn = np.stack([js_distance(*(weight * generator.poisson(mean, (2, *mean.shape)))) for _ in range(draws)])
    found = np.full((2, len(features)), np.nan)
    usable = np.isfinite(drawn)  # a sample of very few may come out empty
    for k in np.flatnonzero(usable.any(0)):
        null = drawn[usable[:, k], k]
        found[:, k] = null.mean(), np.quantile(null, 0.95)
    return found[0], found[1]


def correlations(inputs: Inputs) -> Array:
    """Weighted linear correlation of each pair of features over the jets that have both, float64 [features, features].

    nan where no jet has both, or where one of them is the same in all that do.
    """
    weight, number = _weights(inputs), inputs.values.shape[1]
    centre, width = np.array(
        [
            (v.mean(dtype=np.float64), v.std(dtype=np.float64) or 1.0) if len(v) else (0.0, 1.0)
            for v, _ in _entries(inputs)
        ]
    ).T
    total, mean, square, product = np.zeros((4, number, number))
    for start in range(0, len(inputs), CHUNK):
        part = slice(start, start + CHUNK)
        there = inputs.present[part].cpu().numpy()
        # of mean 0 and width 1, about: a mean square minus a squared mean forgives no large offset
        x = np.where(there, (inputs.values[part].detach().cpu().numpy().astype(np.float64) - centre) / width, 0)
        present, w = there.astype(np.float64), weight[part, None]
        total += (w * present).T @ present
        mean += (w * x).T @ present
        square += (w * x * x).T @ present
        product += (w * x).T @ x
    some = np.where(total > 0, total, np.nan)
    mean, square, product = mean / some, square / some, product / some
    variance = square - mean**2
    variance[~(variance > 1e-12 * square)] = np.nan  # a constant, up to rounding
    return ((product - mean * mean.T) / np.sqrt(variance * variance.T)).clip(-1, 1)


def correlation_change(clean: Array, moved: Array) -> tuple[float, float]:
    """How far two matrices of `correlations` differ: |C' - C|_F / |C|_F with the diagonal in both, and the largest
    |C' - C|. Pairs that are undefined in either do not count; nan if that is all of them.
    """
    defined = np.isfinite(clean) & np.isfinite(moved)
    if not defined.any():
        return float("nan"), float("nan")
    change = (moved - clean)[defined]
    return float(np.linalg.norm(change) / np.linalg.norm(clean[defined])), float(np.abs(change).max())


def ks_tests(clean: Inputs, moved: Inputs) -> tuple[Array, Array]:
    """Two-sample Kolmogorov-Smirnov test of each feature, unbinned: statistic and p-value, [features] each.

    The statistic is the largest distance of the weighted empirical distribution functions; the p-value is that of
    n1 n2/(n1 + n2) jets with the effective numbers of entries n, so it is right for weights that do not depend on the
    feature, and too large where values are discrete. nan where one of the samples has no entry.
    """
    found = np.full((2, clean.values.shape[1]), np.nan)
    for k, samples in enumerate(zip(_entries(clean), _entries(moved), strict=True)):
        if not all(weight.sum() > 0 for _, weight in samples):
            continue
        steps = [_distribution(values, weight) for values, weight in samples]
        everywhere = np.concatenate([values for values, _ in steps])
        first, second = (below[np.searchsorted(values, everywhere, side="right")] for values, below in steps)
        statistic = np.abs(first - second).max()
        n1, n2 = (weight.sum() ** 2 / (weight**2).sum() for _, weight in samples)
        found[:, k] = statistic, stats.kstwo.sf(statistic, max(1, round(n1 * n2 / (n1 + n2))))
    return found[0], found[1]


def _distribution(values: NDArray[np.floating], weight: Array) -> tuple[NDArray[np.floating], Array]:
    """Sorted values, and the part of the weight that lies below each of them and below infinity."""
    order = np.argsort(values, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weight[order])])
    return values[order], below / below[-1]


def chi2_tests(features: FeatureSet, clean: Inputs, moved: Inputs) -> tuple[Array, Array, Array]:
    """chi2 test of homogeneity of each feature's histograms: statistic, degrees of freedom, p-value, [features] each.

    With unit weights Pearson's test of a 2 x B table. With weights the variances are pooled sums of squared weights,
    and the direction in which only the normalisation differs is projected out, which leaves B - 1 degrees of freedom
    whatever the weights. Both samples must have weights of one kind, up to a factor. Bins with fewer than 10 effective
    entries in both samples together are merged with their neighbours. The p-value is nan where that leaves one bin; all
    is nan where one of the samples has no entry.
    """
    found = np.full((3, len(features)), np.nan)
    rows = np.stack([*histograms(features, clean), *histograms(features, moved)], axis=1)
    for k in np.flatnonzero((rows.sum(2) > 0).all(1)):
        w1, s1, w2, s2 = rows[k]
        f1, f2 = w1.sum() / s1.sum(), w2.sum() / s2.sum()  # to sum w = sum w^2 = n_eff, as if counted
        w1, s1, w2, s2 = _merged(np.stack([f1 * w1, f1**2 * s1, f2 * w2, f2**2 * s2]))
        n1, n2 = w1.sum(), w2.sum()
        difference, variance, shape = w1 / n1 - w2 / n2, (s1 + s2) / (n1 * n2), (w1 + w2) / (n1 + n2)
        normalisation = (difference * shape / variance).sum() ** 2 / (shape**2 / variance).sum()
        chi2, ndf = max(0.0, (difference**2 / variance).sum() - normalisation), len(w1) - 1
        found[:, k] = chi2, ndf, stats.chi2.sf(chi2, ndf) if ndf else np.nan
    return found[0], found[1], found[2]


def _merged(rows: Array) -> Array:
    """Sums and squares of two samples, [4, bins], in fewer bins: from the left until there is enough in each."""
    pooled = rows[:2] + rows[2:]

    def enough(first: int, end: int | None = None) -> bool:
        sums, squares = pooled[:, first:end].sum(1)
        return bool((1 + 1e-9) * sums**2 >= ENOUGH * squares > 0)  # 10 of one weight are 10 in any order

    starts = [0]
    for place in range(1, rows.shape[1]):
        if enough(starts[-1], place):
            starts.append(place)
    # the rest joins the last; a few heavy jets can leave that with fewer effective entries than it had
    while len(starts) > 1 and not enough(starts[-1]):
        starts.pop()
    return np.add.reduceat(rows, starts, axis=1)


def entries_at_the_cap(interval: Interval, moved: Inputs) -> tuple[Array, Array, Array]:
    """Free entries of each feature: their number, the fraction that moved, and the fraction that moved to an end of
    their interval; [features] each, fractions nan where no entry is free. Jets count 1. What follows another entry is
    not free.
    """
    free = interval.free
    touched = free & (moved.values != interval.clean)
    at_cap = touched & ((moved.values == interval.low) | (moved.values == interval.high))
    number, *parts = (mask.sum(0).cpu().numpy().astype(np.float64) for mask in (free, touched, at_cap))
    some = np.where(number > 0, number, np.nan)
    return number, parts[0] / some, parts[1] / some


@dataclass(frozen=True)
class Distances:
    """Clean against moved jets; arrays are float64 [features], nan where there is nothing to compare."""

    names: tuple[str, ...]
    js: Array
    """see `js_distances`"""
    js_null_mean: Array
    """see `js_null`"""
    js_null_95: Array
    ks: Array
    """see `ks_tests`"""
    ks_p: Array
    chi2: Array
    """see `chi2_tests`"""
    chi2_ndf: Array
    chi2_p: Array
    free: Array
    """see `entries_at_the_cap`"""
    touched: Array
    at_cap: Array
    correlation_change: float
    """see `correlation_change`"""
    largest_correlation_change: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no nan: None. With means over features (`js_mean`) and over free entries (`touched`)."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        js = self.js[np.isfinite(self.js)]
        number = self.free.sum()
        return {
            "js_mean": float(js.mean()) if len(js) else None,
            "js_max": float(js.max()) if len(js) else None,
            "correlation_change": _json(self.correlation_change),
            "largest_correlation_change": _json(self.largest_correlation_change),
            "touched": float(np.nansum(self.touched * self.free) / number) if number else None,
            "at_cap": float(np.nansum(self.at_cap * self.free) / number) if number else None,
            "features": {
                name: {column: _json(array[k]) for column, array in columns.items()}
                for k, name in enumerate(self.names)
            },
        }


def _json(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def distances(features: FeatureSet, clean: Inputs, moved: Inputs, interval: Interval, *, seed: int = 0) -> Distances:
    """Compare jets with the same jets after an attack.

    Args:
        features: card of the inputs
        clean: the jets
        moved: the same jets after the attack, in the same order
        interval: where the attack's entries could go, from `Attack.interval`
        seed: of the null of the distance

    Raises:
        AdvtagError: these are not the same jets
    """
    if not (torch.equal(clean.key, moved.key) and torch.equal(clean.present, moved.present)):
        raise AdvtagError("clean and moved jets are not the same jets, or have other entries present")
    return Distances(
        features.names,
        js_distances(features, clean, moved),
        *js_null(features, clean, seed=seed),
        *ks_tests(clean, moved),
        *chi2_tests(features, clean, moved),
        *entries_at_the_cap(interval, moved),
        *correlation_change(correlations(clean), correlations(moved)),
    )
