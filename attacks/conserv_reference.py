"""CONSERVAttack as published, sequential and without acceleration: to compare with."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.conserv import uncoupled
from attacks.gradient import input_gradient
from attacks.success import is_right
from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import reseed, uniform
from models.tagger import Tagger

Array = NDArray[np.float64]
BATCH = 512
FLOOR = 1e-10


class ConservReference(Attack):
    """CONSERVAttack (arXiv:2603.13970), after its public code: the jets that the tagger is right about are one
    distribution, whatever their classes. Weights are not used, and every entry must be present.

    Histograms have `bins` bins of equal width between the smallest and the largest clean value of each feature. In each
    iteration, jet by jet in the order given, each feature on its own tries steps along the sign of the loss gradient.
    J is the Jensen-Shannon distance of the running histogram after the step to the clean one; F is the Frobenius norm
    of the change that this one step makes to the matrix of Pearson coefficients, relative to the moved sample of that
    moment: it bounds no sum of changes. Of the steps with J <= js_cap and F <= correlation_cap that with the smallest
    alpha J + beta F is made. The loss itself decides nothing. Jets that are fooled after an iteration stay.

    As published, a step that is drawn at random may be as long as the distance to the upper end of the feature even if
    it goes down; it is cut at the lower end then. Not in this form: the jitter of the grid, the search around fooled
    jets, and the choice of the best iteration. Ours are the interval of the budget, in which published moves have none
    but the range of the sample, steps in standard deviations of the training jets, and the frozen entries: integers and
    what the card couples.

    Args:
        budget: size of the attack; the published one has none: epsilon inf
        iterations: passes over the jets
        bins: of each histogram
        candidates: steps drawn for each entry, as in the public demonstration; None: a grid
        min_change: smallest step, standard deviations
        step: spacing of the grid, standard deviations
        js_cap: largest Jensen-Shannon distance of a feature
        correlation_cap: largest F of one step
        alpha: weight of J
        beta: weight of F
        use_no_change: where no step is admissible, make none; otherwise the first is made all the same
        seed: of the drawn steps

    Raises:
        AdvtagError: a parameter out of its range; when called, an entry that is absent
    """

    per_jet = False
    bounded = False

    def __init__(
        self,
        budget: Budget,
        *,
        iterations: int = 10,
        bins: int = 70,
        candidates: int | None = 150,
        min_change: float = 0.001,
        step: float = 0.001,
        js_cap: float = 0.005,
        correlation_cap: float = 0.05,
        alpha: float = 6.0,
        beta: float = 1.0,
        use_no_change: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        for name, count in (("iterations", iterations), ("bins", bins), ("candidates", candidates)):
            if count is not None and count < 1:
                raise AdvtagError(f"{name} is {count}; expected 1 or more")
        for name, size in (("min_change", min_change), ("step", step)):
            if not 0 < size < float("inf"):
                raise AdvtagError(f"{name} is {size}; expected a number above 0")
        numbers = {"js_cap": js_cap, "correlation_cap": correlation_cap, "alpha": alpha, "beta": beta}
        for name, number in numbers.items():
            if not number >= 0:
                raise AdvtagError(f"{name} is {number}; expected 0 or more")
        self.iterations = iterations
        self.bins = bins
        self.candidates = candidates
        self.min_change = min_change
        self.step = step
        self.js_cap = js_cap
        self.correlation_cap = correlation_cap
        self.alpha = alpha
        self.beta = beta
        self.use_no_change = use_no_change

    def interval(self, tagger: Tagger, inputs: Inputs) -> Interval:
        """Where each entry may go: the budget's, with coupled entries frozen."""
        return uncoupled(self.budget.interval(tagger, inputs))

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        if not inputs.present.all():
            name = tagger.features.names[int((~inputs.present).any(0).int().argmax())]
            raise AdvtagError(f"ConservReference knows no absent entries, but {name!r} is absent in some jets")
        right = is_right(tagger(inputs.values, inputs.present), target, tagger.classes)
        if not right.any():
            return inputs.values
        jets, truth = inputs[right], target[right]
        low, high, std = (
            t.cpu().numpy().astype(np.float64) for t in (interval.low[right], interval.high[right], tagger.std)
        )
        sample = Sample(jets.values.cpu().numpy().astype(np.float64), self.bins)
        low, high = np.maximum(low, sample.low), np.minimum(high, sample.high)
        for iteration in range(self.iterations):
            gradient, fooled = self._gradient(tagger, jets, truth, sample.values)
            draws = reseed(reseed(jets.key, self.seed), iteration)
            for i in np.flatnonzero(~fooled).tolist():
                up = gradient[i] >= 0
                steps = self._steps(sample, i, up, std, draws[i : i + 1])
                tried = np.clip(sample.values[i] + np.where(up, steps, -steps), low[i], high[i])
                sample.move(i, self._choose(sample, i, tried))
        values = inputs.values.clone()
        values[right] = torch.from_numpy(sample.values).to(values)
        return values

    def _gradient(
        self, tagger: Tagger, jets: Inputs, truth: Tensor, values: Array
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        """Gradient of the cross entropy [jets, features], and who is fooled, bool [jets]."""
        gradients, fooled = [], []
        x = torch.from_numpy(values).to(jets.values)
        for start in range(0, len(x), BATCH):
            batch = slice(start, start + BATCH)
            moved, part, classes = x[batch], jets[batch], truth[batch]
            fooled.append(~is_right(tagger(moved, part.present), classes, tagger.classes).cpu().numpy())
            gradient, _ = input_gradient(tagger, part, classes, Interval(moved, moved, moved), moved)
            gradients.append(gradient.cpu().numpy())
        return np.concatenate(gradients), np.concatenate(fooled)

    def _steps(self, sample: "Sample", i: int, up: NDArray[np.bool_], std: Array, key: Tensor) -> Array:
        """Lengths of the steps to try, [candidates, features]."""
        least, x = self.min_change * std, sample.values[i]
        if self.candidates is None:
            room = np.where(up, sample.high - x, x - sample.low)
            number = 1 + int((room / (self.step * std)).max())
            return least + np.arange(number)[:, None] * self.step * std
        draws = uniform(key, self.candidates * len(x), 0).cpu().numpy().reshape(self.candidates, len(x))
        # as published: the upper end, whatever the direction
        found: Array = least + draws * (sample.high - x - least)
        return found

    def _choose(self, sample: "Sample", i: int, tried: Array) -> Array:
        """Of the values tried, [candidates, features], the new value of each feature of jet i."""
        js, change = sample.distances(i, tried), sample.correlation_changes(i, tried)
        cost = self.alpha * js + self.beta * change
        admissible = (js <= self.js_cap) & (change <= self.correlation_cap) & (tried != sample.values[i])
        best = np.where(admissible, cost, np.inf).argmin(0)
        chosen = tried[best, np.arange(len(best))]
        otherwise = sample.values[i] if self.use_no_change else tried[0]
        found: Array = np.where(admissible.any(0), chosen, otherwise)
        return found


class Sample:
    """Moved jets, float64 [jets, features], their running histograms and their sums of products."""

    def __init__(self, values: Array, bins: int) -> None:
        self.values = values.copy()
        self.low, self.high = values.min(0), values.max(0)
        self.bins = bins
        everywhere = self.bin_of(values)
        columns = range(values.shape[1])
        self.counts = np.stack([np.bincount(everywhere[:, k], minlength=bins) for k in columns]).astype(np.float64)
        self.clean = probabilities(self.counts)
        # products of deviations from the clean mean: no digits are lost
        self.centre = values.mean(0)
        deviation = values - self.centre
        self.sums, self.products = deviation.sum(0), deviation.T @ deviation

    def bin_of(self, values: Array) -> NDArray[np.int64]:
        """Bin of each value, [..., features]; the last one holds its upper edge."""
        width = np.where(self.high > self.low, self.high - self.low, 1)
        found: NDArray[np.int64] = np.clip((values - self.low) / width * self.bins, 0, self.bins - 1).astype(np.int64)
        return found

    def distances(self, i: int, tried: Array) -> Array:
        """Jensen-Shannon distance of each feature if jet i had the values tried; both [candidates, features]."""
        number, d = tried.shape
        counts = np.broadcast_to(self.counts, (number, d, self.bins)).copy()
        feature = np.arange(d)
        counts[:, feature, self.bin_of(self.values[i])] -= 1
        counts[np.arange(number)[:, None], feature, self.bin_of(tried)] += 1
        p, q = self.clean, probabilities(counts)
        middle = (p + q) / 2
        divergence = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum(-1) / 2
        found: Array = np.sqrt(np.maximum(divergence, 0))
        return found

    def correlation_changes(self, i: int, tried: Array) -> Array:
        """Frobenius norm of the change of the Pearson matrix if one feature of jet i had the value tried, likewise."""
        n, x = len(self.values), self.values[i] - self.centre
        step = tried - self.values[i]
        covariance = self.products / n - np.outer(self.sums, self.sums) / n**2
        variance = covariance.diagonal()
        moved = covariance + step[..., None] * (x - self.sums / n) / n  # of feature k (middle) with the others (last)
        moved_variance = variance + 2 * step * (x - self.sums / n) / n + step**2 * (1 / n - 1 / n**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            before = covariance / np.sqrt(np.outer(variance, variance))
            after = moved / np.sqrt(np.maximum(moved_variance, 0)[..., None] * variance)
        difference = np.nan_to_num(after - before, nan=0.0, posinf=0.0, neginf=0.0)
        feature = np.arange(len(x))
        difference[:, feature, feature] = 0  # a variable with itself: 1 before and after
        # row and column
        found: Array = np.sqrt(2 * (difference**2).sum(-1))
        return found

    def move(self, i: int, values: Array) -> None:
        """Give jet i its new values, float64 [features]."""
        feature, x, y = np.arange(len(values)), self.values[i] - self.centre, values - self.centre
        self.counts[feature, self.bin_of(self.values[i])] -= 1
        self.counts[feature, self.bin_of(values)] += 1
        self.sums += y - x
        self.products += np.outer(y, y) - np.outer(x, x)
        self.values[i] = values


def probabilities(counts: Array) -> Array:
    """Along the last axis, none below 1e-10, of sum 1."""
    floored = np.maximum(counts / counts.sum(-1, keepdims=True), FLOOR)
    found: Array = floored / floored.sum(-1, keepdims=True)
    return found
