"""What an attack did to a tagger: areas, mistag rates, fooling ratios, susceptibility.

Weights keep their sign: sums, and with them efficiency, mistag rate, area and fooling ratio, are then unbiased
estimates, though of a few jets they may leave [0, 1]. None (JSON has no nan) stands wherever a sum of weights is not
positive: a class that never occurs has no efficiency.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor

from attacks.success import FLAVOURS, WorkingPoint, counts, is_right
from models.classes import DISCRIMINATORS
from models.discriminators import UNDEFINED

Array = NDArray[np.float64]
LOWEST, HIGHEST = -110, 40
"""Log-odds that the bins span: all float32 scores, and all float64 ones down to 1e-48."""
BINS_PER_UNIT = 256
FIRST = 2
"""Places 0 and 1 are for scores that are undefined and that are 0, the last one is for 1; between them log-odds."""
BINS = (HIGHEST - LOWEST) * BINS_PER_UNIT
LAST = FIRST + BINS
EFFICIENCY = 0.8
"""Signal efficiency at which mistag rates are quoted."""


@dataclass(frozen=True)
class RocHistogram:
    """Signal and background jets by their discriminator, in bins so narrow in log-odds that nothing is lost.

    Undefined scores (-1) are lowest, as far as the area goes, and pass no cut. Inside a bin jets count as evenly
    spread. Histograms of parts of a sample add up to that of the whole.
    """

    content: Array
    """float64 [2, bins], sums of weights of signal and of background"""

    @classmethod
    def fill(
        cls, score: Tensor, target: Tensor, classes: Sequence[str], discriminator: str, weight: Tensor | None = None
    ) -> "RocHistogram":
        """Histogram of jets of the discriminator's signal and background classes; others are left out.

        Args:
            score: float [jets], in [0, 1] or -1
            target: int64 [jets], true classes
            classes: names of the tagger's classes
            discriminator: a name in `DISCRIMINATORS`
            weight: float [jets]; None: all 1

        Raises:
            ValueError: another score
        """
        place = _places(score.detach().cpu().numpy().astype(np.float64))
        w = _array(weight, len(place))
        rows = [_is_any(target, classes, names) for names in DISCRIMINATORS[discriminator]]
        return cls(np.stack([np.bincount(place[jets], w[jets], LAST + 1) for jets in rows]))

    def __add__(self, other: "RocHistogram") -> "RocHistogram":
        return RocHistogram(self.content + other.content)

    def auc(self) -> float | None:
        """Area under efficiency against mistag rate: 1 separates perfectly, 0.5 is blind, ties count half."""
        rates = self._rates()
        return None if rates is None else float(np.trapezoid(rates[0], rates[1]))

    def efficiency(self, threshold: float) -> float | None:
        """Part of the signal at or above a threshold."""
        rates = self._rates()
        return None if rates is None else _at(rates[0], threshold)

    def mistag(self, threshold: float) -> float | None:
        """Part of the background at or above a threshold."""
        rates = self._rates()
        return None if rates is None else _at(rates[1], threshold)

    def mistag_at_efficiency(self, efficiency: float) -> float | None:
        """Mistag rate where the signal efficiency is `efficiency`, linear between the points of the curve; None where
        no cut reaches it: too much of the signal is undefined.
        """
        rates, cut = self._rates(), self._cut(efficiency)
        if rates is None or cut is None:
            return None
        place, part = cut
        return float(rates[1, place] + part * (rates[1, place + 1] - rates[1, place]))

    def threshold_at_efficiency(self, efficiency: float) -> float | None:
        """Tightest threshold whose signal efficiency is `efficiency` (or above, if many jets have one score); None
        where no cut reaches it.
        """
        cut = self._cut(efficiency)
        if cut is None:
            return None
        place, part = LAST - cut[0], cut[1]
        if place in (LAST, FIRST - 1):
            return 1.0 if place == LAST else 0.0
        return float(expit(LOWEST + (place - FIRST + 1 - part) / BINS_PER_UNIT))

    def _rates(self) -> Array | None:
        """Efficiency and mistag rate, [2, bins + 1], from the tightest cut, (0, 0), to none, (1, 1)."""
        total = self.content.sum(1, keepdims=True)
        if not (total > 0).all():
            return None
        passing = np.cumsum(self.content[:, ::-1], axis=1) / total
        return np.concatenate([np.zeros((2, 1)), passing], axis=1)

    def _cut(self, efficiency: float) -> tuple[int, float] | None:
        """Number of bins above the one in which the tightest cut of this efficiency lies, and the part of it to add."""
        if not 0 < efficiency <= 1:
            raise ValueError(f"efficiency {efficiency}; expected a number above 0, at most 1")
        rates = self._rates()
        if rates is None:
            return None
        passing = rates[0, :-1]  # without the undefined
        reached = passing[1:] >= efficiency - 1e-12  # a sum of many parts that should be 1
        if not reached.any():
            return None
        above = int(reached.argmax())
        return above, float(min(1.0, (efficiency - passing[above]) / (passing[above + 1] - passing[above])))


def _places(score: Array) -> NDArray[np.intp]:
    """Bin of each score.

    Raises:
        ValueError: a score that is no discriminator
    """
    undefined = score == UNDEFINED
    if not (undefined | ((score >= 0) & (score <= 1))).all():
        raise ValueError(f"scores must be in [0, 1], or {UNDEFINED} where undefined")
    position = (logit(np.where(undefined, 0, score)) - LOWEST) * BINS_PER_UNIT
    place: NDArray[np.intp] = FIRST + np.floor(np.clip(position, 0, BINS - 1)).astype(np.intp)
    place[score == 0], place[score == 1], place[undefined] = FIRST - 1, LAST, 0
    return place


def _at(rates: Array, threshold: float) -> float:
    """The rate [bins + 1] of jets at or above a threshold."""
    if threshold > 1:
        return 0.0
    if threshold <= 0:
        return float(rates[LAST])  # all that are defined
    position = np.clip((logit(threshold) - LOWEST) * BINS_PER_UNIT, 0, BINS)
    return float(np.interp(1 + BINS - position, np.arange(len(rates)), rates))


def _array(weight: Tensor | None, jets: int) -> Array:
    return np.ones(jets) if weight is None else weight.detach().cpu().numpy().astype(np.float64)


def _is_any(target: Tensor, classes: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isin(target.cpu().numpy(), [i for i, name in enumerate(classes) if name in names])
    return found


def roc_histograms(
    scores: Mapping[str, Tensor], target: Tensor, classes: Sequence[str], weight: Tensor | None = None
) -> dict[str, RocHistogram]:
    """The histogram of each discriminator among `scores`, float [jets] each; other scores are left out."""
    return {
        name: RocHistogram.fill(scores[name], target, classes, name, weight)
        for name in DISCRIMINATORS
        if name in scores
    }


def working_points(clean: Mapping[str, RocHistogram], efficiency: float = EFFICIENCY) -> dict[str, float | None]:
    """Threshold of each discriminator that has this signal efficiency on clean jets."""
    return {name: histogram.threshold_at_efficiency(efficiency) for name, histogram in clean.items()}


def performance(
    histograms: Mapping[str, RocHistogram], thresholds: Mapping[str, float | None], efficiency: float = EFFICIENCY
) -> dict[str, dict[str, float | None]]:
    """How well each discriminator separates, by its name.

    `auc`; `mistag_at_efficiency`: with the threshold moved to where the signal efficiency is `efficiency`;
    `efficiency` and `mistag` at the threshold given, usually the one that the clean jets asked for.
    """
    found = {}
    for name, histogram in histograms.items():
        threshold = thresholds.get(name)
        found[name] = {
            "auc": histogram.auc(),
            "mistag_at_efficiency": histogram.mistag_at_efficiency(efficiency),
            "threshold": threshold,
            "efficiency": None if threshold is None else histogram.efficiency(threshold),
            "mistag": None if threshold is None else histogram.mistag(threshold),
        }
    return found


def fooling_ratios(
    clean: Tensor,
    attacked: Tensor,
    target: Tensor,
    classes: Sequence[str],
    *,
    weight: Tensor | None = None,
    working_point: WorkingPoint | None = None,
) -> dict[str, dict[str, Any]]:
    """Of the jets that the tagger is right about, the part that it is wrong about after the attack; in all and by
    flavour (b with bb, c, udsg).

    Args:
        clean: float [jets, classes], logits before the attack
        attacked: likewise, of the same jets after it
        target: int64 [jets], true classes
        classes: names of the tagger's classes
        weight: float [jets]; None: all 1
        working_point: what being right means, see `attacks.success.is_right`

    Returns:
        by `all` and by flavour: `jets` that there is something to be right about, `right` of them before, `fooled` of
        these after; `ratio` fooled / right, and `weighted_ratio`, the same of sums of weights
    """
    right = is_right(clean, target, classes, working_point)
    fooled = right & ~is_right(attacked, target, classes, working_point)
    counted = counts(target, classes, working_point)
    masks = [mask.cpu().numpy() for mask in (counted, right, fooled)]
    w = _array(weight, len(target))
    groups = {names[0]: _is_any(target, classes, names) for names in FLAVOURS}
    found = {}
    for name, group in {"all": np.ones(len(target), bool), **groups}.items():
        jets, before, after = (int((mask & group).sum()) for mask in masks)
        weights = [float(w[mask & group].sum()) for mask in masks[1:]]
        found[name] = {
            "jets": jets,
            "right": before,
            "fooled": after,
            "ratio": after / before if before else None,
            "weighted_ratio": weights[1] / weights[0] if weights[0] > 0 else None,
        }
    return found


def susceptibility(raw: float | None, attacked: float | None) -> dict[str, float | None]:
    """What an attack takes from an area under the curve: `difference` raw - attacked, `ratio` attacked / raw."""
    if raw is None or attacked is None:
        return {"difference": None, "ratio": None}
    return {"difference": raw - attacked, "ratio": attacked / raw if raw > 0 else None}
