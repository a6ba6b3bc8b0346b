"""Efficiencies from a fit of the vertex mass in jets that pass and jets that fail.

Yields and scale factors of the flavours are fitted to both histograms at once, with a Poisson likelihood whose
expectation may move within the statistical error of the simulation: one factor for each bin (R. Barlow, C. Beeston,
Comput. Phys. Commun. 77 (1993) 219, in the form of J. S. Conway, arXiv:1103.0354). After the template fits of CMS
BTV-16-002 (arXiv:1712.07158), which use the jet probability and the muon's momentum across the jet instead.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import xlogy

from study.counts import Array, count
from study.jets import FLAVOURS, Bools, Floats, Ints8
from study.methods import Measured

MASS_EDGES = (0.0, 0.6, 1.0, 1.4, 1.8, 2.2, 2.8, 3.6, 5.0)
"""GeV; below the first one are jets without a vertex."""

LOWEST, HIGHEST = 0.01, 20.0
"""Of yields and scale factors; a fit that ends there has found none."""
FREE: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]] = {
    "c": ((("c",), ("light",)), (("c",), ("light",))),
    "b": ((("b",), ("c", "light")), (("b", "c"), ("light",))),
}
"""By the flavour that is measured: flavours whose yields move together, flavours whose efficiencies do. What is not
named keeps the simulation's. For c, in W + jets, b jets are rare. For b, in multijets, c over light is the
simulation's, and c has the scale factor of b, as often assumed in CMS."""


@dataclass(frozen=True)
class Templates:
    """Histograms of the vertex mass."""

    passed: Array
    """[selections, replicas, mass bins, flavours]"""
    failed: Array
    passed_variance: Array
    """Sums of squared weights of all flavours, [selections, mass bins]."""
    failed_variance: Array


def histograms(mass: Floats, flavour: Ints8 | None, weight: Floats, passed: Bools, replicas: Array) -> Templates:
    """Fill the histograms; arguments as in `study.counts.count`."""
    sums = count(mass, MASS_EDGES, flavour, weight, passed, replicas)
    squares = count(mass, MASS_EDGES, flavour, weight**2, passed, replicas[:1])
    variance, passed_variance = squares.all.sum(axis=-1)[0], squares.passed.sum(axis=-1)[:, 0]
    return Templates(sums.passed, sums.all - sums.passed, passed_variance, variance - passed_variance)


def fit(data: Templates, mc: Templates, flavour: str) -> Measured:
    """Efficiency of one flavour in data and simulation, [selections, replicas]; nan where the fit fails."""
    selections, replicas = data.passed.shape[:2]
    whole = mc.passed.sum(axis=2) + mc.failed.sum(axis=2)
    efficiency = np.divide(mc.passed.sum(axis=2), whole, out=np.zeros_like(whole), where=whole > 0)
    place = [flavour in group for group in FREE[flavour][1]].index(True) + len(FREE[flavour][0])
    factor = np.full((selections, replicas), np.nan)
    for k in range(selections):
        start = np.ones(len(FREE[flavour][0]) + len(FREE[flavour][1]))
        variance = np.concatenate([mc.passed_variance[k], mc.failed_variance[k]])
        for r in range(replicas):
            observed = np.concatenate([data.passed[k, r].sum(axis=-1), data.failed[k, r].sum(axis=-1)])
            model = Model(mc.passed[k, r], mc.failed[k, r], efficiency[k, r], FREE[flavour], variance)
            found = model.fit(observed, start)
            if found is not None and LOWEST < found[place] < HIGHEST:
                factor[k, r] = found[place]
                start = found if r == 0 else start
    simulated = efficiency[..., FLAVOURS.index(flavour)]
    return Measured(factor * simulated, simulated)


@dataclass(frozen=True)
class Model:
    """Expected histograms of passing and failing jets as a function of yields and scale factors."""

    passed: Array
    """[mass bins, flavours]"""
    failed: Array
    efficiency: Array
    """[flavours]"""
    free: tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]
    variance: Array
    """Of the simulation in both histograms, [2 mass bins]."""

    def expected(self, parameters: Array) -> tuple[Array, Array]:
        """Both histograms, [2 mass bins], and their derivatives, [2 mass bins, parameters]."""
        yields, factors = np.ones(len(FLAVOURS)), np.ones(len(FLAVOURS))
        number = len(self.free[0])
        groups = [[FLAVOURS.index(name) for name in group] for part in self.free for group in part]
        for i, group in enumerate(groups):
            (yields if i < number else factors)[group] = parameters[i]
        room = np.clip(1 - self.efficiency, 1e-9, None)
        fails = (1 - factors * self.efficiency) / room
        by_flavour = np.concatenate([self.passed * (yields * factors), self.failed * (yields * fails)])
        slope = np.empty((len(by_flavour), len(groups)))
        for i, group in enumerate(groups):
            if i < number:
                slope[:, i] = (by_flavour / yields)[:, group].sum(axis=1)
            else:
                moved = np.concatenate([self.passed * yields, -self.failed * yields * self.efficiency / room])
                slope[:, i] = moved[:, group].sum(axis=1)
        return by_flavour.sum(axis=1), slope

    def likelihood(self, parameters: Array, observed: Array, relative: Array) -> tuple[float, Array]:
        """Minus the logarithm of the likelihood (ratio to a perfect fit), bins' factors profiled, and its gradient.

        Args:
            parameters: yields and scale factors
            observed: both histograms of data, [2 mass bins]
            relative: squared relative errors of the simulation, [2 mass bins]
        """
        mean, slope = self.expected(parameters)
        mean = mean.clip(1e-9)
        half = (mean * relative - 1) / 2
        factor = -half + np.sqrt(half**2 + observed * relative)
        moved = (mean * factor).clip(1e-12)
        pull = np.divide((factor - 1) ** 2, 2 * relative, out=np.zeros_like(mean), where=relative > 0)
        missing = (
            moved - observed + xlogy(observed, observed / moved)
        )  # of a perfect fit 0, so that the fit ends in time
        value = float(np.sum(missing + pull))
        return value, (factor - observed / mean) @ slope

    def fit(self, observed: Array, start: Array) -> Array | None:
        """Parameters of largest likelihood, or None without data or if the fit does not end."""
        if not observed.sum() > 0:
            return None
        mean, _ = self.expected(np.ones(len(start)))
        relative = np.divide(self.variance, mean**2, out=np.zeros_like(mean), where=mean > 0)
        used = mean > 0  # a bin that simulation leaves empty says nothing

        def both(parameters: Array) -> tuple[float, Array]:
            return self.likelihood(parameters, observed * used, relative)

        result = optimize.minimize(both, start, jac=True, method="L-BFGS-B", bounds=[(LOWEST, HIGHEST)] * len(start))
        return np.asarray(result.x) if np.isfinite(result.fun) else None
