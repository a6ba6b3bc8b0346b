"""What an attack drives up, jet by jet: functions of logits [jets, classes] and true classes, int64 [jets]."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) to float [jets]; higher is worse for the tagger."""


class _CrossEntropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        # torch is several times faster over rows of jets than over a few classes side by side
        logs = logits.T.contiguous().log_softmax(0)
        ctx.save_for_backward(logs, target)
        return -logs.gather(0, target[None]).squeeze(0)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        logs, target = ctx.saved_tensors
        others = logs.exp().scatter_(0, target[None], 0)
        return others.scatter_(0, target[None], -others.sum(0, keepdim=True)).mul_(slope).T.contiguous(), None


def cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of each jet, float [jets].

    Its slope in the true logit is minus the sum of the other probabilities. torch has p - 1, which is 0 in float32
    where the tagger is sure.
    """
    found: Tensor = _CrossEntropies.apply(logits, target)  # type: ignore[no-untyped-call]
    return found


def margins(logits: Tensor, target: Tensor) -> Tensor:
    """Best other logit minus the true one, float [jets]: above 0 where argmax is wrong."""
    true = logits.gather(1, target[:, None])
    others = logits.scatter(1, target[:, None], -torch.inf)
    return others.amax(1) - true.squeeze(1)


def dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Difference of logits ratio of F. Croce and M. Hein, arXiv:2003.01690, eq. 6: the margin over z_1 - z_3, the
    largest and third largest logit; float [jets]. It does not change when all logits are scaled, which makes a network
    that is merely confident no harder to attack. Three classes or more.
    """
    ordered = logits.sort(1, descending=True).values
    return margins(logits, target) / (ordered[:, 0] - ordered[:, 2]).clamp(min=1e-12)


def targeted_dlr(logits: Tensor, target: Tensor, wanted: Tensor) -> Tensor:
    """The same towards a class `wanted`, int64 [jets]: -(z_y - z_t)/(z_1 - (z_3 + z_4)/2), eq. 7 there; four classes
    or more.
    """
    ordered = logits.sort(1, descending=True).values
    gap = logits.gather(1, wanted[:, None]) - logits.gather(1, target[:, None])
    return gap.squeeze(1) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2).clamp(min=1e-12)
