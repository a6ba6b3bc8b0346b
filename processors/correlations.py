"""Sums for the correlations of the inputs (see `common.correlations`), as matrix products of batches of jets."""

from collections.abc import Mapping, Sequence

import hist
import numpy as np
import torch
from numpy.typing import NDArray

from common.correlations import PAIRED, SQUARED, WEIGHTED, Category, Term
from processors.blocks import Fill

BATCH = 1024
"""Jets of a product: the powers of their inputs stay in the cache."""

Values = NDArray[np.floating]


class Correlator:
    """Sums of a chunk's jets.

    Args:
        axes: of the inputs; their ranges are the units
        present: bool [inputs, jets]
        fills: regions, of which a jet may be in several
        variation: whose weights are taken
    """

    def __init__(
        self,
        axes: Sequence[hist.axis.AxesMixin],
        present: NDArray[np.bool_],
        fills: Sequence[Fill],
        variation: str,
    ) -> None:
        self.low = np.array([axis.edges[0] for axis in axes], np.float64)[:, None]
        self.width = np.array([axis.edges[-1] - axis.edges[0] for axis in axes], np.float64)[:, None]
        self.present = present
        self.fills = fills
        self.variation = variation
        self.blocks: dict[str, NDArray[np.float64]] = {}

    def fill(self, tagger: str, attack: str, values: Values, before: Values | None = None) -> None:
        """Add the jets of each region.

        Args:
            tagger: empty for raw inputs, which are the same for all
            attack: that moved them, or `raw`
            values: [inputs, jets]
            before: the same jets before the attack; None if they are raw
        """
        terms = len(WEIGHTED) + len(SQUARED) + (0 if before is None else len(PAIRED))
        for fill in self.fills:
            block = torch.zeros((terms, len(values), len(values)), dtype=torch.float64)
            weights = fill.weights[self.variation]
            for start in range(0, len(fill.rows), BATCH):
                rows, weight = fill.rows[start : start + BATCH], weights[start : start + BATCH]
                there = self.present[:, rows]
                x = self._in_range(values[:, rows], there)
                y = None if before is None else self._in_range(before[:, rows], there)
                block += products(x, y, torch.from_numpy(there), torch.from_numpy(np.ascontiguousarray(weight)))
            self.blocks["|".join((fill.region, tagger, attack))] = block.numpy()

    def _in_range(self, values: Values, there: NDArray[np.bool_]) -> torch.Tensor:
        """In units of the axis, cut off at its ends; like in a histogram, NaN is beyond the upper one. Absent: 0."""
        within = np.fmax(np.fmin((values - self.low) / self.width, 1.0), 0.0)
        return torch.from_numpy(np.where(there, within, 0.0))


def products(x: torch.Tensor, y: torch.Tensor | None, there: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """All terms of a batch of jets, float64 [terms, inputs, inputs].

    Args:
        x: float64 [inputs, jets], 0 where absent
        y: the same before an attack, for the terms of PAIRED
        there: bool [inputs, jets], which entries are present
        weight: float64 [jets]
    """
    powers = {(0, 0): there.to(x.dtype), (1, 0): x} | ({} if y is None else {(0, 1): y})

    def power(a: int, c: int) -> torch.Tensor:
        if (a, c) not in powers:
            powers[a, c] = power(a - 1, c) * x if a else power(0, c - 1) * powers[0, 1]
        return powers[a, c]

    def sums(terms: Sequence[Term], factor: torch.Tensor) -> list[torch.Tensor]:
        """One product of matrices for all terms that share their second half."""
        found: dict[Term, torch.Tensor] = {}
        for second in dict.fromkeys(term[1] for term in terms):
            mine = [term for term in terms if term[1] == second]
            left = torch.cat([power(*first) for first, _ in mine])
            product = left @ (power(*second) * factor).T
            found |= dict(zip(mine, product.reshape(len(mine), len(x), len(x)), strict=True))
        return [found[term] for term in terms]

    squared = weight**2
    paired = [] if y is None else sums(PAIRED, squared)
    return torch.stack([*sums(WEIGHTED, weight), *sums(SQUARED, squared), *paired])


def by_category(blocks: Mapping[str, NDArray[np.float64]]) -> dict[Category, NDArray[np.float64]]:
    """A dataset's accumulated blocks by region, tagger and attack."""
    found = {}
    for key, block in blocks.items():
        region, tagger, attack = key.split("|")
        found[region, tagger, attack] = block
    return found
