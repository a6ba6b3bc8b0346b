"""Random distribution shuffle: what a tagger does without its correlations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.success import WorkingPoint, is_right
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import reseed, uniform
from models.tagger import Tagger


class RDSA(Attack):
    """Gives some inputs of a jet the values that they have in other jets of its class, pt and |eta|, until the tagger
    is wrong: marginals stay, correlations go (Random Distribution Shuffle Attack, arXiv:2501.05588).

    Each jet has its own inputs to shuffle, and each of them another donor in each attempt, so a value is always one
    that was measured; the published attack draws from a histogram instead. A jet that is never fooled keeps its last
    attempt, as published. A jet that the tagger is wrong about, or has nothing to be right about, stays as it is. So
    does one without donors. Givers and takers are the entries that can move by themselves: integers and what is absent
    or pinned take no part, and a value that follows another is recomputed. Inputs `pt` and `eta` define the cells and
    stay; cards without them, and jets in which they are absent, have one bin.

    It keeps those of the draws that fool, which changes marginals a little; a finite epsilon or a cap, which cut the
    drawn values, do so more. No gradient is used. It depends on which jets there are, but not on their order.

    Args:
        budget: infinite epsilon and no caps, as published, or any other
        features: number of inputs to shuffle in each jet; all where a jet has fewer
        attempts: draws per jet
        pt_edges: of the bins of pt, GeV; what is below and above them are two more bins
        eta_edges: of the bins of |eta|; likewise
        working_point: a cut to be right about, or None for the highest class
        seed: of all draws, which are functions of (jet, feature, seed, attempt) alone

    Raises:
        AdvtagError: a parameter out of its range
    """

    per_jet = False
    bounded = False

    def __init__(
        self,
        budget: Budget,
        *,
        features: int = 15,
        attempts: int = 25,
        pt_edges: Sequence[float] = (20, 30, 50, 70, 100, 150, 250, 1000),
        eta_edges: Sequence[float] = (0, 0.8, 1.6, 2.5),
        working_point: WorkingPoint | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        for name, number in (("features", features), ("attempts", attempts)):
            if number < 1:
                raise AdvtagError(f"{name} is {number}; expected 1 or more")
        for name, edges in (("pt_edges", pt_edges), ("eta_edges", eta_edges)):
            if any(math.isnan(edge) for edge in edges) or any(a >= b for a, b in pairwise(edges)):
                raise AdvtagError(f"{name} are {tuple(edges)}; expected numbers that rise")
        self.features = features
        self.attempts = attempts
        self.pt_edges = tuple(pt_edges)
        self.eta_edges = tuple(eta_edges)
        self.working_point = working_point

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        takes_part = interval.free
        for name in ("pt", "eta"):
            if name in tagger.features.names:
                takes_part[:, tagger.features.names.index(name)] = False
        donors = Donors.of(inputs, takes_part, self._cells(tagger.features, inputs, target))
        keys = reseed(inputs.key, self.seed)
        # the smallest of as many numbers as there are inputs to choose from
        draws = torch.where(takes_part & (donors.others > 0), uniform(keys, takes_part.shape[1], 0), torch.inf)
        chosen = (draws.argsort(1).argsort(1) < self.features) & torch.isfinite(draws)

        values = inputs.values.clone()
        right = is_right(tagger(values, inputs.present), target, tagger.classes, self.working_point)
        left = right.nonzero().squeeze(1)
        for attempt in range(1, self.attempts + 1):
            if not len(left):
                break
            jets = inputs[left]
            drawn = donors.draw(left, chosen[left], uniform(keys[left], takes_part.shape[1], attempt))
            moved = self.interval(tagger, jets).project(torch.where(chosen[left], drawn, jets.values))
            values[left] = moved
            right = is_right(tagger(moved, jets.present), target[left], tagger.classes, self.working_point)
            left = left[right]
        return values

    def _cells(self, features: FeatureSet, inputs: Inputs, target: Tensor) -> Tensor:
        """Class, pt bin and |eta| bin of each jet as one number, int64 [jets]."""
        cell = target
        for name, edges in (("pt", self.pt_edges), ("eta", self.eta_edges)):
            if name in features.names:
                k = features.names.index(name)
                values = inputs.values[:, k].abs()
                bins = 1 + torch.bucketize(values, values.new_tensor(edges), right=True)
                cell = cell * (len(edges) + 2) + torch.where(inputs.present[:, k], bins, 0)
        return cell


@dataclass(frozen=True)
class Donors:
    """The values that entries can take: those of each input and cell in a row, jets in the order of their keys."""

    values: Tensor
    """float [values], ordered by input, cell and key"""
    cell: Tensor
    """int64 [jets]"""
    own: Tensor
    """int64 [jets, features], place of each entry's own value in `values`; 0 where it takes no part"""
    first: Tensor
    """int64 [features, cells], place of the first value of each"""
    number: Tensor
    """int64 [features, cells], how many values there are"""

    @classmethod
    def of(cls, inputs: Inputs, takes_part: Tensor, cell: Tensor) -> "Donors":
        """Sort the entries that take part, bool [jets, features], of jets in cells, int64 [jets]."""
        by_key = inputs.key.argsort()
        order = by_key[cell[by_key].argsort(stable=True)]
        there = takes_part[order].T
        values = inputs.values[order].T[there]
        own = torch.zeros_like(there, dtype=torch.int64)
        own[there] = torch.arange(len(values), device=values.device)
        own = torch.empty_like(own.T).index_copy(0, order, own.T)
        number = own.new_zeros(takes_part.shape[1], int(cell.max()) + 1).index_add(1, cell, takes_part.T.long())
        first = (number.flatten().cumsum(0) - number.flatten()).view_as(number)
        return cls(values, cell, own, first, number)

    @property
    def others(self) -> Tensor:
        """Number of other jets that an entry can take a value from, where it takes part; int64 [jets, features]."""
        return self.number.T[self.cell] - 1

    def draw(self, jets: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
        """Values of other jets in the chosen entries of some jets, 0 in the rest, float [some, features].

        Args:
            jets: int64 [some]
            chosen: bool [some, features], entries with another jet to take from
            draws: float64 [some, features], in (0, 1)
        """
        rows, columns = chosen.nonzero(as_tuple=True)
        cell = self.cell[jets[rows]]
        others = self.number[columns, cell] - 1
        # the product can round up to the number itself
        place = self.first[columns, cell] + torch.minimum((draws[chosen] * others).long(), others - 1)
        place = place + (place >= self.own[jets[rows], columns])
        return self.values.new_zeros(chosen.shape).masked_scatter(chosen, self.values[place])
