"""Entries that are one quantity, or a multiple of another: they move together."""

from dataclasses import dataclass

import torch
from torch import Tensor

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

    def apply(self, values: Tensor) -> Tensor:
        """Recompute the following entries of values, float [jets, features]."""
        followed = values.gather(1, self.source)
        # x (y'/y), not y' (x/y): where y has not moved, x is what it was to the last bit
        return values.index_copy(1, self.columns, followed if self.exact else self.own * (followed / self.base))

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Add what a gradient, [jets, features], says of a following entry to the entry that it follows, and leave
        none to the former: the chain rule.
        """
        handed_on = gradient[:, self.columns] * self.follows
        left = gradient.index_add(1, self.columns, handed_on, alpha=-1)
        return left.scatter_add(1, self.source, handed_on if self.exact else handed_on * (self.own / self.base))

    def narrow(self, low: Tensor, high: Tensor) -> None:
        """Narrow intervals [jets, features], in place, to where a followed entry may move with all its followers in
        theirs.
        """
        lowest, highest = low[:, self.columns], high[:, self.columns]
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
    coupled = [k for k, feature in enumerate(features.inputs) if feature.same_as or feature.proportional_to]
    if not coupled:
        return None, None
    columns = torch.tensor(coupled, device=inputs.values.device)
    source, stuck = [], None
    for k in coupled:
        feature = features.inputs[k]
        names = feature.same_as or (feature.proportional_to or "",)
        others = torch.tensor([features.names.index(name) for name in names], device=columns.device)
        values, own = inputs.values.index_select(1, others), inputs.values[:, k, None]
        matches = inputs.present.index_select(1, others) & inputs.present[:, k, None]
        matches &= values == own if feature.same_as else values != 0
        found, first = matches.to(torch.uint8).max(1)
        source.append(torch.where(found > 0, others[first], k))
        if feature.proportional_to is not None:
            stuck = torch.zeros_like(inputs.present) if stuck is None else stuck
            stuck[:, k] = found == 0
    sources = torch.stack(source, 1)
    own, base = inputs.values[:, columns], inputs.values.gather(1, sources)
    # a quantity that is 0 in two inputs is one quantity: 1, not 0/0
    same = torch.tensor([bool(features.inputs[k].same_as) for k in coupled], device=columns.device)
    same = same | (sources == columns)
    return Coupling(columns, sources, torch.where(same, 1, own), torch.where(same, 1, base), stuck is None), stuck
