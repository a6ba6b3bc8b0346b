"""What an attack is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from attacks.budget import Budget, Interval
from attacks.checks import refuse_bad_input
from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import Tagger


class Attack(ABC):
    """Moves the inputs of jets, each inside its own interval of the budget; `present`, `key` and `weight` stay."""

    per_jet: ClassVar[bool] = True
    """A jet's result does not depend on the other jets. Where it does (whole distributions are kept or drawn from),
    the attack wants as many jets at once as there are."""
    bounded: ClassVar[bool] = True
    """Needs a finite epsilon."""

    def __init__(self, budget: Budget, *, seed: int = 0) -> None:
        if self.bounded and budget.epsilon == math.inf:
            raise AdvtagError(f"{type(self).__name__} needs a finite epsilon")
        self.budget = budget
        self.seed = seed

    def __repr__(self) -> str:
        rest = "".join(f", {name}={value!r}" for name, value in vars(self).items() if name != "budget")
        return f"{type(self).__name__}({self.budget!r}{rest})"

    def __call__(self, tagger: Tagger, inputs: Inputs, target: Tensor) -> Inputs:
        """Attack jets.

        Args:
            tagger: on the device of the inputs and in their floating type
            inputs: clean jets
            target: int64 [jets], true class of each jet

        Returns:
            the same jets, moved; the tagger's mode and its parameters' `.grad` are as before

        Raises:
            AdvtagError: inputs of another card, a present entry that is not finite, a class that the tagger does not
                have, or a budget for other features
        """
        refuse_bad_input(tagger, inputs, target)
        interval = self.interval(tagger, inputs)
        if not len(inputs) or self.budget.epsilon == 0:
            return inputs
        with evaluation_mode(tagger), torch.no_grad():
            values = self.perturb(tagger, inputs, target, interval)
            return inputs.moved(interval.project(values))

    def interval(self, tagger: Tagger, inputs: Inputs) -> Interval:
        """Where each entry may go: the budget's."""
        return self.budget.interval(tagger, inputs)

    @abstractmethod
    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """Moved values, float [jets, features], of one jet or more; the caller projects them into `interval`.

        The tagger is in evaluation mode and gradients are off: `input_gradient` switches them on for itself.
        """


@contextmanager
def evaluation_mode(tagger: Tagger) -> Iterator[None]:
    """Switch dropout off for the block: an attack on a network that rolls dice is weaker than it looks."""
    if not any(module.training for module in tagger.modules()):  # quicker than setting what is set
        yield
        return
    training = tagger.training
    tagger.eval()
    try:
        yield
    finally:
        tagger.train(training)
