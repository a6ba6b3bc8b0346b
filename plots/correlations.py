"""Correlations of inputs: their matrices, data against MC, and whether an attack would be seen in them.

Pulls are differences of Fisher's z over their error, see `plots.pearson`.

The largest of N pulls is judged with Sidak's p-value 1 - (1 - p)^N, which is right for independent pairs and too large
for others (Z. Sidak, J. Am. Stat. Assoc. 62 (1967) 626).

Statistical errors alone: variations of correlations are not made.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from common.correlations import WEIGHTED, Sums
from common.histograms import RAW, HistogramFile
from plots.compare import NAN
from plots.pearson import Estimate, estimate, shift_variance
from plots.shapes import scale_of
from plots.style import Array
from plots.visibility import LEVEL, verdict

JETS = WEIGHTED.index(((0, 0), (0, 0)))
"""Place of the sums of weights in a block."""


@dataclass(frozen=True)
class Comparison:
    """The largest of many deviations."""

    pulls: Array
    """[inputs, inputs]; nan where a pair cannot be tested, and at i >= j"""
    pairs: int
    """That were tested."""
    largest: float
    """|pull|"""
    p: float
    """Sidak's, of the largest among `pairs`."""
    exceeding: int
    """Pairs whose pull alone is significant at 95 % among so many."""
    pair: tuple[int, int] | None
    """The one with the largest pull."""

    @property
    def squares(self) -> float:
        """Sum of the squared pulls; near `pairs` if samples agree, but no chi2: pairs depend on each other."""
        return float(np.nansum(self.pulls**2)) if self.pairs else NAN


@dataclass(frozen=True)
class Moved:
    """What an attack does to the comparison of correlations with data."""

    shifts: Array
    """Attacked minus raw z over the error of data/MC, [inputs, inputs]; nan as in `Comparison.pulls`"""
    pairs: int
    chi2: float
    """Square of the largest shift, less `noise`."""
    noise: float
    """Square of its own error, of the same jets before and after."""
    power: float
    """Probability that the largest pull, at 95 % among all pairs, rejects data that follow the raw MC if one compares
    them with the attacked MC: that of the pair with the largest shift, which the others can only add to."""
    power_least: float
    """The same if every shift is smaller by the largest fluctuation that one expects among so many."""
    pair: tuple[int, int] | None

    @property
    def verdict(self) -> str:
        """See `plots.visibility.verdict`."""
        return verdict(self.power, self.power_least)


@dataclass(frozen=True)
class Samples:
    """What a region holds before any attack."""

    data: Estimate | None
    mc: Estimate
    mc_sums: Sums
    expected: Estimate
    """Data that follow the MC, at the luminosity."""


def samples(file: HistogramFile, region: str) -> Samples | None:
    """Data and raw MC of a region; None without MC.

    Raises:
        AdvtagError: a dataset that cannot be scaled.
    """
    mc, expected = summed(file, region, "", RAW, data=False), expected_data(file, region)
    data = summed(file, region, "", RAW, data=True)
    if mc is None or expected is None:
        return None
    return Samples(None if data is None else estimate(data), estimate(mc), mc, estimate(expected))


def attacked(file: HistogramFile, region: str, raw: Samples, tagger: str, attack: str) -> tuple[Estimate, Moved] | None:
    """Correlations of attacked MC, and whether data tell them from those of raw MC; None where none were attacked.

    The data are those of the region, or those expected where there are none; only their errors are used.
    """
    sums = summed(file, region, tagger, attack, data=False)
    if sums is None:
        return None
    found = estimate(sums)
    variance = shift_variance(raw.mc, raw.mc_sums, found, sums)
    return found, visibility(raw.expected if raw.data is None else raw.data, raw.mc, found, variance)


def summed(file: HistogramFile, region: str, tagger: str, attack: str, *, data: bool) -> Sums | None:
    """Sums of data, or of MC scaled to the luminosity, over datasets; None if there are none.

    Raises:
        AdvtagError: a dataset that cannot be scaled.
    """
    parts = _scaled(file, (region, tagger, attack), data)
    total = sum(_times(block, scale, scale**2) for block, scale in parts)
    return Sums(total) if isinstance(total, np.ndarray) and total[JETS].any() else None


