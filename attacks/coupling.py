"""Entries that are one quantity, or a multiple of another: they move together."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.interval_kernel import fill_sources
from models.features import FeatureSet
from models.inputs import Inputs


@dataclass(frozen=True)
class Coupling:
    """Which entry each coupled input follows, jet by jet, as the feature card says (`same_as`, `proportional_to`)."""

    columns: Tensor
    """int64 [coupled], inputs that may follow another"""
    source: Tensor
    """int64 [jets, coupled], input that is followed; its own column where the entry follows none"""
    own: Tensor
    """float [jets, coupled], own value in the clean jet, and"""
    base: Tensor
    """the followed one; 1 and 1 for the same quantity, and where none is followed"""
    exact: bool
    """all are the same quantity: own and base need no look"""

    @property
    def follows(self) -> Tensor:
        """Bool [jets, coupled]: entries that follow another."""
        return self.source != self.columns

    def recompute_(self, values: Tensor) -> Tensor:
        """Recompute the following entries of values, float [jets, features], in place; return values."""
        followed = values.gather(1, self.source)
        # x (y'/y), not y' (x/y): where y has not moved, x is what it was to the last bit
        return values.index_copy_(1, self.columns, followed if self.exact else self.own * (followed / self.base))

    def pull_back_(self, gradient: Tensor) -> Tensor:
        """Add what a gradient, [jets, features], says of a following entry to the entry that it follows, and leave
        none to the former: the chain rule. In place; return the gradient.
        """
        handed_on = gradient.index_select(1, self.columns) * self.follows
        gradient.index_add_(1, self.columns, handed_on, alpha=-1)
        return gradient.scatter_add_(1, self.source, handed_on if self.exact else handed_on * (self.own / self.base))

    def narrow_(self, low: Tensor, high: Tensor) -> None:
        """Narrow intervals [jets, features], in place, to where a followed entry may move with all its followers in
        theirs.
        """
        lowest, highest = low.index_select(1, self.columns), high.index_select(1, self.columns)
        if not self.exact:
            first, second = self.base * (lowest / self.own), self.base * (highest / self.own)
            # 0/0: a follower that is 0 stays 0 wherever the other goes
            lowest = torch.where(self.own == 0, -torch.inf, torch.minimum(first, second))
            highest = torch.where(self.own == 0, torch.inf, torch.maximum(first, second))
        low.scatter_reduce_(1, self.source, lowest, "amax")
        high.scatter_reduce_(1, self.source, highest, "amin")


def coupling_of(features: FeatureSet, inputs: Inputs) -> tuple[Coupling | None, Tensor | None]:
    """The coupling of these jets, None if the card has none; and which entries it freezes, bool [jets, features], None
    if none.

    An entry that is proportional to one that is absent or 0 is frozen: there is no rule to recompute it by.
    """
    coupled, _ = features.followers
    if not coupled:
        return None, None
    device, values, present = inputs.values.device, inputs.values, inputs.present
    columns = torch.tensor(coupled, device=device)
    source = (_sources_compiled if device.type == "cpu" else _sources)(features, values.detach(), present)
    if all(features.inputs[k].same_as for k in coupled):
        one = values.new_ones(()).expand(len(inputs), len(coupled))
        return Coupling(columns, source, one, one, True), None
    same = torch.tensor([bool(features.inputs[k].same_as) for k in coupled], device=device)
    stuck = torch.zeros_like(present)
    stuck[:, columns] = (source == columns) & ~same
    # a quantity that is 0 in two inputs is one quantity: 1, not 0/0
    alone = same | (source == columns)
    own, base = values.index_select(1, columns), values.gather(1, source)
    return Coupling(columns, source, torch.where(alone, 1, own), torch.where(alone, 1, base), False), stuck


def _sources(features: FeatureSet, values: Tensor, present: Tensor) -> Tensor:
    """The followed input of each coupled entry, int64 [jets, coupled]; the entry's own where it follows none."""
    follows = []
    for k, others in zip(*features.followers, strict=True):
        own = values[:, k]
        found = torch.full((len(values),), k, device=values.device)
        for other in reversed(others):  # the first that matches wins
            followed = values[:, other]
            # 1e-310 is no number to be a multiple of, either
            matches = (
                followed == own if features.inputs[k].same_as else (followed != 0) & torch.isfinite(own / followed)
            )
            found = torch.where(matches & present[:, other], other, found)
        follows.append(torch.where(present[:, k], found, k))
    return torch.stack(follows, 1)


def _sources_compiled(features: FeatureSet, values: Tensor, present: Tensor) -> Tensor:
    """`_sources` in one pass on the CPU."""
    coupled, sources = features.followers
    others = np.full((len(coupled), max(map(len, sources))), -1)
    for row, places in enumerate(sources):
        others[row, : len(places)] = places
    same = np.array([bool(features.inputs[k].same_as) for k in coupled])
    source = torch.empty(len(values), len(coupled), dtype=torch.int64)
    fill_sources(values.numpy(), present.numpy(), np.array(coupled), others, same, source.numpy())
    return source
