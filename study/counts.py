"""Counts of jets, all and passing, by pt and flavour, in every replica of the bootstrap.

A replica gives each event a Poisson weight of mean 1. Data of several variants of the detector hold the same generated
events, which then have the same weight: what they share drops out of the errors of their comparison. All that a
measurement needs is computed from the counts of one replica, so its spread over replicas is the error of the whole
measurement, the background and the reweighting of the simulation included.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from simulation.detector.reconstruct import MAX_EVENTS
from study.jets import FLAVOURS, Bools, Floats, Ints8

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
_POISSON = np.cumsum(np.exp(-1) / np.cumprod([1.0, *range(1, 13)])).astype(np.float32)
"""Probability of 0, of 0 or 1, ...; more than 12 happens once in 1e10."""


@dataclass(frozen=True)
class Bootstrap:
    """Weights of events; the first set of them is 1, the sample itself."""

    replicas: int
    seed: int

    def weights(self, event: Ints) -> Array:
        """Weights of each jet's event, float64 [1 + replicas, jets]: a function of the event's number alone.

        Args:
            event: event numbers of one sample; they tell process, generator and seed (`reconstruct.event_offset`)
        """
        if not len(event):
            return np.ones((1 + self.replicas, 0))
        sample, number = int(event[0]) // MAX_EVENTS, event % MAX_EVENTS
        size = 1 << int(number.max()).bit_length()  # few sizes, so that samples are drawn once
        found: Array = _weights(self.replicas, self.seed, sample, size)[:, number].astype(np.float64)
        return found


@lru_cache(maxsize=16)
def _weights(replicas: int, seed: int, sample: int, size: int) -> NDArray[np.uint8]:
    """Weights of the first events of a sample, [1 + replicas, size]; more events do not change them."""
    drawn = np.ones((1 + replicas, size), np.uint8)
    for replica in range(1, 1 + replicas):
        rng = np.random.default_rng([seed, sample, replica])
        drawn[replica] = np.searchsorted(_POISSON, rng.random(size, np.float32), side="right")
    return drawn


@dataclass(frozen=True)
class Counts:
    """Sums of weights. Data have one flavour, which says nothing."""

    all: Array
    """[replicas, pt bins, flavours]"""
    passed: Array
    """[selections, replicas, pt bins, flavours]"""

    def scaled(self, factor: Array) -> "Counts":
        """The same times a factor [replicas, pt bins]."""
        return Counts(self.all * factor[..., None], self.passed * factor[..., None])

    def of(self, flavour: str) -> "Counts":
        """One flavour alone."""
        i = FLAVOURS.index(flavour)
        return Counts(self.all[..., [i]], self.passed[..., [i]])

    def but(self, flavour: str) -> "Counts":
        """All flavours but one."""
        others = [i for i, name in enumerate(FLAVOURS) if name != flavour]
        return Counts(self.all[..., others], self.passed[..., others])

    def sums(self) -> tuple[Array, Array]:
        """All, [replicas], and passed, [selections, replicas]."""
        return self.all.sum(axis=(-2, -1)), self.passed.sum(axis=(-2, -1))

    def efficiency(self) -> Array:
        """Passed over all, [selections, replicas]; nan where there is nothing."""
        whole, passed = self.sums()
        found: Array = passed / np.where(whole != 0, whole, np.nan)
        return found


def count(
    pt: Floats, edges: tuple[float, ...], flavour: Ints8 | None, weight: Floats, passed: Bools, replicas: Array
) -> Counts:
    """Count jets.

    Args:
        pt: [jets], GeV
        edges: between the pt bins
        flavour: [jets], or None for data
        weight: [jets]
        passed: whether each selection keeps the jet, [selections, jets]
        replicas: [replicas, jets]
    """
    bins, flavours = len(edges) + 1, 1 if flavour is None else len(FLAVOURS)
    cell = np.searchsorted(edges, pt, side="right") * flavours + (0 if flavour is None else flavour)
    cells = bins * flavours

    def add(weights: Floats) -> Array:
        kept = np.flatnonzero(weights)
        matrix = sparse.csr_array((weights[kept], (cell[kept], np.arange(len(kept)))), shape=(cells, len(kept)))
        summed: Array = (matrix @ replicas[:, kept].T).T.reshape(len(replicas), bins, flavours)
        return summed

    return Counts(add(weight), np.stack([add(weight * each) for each in passed]))


def like_data(mc: Counts, data: Counts) -> Counts:
    """Simulation with the pt spectrum and the number of jets of data; bins without simulation stay empty."""
    expected, observed = mc.all.sum(axis=-1), data.all.sum(axis=-1)
    factor: Array = np.divide(observed, expected, out=np.zeros_like(expected), where=expected > 0)
    return mc.scaled(factor)
