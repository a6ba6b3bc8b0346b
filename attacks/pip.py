"""Probabilistic integer perturbation, alone and together with projected gradient descent."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.coupling import coupling_of
from attacks.gradient import input_gradient
from attacks.pgd import random_start
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import reseed, uniform
from models.tagger import Tagger


class PIP(Attack):
    """Moves integers by whole units up the gradient g of the cross entropy, each with a probability:

        x_i + u_i sign(g_i),  u_i ~ Bernoulli(p_i),  p_i = (|g_i| / max_j |g_j|)^sharpness

    (RWTH bachelor thesis of 2025 in b-hive, github.com/martinwltzko/Bachelor-Thesis). g is per unit of the integer.
    With sharpness 0 every integer with a gradient moves, with a large one only that with the largest. An integer that
    would leave the physical range of its card goes back to its clean value, as published. The published maximum is that
    of the batch; here it is by default that of the jet's integers that can move, so that a jet does not know its batch,
    and without the 1e-8 that the thesis adds to it.

    Args:
        budget: epsilon 0 switches the attack off; nothing else of it is used
        steps: gradients, and so the largest move of an integer
        sharpness: exponent, 0 or more
        maximum: `jet`, or `batch` as published
        features: names of integer inputs; None: those on whose branches the presence of no input depends, since
            another number of tracks contradicts the tracks that are there
        seed: of the draws, which are functions of (jet, feature, seed, step) alone

    Raises:
        AdvtagError: a parameter out of its range; when called, a name that is no integer input that can move
    """

    bounded = False

    def __init__(
        self,
        budget: Budget,
        *,
        steps: int = 1,
        sharpness: float = 1.0,
        maximum: Literal["jet", "batch"] = "jet",
        features: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        if steps < 1:
            raise AdvtagError(f"steps is {steps}; expected 1 or more")
        if not sharpness >= 0:
            raise AdvtagError(f"sharpness is {sharpness}; expected 0 or more")
        if maximum not in ("jet", "batch"):
            raise AdvtagError(f"maximum is {maximum!r}; expected `jet` or `batch`")
        self.steps = steps
        self.sharpness = sharpness
        self.maximum = maximum
        self.features = None if features is None else tuple(features)

    @property
    def per_jet(self) -> bool:  # type: ignore[override]
        """A jet's result does not depend on the other jets."""
        return self.maximum == "jet"

    def interval(self, tagger: Tagger, inputs: Inputs) -> Interval:
        """Where each entry may go: the chosen integers by `steps` units inside their physical range, the rest nowhere.

        An integer outside that range may only move back towards it.
        """
        coupling, _stuck = coupling_of(tagger.features, inputs)
        return self._with_integers(tagger, inputs, Interval(inputs.values, inputs.values, inputs.values, coupling))

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        return self._climb(tagger, inputs, target, interval, inputs.values, torch.zeros_like(tagger.std))

    def _with_integers(self, tagger: Tagger, inputs: Inputs, interval: Interval) -> Interval:
        """The same interval, with the chosen integers set free."""
        features, clean = tagger.features, inputs.values
        chosen = integers_of(features, self.features)
        movable = torch.zeros_like(inputs.present)
        for k, feature in enumerate(features.inputs):
            if feature.name in chosen:
                movable[:, k] = inputs.present[:, k]
                for value in feature.pinned:
                    movable[:, k] &= clean[:, k] != value
        bounds = torch.as_tensor(features.bounds, dtype=clean.dtype, device=clean.device)
        low = torch.where(movable, torch.maximum(clean - self.steps, bounds[:, 0]), interval.low)
        high = torch.where(movable, torch.minimum(clean + self.steps, bounds[:, 1]), interval.high)
        if interval.coupling is not None:
            interval.coupling.narrow_(low, high)
        return Interval(clean, torch.minimum(low, clean), torch.maximum(high, clean), interval.coupling)

    def _climb(
        self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval, values: Tensor, stride: Tensor
    ) -> Tensor:
        """Integers by PIP and the rest by sign steps of `stride`, float [features], from one gradient per step."""
        integer = torch.as_tensor(tagger.features.integer, device=values.device)
        keys = reseed(inputs.key, self.seed)
        # units moved so far: they add up without rounding, also where the clean value is not whole
        units = torch.zeros_like(values)
        for step in range(self.steps):
            gradient, _losses = input_gradient(tagger, inputs, target, interval, values)
            # draws 0 are of a random start
            draws = uniform(keys, values.shape[1], step + 1)
            units = self._hop(interval, torch.where(integer, gradient, 0), units, draws)
            values = interval.project(torch.where(integer, inputs.values + units, values + stride * gradient.sign()))
        return values

    def _hop(self, interval: Interval, gradient: Tensor, units: Tensor, draws: Tensor) -> Tensor:
        """Units moved after one more step; all [jets, features], the gradient 0 where no integer is."""
        gradient = torch.where(interval.free, gradient, 0)
        size = gradient.abs()
        largest = size.amax(1, keepdim=True) if self.maximum == "jet" else size.amax()
        chance = (size / torch.where(largest > 0, largest, 1)) ** self.sharpness
        # 0^0 is 1, but the sign of a gradient of 0 is 0
        units = torch.where(draws < chance, units + gradient.sign(), units)
        moved = interval.clean + units
        return torch.where((moved < interval.low) | (moved > interval.high), 0, units)


