"""Square attack: random search, which needs no gradient."""

import math

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.gradient import objective_of
from attacks.objectives import margins
from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import reseed, uniform
from models.tagger import Tagger

HALVE_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10000 after which the fraction is halved, as in the authors' code."""


class Square(Attack):
    """Random search among the corners of the budget, after M. Andriushchenko et al., arXiv:1912.00049.

    Their squares of pixels are random subsets of a jet's inputs here. Each query draws new ends, low or high, for a
    subset, and keeps them where the margin (best other logit minus the true one) rises; one of the subset goes to its
    other end for sure, or the query would be lost. Only forward passes: where this clearly beats gradient attacks,
    gradients mislead. Jets go on when the highest class is wrong, since discriminators have other thresholds.

    Args:
        budget: size of the attack
        queries: forward passes; the first is of the random start
        fraction: chance of an entry to be in the first subsets; halved as the queries pass, see `HALVE_AFTER`
        seed: of all draws, which are functions of (jet, feature, seed, query) alone

    Raises:
        AdvtagError: a parameter out of its range
    """

    def __init__(self, budget: Budget, *, queries: int = 500, fraction: float = 0.3, seed: int = 0) -> None:
        super().__init__(budget, seed=seed)
        if queries < 1:
            raise AdvtagError(f"queries is {queries}; expected 1 or more")
        if not 0 < fraction <= 1:
            raise AdvtagError(f"fraction is {fraction}; expected a number above 0, up to 1")
        self.queries = queries
        self.fraction = fraction

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        keys, features, free = reseed(inputs.key, self.seed), inputs.values.shape[1], interval.free

        def corner(up: Tensor) -> Tensor:
            return interval.project(torch.where(up, interval.high, interval.low))

        up = uniform(keys, features, 0) < 0.5
        highest = objective_of(tagger, inputs, target, corner(up), margins)
        for query in range(1, self.queries):
            # two numbers from one draw: its half says which end, its place in that half whether to go there
            draws = 2 * uniform(keys, features, query)
            # in a jet without a free entry all are first, and none can move
            order = torch.where(free, draws.frac(), 2)
            first = order == order.amin(1, keepdim=True)
            ends = torch.where(first, ~up, torch.where(order < self._share(query), draws < 1, up))
            found = objective_of(tagger, inputs, target, corner(ends), margins)
            higher = found > highest
            up = torch.where(higher[:, None], ends, up)
            highest = torch.where(higher, found, highest)
        return corner(up)

    def _share(self, query: int) -> float:
        """Chance of an entry to be in the subset of a query."""
        halvings = sum(query * 10_000 > after * self.queries for after in HALVE_AFTER)
        return math.ldexp(self.fraction, -halvings)
