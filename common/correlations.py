"""Sums from which the correlation of every pair of inputs follows, with its statistical error; they add up over jets.

For the pair (i, j) a sum runs over the jets in which both are present. x is the value of an input, y that of the same
jet before the attack, both in units of the range of the feature card's plot axis, [0, 1], and cut off at its ends: one
jet far out would otherwise be the correlation. A term ((a, c), (b, d)) is the sum of x_i^a y_i^c x_j^b y_j^d, and a
block of sums is float64 [terms, inputs, inputs]:

    WEIGHTED   times w, up to second order: the correlation
    SQUARED    times w^2, up to fourth order: its variance
    PAIRED     times w^2: the covariance of the correlations before and after an attack; only in blocks of attacks

Why moments and not groups of events for a jackknife: they cost a third of the memory of 8 groups, and their variance is
that of all jets, not of 8 numbers. The largest of 2,000 pulls is judged far out in the tail, where a variance from 8
groups (Student's t with 7 degrees of freedom) has no power left. The price: jets of one event count as independent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Term = tuple[tuple[int, int], tuple[int, int]]
"""Powers (of x, of y) of input i, and of input j"""
MONOMIALS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
"""Powers of input i and of input j up to second order."""


def _distinct(terms: Iterable[Term]) -> tuple[Term, ...]:
    """One of each two terms that differ by i and j alone."""
    return tuple(sorted({max(term, term[::-1]) for term in terms}))


WEIGHTED = _distinct(((a, 0), (b, 0)) for a, b in MONOMIALS)
SQUARED = _distinct(((a + c, 0), (b + d, 0)) for (a, b), (c, d) in product(MONOMIALS, repeat=2))
PAIRED = _distinct(((a, c), (b, d)) for (a, b), (c, d) in product(MONOMIALS[1:], repeat=2))
ALONE = len(WEIGHTED) + len(SQUARED)
"""Terms of a block without an attack; those of an attack have those of PAIRED, too."""

Category = tuple[str, str, str]
"""Region, tagger, attack. The raw inputs are the same for every tagger, which is then empty."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """The sums of one category, by term; each [inputs, inputs]."""

    block: NDArray[np.float64]
    """[terms, inputs, inputs]; the terms of PAIRED may lack."""

    @property
    def paired(self) -> bool:
        """Whether it knows the jets before an attack."""
        return len(self.block) > ALONE

    def weighted(self, i: int, j: int) -> Matrix:
        """Sum of w x_i^i x_j^j."""
        return self._of(WEIGHTED, 0, ((i, 0), (j, 0)))

    def squared(self, i: int, j: int) -> Matrix:
        """Sum of w^2 x_i^i x_j^j."""
        return self._of(SQUARED, len(WEIGHTED), ((i, 0), (j, 0)))

    def mixed(self, after: tuple[int, int], before: tuple[int, int]) -> Matrix:
        """Sum of w^2 x_i^a x_j^b y_i^c y_j^d, with (a, b) `after` and (c, d) `before` the attack."""
        if after == (0, 0):
            raise KeyError("what is of the raw jets alone is in their own block")
        if before == (0, 0):
            return self.squared(*after)
        return self._of(PAIRED, ALONE, ((after[0], before[0]), (after[1], before[1])))

    def _of(self, terms: tuple[Term, ...], start: int, term: Term) -> Matrix:
        first = max(term, term[::-1])
        found: Matrix = self.block[start + terms.index(first)]
        return found if first == term else found.T


def added(one: Mapping[Category, Matrix], other: Mapping[Category, Matrix]) -> dict[Category, Matrix]:
    """Blocks of jets that were summed apart; a part in which no event was processed has none."""
    return {key: sum((of[key] for of in (one, other) if key in of), np.zeros(())) for key in {**one, **other}}
