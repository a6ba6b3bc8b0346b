"""How far each entry of each jet may move."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.inputs import Inputs
from models.tagger import Tagger


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One interval per entry, computed from the clean inputs:

        [max(x - eps s, x - r |x|, lo), min(x + eps s, x + r |x|, hi)]

    with s the unit of standardised space (the tagger's `std`), r the relative cap and lo, hi the physical range of
    the feature card. Absent and integer entries are frozen. An x outside [lo, hi] may only move back towards it.
    A cap leaves x = 0 where it is. Sources: epsilon and the masks, the code of A. Stein et al., Comput. Softw.
    Big Sci. 6 (2022) 15, and of the CMS thesis study before it; the 20 % cap, `restrict_impact` of that paper's code
    and of the DeepJet study (CMS DP-2022/049); the thesis study on the 67 DeepCSV inputs has no cap.
    """

    epsilon: float
    """Size of the attack in units of standardised space."""
    capped: bool = True
    """Apply the relative caps of the feature card."""

    def step(self, tagger: Tagger) -> Tensor:
        """Largest move of each feature in physical units, [features]: eps s."""
        return self.epsilon * tagger.std

    def reach(self, tagger: Tagger, inputs: Inputs) -> Tensor:
        """Largest move of each entry in physical units, [jets, features], before the physical range."""
        values, features = inputs.values, tagger.features
        reach = self.step(tagger).expand_as(values)
        if self.capped:
            caps = torch.as_tensor(features.caps, dtype=values.dtype, device=values.device)
            # inf * 0 is not a number: an uncapped feature must not be asked for its relative move
            finite = torch.isfinite(caps)
            relative = torch.where(finite, caps, 0) * values.abs()
            reach = torch.where(finite, torch.minimum(reach, relative), reach)
        continuous = torch.as_tensor(~features.integer, device=values.device)
        return torch.where(inputs.present & continuous, reach, 0)

    def interval(self, tagger: Tagger, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each entry, each [jets, features]."""
        values, reach = inputs.values, self.reach(tagger, inputs)
        bounds = torch.as_tensor(tagger.features.bounds, dtype=values.dtype, device=values.device)
        low = torch.minimum(torch.maximum(values - reach, bounds[:, 0]), values)
        high = torch.maximum(torch.minimum(values + reach, bounds[:, 1]), values)
        return low, high

    def project(self, tagger: Tagger, clean: Inputs, values: Tensor) -> Inputs:
        """Bring moved values, [jets, features], back into the intervals of the clean jets."""
        low, high = self.interval(tagger, clean)
        return clean.moved(torch.clamp(values, low, high))
