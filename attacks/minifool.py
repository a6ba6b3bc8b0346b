"""MiniFool: the smallest share of the uncertainties that changes what a tagger calls a jet."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from attacks.attack import Attack, evaluation_mode
from attacks.budget import Budget, Interval
from attacks.checks import refuse_bad_input
from attacks.gradient import input_gradient
from attacks.success import FLAVOURS, WorkingPoint, flavour_of, is_right
from common.errors import AdvtagError
from models.classes import DISCRIMINATORS
from models.inputs import Inputs
from models.tagger import Tagger

FIRST, SECOND, FLOOR = 0.9, 0.999, 1e-8
"""Decay of the two moments, and the number beside the root, of Adam."""


class MiniFool(Attack):
    """Minimises, for each jet and each scale s of the uncertainties sigma,

        alpha/N sum_k ((x_k - x0_k) / (s sigma_k))^2 + beta (f(x) - g)^2

    over the N entries that can move by themselves, until the answer of the tagger changes (MiniFool,
    arXiv:2511.01352). sigma_k is epsilon units of the budget, and at scale s each entry stays in the share s of its
    interval. f is the probability of the answer that the tagger gave to the clean jet, and g is 1/3 for the three
    answers b (b + bb), c and udsg. With a working point the answer is whether the jet is tagged, f is the discriminator
    D or 1 - D, and g is 0, since a threshold can be anywhere. The truth is not used: a jet that the tagger is wrong
    about has a flipping scale like any other.

    A jet's flipping scale is the smallest of `scales` at which an iterate of Adam (D. Kingma and J. Ba,
    arXiv:1412.6980) changes the answer, and its example is the one of these with the smallest first term; a jet that
    never flips gets the last iterate at the largest scale. The paper's alpha, beta, g, optimiser and steps are not
    public: those here are ours.

    Args:
        budget: sigma, and the largest move
        alpha: weight of the distance, 0 or more
        beta: weight of the answer, above 0
        steps: of Adam at each scale
        learning_rate: of Adam, in units of s sigma
        scales: shares of the budget that rise, above 0 and up to 1
        working_point: a cut to cross, or None for the highest class
        seed: not used

    Raises:
        AdvtagError: a parameter out of its range
    """

    def __init__(
        self,
        budget: Budget,
        *,
        alpha: float = 1.0,
        beta: float = 10.0,
        steps: int = 50,
        learning_rate: float = 0.1,
        scales: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
        working_point: WorkingPoint | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        if not 0 <= alpha < float("inf"):
            raise AdvtagError(f"alpha is {alpha}; expected a number, 0 or more")
        for name, number in (("beta", beta), ("learning_rate", learning_rate)):
            if not 0 < number < float("inf"):
                raise AdvtagError(f"{name} is {number}; expected a number above 0")
        if steps < 1:
            raise AdvtagError(f"steps is {steps}; expected 1 or more")
        if not scales or not all(0 < scale <= 1 for scale in scales) or any(a >= b for a, b in pairwise(scales)):
            raise AdvtagError(f"scales are {tuple(scales)}; expected numbers above 0, up to 1, that rise")
        self.alpha = alpha
        self.beta = beta
        self.steps = steps
        self.learning_rate = learning_rate
        self.scales = tuple(scales)
        self.working_point = working_point

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:  # noqa: ARG002
        """See `Attack`."""
        return self._scan(tagger, inputs)[1]

    def smallest_scale(self, tagger: Tagger, inputs: Inputs, target: Tensor) -> tuple[Tensor, Inputs]:
        """The flipping scale of each jet, float [jets], inf where no scale flips it; and the examples.

        Args:
            tagger: on the device of the inputs and in their floating type
            inputs: clean jets
            target: int64 [jets], true class of each jet; it changes nothing

        Raises:
            AdvtagError: see `Attack.__call__`
        """
        refuse_bad_input(tagger, inputs, target)
        with evaluation_mode(tagger), torch.no_grad():
            found, values = self._scan(tagger, inputs)
        return found, inputs.moved(values)

    def _scan(self, tagger: Tagger, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Flipping scales [jets] and values [jets, features]; jets that have flipped are done."""
        values, found = inputs.values.clone(), torch.full_like(inputs.values[:, 0], torch.inf)
        answer = self._answer(tagger(values, inputs.present), tagger.classes)
        left = torch.arange(len(inputs), device=values.device)
        for scale in self.scales:
            if not len(left):
                break
            flipped, values[left] = self._descend(tagger, inputs[left], answer[left], scale)
            found[left[flipped]] = scale
            left = left[~flipped]
        return found, values

    def _descend(self, tagger: Tagger, inputs: Inputs, answer: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Adam at one scale on moves t in units of s sigma: which jets flipped, bool [jets], and values."""
        interval = self.interval(tagger, inputs)
        free, step = interval.free, self.budget.step(tagger)
        step = torch.where(step > 0, step, 1)
        lowest, highest = (interval.low - interval.clean) / step, (interval.high - interval.clean) / step
        unit = torch.where(free, scale * step, 0)
        number = free.sum(1, keepdim=True).clamp(min=1).to(inputs.values)
        t = first = second = torch.zeros_like(inputs.values)
        values = best = inputs.values
        shortest = torch.full_like(values[:, 0], torch.inf)

        def excess(logits: Tensor, answer: Tensor) -> Tensor:
            goal = 1 / len(FLAVOURS) if self.working_point is None else 0.0
            return (self._probability(logits, answer, tagger.classes) - goal) ** 2

        for k in range(1, self.steps + 1):
            gradient, _excess = input_gradient(tagger, inputs, answer, interval, values, excess)
            slope = 2 * self.alpha / number * t + self.beta * gradient * unit
            first = FIRST * first + (1 - FIRST) * slope
            second = SECOND * second + (1 - SECOND) * slope**2
            rate = self.learning_rate * (first / (1 - FIRST**k)) / ((second / (1 - SECOND**k)).sqrt() + FLOOR)
            t = torch.clamp(t - rate, lowest, highest)
            values = interval.project(interval.clean + unit * t)
            flipped = ~is_right(tagger(values, inputs.present), answer, tagger.classes, self.working_point)
            distance = (t**2 / number).sum(1)
            better = flipped & (distance < shortest)
            best = torch.where(better[:, None], values, best)
            shortest = torch.where(better, distance, shortest)
        flipped = torch.isfinite(shortest)
        return flipped, torch.where(flipped[:, None], best, values)

    def _answer(self, logits: Tensor, classes: Sequence[str]) -> Tensor:
        """A class [jets] for which the tagger would be right about each jet."""
        answer = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        for code in range(len(classes)):
            guess = torch.full_like(answer, code)
            answer = torch.where(is_right(logits, guess, classes, self.working_point), guess, answer)
        return answer

    def _probability(self, logits: Tensor, answer: Tensor, classes: Sequence[str]) -> Tensor:
        """Probability [jets] of each jet's answer against the other answers; never 0/0."""
        if self.working_point is None:
            side = flavour_of(classes)
        else:
            signal, background = DISCRIMINATORS[self.working_point.discriminator]
            side = torch.tensor([1 if name in signal else 0 if name in background else -1 for name in classes])
        side = side.to(logits.device)
        mine = side == side[answer][:, None]
        against = (side >= 0) & ~mine
        log_mine, log_against = (logits.masked_fill(~of, -torch.inf).logsumexp(1) for of in (mine, against))
        return (log_mine - log_against).sigmoid()
