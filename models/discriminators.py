"""Discriminators: ratios of class probabilities, as CMS defines them for b and c tagging, and node outputs (see
`models.classes`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.classes import DISCRIMINATORS, NODES

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


def tagger_scores(probabilities: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """Compute every discriminator and every node output, float [jets], in [0, 1], or -1 where it is undefined.

    A node output is undefined where the tagger has none of its classes, or the network no finite output.

    Args:
        probabilities: float [jets, classes], each row adding up to 1
        classes: names of the columns, from b, bb, c, udsg; bb may be missing
    """
    found = discriminators(probabilities, classes)
    for name, (signal, _) in NODES.items():
        columns = [i for i, each in enumerate(classes) if each in signal]
        total = probabilities[:, columns].sum(1).clamp(max=1.0)
        found[name] = torch.where(torch.isfinite(total), total, UNDEFINED) if columns else total - 1.0
    return found
