"""Pearson correlations of all pairs of inputs in one sample, and their statistical errors, from `common.correlations`.

r of a pair has the influence function psi = u v - r (u^2 + v^2)/2 with u, v the inputs minus their mean over their
standard deviation (S. J. Devlin, R. Gnanadesikan, J. R. Kettenring, Biometrika 62 (1975) 531), so that its variance is
sum w^2 psi^2 / (sum w)^2 whatever the distribution. Fisher's z = artanh r, whose distribution is closer to a Gaussian,
has psi/(1 - r^2).

Jets of one event count as independent. In simulated ttbar events the errors from events drawn as a whole are the same
within 1 %.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.correlations import MONOMIALS, Sums
from plots.style import Array

ENOUGH = 50.0
"""Effective jets behind the variance of each input of a pair that is tested, (sum w d^2)^2 / sum w^2 d^4 with the
distance d from the mean: few jets far out are no sample, however many others there are."""
STEEP = 1 - 1e-6
"""|r| beyond which one input follows from the other, and z is cut off."""
NARROW = 1e-6
"""Variance over the squared mean below which an input is constant; and the same times 1 - r^2, below which the error
of r is lost in the rounding of fourth moments, which subtract: at 1e-6 it is right within 1 %, at 1e-7 it is not."""


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


def estimate(sums: Sums) -> Estimate:
    """Correlations and their errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = sums.weighted(0, 0)
        mi, mj = sums.weighted(1, 0) / n, sums.weighted(0, 1) / n
        vi, vj = sums.weighted(2, 0) / n - mi**2, sums.weighted(0, 2) / n - mj**2
        vi, vj = (np.where((v > NARROW * m**2) & (n > 0), v, np.nan) for v, m in ((vi, mi), (vj, mj)))
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
        rounded = np.minimum(vi / mi**2, vj / mj**2) * (1 - r**2) < NARROW
        variance = np.where(rounded, np.nan, _variance(sums, influence))
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
    fourth: Array = sums.squared(4, 0)
    for k, number in enumerate((4, 6, 4, 1), 1):
        fourth = fourth + number * (-mean) ** k * sums.squared(4 - k, 0)
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
