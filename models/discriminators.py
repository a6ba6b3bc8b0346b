"""Discriminators: ratios of class probabilities, as CMS defines them for b and c tagging.

BvsL = b/(b+udsg), BvsC = b/(b+c), CvsL = c/(c+udsg), CvsB = c/(c+b), with b = b + bb (CMS, JINST 17 (2022) P03014,
BTV-20-001; A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

UNDEFINED = -1.0

DISCRIMINATORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "BvsL": (("b", "bb"), ("udsg",)),
    "BvsC": (("b", "bb"), ("c",)),
    "CvsL": (("c",), ("udsg",)),
    "CvsB": (("c",), ("b", "bb")),
}
"""Signal and background classes of each discriminator."""


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
