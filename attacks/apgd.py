"""Auto-PGD: projected gradient descent that chooses its step size by its progress."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.gradient import input_gradient
from attacks.objectives import Objective, cross_entropies, dlr, targeted_dlr
from attacks.pgd import random_start
from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import reseed
from models.tagger import Tagger

CLASSES = {"ce": 2, "dlr": 3, "dlr-targeted": 4}
"""Classes that each objective needs."""


class APGD(Attack):
    """Auto-PGD of F. Croce and M. Hein, arXiv:2003.01690, algorithm 1, with the L-infinity norm.

    Sign steps with momentum, first of twice the budget's step, which each jet halves where it gets no further. It
    returns the best values that a jet has met, not the last ones.

    Args:
        budget: size of the attack
        steps: of each run
        restarts: runs with other random starts; a jet keeps the values with the highest objective
        objective: `ce`, the cross entropy; `dlr`, which does not vanish where the tagger is sure; or `dlr-targeted`,
            one run towards each other class
        seed: of the starts, which are functions of (jet, feature, seed, run) alone

    Raises:
        AdvtagError: a parameter out of its range; when called, a tagger with too few classes for the objective
    """

    def __init__(
        self,
        budget: Budget,
        *,
        steps: int = 100,
        restarts: int = 1,
        objective: Literal["ce", "dlr", "dlr-targeted"] = "ce",
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        if steps < 1:
            raise AdvtagError(f"steps is {steps}; expected 1 or more")
        if restarts < 1:
            raise AdvtagError(f"restarts is {restarts}; expected 1 or more")
        if objective not in CLASSES:
            raise AdvtagError(f"objective is {objective!r}; expected one of {', '.join(CLASSES)}")
        self.steps = steps
        self.restarts = restarts
        self.objective = objective

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        keys, step = reseed(inputs.key, self.seed), self.budget.step(tagger)
        best, highest = inputs.values, torch.full_like(inputs.values[:, 0], -torch.inf)
        for run, objective in enumerate(self._objectives(tagger, target) * self.restarts):
            gradient_at = partial(input_gradient, tagger, inputs, target, interval, objective=objective)
            values, reached = climb(gradient_at, interval, step, random_start(interval, reseed(keys, run)), self.steps)
            higher = reached > highest
            best = torch.where(higher[:, None], values, best)
            highest = torch.where(higher, reached, highest)
        return best

    def _objectives(self, tagger: Tagger, target: Tensor) -> list[Objective]:
        """The objective of each run of a restart."""
        classes = len(tagger.classes)
        if classes < CLASSES[self.objective]:
            raise AdvtagError(
                f"objective {self.objective!r} needs {CLASSES[self.objective]} classes; "
                f"the tagger has {', '.join(tagger.classes)}"
            )
        if self.objective == "dlr-targeted":
            return [partial(targeted_dlr, wanted=(target + k) % classes) for k in range(1, classes)]
        return [cross_entropies if self.objective == "ce" else dlr]


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is looked at: ceil(p_j N) with p = 0.22, 0.41, 0.57, ..., each distance 0.03
    shorter than the one before, down to 0.06 (sec. 3.2 there); counted in hundredths, which are exact.
    """
    found, hundredths, distance = [], 22, 22
    while hundredths < 100:
        found.append(-(-hundredths * steps // 100))
        distance = max(distance - 3, 6)
        hundredths += distance
    return sorted(set(found))


def climb(
    gradient_at: Callable[[Tensor], tuple[Tensor, Tensor]], interval: Interval, step: Tensor, start: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """The best values [jets, features] of one run, and their objective [jets].

    Args:
        gradient_at: gradient [jets, features] and objective [jets] at some values
        interval: where the entries may go
        step: unit of the step size, float [features]
        start: values inside the interval
        steps: how many
    """
    values = previous = start
    gradient, objective = gradient_at(start)
    best, best_gradient, highest = start, gradient, objective
    size = torch.full_like(objective, 2)
    rises = torch.zeros_like(objective)
    halved = torch.zeros_like(objective, dtype=torch.bool)
    check, highest_at_check, ends = 0, highest, checkpoints(steps)
    for k in range(1, steps + 1):
        ahead = interval.project(values + size[:, None] * step * gradient.sign())
        part = 0.75 if k > 1 else 1.0
        moved = interval.project(values + part * (ahead - values) + (1 - part) * (values - previous))
        values, previous, last = moved, values, objective
        gradient, objective = gradient_at(values)
        rises += objective > last
        better = objective > highest
        best = torch.where(better[:, None], values, best)
        best_gradient = torch.where(better[:, None], gradient, best_gradient)
        highest = torch.where(better, objective, highest)
        if k in ends:
            stuck = ~halved & (highest == highest_at_check)
            halved = (4 * rises < 3 * (k - check)) | stuck
            size = torch.where(halved, size / 2, size)
            values = torch.where(halved[:, None], best, values)
            gradient = torch.where(halved[:, None], best_gradient, gradient)
            objective = torch.where(halved, highest, objective)
            rises, check, highest_at_check = torch.zeros_like(rises), k, highest
    return best, highest
