"""Discriminators: ratios of class probabilities, as CMS defines them for b and c tagging (see `models.classes`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.classes import DISCRIMINATORS

UNDEFINED = -1.0


def discriminators(probabilities: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """Compute every discriminator, float [jets], in [0, 1], or -1 where it is undefined (0/0, or not finite).

    Args:
        probabilities: float [jets, classes], each row adding up to 1
        classes: names of the columns, from b, bb, c, udsg; bb may be missing
    """

    def total(names: tuple[str, ...]) -> Tensor:
        return probabilities[:, [i for i, name in enumerate(classes) if name in names]].sum(1)

    found = {}
    for name, (signal, background) in DISCRIMINATORS.items():
        s, b = total(signal), total(background)
        ratio = s / (s + b)
        found[name] = torch.where(torch.isfinite(ratio), ratio, UNDEFINED)
    return found
