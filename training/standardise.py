"""Mean and widths of each input."""

import numpy as np
import torch
from torch import Tensor

from models.inputs import Inputs


def standardisation(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the present entries, float32 [features] each.

    Absent entries do not count (A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15: one scaler per feature,
    fitted without defaults). An input that is never present gets mean 0 and width 1,
    one that is always the same gets width 1.
    """
    present = inputs.present
    values = torch.where(present, inputs.values, 0).double()
    number = present.sum(0).clamp(min=1)
    mean = values.sum(0) / number
    variance = torch.where(present, (values - mean) ** 2, 0).sum(0) / number
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return mean.float(), std.float()


def scales(inputs: Inputs) -> dict[str, Tensor]:
    """Units of a budget, of the present entries, float32 [features] each; 0 for an input that is never present.

    `core`: standard deviation inside the central 20 to 80 % (code of the DeepJet studies of A. Stein and H. Schoenen);
    `quantile`: half of what lies between the 1 % and the 99 % quantile (code of CMS DP-2022/049).
    """
    core, quantile = torch.zeros(2, inputs.values.shape[1])
    for k, (values, present) in enumerate(zip(inputs.values.T, inputs.present.T, strict=True)):
        there = values[present].cpu().numpy().astype(np.float64)
        if len(there):
            low, first, last, high = np.quantile(there, [0.01, 0.2, 0.8, 0.99])
            inside = there[(there >= first) & (there <= last)]
            core[k] = inside.std() if len(inside) else 0  # of two entries, none is inside
            quantile[k] = (high - low) / 2
    return {"core": core, "quantile": quantile}
