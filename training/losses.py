"""Losses of jets, and how those of a batch become one number."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, logsigmoid


@dataclass(frozen=True)
class Loss:
    """Cross entropy, or focal loss (1 - p)^gamma (-log p) with p the probability of the true class (T.-Y. Lin et al.,
    arXiv:1708.02002, eq. 4).

    `double_softmax` reproduces the code of the CMS thesis study of A. Stein: its network ends in a softmax, and its
    loss takes what comes out for logits and applies another one. With four classes p then lies between
    1/(e + 3) = 0.1749, everything in one wrong class, and e/(e + 3) = 0.4754. Its gamma of 25 makes sense in this range
    alone: the loss is 1.4e-2 for the worst jet, 1.04e-3 for an undecided one, 7.4e-8 for the best. A jet that the
    tagger gives 0.9 counts 4e-4 of an undecided one; without the second softmax it would count 1e-23.
    """

    gamma: float = 0.0
    double_softmax: bool = False

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each jet, float32 [jets] or what the logits have if that is wider, from logits, float
        [jets, classes], and true classes, int64 [jets].
        """
        logits = at_least_float32(logits)
        if self.double_softmax:
            logits = logits.softmax(1)
        if self.gamma == 0:
            return cross_entropy(logits, target, reduction="none")
        # with m = log(p/(1 - p)), -log p = log(1 + exp(-m)) and -log(1 - p) = log(1 + exp(m)): no power of a difference
        # that rounds to 0, and no gradient that is infinite there
        true = logits.gather(1, target[:, None]).squeeze(1)
        margin = true - logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)
        return -(self.gamma * logsigmoid(-margin)).exp() * logsigmoid(margin)


def divergence(attacked: Tensor, clean: Tensor) -> Tensor:
    """Kullback-Leibler divergence sum p log(p/q) of each jet, p from the clean and q from the attacked logits, both
    float [jets, classes]; float [jets].

    KL(clean || attacked): so in the code of TRADES (H. Zhang et al., arXiv:1901.08573, which leaves the direction
    open) and in that of b-hive. Both are differentiated, as there.
    """
    p, q = (at_least_float32(logits).log_softmax(1) for logits in (clean, attacked))
    return kl_div(q, p, reduction="none", log_target=True).sum(1)


def weighted_mean(losses: Tensor, weight: Tensor) -> Tensor:
    """sum(l w)/sum(|w|), a number, from float [jets] each; 0 where all weights are 0.

    |w|: a batch of a few jets whose signed weights cancel must not step a thousand times too far.
    """
    return (losses * weight).sum() / weight.abs().sum().clamp(min=1e-6)


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits of a network under autocast in float32; others as they are."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
