"""How a batch enters the training: clean, replaced by its attacked version, or both."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.checks import refuse_bad_input
from attacks.fgsm import FGSM
from attacks.objectives import Objective
from attacks.pgd import PGD, random_start
from common.errors import AdvtagError
from configs import training as configs
from models.inputs import Inputs
from models.keys import reseed
from models.tagger import Tagger
from training.batches import Batch
from training.losses import Loss, divergence, weighted_mean

Update = Callable[[Tensor], None]
"""Steps on a loss: gradients to zero, backward, clip, optimiser; also fills `.grad` of inputs that require it."""


class Scheme(Protocol):
    """What the training loop does with a batch."""

    def __call__(self, tagger: Tagger, batch: Batch, epoch: int, step: int, update: Update) -> Tensor:
        """Train on one batch.

        Args:
            tagger: in training mode, and again afterwards; attacks run in evaluation mode, without dropout
            batch: clean jets
            epoch: what is random about an attack is a function of (jet, epoch) alone
            step: counts the batches of the epoch from 0
            update: called once for each step of the optimiser

        Returns:
            the loss that was stepped on, a number without gradient; of several steps their mean
        """


class Nominal:
    """Clean batches."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def __call__(self, tagger: Tagger, batch: Batch, epoch: int, step: int, update: Update) -> Tensor:  # noqa: ARG002
        """See `Scheme`."""
        losses = self.loss(tagger(batch.inputs.values, batch.inputs.present), batch.target)
        return stepped(losses, batch, update)


class Replace:
    """Batches are replaced by their attacked versions, made on the current weights; there is no clean one beside them
    (A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15). No gradient of the clean loss is left in the step: in that
    study's code it is, because the attack fills the gradients of the weights after they were set to zero.

    Args:
        loss: of the jets
        attack: makes the attacked jets
        every: of the batches 0, 1, 2, ... of an epoch those that it divides are attacked, the others stay clean: 2 for
            RobustParTAK4, 3 for b-hive
        kl: weight of KL(clean || attacked) in the loss of attacked batches, 1 for b-hive; the clean jets then pass
            through the tagger, too, with dropout of their own
    """

    def __init__(self, loss: Loss, attack: Attack, *, every: int = 1, kl: float = 0.0) -> None:
        self.clean = Nominal(loss)
        self.loss = loss
        self.attack = attack
        self.every = every
        self.kl = kl

    def __call__(self, tagger: Tagger, batch: Batch, epoch: int, step: int, update: Update) -> Tensor:
        """See `Scheme`."""
        if step % self.every:
            return self.clean(tagger, batch, epoch, step, update)
        inputs = of_epoch(batch.inputs, epoch)
        attacked = self.attack(tagger, inputs, batch.target)
        logits = tagger(attacked.values, attacked.present)
        losses = self.loss(logits, batch.target)
        if self.kl > 0:
            losses = losses + self.kl * divergence(logits, tagger(inputs.values, inputs.present))
        return stepped(losses, batch, update)


class Free:
    """Free adversarial training (A. Shafahi et al., arXiv:1904.12843): each batch is used `replays` times, and one
    backward pass gives both the step of the weights and that of the inputs,

        x <- P(x + eps s sign(w dl/dx)),

    P being the projection into the budget and w the weight of the jet, which only says the sign. Dropout is on, since
    the pass is that of the training. An epoch costs as much as `replays` nominal ones: to spend what a nominal
    training spends, divide `epochs` by it, which is left to the user.

    There the perturbation is carried on to the next batch, whose images know nothing of it, and starts at 0 in the
    first. Here intervals differ from jet to jet and batches in size, and a state would have to be resumed: each batch
    starts at random in its budget, a function of (jet, epoch).

    Args:
        loss: of the jets
        attack: its budget holds, and its seed is that of the start
        replays: m of the paper

    Raises:
        AdvtagError: the attack is not FGSM, whose steps these are
    """

    def __init__(self, loss: Loss, attack: Attack, *, replays: int = 4) -> None:
        if not isinstance(attack, FGSM):
            raise AdvtagError(f"scheme 'free' takes the steps of FGSM; its attack is {attack!r}")
        self.loss = loss
        self.attack = attack
        self.replays = replays

    def __call__(self, tagger: Tagger, batch: Batch, epoch: int, step: int, update: Update) -> Tensor:  # noqa: ARG002
        """See `Scheme`."""
        inputs = of_epoch(batch.inputs, epoch)
        refuse_bad_input(tagger, inputs, batch.target)
        interval = self.attack.interval(tagger, inputs)
        stride = self.attack.budget.step(tagger) * batch.weight.sign()[:, None]
        values = random_start(interval, reseed(inputs.key, self.attack.seed))
        total = torch.zeros_like(batch.weight[:1]).sum()
        for _ in range(self.replays):
            values = values.requires_grad_()
            losses = self.loss(tagger(values, inputs.present), batch.target)
            total += stepped(losses, batch, update)
            gradient, values = cast(Tensor, values.grad), values.detach()
            if interval.coupling is not None:
                gradient = interval.coupling.pull_back_(gradient)
            values = interval.project(values + stride * gradient.sign())
        return total / self.replays


