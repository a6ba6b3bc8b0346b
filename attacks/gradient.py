"""The gradient of the loss in the inputs, which most attacks need, and attacks that begin with the same one."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from attacks.budget import Interval
from attacks.checks import refuse_bad_gradient
from attacks.objectives import Objective, cross_entropies
from models.inputs import Inputs
from models.tagger import Tagger


class CleanPass:
    """One pass through a tagger, forth and back, at the clean jets: for all attacks that begin there, of whatever
    size, and for the raw scores. Nothing is computed before it is asked for.

    Args:
        tagger: in evaluation mode
        inputs: clean jets
        target: int64 [jets]
    """

    def __init__(self, tagger: Tagger, inputs: Inputs, target: Tensor) -> None:
        self.tagger = tagger
        self.inputs = inputs
        self.target = target
        self._pass: tuple[Tensor, Tensor, Tensor] | None = None

    def is_of(self, tagger: Tagger, values: Tensor) -> bool:
        """Whether these are the clean jets of this tagger: the same memory, not only the same numbers."""
        return tagger is self.tagger and values is self.inputs.values

    def gradient(self, interval: Interval) -> tuple[Tensor, Tensor]:
        """What `input_gradient` returns; the caller may change it."""
        if self._pass is None:
            self._pass = _differentiate(self.tagger, self.inputs, self.target, self.inputs.values, cross_entropies)
        gradient, losses = self._pass[0].clone(), self._pass[1].clone()
        if interval.coupling is not None:
            interval.coupling.pull_back_(gradient)
        return gradient, losses

    def logits(self) -> Tensor:
        """Logits of the clean jets, float [jets, classes]."""
        if self._pass is not None:
            return self._pass[2]
        with torch.no_grad():
            logits: Tensor = self.tagger(self.inputs.values, self.inputs.present)
        return logits


_shared: ContextVar[CleanPass | None] = ContextVar("clean pass", default=None)


@contextmanager
def shared(clean: CleanPass) -> Iterator[None]:
    """Attacks on these jets inside the block take their first gradient from the one pass."""
    token = _shared.set(clean)
    try:
        yield
    finally:
        _shared.reset(token)


def input_gradient(
    tagger: Tagger,
    inputs: Inputs,
    target: Tensor,
    interval: Interval,
    values: Tensor,
    objective: Objective = cross_entropies,
) -> tuple[Tensor, Tensor]:
    """Gradient of each jet's objective in its physical inputs at `values`, [jets, features], and the objective, [jets];
    `values` as `interval.project` leaves them.

    The objectives are summed, not averaged, so a jet's gradient does not know the size of its batch. Only the inputs
    are differentiated (`torch.autograd.grad`): filling `.grad` of the parameters here would add the clean gradient
    to the next training step. What an entry does through those that follow it counts as its own.

    Raises:
        AdvtagError: the gradient is not finite
    """
    clean = _shared.get()
    if clean is not None and objective is cross_entropies and clean.is_of(tagger, values):
        return clean.gradient(interval)
    gradient, losses, _ = _differentiate(tagger, inputs, target, values, objective)
    if interval.coupling is not None:
        interval.coupling.pull_back_(gradient)
    return gradient, losses


def _differentiate(
    tagger: Tagger, inputs: Inputs, target: Tensor, values: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient in physical inputs, before coupled ones are followed; objective; logits."""
    # in standardised space, and from there by hand: two passes less
    logits, back = tagger.vjp(tagger.standardise(values.detach(), inputs.present), inputs.present)
    with torch.enable_grad():
        losses = objective(logits.requires_grad_(), target)
        (slope,) = torch.autograd.grad(losses.sum(), logits)
    gradient = back(slope)
    tagger.physical_gradient_(gradient, inputs.present)
    refuse_bad_gradient(gradient)
    return gradient, losses.detach(), logits.detach()


def objective_of(
    tagger: Tagger, inputs: Inputs, target: Tensor, values: Tensor, objective: Objective = cross_entropies
) -> Tensor:
    """The objective of each jet at `values`, float [jets], without a gradient."""
    with torch.no_grad():
        return objective(tagger(values, inputs.present), target)
