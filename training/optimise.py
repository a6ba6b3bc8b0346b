"""Optimisers and schedules of the learning rate."""

import math
from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import Adam, Optimizer, RAdam
from torch.optim.lr_scheduler import LambdaLR

from configs.training import Training

FUSED = ("cpu", "cuda")
"""Devices where torch updates all weights in one kernel."""


def build_optimiser(settings: Training, parameters: Iterable[Parameter]) -> Optimizer:
    """Adam (D. Kingma and J. Ba, arXiv:1412.6980), or RAdam, whose first steps wait for the variance of the gradient to
    be known (L. Liu et al., arXiv:1908.03265).

    Ranger, with which DeepJet and ParticleTransformer were trained, is RAdam with Lookahead; torch does not have it.
    """
    weights = list(parameters)
    if settings.optimiser == "radam":
        return RAdam(weights, lr=settings.learning_rate)
    fused = all(weight.device.type in FUSED for weight in weights)
    return Adam(weights, lr=settings.learning_rate, fused=True if fused else None)


def build_schedule(settings: Training, optimiser: Optimizer) -> LambdaLR:
    """`factor` as a schedule that steps after each epoch."""
    return LambdaLR(optimiser, lambda epoch: factor(settings, epoch))


def factor(settings: Training, epoch: int) -> float:
    """Learning rate of an epoch, counted from 0, in units of `learning_rate`."""
    if settings.schedule == "published":
        return 1 / (1 + epoch / 30)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
    return 1.0