class PIPPGD(PIP):
    """PIP on the integers and sign steps on the rest, at the same time and from the same gradient (PIP-PGD of the same
    thesis). The rest stays inside the budget; the integers move as in `PIP`.

    Args:
        budget: size of the attack on all but the integers
        steps: gradients, and so the largest move of an integer
        step_size: of the sign steps, in units of epsilon; None: 1/steps, as published
        sharpness: see `PIP`
        maximum: see `PIP`
        features: see `PIP`; other inputs that are no integers always move
        random_start: start at random in the budget, with the integers at their clean values
        seed: of all draws, which are functions of (jet, feature, seed, step) alone

    Raises:
        AdvtagError: see `PIP`
    """

    bounded = True

    def __init__(
        self,
        budget: Budget,
        *,
        steps: int = 10,
        step_size: float | None = None,
        sharpness: float = 1.0,
        maximum: Literal["jet", "batch"] = "jet",
        features: Sequence[str] | None = None,
        random_start: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(budget, steps=steps, sharpness=sharpness, maximum=maximum, features=features, seed=seed)
        if step_size is not None and not 0 < step_size < float("inf"):
            raise AdvtagError(f"step_size is {step_size}; expected a number above 0, in units of epsilon")
        self.step_size = step_size
        self.random_start = random_start

    def interval(self, tagger: Tagger, inputs: Inputs) -> Interval:
        """Where each entry may go: the budget's, and the chosen integers as in `PIP`."""
        return self._with_integers(tagger, inputs, self.budget.interval(tagger, inputs))

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        stride = (1 / self.steps if self.step_size is None else self.step_size) * self.budget.step(tagger)
        values = inputs.values
        if self.random_start:
            integer = torch.as_tensor(tagger.features.integer, device=values.device)
            start = random_start(interval, reseed(inputs.key, self.seed))
            values = interval.project(torch.where(integer, values, start))
        return self._climb(tagger, inputs, target, interval, values, stride)


def integers_of(features: FeatureSet, wanted: Sequence[str] | None) -> set[str]:
    """Names of the integers that PIP moves; see `PIP.features`.

    Raises:
        AdvtagError: a name that is not an input of the card, not an integer, frozen, or a multiple of another
    """
    can_move = {
        feature.name
        for feature in features.inputs
        if feature.integer and not feature.frozen and feature.proportional_to is None
    }
    if wanted is not None:
        wrong = sorted(set(wanted) - can_move)
        if wrong:
            raise AdvtagError(
                f"PIP cannot move {', '.join(wrong[:3])}; integer inputs of card {features.name!r} that can move: "
                f"{', '.join(sorted(can_move)) or 'none'}"
            )
        return set(wanted)
    decide = {feature.present.branch for feature in features.inputs if feature.present is not None}
    return {
        feature.name for feature in features.inputs if feature.name in can_move and decide.isdisjoint(feature.branch)
    }
