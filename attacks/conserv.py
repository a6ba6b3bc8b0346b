"""CONSERVAttack: fools a tagger, and leaves the distributions and correlations of its inputs as they were."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from attacks.conserv_kernel import Distribution, Features, Jets, Rule, describe, move_jets
from attacks.distances import bin_edges
from attacks.gradient import input_gradient
from attacks.objectives import Objective, margins
from attacks.success import FLAVOURS, WorkingPoint, flavour_of, is_right
from common.errors import AdvtagError
from models.classes import DISCRIMINATORS
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import reseed
from models.tagger import Tagger

BATCH = 4096
SMALLEST_STEP = 1e-3
"""Of an entry that moves at all, in standard deviations."""
SMALLEST_NEED = 0.1
"""Log-odds. Closer to the boundary a jet is worth no more: it would win against every price."""
FINAL_PRICE = 0.1
"""Price of the last iteration, in units of that of the first."""


class Conserv(Attack):
    """Moves jets to the wrong side while the distribution of all jets stays: CONSERVAttack (arXiv:2603.13970), in a
    form that holds for samples attacked in chunks, weights, several classes and absent entries.

    A cell is the jets of one true class in the chunk (`within="class"`) or all of them. In each cell, at any time,

        JS_k <= js_cap                                      for each feature k,
        |M' - M|_F <= correlation_cap tr(E[u u^T])/sqrt(d)  for the moments M = E[a a^T], a = (1, u).

    JS_k is the Jensen-Shannon distance (square root of the divergence in bits) between the clean and the moved
    histogram of the present entries, in the plot bins of the feature card with underflow and overflow, unit bins for
    integers. u are the d inputs standardised with the tagger's mean and width, 0 where absent. E weights jets with |w|.

    Caps held in each cell hold for any union of cells. Presence and weights do not change, so the clean and the
    moved union are mixtures of the cells with the same fractions f_c, sum f_c = 1. The Jensen-Shannon divergence is
    jointly convex: JSD(union) <= sum f_c JSD_c <= js_cap^2. Norms are convex, and D = M' - M of the union is
    sum f_c D_c; traces are linear: |D| <= sum f_c |D_c| <= correlation_cap sum f_c tr_c/sqrt(d), which is the
    right-hand side of the union. For that, bins and standardisation must be common to all chunks. Since M is positive
    semidefinite, tr/sqrt(d) is at most |E[u u^T]|_F: relative to the norm, the change is correlation_cap or less. The
    moments hold the means and variances, too; how far Pearson's coefficients go, `attacks.distances` says. Of a part of
    the sample that a cut on an input selects nothing is promised.

    Each iteration visits the jets that the tagger is still right about, in an order fixed by their keys, and their
    entries one by one. Of random steps in both directions that both caps admit, or none, it takes the one with the
    smallest

        price (alpha sum_k JS_k^2/js_cap^2/d + beta |D|^2/cap^2) - sum of w g step / need,

    g being the gradient of the log-odds of the best wrong answer (or of the discriminator), need what they lack to 0.
    So near jets are pushed, and the others move the other way to make room for them. The price falls tenfold from the
    first iteration to the last: cheap moves first. Published is the least visible admissible step along the gradient,
    without the last term: with these caps it fools 6 % of 20,000 simulated jets with the DeepCSV inputs at epsilon
    0.1 (this form: 21 %), and 9 % at inf (37 %). Fooled jets, and those that were wrong from the start, stay where they
    are and count.

    Entries that follow others (`same_as`, `proportional_to`) and those that are followed are frozen here. No entry
    leaves the range of its bins, where the histogram would not see it; one outside may only move back towards it.

    Args:
        budget: size of the attack; epsilon inf leaves the caps, physical ranges and the range of the bins
        iterations: gradients, and passes over the jets
        candidates: steps tried for each entry and iteration, half of them in each direction
        js_cap: largest Jensen-Shannon distance, above 0 and up to 1
        correlation_cap: largest relative change of the moments, above 0
        alpha: price of the distance, mean over features, at the cap, in fractions of the jets; 0 or more
        beta: price of the change of the moments at the cap, likewise
        within: `class` keeps the distributions of each true class, `sample` that of all jets
        working_point: a cut to cross, or None for the highest class
        integers: names of integer inputs that move, too, by whole steps: by one, or by what epsilon allows if more
        seed: of the order and the steps

    Raises:
        AdvtagError: a parameter out of its range; when called, a name that is no integer input
    """

    per_jet = False
    bounded = False

    def __init__(
        self,
        budget: Budget,
        *,
        iterations: int = 10,
        candidates: int = 24,
        js_cap: float = 0.005,
        correlation_cap: float = 0.006,
        alpha: float = 0.03,
        beta: float = 0.1,
        within: Literal["class", "sample"] = "class",
        working_point: WorkingPoint | None = None,
        integers: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(budget, seed=seed)
        for name, count in (("iterations", iterations), ("candidates", candidates)):
            if count < 1:
                raise AdvtagError(f"{name} is {count}; expected 1 or more")
        if not 0 < js_cap <= 1:
            raise AdvtagError(f"js_cap is {js_cap}; expected a number above 0, up to 1")
        if not 0 < correlation_cap < float("inf"):
            raise AdvtagError(f"correlation_cap is {correlation_cap}; expected a number above 0")
        for name, price in (("alpha", alpha), ("beta", beta)):
            if not 0 <= price < float("inf"):
                raise AdvtagError(f"{name} is {price}; expected a number, 0 or more")
        if within not in ("class", "sample"):
            raise AdvtagError(f"within is {within!r}; expected `class` or `sample`")
        self.iterations = iterations
        self.candidates = candidates
        self.js_cap = js_cap
        self.correlation_cap = correlation_cap
        self.alpha = alpha
        self.beta = beta
        self.within = within
        self.working_point = working_point
        self.integers = tuple(integers)

    def interval(self, tagger: Tagger, inputs: Inputs) -> Interval:
        """Where each entry may go: the budget's interval inside the range of the bins, and the chosen integers."""
        interval = uncoupled(self.budget.interval(tagger, inputs))
        clean, low, high = interval.clean, interval.low.clone(), interval.high.clone()
        reach = self.budget.step(tagger).clamp(min=1).floor()
        for k in integer_columns(tagger.features, self.integers):
            feature = tagger.features.inputs[k]
            movable = inputs.present[:, k] & torch.as_tensor(not feature.frozen, device=clean.device)
            for value in feature.pinned:
                movable &= clean[:, k] != value
            least, most = (clean[:, k] - reach[k]).clamp(min=feature.bounds[0]).ceil(), clean[:, k] + reach[k]
            low[:, k] = torch.where(movable, least, clean[:, k])
            high[:, k] = torch.where(movable, most.clamp(max=feature.bounds[1]).floor(), clean[:, k])
        edges = [bin_edges(feature)[[0, -1]] for feature in tagger.features.inputs]
        lowest, highest = torch.as_tensor(np.array(edges).T, dtype=clean.dtype, device=clean.device)
        # the last edge itself is in the overflow
        highest = highest - torch.as_tensor(tagger.features.integer, dtype=clean.dtype, device=clean.device)
        low, high = torch.maximum(low, lowest), torch.minimum(high, highest)
        return Interval(clean, torch.minimum(low, clean), torch.maximum(high, clean))

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        key = reseed(inputs.key, self.seed)
        order = torch.argsort(key)
        cell_of = target if self.within == "class" else torch.zeros_like(target)
        order = order[torch.argsort(cell_of[order], stable=True)]
        inputs, target = inputs[order], target[order]
        features = _features(tagger)
        jets = _jets(inputs, key[order], interval.low[order], interval.high[order])
        # cells are contiguous, and their arrays are views
        sizes = torch.unique_consecutive(cell_of[order], return_counts=True)[1].tolist()
        cells = [_part(jets, end - size, end) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        # without any weight there is no distribution to keep
        cells = [cell for cell in cells if cell.weight.sum() > 0]
        clean = [describe(cell.values, cell.present, cell.weight, features) for cell in cells]
        for iteration in range(self.iterations):
            self._aim(tagger, inputs, target, jets)
            for cell, distribution in zip(cells, clean, strict=True):
                rule = self._rule(distribution, iteration)
                if rule is not None:
                    move_jets(cell, distribution, features, rule)
        moved = torch.empty_like(inputs.values)
        moved[order] = torch.from_numpy(jets.values).to(moved.device)
        return moved

    def _rule(self, clean: Distribution, iteration: int) -> Rule | None:
        """Caps and prices of one pass; None where there is nothing to keep or to move."""
        number = len(clean.totals)
        cap = self.correlation_cap * (np.trace(clean.moments) - 1) / np.sqrt(number)
        if not cap > 0:
            return None
        price = FINAL_PRICE ** (iteration / max(self.iterations - 1, 1))
        divergence_price = price * self.alpha / number / self.js_cap**2
        moments_price = float(price * self.beta / cap**2)
        return Rule(self.candidates, iteration, self.js_cap**2, float(cap**2), divergence_price, moments_price)

    def _aim(self, tagger: Tagger, inputs: Inputs, target: Tensor, jets: Jets) -> None:
        """Set the gradient of each jet's objective, and what it needs to be fooled, 0 if it is."""
        objective = wrong_odds(tagger.classes, self.working_point)
        for start in range(0, len(inputs), BATCH):
            batch = slice(start, start + BATCH)
            part, truth = inputs[batch], target[batch]
            x = torch.from_numpy(jets.values[batch]).to(inputs.values.device)
            right = is_right(tagger(x, part.present), truth, tagger.classes, self.working_point)
            slope, odds = input_gradient(tagger, part, truth, Interval(x, x, x), x, objective)
            jets.gradient[batch] = slope.cpu().numpy()
            jets.need[batch] = torch.where(right, (-odds).clamp(min=SMALLEST_NEED), 0).cpu().numpy()


def wrong_odds(classes: Sequence[str], working_point: WorkingPoint | None) -> Objective:
    """Log-odds of the best wrong answer, float [jets]: above 0 where the tagger is wrong; see `success.is_right`."""

    def together(logits: Tensor, names: Sequence[str]) -> Tensor:
        return logits[:, [k for k, name in enumerate(classes) if name in names]].logsumexp(1)

    def flavours(logits: Tensor, target: Tensor) -> Tensor:
        merged = torch.stack([together(logits, names) for names in FLAVOURS], 1)
        return margins(merged, flavour_of(classes).to(target.device)[target])

    if working_point is None:
        return flavours
    signal, background = DISCRIMINATORS[working_point.discriminator]
    # of a threshold outside (0, 1) there is no crossing; the gradient must be finite all the same
    cut = torch.tensor(working_point.threshold, dtype=torch.float64).logit(eps=1e-6).item()

    def crossing(logits: Tensor, target: Tensor) -> Tensor:
        is_signal = torch.tensor([name in signal for name in classes], device=target.device)[target]
        above = together(logits, signal) - together(logits, background) - cut
        return torch.where(is_signal, -above, above)

    return crossing


def uncoupled(interval: Interval) -> Interval:
    """The same interval, with the entries that follow others, and those that they follow, frozen."""
    coupling = interval.coupling
    if coupling is None:
        return interval
    held = torch.zeros_like(interval.clean, dtype=torch.bool).scatter(1, coupling.source, coupling.follows)
    held[:, coupling.columns] |= coupling.follows
    low, high = (torch.where(held, interval.clean, end) for end in (interval.low, interval.high))
    return Interval(interval.clean, low, high)


def integer_columns(features: FeatureSet, names: Sequence[str]) -> list[int]:
    """Places of integer inputs.

    Raises:
        AdvtagError: a name is none of them
    """
    known = [feature.name for feature in features.inputs if feature.integer]
    for name in names:
        if name not in known:
            raise AdvtagError(f"integers: {name!r} is no integer input of card {features.name!r}")
    return [features.names.index(name) for name in names]


def _features(tagger: Tagger) -> Features:
    edges = [bin_edges(feature) for feature in tagger.features.inputs]
    padded = np.full((len(edges), max(map(len, edges))), np.inf)
    # as values of the type of the inputs, like `attacks.distances`
    kind = np.float32 if tagger.std.dtype == torch.float32 else np.float64
    for row, found in zip(padded, edges, strict=True):
        row[: len(found)] = found.astype(kind)
    integer = tagger.features.integer
    mean, std = (buffer.detach().cpu().numpy().astype(np.float64) for buffer in (tagger.mean, tagger.std))
    bins = np.array([len(found) - 1 for found in edges], dtype=np.int64)
    return Features(mean, std, np.where(integer, 1.0, SMALLEST_STEP * std), integer, bins, padded)


def _jets(inputs: Inputs, key: Tensor, low: Tensor, high: Tensor) -> Jets:
    number, count = inputs.values.shape
    weight = torch.ones(number) if inputs.weight is None else inputs.weight

    def array(tensor: Tensor) -> NDArray[Any]:
        return tensor.detach().cpu().numpy().copy()

    return Jets(
        array(inputs.values),
        array(inputs.present),
        array(low),
        array(high),
        np.abs(array(weight).astype(np.float64)),
        array(key).view(np.uint64),
        np.zeros((number, count)),
        np.zeros(number),
    )


def _part(jets: Jets, start: int, end: int) -> Jets:
    """Views of jets start to end."""
    return Jets(*(array[start:end] for array in jets))  # type: ignore[arg-type]