def expected_data(file: HistogramFile, region: str) -> Sums | None:
    """Sums of data that follow the raw MC, at the luminosity: each jet of weight 1, as many as the MC stands for.

    Squared weights of a dataset are taken to be independent of the inputs: <w^2 x> = <w x> <w^2>/<w>.
    """
    total: Array | None = None
    for block, scale in _scaled(file, (region, "", RAW), data=False):
        one, squares = block[JETS], Sums(block).squared(0, 0)
        ratio = np.divide(one, squares, out=np.zeros_like(one), where=squares > 0)
        part = _times(block, scale, scale * ratio)
        total = part if total is None else total + part
    return None if total is None or not total[JETS].any() else Sums(total)


def _scaled(file: HistogramFile, category: tuple[str, str, str], data: bool) -> list[tuple[Array, float]]:
    return [
        (blocks[category], scale_of(file, name))
        for name, blocks in (file.correlations or {}).items()
        if category in blocks and file.datasets[name].data == data
    ]


def _times(block: Array, weighted: float, squared: float | Array) -> Array:
    first = len(WEIGHTED)
    return np.concatenate([block[:first] * weighted, block[first:] * squared])


def attacks_in(file: HistogramFile, region: str) -> list[tuple[str, str]]:
    """(tagger, attack) that moved inputs in this region, in the order in which they were made."""
    keys = [key for blocks in (file.correlations or {}).values() for key in blocks]
    return list(dict.fromkeys((tagger, attack) for there, tagger, attack in keys if there == region and attack != RAW))


def threshold(pairs: int, level: float = LEVEL) -> float:
    """|pull| that the largest of so many independent ones exceeds with this probability."""
    return float(stats.norm.isf(-np.expm1(np.log1p(-level) / pairs) / 2))


def compare(data: Estimate, mc: Estimate) -> Comparison:
    """Data against MC, pair by pair."""
    there = data.tested & mc.tested
    pulls = np.where(there, (data.z - mc.z) / np.sqrt(data.variance + mc.variance), np.nan)
    pairs = int(there.sum())
    if not pairs:
        return Comparison(pulls, 0, NAN, NAN, 0, None)
    pair, largest = _largest(np.abs(pulls))
    one = min(2 * stats.norm.sf(largest), 1 - 1e-15)
    exceeding = int(np.sum(np.abs(pulls[there]) > threshold(pairs)))
    return Comparison(pulls, pairs, largest, float(-np.expm1(pairs * np.log1p(-one))), exceeding, pair)


def visibility(data: Estimate, raw: Estimate, attacked: Estimate, variance: Array) -> Moved:
    """Whether data of this size tell attacked from raw MC by the correlation of any pair.

    Args:
        data: of data, or of those that are expected: only its errors are used.
        raw: of the MC.
        attacked: of the same jets after the attack.
        variance: of attacked minus raw z, see `shift_variance`.
    """
    there = data.tested & raw.tested & np.isfinite(attacked.z)
    error = np.sqrt(data.variance + raw.variance)
    shifts = np.where(there, (attacked.z - raw.z) / error, np.nan)
    pairs = int(there.sum())
    if not pairs:
        return Moved(shifts, 0, NAN, NAN, NAN, NAN, None)
    own = np.where(there, np.sqrt(np.where(np.isfinite(variance), variance, 0.0)) / error, np.nan)
    least = np.nanmax((np.abs(shifts) - threshold(pairs, 0.5) * own).clip(0))
    pair, largest = _largest(shifts**2 - own**2)
    noise = float(own[pair] ** 2)
    size = np.sqrt(max(0.0, largest))
    return Moved(shifts, pairs, max(0.0, largest), noise, power(size, pairs), power(float(least), pairs), pair)


def power(shift: float, pairs: int) -> float:
    """Probability that the pull of one of so many pairs is significant if its expectation is off by `shift`."""
    limit = threshold(pairs)
    return float(stats.norm.sf(limit - shift) + stats.norm.cdf(-limit - shift))


def _largest(values: Array) -> tuple[tuple[int, int], float]:
    i, j = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return (int(i), int(j)), float(values[i, j])
