"""Correlations of inputs: their matrices, data against MC, and whether an attack would be seen in them.

From the sums of `common.correlations` alone. Pearson's r of a pair has the influence function
psi = u v - r (u^2 + v^2)/2 with u, v the inputs minus their mean over their standard deviation (S. J. Devlin,
R. Gnanadesikan, J. R. Kettenring, Biometrika 62 (1975) 531), so that its variance is sum w^2 psi^2 / (sum w)^2 whatever
the distribution. Pulls are of Fisher's z = artanh r, whose distribution is closer to a Gaussian.

The largest of N pulls is judged with Sidak's p-value 1 - (1 - p)^N, which is right for independent pairs and too large
for others (Z. Sidak, J. Am. Stat. Assoc. 62 (1967) 626).

Statistical errors alone, and jets of one event count as independent: variations of correlations are not made.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.correlations import MONOMIALS, WEIGHTED, Sums
from common.histograms import RAW, HistogramFile
from plots.compare import NAN
from plots.shapes import scale_of
from plots.style import Array
from plots.visibility import LEVEL, verdict

ENOUGH = 50.0
"""Effective jets behind the variance of each input of a pair that is tested, (sum w d^2)^2 / sum w^2 d^4 with the
distance d from the mean: few jets far out are no sample, however many others there are."""
JETS = WEIGHTED.index(((0, 0), (0, 0)))
"""Place of the sums of weights in a block."""
STEEP = 1 - 1e-6
"""|r| beyond which one input follows from the other, and z is cut off."""
NARROW = 1e-12
"""Variance, in units of the squared range, below which an input is constant."""


@dataclass(frozen=True)
class Estimate:
    """Correlations of a sample, [inputs, inputs]; nan where one of the two is constant or a pair has no jets."""

    r: Array
    variance: Array
    """Of Fisher's z."""
    entries: Array
    """Effective jets, the smaller of the two inputs'; see `ENOUGH`."""
    influence: dict[tuple[int, int], Array]
    """Coefficients of the monomials of the influence function of z, over the sum of weights."""

    jets: float
    """Sum of weights of those pairs with most."""

    @property
    def z(self) -> Array:
        """Fisher's z."""
        found: Array = np.arctanh(self.r.clip(-STEEP, STEEP))
        return found

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Pairs that have enough entries, i < j, bool [inputs, inputs]."""
        found: NDArray[np.bool_] = np.triu(np.isfinite(self.variance) & (self.entries >= ENOUGH), 1)
        return found


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


def estimate(sums: Sums) -> Estimate:
    """Correlations and their errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = sums.weighted(0, 0)
        mi, mj = sums.weighted(1, 0) / n, sums.weighted(0, 1) / n
        vi, vj = sums.weighted(2, 0) / n - mi**2, sums.weighted(0, 2) / n - mj**2
        vi, vj = (np.where((v > NARROW) & (n > 0), v, np.nan) for v in (vi, vj))
        both = np.sqrt(vi * vj)
        r = ((sums.weighted(1, 1) / n - mi * mj) / both).clip(-1, 1)
        slope = n * (1 - r**2).clip(1 - STEEP**2)
        influence = {
            (1, 1): 1 / both,
            (2, 0): -r / (2 * vi),
            (0, 2): -r / (2 * vj),
            (1, 0): r * mi / vi - mj / both,
            (0, 1): r * mj / vj - mi / both,
            (0, 0): mi * mj / both - r / 2 * (mi**2 / vi + mj**2 / vj),
        }
        influence = {powers: each / slope for powers, each in influence.items()}
        variance = _variance(sums, influence)
        steep = np.abs(r) > STEEP
        variance = np.where(steep, sums.squared(0, 0) / n**2, variance)
        entries = np.minimum(each := _entries(sums, mi, vi, n), each.T)
    positive = np.where(variance > 0, variance, np.nan)
    return Estimate(r, positive, entries, influence, float(n.max()))


def _variance(sums: Sums, influence: dict[tuple[int, int], Array]) -> Array:
    total: Array = np.zeros_like(sums.weighted(0, 0))
    for (a, b), one in influence.items():
        for (c, d), other in influence.items():
            total = total + one * other * sums.squared(a + c, b + d)
    return total


def _entries(sums: Sums, mean: Array, variance: Array, n: Array) -> Array:
    """Effective jets behind the variance of input i, in each pair."""
    coefficients = (1.0, -4 * mean, 6 * mean**2, -4 * mean**3, mean**4)
    fourth = sum(factor * sums.squared(4 - k, 0) for k, factor in enumerate(coefficients))
    found: Array = (n * variance) ** 2 / fourth
    return found


def shift_variance(raw: Estimate, raw_sums: Sums, attacked: Estimate, sums: Sums) -> Array:
    """Variance of attacked minus raw z of the same jets, [inputs, inputs]; of independent jets if not known better."""
    independent: Array = raw.variance + attacked.variance
    if not sums.paired:
        return independent
    common: Array = np.zeros_like(independent)
    for after in MONOMIALS:
        for before in MONOMIALS:
            mixed = raw_sums.squared(*before) if after == (0, 0) else sums.mixed(after, before)
            common = common + attacked.influence[after] * raw.influence[before] * mixed
    variance: Array = (independent - 2 * common).clip(0)
    return variance


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
