"""Data against MC in bins: chi2 with all uncertainties, Kolmogorov-Smirnov, Jensen-Shannon. Pure functions of arrays;
see `plots.statistics` for the table that they fill.

The expected count of a bin is s m, of MC with sum of weights m and sum of squared weights v. The scale s is 1, or
the ratio of the areas where shapes are compared.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.distances import js_distance
from plots.style import Array
from plots.systematics import Differences
from plots.systematics import covariance as systematic

ENOUGH = 10.0
"""Effective MC entries, and expected effective data entries, that a bin of a chi2 test needs."""
DRAWS = 200
"""Pairs of samples behind the null of the Jensen-Shannon distance."""
NAN = float("nan")
Starts = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """One variable of one region; arrays are float64 [bins]."""

    data: Array | None
    data_variance: Array | None
    mc: Array
    mc_variance: Array
    differences: Differences = ()
    """Systematic variations minus nominal MC, see `plots.systematics`."""
    absent: int = 0
    """First bins of absent entries: no attack moves their jets."""

    @property
    def area(self) -> float:
        """Scale that gives the MC the area of the data; 1 without data, nan if one of them has no area."""
        if self.data is None:
            return 1.0
        mc, data = self.mc.sum(), self.data.sum()
        return float(data / mc) if mc > 0 and data > 0 else NAN

    @property
    def weighted(self) -> bool:
        """Whether the data carry weights, as the signs of opposite-sign minus same-sign regions do."""
        if self.data is None or self.data_variance is None:
            return False
        return not np.allclose(self.data, self.data_variance)

    def expected_variance(self, scale: float) -> Array:
        """Variance of data that follow the MC: its count, or the observed sum of squares of weighted data."""
        if self.weighted and self.data_variance is not None:
            return self.data_variance
        expected: Array = (scale * self.mc).clip(0)
        return expected

    def distorted(self, mc: Array, mc_variance: Array) -> "Bins":
        """The same with MC under an attack, whose variations are those of the raw MC, relative to the bin content."""

        def moved(each: Array) -> Array:
            mean = each.sum() / self.mc.sum() if self.mc.sum() > 0 else 0.0  # where raw MC has nothing to vary
            relative = np.divide(each, self.mc, out=np.full_like(mc, mean), where=self.mc > 0)
            varied: Array = mc * relative
            return varied

        found = tuple(tuple(moved(each) for each in members) for members in self.differences)
        return replace(self, mc=mc, mc_variance=mc_variance, differences=found)

    def at(self, starts: Starts) -> "Bins":
        """The same in fewer bins, given the first bin of each; absent entries are no longer told from others."""

        def add(values: Array) -> Array:
            summed: Array = np.add.reduceat(values, starts)
            return summed

        return replace(
            self,
            data=None if self.data is None else add(self.data),
            data_variance=None if self.data_variance is None else add(self.data_variance),
            mc=add(self.mc),
            mc_variance=add(self.mc_variance),
            differences=tuple(tuple(add(each) for each in members) for members in self.differences),
            absent=0,
        )


def enough(bins: Bins, scale: float) -> Starts | None:
    """First bins of groups that have enough entries each, int64 [groups]; None if all together have not.

    Groups grow from the left until their MC has 10 effective entries, m > 0 and m^2 >= 10 v, and the data that are
    expected from it have 10, (s m)^2 >= 10 times their variance. What is left at the right joins the last group. The
    observed data do not decide, which would bias the test.
    """
    rows = np.stack([bins.mc, bins.mc_variance, bins.expected_variance(scale)])
    below: list[list[float]] = np.concatenate([np.zeros((3, 1)), np.cumsum(rows, axis=1)], axis=1).T.tolist()

    def good(first: int, end: int = -1) -> bool:
        m, v, expected = (high - low for high, low in zip(below[end], below[first], strict=True))
        needed = ENOUGH * (1 - 1e-9)  # 10 of one weight are 10 in any order
        return m > 0 and m**2 >= needed * v > 0 and (scale * m) ** 2 >= needed * expected > 0

    starts = [0]
    for place in range(1, len(bins.mc)):
        if good(starts[-1], place):
            starts.append(place)
    while len(starts) > 1 and not good(starts[-1]):
        starts.pop()
    return np.array(starts, np.int64) if good(starts[-1]) else None


def covariance(bins: Bins, scale: float) -> Array:
    """Covariance of data minus s times MC if both follow one spectrum, [bins, bins].

    For unweighted data the statistical part is s m + (s v/m) d: Pearson's pooled estimate for a count d and a count
    m^2/v of weight v/m, that is d + m for two counts and m for MC without error. Neither sample's own
    fluctuation decides alone, as it would with the error sqrt(d). Weighted data, and MC that is not positive, add
    their own sums of squares. Variations are fully correlated over the bins.
    """
    own = bins.expected_variance(scale)
    diagonal: Array = own + scale**2 * bins.mc_variance
    if bins.data is not None and not bins.weighted:
        weight = np.divide(bins.mc_variance, bins.mc, out=np.zeros_like(bins.mc), where=bins.mc > 0)
        diagonal = np.where(bins.mc > 0, own + scale * weight * bins.data, diagonal)
    return np.diag(diagonal) + scale**2 * systematic(len(bins.mc), bins.differences)


def precision(matrix: Array, spectrum: Array | None) -> Array:
    """Inverse of a covariance matrix; with a spectrum, blind to its normalisation.

    Then r^T P r is the minimum over a of (r - a m)^T V^-1 (r - a m), and one degree of freedom is gone.
    """
    inverse: Array = np.asarray(np.linalg.inv(matrix), np.float64)
    if spectrum is None:
        return inverse
    along = inverse @ spectrum
    without: Array = inverse - np.outer(along, along) / (spectrum @ along)
    return without


def chi2_test(bins: Bins, *, shape: bool) -> tuple[float, int, float]:
    """chi2 of data against MC with all uncertainties, degrees of freedom, p-value.

    Args:
        bins: of data and MC; those with few entries are merged, see `enough`.
        shape: compare shapes: the MC has the area of the data, and the normalisation is left free.

    Returns:
        nan where there are no data, no MC, or not enough; ndf 0 and p nan for the shape of a single bin.
    """
    scale = bins.area if shape else 1.0
    starts = enough(bins, scale) if np.isfinite(scale) else None
    few = None if starts is None else bins.at(starts)
    if few is None or few.data is None:
        return NAN, 0, NAN
    matrix = precision(covariance(few, scale), scale * few.mc if shape else None)
    residual, ndf = few.data - scale * few.mc, len(few.mc) - shape
    chi2 = max(0.0, float(residual @ matrix @ residual))
    return chi2, ndf, float(stats.chi2.sf(chi2, ndf)) if ndf else NAN


def ks_test(bins: Bins) -> tuple[float, float]:
    """Kolmogorov-Smirnov test of shapes in bins: largest distance of the distribution functions, and p-value.

    The p-value is that of n1 n2/(n1 + n2) jets with the effective numbers of entries n = (sum w)^2 / sum w^2. It knows
    statistical errors alone, and in bins it is too large.
    """
    if bins.data is None or bins.data_variance is None or not np.isfinite(bins.area):
        return NAN, NAN
    first, second = (np.cumsum(values) / values.sum() for values in (bins.data, bins.mc))
    n1, n2 = effective(bins.data, bins.data_variance), effective(bins.mc, bins.mc_variance)
    # negative weights can take a distribution function out of [0, 1]
    statistic = min(1.0, float(np.abs(first - second).max()))
    return statistic, float(stats.kstwo.sf(statistic, max(1, round(n1 * n2 / (n1 + n2)))))


def effective(values: Array, variances: Array) -> float:
    """Number of jets of one weight with the same relative error."""
    return float(values.sum() ** 2 / variances.sum())


def js_null(bins: Bins, *, seed: int, draws: int = DRAWS) -> tuple[float, float]:
    """Distance of data that follow the MC: mean and 95 % quantile over pairs drawn within their statistical errors.

    Data are a Poisson number in each bin, of as many effective entries as the data. The MC is in each bin a Poisson
    number with mean m^2/v, of jets of weight v/m (G. Bohm, G. Zech, Nucl. Instrum. Meth. A 748 (2014) 1).
    """
    if bins.data is None or bins.data_variance is None or not np.isfinite(bins.area):
        return NAN, NAN
    mc = bins.mc.clip(0)
    weight = np.divide(bins.mc_variance, mc, out=np.zeros_like(mc), where=mc > 0)
    mean = np.divide(mc, weight, out=np.zeros_like(mc), where=weight > 0)
    generator = np.random.default_rng(seed)
    number = effective(bins.data, bins.data_variance)
    data = generator.poisson(number * mc / mc.sum(), (draws, len(mc))).astype(np.float64)
    found = js_distance(data, weight * generator.poisson(mean, (draws, len(mc))))
    found = found[np.isfinite(found)]
    return (float(found.mean()), float(np.quantile(found, 0.95))) if found.size else (NAN, NAN)
