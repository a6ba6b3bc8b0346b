"""When a tagger is right about a jet: by its highest class, or by a working point."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import AdvtagError
from models.classes import DISCRIMINATORS
from models.discriminators import discriminators

FLAVOURS = (("b", "bb"), ("c",), ("udsg",))
"""What a highest class can be: a bb jet that is called b is called right, as the discriminators have it."""


@dataclass(frozen=True)
class WorkingPoint:
    """A cut on a discriminator: jets at or above `threshold` are tagged."""

    discriminator: str
    threshold: float
    """In [0, 1], so that an undefined discriminator, -1, is below it."""

    def __post_init__(self) -> None:
        if self.discriminator not in DISCRIMINATORS:
            known = ", ".join(DISCRIMINATORS)
            raise AdvtagError(f"working point of discriminator {self.discriminator!r}; known: {known}")
        if not 0 <= self.threshold <= 1:
            raise AdvtagError(f"working point of {self.discriminator}: threshold {self.threshold}; expected 0 to 1")


def flavour_of(classes: Sequence[str]) -> Tensor:
    """Place in `FLAVOURS` of each of a tagger's classes, int64 [classes]."""
    return torch.tensor([next(i for i, names in enumerate(FLAVOURS) if name in names) for name in classes])


def counts(target: Tensor, classes: Sequence[str], working_point: WorkingPoint | None = None) -> Tensor:
    """Jets that there is something to be right about, bool [jets]: with a working point, those of its signal and
    background classes.
    """
    if working_point is None:
        return torch.ones_like(target, dtype=torch.bool)
    signal, background = DISCRIMINATORS[working_point.discriminator]
    return _is_any(target, classes, (*signal, *background))


def is_right(
    logits: Tensor, target: Tensor, classes: Sequence[str], working_point: WorkingPoint | None = None
) -> Tensor:
    """Jets that the tagger is right about, bool [jets]; False where there is nothing to be right about.

    Without a working point: the most probable of b (b + bb), c and udsg is the true one. With one: signal is tagged
    and background is not; an undefined discriminator tags nothing.

    Args:
        logits: float [jets, classes]
        target: int64 [jets], true classes
        classes: names of the tagger's classes
        working_point: a cut, or None for the highest class
    """
    probabilities = logits.softmax(1)
    if working_point is None:
        flavour = flavour_of(classes).to(logits.device)
        per_flavour = logits.new_zeros(len(logits), len(FLAVOURS)).index_add(1, flavour, probabilities)
        return per_flavour.argmax(1) == flavour[target]
    tagged = discriminators(probabilities, classes)[working_point.discriminator] >= working_point.threshold
    is_signal = _is_any(target, classes, DISCRIMINATORS[working_point.discriminator][0])
    return (tagged == is_signal) & counts(target, classes, working_point)


def _is_any(target: Tensor, classes: Sequence[str], names: Sequence[str]) -> Tensor:
    wanted = [place for place, name in enumerate(classes) if name in names]
    return torch.isin(target, torch.tensor(wanted, device=target.device))