class Trades:
    """The loss of clean jets plus beta KL(clean || attacked), the attack being PGD that climbs this divergence (TRADES,
    H. Zhang et al., arXiv:1901.08573).

    There the start is a Gaussian of 0.001 around the clean image; here it is uniform in the budget. At the clean jet
    itself the divergence has no gradient.

    Args:
        loss: of clean jets
        attack: its budget and its steps
        beta: 1/lambda of the paper

    Raises:
        AdvtagError: the attack is not PGD with a random start
    """

    def __init__(self, loss: Loss, attack: Attack, *, beta: float = 6.0) -> None:
        if not isinstance(attack, PGD) or not attack.random_start:
            raise AdvtagError(f"scheme 'trades' climbs from a random start by PGD; its attack is {attack!r}")
        self.loss = loss
        parameters = dict(vars(attack))
        self.attack = DivergencePGD(parameters.pop("budget"), **parameters)
        self.beta = beta

    def __call__(self, tagger: Tagger, batch: Batch, epoch: int, step: int, update: Update) -> Tensor:  # noqa: ARG002
        """See `Scheme`."""
        inputs = of_epoch(batch.inputs, epoch)
        attacked = self.attack(tagger, inputs, batch.target)
        clean = tagger(inputs.values, inputs.present)
        losses = self.loss(clean, batch.target)
        losses = losses + self.beta * divergence(tagger(attacked.values, attacked.present), clean)
        return stepped(losses, batch, update)


class DivergencePGD(PGD):
    """PGD up the divergence from the clean scores; the true class does not matter."""

    def objective(self, tagger: Tagger, inputs: Inputs) -> Objective:
        """KL(clean || moved)."""
        clean = tagger(inputs.values, inputs.present)
        return lambda logits, _target: divergence(logits, clean)


def of_epoch(inputs: Inputs, epoch: int) -> Inputs:
    """The same jets, with other random numbers in each epoch."""
    return replace(inputs, key=reseed(inputs.key, epoch))


def stepped(losses: Tensor, batch: Batch, update: Update) -> Tensor:
    """Step on the weighted mean of losses, float [jets]; return it without gradient."""
    loss = weighted_mean(losses, batch.weight)
    update(loss)
    # autocast keeps bfloat16 copies of the weights as long as it lasts: the next pass would not see the step
    torch.clear_autocast_cache()
    return loss.detach()


def build_scheme(settings: configs.Training, attack: Attack | None) -> Scheme:
    """The scheme that a configuration describes; without an attack, nominal training.

    Raises:
        AdvtagError: the scheme does not go with the attack
    """
    loss, scheme = Loss(settings.loss.gamma, settings.loss.double_softmax), settings.scheme
    if attack is None:
        return Nominal(loss)
    if isinstance(scheme, configs.Free):
        return Free(loss, attack, replays=scheme.replays)
    if isinstance(scheme, configs.Trades):
        return Trades(loss, attack, beta=scheme.beta)
    return Replace(loss, attack, every=scheme.every, kl=scheme.kl)
