"""Whether an attack on the MC would be seen in data/MC: visible or invisible, from histograms of the same jets."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from plots.compare import NAN, Bins, covariance, enough, precision
from plots.style import Array

LEVEL = 0.05
"""Of the chi2 test that may or may not see a distortion."""


@dataclass(frozen=True)
class Shift:
    """What a distortion of the MC does to the comparison of shapes with data."""

    chi2: float = NAN
    """d^T P d of the shift d against the covariance of `covariance`, less `noise`."""
    noise: float = NAN
    """What the shift's own fluctuation adds, if the jets moved no more than they had to: see `least_movement`."""
    ndf: int = 0
    power: float = NAN
    """Probability that the chi2 test of shapes at 95 % rejects data that follow the raw MC, if one compares them with
    the distorted MC (or the other way round)."""
    power_least: float = NAN
    """The same if the attack moved every jet at random, and more of the shift is fluctuation."""

    @property
    def verdict(self) -> str:
        """See `verdict`."""
        return verdict(self.power, self.power_least)


def verdict(power: float, least: float) -> str:
    """`visible` if a test rejects in at least half of all experiments, else `invisible`; `unclear` where the
    fluctuation of a small MC sample decides; empty if undefined.

    Args:
        power: probability that the test rejects.
        least: the same with the largest fluctuation taken off.
    """
    if np.isnan(power):
        return ""
    return "invisible" if power < 0.5 else "visible" if least >= 0.5 else "unclear"


def shift(bins: Bins, distorted: Array, distorted_variance: Array) -> Shift:
    """Whether data of this size, with these uncertainties, tell distorted from raw MC by its shape.

    The data's own fluctuation plays no part: it is the median experiment that is asked. Without data, they are
    those expected at the luminosity. Raw and distorted MC hold the same jets, so the statistical error of the MC
    counts once, and jets that stay in their bin, as those without an entry do, add nothing to the error of the shift.

    Args:
        bins: of data and raw MC.
        distorted: sums of weights of the same jets after the attack, [bins].
        distorted_variance: their sums of squared weights, [bins].
    """
    scale = bins.area
    starts = enough(bins, scale) if np.isfinite(scale) else None
    if starts is None or len(starts) < 2:
        return Shift()
    few = replace(bins, data=None if not bins.weighted else bins.data).at(starts)
    matrix = precision(covariance(few, scale), scale * few.mc)
    difference = scale * (np.add.reduceat(distorted, starts) - few.mc)
    measured, ndf = float(difference @ matrix @ difference), len(starts) - 1
    there = np.arange(len(bins.mc)) < bins.absent
    stay = np.where(there, np.minimum(bins.mc_variance, distorted_variance), 0.0)
    raw, moved = (np.add.reduceat(values - stay, starts) for values in (bins.mc_variance, distorted_variance))
    least, most = (
        float(np.sum(matrix * scale**2 * movement(raw, moved))) for movement in (least_movement, any_movement)
    )
    chi2 = max(0.0, measured - least)
    return Shift(chi2, least, ndf, power(chi2, ndf), power(max(0.0, measured - max(least, most)), ndf))


def power(chi2: float, ndf: int) -> float:
    """Probability that a chi2 test at 95 % rejects, if the expected values are off by so much."""
    return float(stats.ncx2.sf(stats.chi2.isf(LEVEL, ndf), ndf, chi2))


def least_movement(raw: Array, distorted: Array) -> Array:
    """Covariance of distorted minus raw MC that hold the same jets, from their sums of squared weights, [bins, bins].

    A jet of weight w that goes from bin i to j adds w^2 (e_j - e_i)(e_j - e_i)^T; one that stays adds nothing.
    Which jets went where is not in a histogram: here it is the least movement that leads from one to the other, in
    which no two jets change their order. Jets that only changed places are not seen.
    """
    total: Array = np.zeros((len(raw), len(raw)))
    if not (raw.sum() > 0 and distorted.sum() > 0):
        return total
    first, second = np.cumsum(raw), np.cumsum(distorted * raw.sum() / distorted.sum())
    steps = np.sort(np.concatenate([[0.0], first, second]))
    middle, mass = (steps[1:] + steps[:-1]) / 2, np.diff(steps)
    start, end = (np.searchsorted(sums, middle).clip(max=len(raw) - 1) for sums in (first, second))
    for rows, columns, sign in ((start, start, 1), (end, end, 1), (start, end, -1), (end, start, -1)):
        np.add.at(total, (rows, columns), sign * mass)
    return total


def any_movement(raw: Array, distorted: Array) -> Array:
    """The same if every jet went anywhere, as if the two were independent samples of the same size, [bins, bins]."""
    joint = np.outer(raw, distorted) / max(raw.sum(), np.finfo(float).tiny)
    total: Array = np.diag(raw + distorted) - joint - joint.T
    return total
