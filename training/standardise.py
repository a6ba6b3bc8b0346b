"""Mean and width of each input."""

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
