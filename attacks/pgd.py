"""Projected gradient descent."""

from typing import Literal

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.gradient import input_gradient, objective_of
from attacks.ngm import normed
from attacks.objectives import Objective, cross_entropies
from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import normal, reseed, uniform
from models.tagger import Tagger


class PGD(Attack):
    """Steps up the gradient of the cross entropy, each projected back into the budget (A. Madry et al.,
    arXiv:1706.06083; on jets: B. Nachman and C. Shimmin, arXiv:1910.08606).

    `linf`: steps along the sign of the gradient, in the budget's intervals. `l2`: steps along the gradient in units
    of s, in the ball of radius eps around the jet, cut by the intervals; its norm runs over the entries of the jet
    that may move by themselves.

    Args:
        budget: size of the attack
        steps: gradients per restart
        step_size: in units of epsilon; None: 2.5/steps, which can cross the budget
        restarts: the last values of each are compared, and a jet keeps those with the highest loss
        random_start: start at random in the budget; otherwise at the clean jets
        norm: `linf` or `l2`
        seed: of the starts, which are functions of (jet, feature, seed, restart) alone

    Raises:
        AdvtagError: a parameter out of its range
    """

    def __init__(
        self,
        budget: Budget,
        *,
        steps: int = 10,
        step_size: float | None = None,
        restarts: int = 1,
        random_start: bool = True,
        norm: Literal["linf", "l2"] = "linf",
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        if steps < 1:
            raise AdvtagError(f"steps is {steps}; expected 1 or more")
        if step_size is not None and not 0 < step_size < float("inf"):
            raise AdvtagError(f"step_size is {step_size}; expected a number above 0, in units of epsilon")
        if restarts < 1 or (restarts > 1 and not random_start):
            raise AdvtagError(f"restarts is {restarts}; expected 1, or with a random start 1 or more")
        if norm not in ("linf", "l2"):
            raise AdvtagError(f"norm is {norm!r}; expected `linf` or `l2`")
        self.steps = steps
        self.step_size = step_size
        self.restarts = restarts
        self.random_start = random_start
        self.norm = norm

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        objective = self.objective(tagger, inputs)
        best = self._climb(tagger, inputs, target, interval, objective, 0)
        if self.restarts == 1:
            return best
        highest = objective_of(tagger, inputs, target, best, objective)
        for restart in range(1, self.restarts):
            values = self._climb(tagger, inputs, target, interval, objective, restart)
            losses = objective_of(tagger, inputs, target, values, objective)
            higher = losses > highest
            best = torch.where(higher[:, None], values, best)
            highest = torch.where(higher, losses, highest)
        return best

    def objective(self, tagger: Tagger, inputs: Inputs) -> Objective:  # noqa: ARG002
        """What the steps drive up: the cross entropy; another attack may compare with the clean jets."""
        return cross_entropies

    def _climb(
        self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval, objective: Objective, restart: int
    ) -> Tensor:
        """The last values of one restart, inside the budget."""
        unit, radius = self.budget.unit(tagger), self.budget.epsilon
        stride = (2.5 / self.steps if self.step_size is None else self.step_size) * self.budget.step(tagger)
        keys = reseed(reseed(inputs.key, self.seed), restart)
        if self.norm == "linf":
            values = random_start(interval, keys) if self.random_start else inputs.values
            for _ in range(self.steps):
                gradient, _losses = input_gradient(tagger, inputs, target, interval, values, objective)
                values = interval.project(values + stride * gradient.sign())
            return values
        free = interval.free
        values = random_start_in_ball(interval, free, unit, radius, keys) if self.random_start else inputs.values
        for _ in range(self.steps):
            gradient, _losses = input_gradient(tagger, inputs, target, interval, values, objective)
            moved = values + stride * normed(torch.where(free, gradient * unit, 0))
            values = project_into_ball(interval, free, unit, radius, moved)
        return values


def random_start(interval: Interval, keys: Tensor) -> Tensor:
    """Values [jets, features] drawn uniformly from their intervals; keys int64 [jets]."""
    draws = uniform(keys, interval.low.shape[1], 0).to(interval.low.dtype)
    return interval.project(interval.low + draws * (interval.high - interval.low))


def random_start_in_ball(interval: Interval, free: Tensor, unit: Tensor, radius: float, keys: Tensor) -> Tensor:
    """Values [jets, features] drawn uniformly from the ball over the `free` entries, then cut by the intervals."""
    dimensions = free.sum(1, keepdim=True).clamp(min=1)
    length = radius * uniform(keys, 1, 0) ** (1 / dimensions)
    direction = normed(torch.where(free, normal(keys, free.shape[1], 1), 0))
    return interval.project(interval.clean + unit * (length * direction).to(unit.dtype))


def project_into_ball(interval: Interval, free: Tensor, unit: Tensor, radius: float, values: Tensor) -> Tensor:
    """Values [jets, features] drawn back towards the clean jet into the ball, then cut by the intervals.

    Both only shorten a move, so the result is in both.
    """
    move = values - interval.clean
    length = torch.linalg.vector_norm(torch.where(free, move / unit, 0), dim=1, keepdim=True)
    return interval.project(interval.clean + move * (radius / length).clamp(max=1))
