"""Inputs in slots: candidates of a jet as rows of a table, for networks that treat all of them alike."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import AdvtagError
from models.features import FeatureSet, Input


class Slots(nn.Module):
    """One group of a card as a table, from what the tagger standardises.

    The tagger standardises each slot by itself: the hardest candidate's pT has another mean than the last one's. A
    network that treats all slots alike needs common units, so mean and width become the medians of those of the slots:
    not what slots that hardly ever exist would make of them.

    Args:
        features: the feature card
        group: whose inputs all have slots, equally many each
    """

    means: Tensor
    widths: Tensor
    mean: Tensor
    std: Tensor
    columns: Tensor

    def __init__(self, features: FeatureSet, group: str) -> None:
        super().__init__()
        self.names, columns = _table(features, group)
        """Inputs of one candidate"""
        self.slots = len(columns)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("means", torch.zeros(self.columns.shape))
        self.register_buffer("widths", torch.ones(self.columns.shape))
        self.register_buffer("mean", torch.zeros(len(self.names)))
        self.register_buffer("std", torch.ones(len(self.names)))

    def set_units_(self, mean: Tensor, std: Tensor) -> None:
        """Tell means and widths, float [inputs of the card], by which the tagger standardises."""
        self.means, self.widths = mean[self.columns], std[self.columns]
        self.mean, self.std = self.means.median(0).values, self.widths.median(0).values

    def forward(self, standardised: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The table in common units, float [jets, slots, inputs], and which slots hold a candidate, bool [jets, slots].

        Args:
            standardised: float [jets, inputs of the card]
            present: bool, likewise; a slot is empty where none of its inputs is present, and is 0 then. An input that
                alone is absent stays where it is.
        """
        shape, columns = (standardised.shape[0], *self.columns.shape), self.columns.flatten()
        there = present.index_select(1, columns).view(shape)
        filled = there.any(2)
        found = torch.where(filled[..., None], standardised.index_select(1, columns).view(shape), 0)
        scale, shift = self.widths / self.std, (self.means - self.mean) / self.std
        return torch.where(there, found * scale + shift, found), filled

    def physical(self, table: Tensor, name: str) -> Tensor:
        """One input in its own unit, float [jets, slots]; its mean where the slot is empty.

        Args:
            table: from `forward`
            name: of the input, without its slot
        """
        place = self.names.index(name)
        return table[..., place] * self.std[place] + self.mean[place]

    def places(self, names: Sequence[str]) -> list[int]:
        """Where in the table these inputs are.

        Raises:
            AdvtagError: the card does not have one of them
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise AdvtagError(f"the network needs input {missing[0]!r} of each candidate; the card has none")
        return [self.names.index(name) for name in names]


def _table(features: FeatureSet, group: str) -> tuple[tuple[str, ...], list[list[int]]]:
    members = [(stem(feature), feature.slot, k) for k, feature in enumerate(features.inputs) if feature.group == group]
    names = tuple(dict.fromkeys(name for name, _, _ in members if name is not None))
    place = {(name, slot): k for name, slot, k in members}
    slots = 1 + max((slot for _, slot, _ in members), default=-1)
    wanted = [[(name, slot) for name in names] for slot in range(slots)]
    if not members or sorted(place, key=str) != sorted((entry for row in wanted for entry in row), key=str):
        raise AdvtagError(
            f"feature card {features.name!r}: the network needs a group {group!r} of inputs with `slots`, equally many "
            "each; choose a card that has one, or another network"
        )
    return names, [[place[entry] for entry in row] for row in wanted]


def stem(feature: Input) -> str | None:
    """Name of an input without its slot; None: it has none."""
    name, _, slot = feature.name.rpartition("_")
    return name if name and slot == str(feature.slot) else None


def outside(features: FeatureSet, groups: Sequence[Slots]) -> Tensor:
    """Places of the inputs of the jet itself, those in none of the groups: int64 [inputs]."""
    inside = {int(k) for group in groups for k in group.columns.flatten()}
    return torch.tensor([k for k in range(len(features)) if k not in inside], dtype=torch.int64)
