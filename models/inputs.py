"""Jets as a tagger sees them: physical values, which of them are present, and who the jet is."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """Jets in physical units; an absent entry's value is 0 and means nothing."""

    values: Tensor
    """float [jets, features], in the units of the branches."""
    present: Tensor
    """bool [jets, features]; attacks hand it on untouched."""
    key: Tensor
    """int64 [jets], from `models.keys.jet_keys`: seeds what is random about this jet, wherever it is processed."""
    weight: Tensor | None = None
    """float [jets], event weights, for attacks that look at whole distributions; None: all 1."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, jets: slice | Tensor) -> "Inputs":
        weight = None if self.weight is None else self.weight[jets]
        return Inputs(self.values[jets], self.present[jets], self.key[jets], weight)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Inputs":
        """Move to a device and give the values a floating type."""
        weight = None if self.weight is None else self.weight.to(device)
        return Inputs(self.values.to(device, dtype), self.present.to(device), self.key.to(device), weight)

    def moved(self, values: Tensor) -> "Inputs":
        """The same jets with other values."""
        return replace(self, values=values)
