"""What an attack drives up, jet by jet: functions of logits [jets, classes] and true classes, int64 [jets]."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) to float [jets]; higher is worse for the tagger."""


def cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of each jet, float [jets]: log(1 + exp(m)), m the log-sum-exp of the other logits minus the true.

    Equal to -log softmax, whose gradient in float32 loses the true logit where the tagger is sure: 1 - p is 0 there.
    """
    true, others = _true_and_others(logits, target)
    return softplus(others.logsumexp(1) - true)


def margins(logits: Tensor, target: Tensor) -> Tensor:
    """Best other logit minus the true one, float [jets]: above 0 where argmax is wrong."""
    true, others = _true_and_others(logits, target)
    return others.amax(1) - true


def _true_and_others(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The true logit [jets], and all of them with the true one at minus infinity [jets, classes]."""
    true = logits.gather(1, target[:, None]).squeeze(1)
    return true, logits.scatter(1, target[:, None], -torch.inf)


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
