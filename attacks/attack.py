"""What an attack is, and the input gradient that most of them need."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.budget import Budget
from models.inputs import Inputs
from models.tagger import Tagger


class Attack(ABC):
    """Moves the inputs of jets, each inside its own interval of the budget; `present` and `key` stay."""

    def __init__(self, budget: Budget, *, seed: int = 0) -> None:
        self.budget = budget
        self.seed = seed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.budget!r}, seed={self.seed})"

    @abstractmethod
    def __call__(self, tagger: Tagger, inputs: Inputs, target: Tensor) -> Inputs:
        """Attack jets.

        Args:
            tagger: on the device of the inputs and in their floating type
            inputs: clean jets
            target: int64 [jets], true class of each jet

        Returns:
            the same jets, moved; the tagger's mode and its parameters' `.grad` are as before
        """


@contextmanager
def evaluation_mode(tagger: Tagger) -> Iterator[None]:
    """Switch dropout off for the block: an attack on a network that rolls dice is weaker than it looks."""
    training = tagger.training
    tagger.eval()
    try:
        yield
    finally:
        tagger.train(training)


def input_gradient(tagger: Tagger, inputs: Inputs, target: Tensor) -> Tensor:
    """Gradient of each jet's cross entropy in its physical inputs, [jets, features].

    The losses are summed, not averaged, so a jet's gradient does not know the size of its batch. Only the inputs
    are differentiated (`torch.autograd.grad`): filling `.grad` of the parameters here would add the clean gradient
    to the next training step.
    """
    values = inputs.values.detach().requires_grad_()
    with evaluation_mode(tagger), torch.enable_grad():
        loss = cross_entropy(tagger(values, inputs.present), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, values)
    return gradient
