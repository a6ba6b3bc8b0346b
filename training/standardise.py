"""Mean and widths of each input."""

import numpy as np
import torch
from torch import Tensor

from models.inputs import Inputs
from training.cache import Stored

SCALE_JETS = 1_000_000
"""Quantiles are those of the first so many jets on disk: a random sample, because the cache is shuffled. 10,000 of them
are below the 1 % quantile, which is thereby known to 1.00 +- 0.01 %."""


def standardisation(jets: Inputs | Stored) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the present entries, float32 [features] each, of jets in memory or on disk.

    Absent entries do not count (A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15: one scaler per feature,
    fitted without defaults). An input that is never present gets mean 0 and width 1,
    one that is always the same gets width 1.

    Chunks are merged by the update of T. F. Chan, G. H. Golub and R. J. LeVeque (Am. Stat. 37 (1983) 242), which loses
    nothing where the mean is much larger than the width.
    """
    number, mean, squares = torch.zeros(3, dtype=torch.float64)
    for inputs in (jets,) if isinstance(jets, Inputs) else (sample.inputs for sample in jets.chunks()):
        there = inputs.present.double()
        values = torch.where(inputs.present, inputs.values, 0).double()
        more = there.sum(0)
        their_mean = values.sum(0) / more.clamp(min=1)
        their_squares = values.sub_(their_mean).mul_(there).square_().sum(0)
        share = more / (number + more).clamp(min=1)
        squares = squares + their_squares + (their_mean - mean) ** 2 * number * share
        mean = mean + (their_mean - mean) * share
        number = number + more
    variance = squares / number.clamp(min=1)
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return mean.float(), std.float()


def scales(jets: Inputs | Stored) -> dict[str, Tensor]:
    """Units of a budget, of the present entries, float32 [features] each; 0 for an input that is never present.

    Of jets in memory, or of the first `SCALE_JETS` on disk.

    `core`: standard deviation inside the central 20 to 80 % (code of the DeepJet studies of A. Stein and H. Schoenen);
    `quantile`: half of what lies between the 1 % and the 99 % quantile (code of CMS DP-2022/049).
    """
    inputs = jets if isinstance(jets, Inputs) else jets.read(0, SCALE_JETS).inputs
    core, quantile = torch.zeros(2, inputs.values.shape[1])
    columns = zip(inputs.values.T.contiguous(), inputs.present.T.contiguous(), strict=True)
    for k, (values, present) in enumerate(columns):
        there = values[present].cpu().numpy().astype(np.float64)
        if len(there):
            low, first, last, high = np.quantile(there, [0.01, 0.2, 0.8, 0.99])
            inside = there[(there >= first) & (there <= last)]
            core[k] = inside.std() if len(inside) else 0  # of two entries, none is inside
            quantile[k] = (high - low) / 2
    return {"core": core, "quantile": quantile}
