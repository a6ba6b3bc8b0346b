"""How far each entry of each jet may move."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attacks.coupling import Coupling, coupling_of
from attacks.interval_kernel import fill_interval
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from models.tagger import Tagger

Scale = Literal["std", "core", "quantile"]


@dataclass(frozen=True)
class Interval:
    """Where the entries of some jets may go, and what moves together."""

    clean: Tensor
    """float [jets, features], where they are"""
    low: Tensor
    """float [jets, features], lowest value of each entry; equal to `high` where it is frozen"""
    high: Tensor
    coupling: Coupling | None = None

    @property
    def free(self) -> Tensor:
        """Bool [jets, features]: entries that can move by themselves; what follows another is not among them."""
        free = self.low < self.high
        if self.coupling is not None:
            columns = self.coupling.columns
            free = free.index_copy(1, columns, free[:, columns] & ~self.coupling.follows)
        return free

    def project(self, values: Tensor) -> Tensor:
        """The nearest values [jets, features] inside; absent and frozen entries as they were, bit by bit."""
        inside = torch.clamp(values, self.low, self.high)
        if self.coupling is None:
            return inside
        coupled = self.coupling.recompute_(inside)
        # again: x (y'/y) may leave the interval by one rounding
        return coupled if self.coupling.exact else torch.clamp(coupled, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One interval per entry, computed once from the clean inputs:

        [max(x - eps s, x - r |x|, lo), min(x + eps s, x + r |x|, hi)]

    with s the unit of the feature, r its relative cap and lo, hi its physical range, both from the feature card.
    Frozen are absent and integer entries, and what the card freezes or pins. An x outside [lo, hi] may only move
    back towards it. A cap leaves x = 0 where it is. An entry that others follow moves only where they can follow.
    Sources: epsilon and the masks, the code of A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15, and of the CMS
    thesis study before it; the 20 % cap, `restrict_impact` of that paper's code and of the DeepJet study (CMS
    DP-2022/049); the thesis study on the 67 DeepCSV inputs has no cap.
    """

    epsilon: float
    """Size of the attack in units of `scale`; inf: only caps and physical ranges hold."""
    scale: Scale | Mapping[str, float] = "std"
    """Unit of each feature, measured on the present training entries: `std`, the standard deviation (the unit of
    standardised space); `core`, the standard deviation inside the central 20 to 80 % (the code of the DeepJet studies
    of H. Schoenen and A. Stein); `quantile`, (q99 - q01)/2 (DP-2022/049's code); or a table of uncertainties in
    physical units by feature name, which integer and frozen inputs need not be in."""
    capped: bool = True
    """Apply the relative caps of the feature card."""

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise AdvtagError(f"epsilon is {self.epsilon}; expected 0 or more, in units of the scale")

    def unit(self, tagger: Tagger) -> Tensor:
        """Unit of each feature in physical units, float [features].

        Raises:
            AdvtagError: the tagger does not know this scale, or the table is for other features
        """
        if isinstance(self.scale, str):
            return tagger.scale(self.scale)
        return torch.as_tensor(_table(self.scale, tagger.features), dtype=tagger.std.dtype, device=tagger.std.device)

    def step(self, tagger: Tagger) -> Tensor:
        """Largest move of each feature in physical units, float [features]: eps s, 0 where s is 0."""
        unit = self.unit(tagger)
        return torch.where(unit == 0, 0, self.epsilon * unit)

    def interval(self, tagger: Tagger, inputs: Inputs) -> Interval:
        """Where each entry may go."""
        values, features = inputs.values.detach(), tagger.features
        coupling, stuck = coupling_of(features, inputs)
        movable = inputs.present if stuck is None else inputs.present & ~stuck
        step = self.step(tagger).to(values.dtype)
        step = step.masked_fill(torch.as_tensor(features.integer | features.frozen, device=values.device), 0)
        caps = torch.as_tensor(features.caps) if self.capped else torch.full((len(features),), torch.inf)
        caps, bounds = (limit.to(values) for limit in (caps, torch.as_tensor(features.bounds.T.copy())))
        between = _between_compiled if values.device.type == "cpu" else _between
        low, high = between(values, movable, step, caps, bounds, features.pins)
        if coupling is not None:
            coupling.narrow_(low, high)
        return Interval(values, low, high, coupling)


def _between(
    values: Tensor, movable: Tensor, step: Tensor, caps: Tensor, bounds: Tensor, pins: tuple[tuple[int, float], ...]
) -> tuple[Tensor, Tensor]:
    """Low and high of each entry, coupled ones not yet narrowed."""
    reach = torch.fmin(caps * values.abs(), step)  # inf 0 is not a number: no cap
    for k, value in pins:
        reach[:, k].masked_fill_(values[:, k] == value, 0)
    reach = torch.where(movable, reach, 0)
    low, high = torch.maximum(values - reach, bounds[0]), torch.minimum(values + reach, bounds[1])
    return torch.minimum(low, values), torch.maximum(high, values)


def _between_compiled(
    values: Tensor, movable: Tensor, step: Tensor, caps: Tensor, bounds: Tensor, pins: tuple[tuple[int, float], ...]
) -> tuple[Tensor, Tensor]:
    """`_between` in one pass on the CPU."""
    pinned = np.full((len(pins), values.shape[1]), np.nan, caps.numpy().dtype)
    for row, (k, value) in enumerate(pins):
        pinned[row, k] = value
    low, high = torch.empty_like(values), torch.empty_like(values)
    x, steps, limits = values.numpy(), (step.numpy(), caps.numpy()), bounds.numpy()
    fill_interval(x, movable.numpy(), *steps, limits, pinned, low.numpy(), high.numpy())
    return low, high


def _table(table: Mapping[str, float], features: FeatureSet) -> list[float]:
    names = set(features.names)
    needed = {feature.name for feature in features.inputs if not (feature.integer or feature.frozen)}
    unknown, missing = sorted(set(table) - names), sorted(needed - set(table))
    if unknown or missing:
        parts = [f"not among the inputs: {', '.join(unknown[:3])}"] if unknown else []
        parts += [f"missing: {', '.join(missing[:3])}"] if missing else []
        raise AdvtagError(f"table of uncertainties for other features than card {features.name!r}; {'; '.join(parts)}")
    wrong = [name for name, value in table.items() if not 0 <= value < float("inf")]
    if wrong:
        raise AdvtagError(f"table of uncertainties: {wrong[0]} is {table[wrong[0]]}; expected a number, 0 or more")
    return [table.get(name, 0.0) for name in features.names]
