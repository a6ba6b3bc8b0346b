"""What came out: rows of the table, combinations of variants, and sentences that are computed from the numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from study.counts import Array

TRUE = "truth"
"""The method that is none."""
SHAPE = "shape"
"""Data/MC of the discriminator."""
CLOSURE = "mc"
"""The variant that is no mismodelling."""

Key = tuple[str, str, str, str, str]
"""variant, flavour, method, tagger, working point"""


@dataclass(frozen=True)
class Row:
    """One scale factor. Errors are those of the bootstrap, of data and simulation together."""

    variant: str
    flavour: str
    method: str
    """`truth`, or how it was measured."""
    tagger: str
    working_point: str
    efficiency_data: float
    efficiency_mc: float
    scale_factor: float
    error: float
    minus_true: float
    """Scale factor minus the true one."""
    minus_true_error: float


def rows(results: Mapping[Key, Array], efficiencies: Mapping[Key, tuple[float, float]]) -> list[Row]:
    """One row for each scale factor.

    Args:
        results: scale factors, [replicas], the first one of the sample itself
        efficiencies: in data and MC
    """
    found = []
    for key, values in results.items():
        variant, flavour, _, tagger, point = key
        difference = values - results[variant, flavour, TRUE, tagger, point]
        found.append(Row(*key, *efficiencies[key], float(values[0]), spread(values), *with_error(difference)))
    return found


def spread(values: Array) -> float:
    """Standard deviation over the replicas; nan unless nine in ten are defined."""
    good = values[1:][np.isfinite(values[1:])]
    return float(good.std(ddof=1)) if len(good) >= 0.9 * (len(values) - 1) else float("nan")


def with_error(values: Array) -> tuple[float, float]:
    """Value of the sample itself, and the spread of the replicas."""
    return float(values[0]), spread(values)


@dataclass(frozen=True)
class Comparison:
    """A tagger against the reference, over all variants but the closure.

    The distance is |SF - 1|, or that of the shapes of the discriminator in data and MC.
    """

    flavour: str
    """Or the process."""
    method: str
    working_point: str
    tagger: str
    variants: int
    off_reference: float
    """Mean distance, of the reference tagger."""
    off_reference_error: float
    off: float
    """Of this tagger."""
    off_error: float
    gain: float
    """Of the reference minus of this one: positive if this tagger is closer."""
    gain_error: float
    """Of the difference in each replica: what both taggers share drops out."""
    best: int
    """Variants in which this tagger is closer."""

    @property
    def verdict(self) -> str:
        """Closer or farther if the gain is more than two errors away from 0, else no difference; undefined if a scale
        factor is, of the samples or of too many replicas.
        """
        if not np.isfinite([self.gain, self.gain_error]).all():
            return "undefined"
        if abs(self.gain) <= 2 * self.gain_error:
            return "no difference"
        return "closer" if self.gain > 0 else "farther"


def comparisons(distances: Mapping[Key, Array], reference: str) -> list[Comparison]:
    """Every tagger against the reference; a distance that is noisy is too large, of both taggers alike.

    Args:
        distances: [replicas] each
        reference: name of the tagger
    """
    found = []
    groups = dict.fromkeys(key[1:] for key in distances)
    variants = [name for name in dict.fromkeys(key[0] for key in distances) if name != CLOSURE]
    for flavour, method, tagger, point in groups:
        if tagger == reference or not variants:
            continue
        off, other = (
            np.stack([distances[variant, flavour, method, name, point] for variant in variants])
            for name in (tagger, reference)
        )
        mean, error = with_error(other.mean(axis=0))
        own, own_error = with_error(off.mean(axis=0))
        gain, gain_error = with_error((other - off).mean(axis=0))
        best = int((off[:, 0] < other[:, 0]).sum())
        key = (flavour, method, point, tagger, len(variants))
        found.append(Comparison(*key, mean, error, own, own_error, gain, gain_error, best))
    return found


def sentences(found: Iterable[Comparison], reference: str) -> list[str]:
    """What the true scale factors and the shapes say, a sentence for each tagger, and one for all."""
    told = [each for each in found if each.method in (TRUE, SHAPE)]
    lines = []
    for each in told:
        change = 100 * each.gain / each.off_reference if each.off_reference else float("nan")
        of = f"{each.flavour} jets, {each.working_point}: mean |SF - 1|"
        what = of if each.method == TRUE else f"{each.flavour}: mean JS distance of data and MC"
        lines.append(
            f"{each.tagger}, {what} over {each.variants} variants is "
            f"{each.off:.4f}, of {reference} {each.off_reference:.4f}; the difference is "
            f"{each.gain:+.4f} ± {each.gain_error:.4f} ({change:+.0f} %): {each.verdict} "
            f"(closer in {each.best} of {each.variants} variants)"
        )
    for method, what in ((TRUE, "pairs of flavour and working point"), (SHAPE, "processes")):
        for tagger in dict.fromkeys(each.tagger for each in told):
            verdicts = [each.verdict for each in told if (each.tagger, each.method) == (tagger, method)]
            unknown = verdicts.count("undefined")
            title = "scale factors closer to 1" if method == TRUE else "discriminator of data closer to MC"
            lines.append(
                f"{tagger} against {reference}: {title} in {verdicts.count('closer')}, farther in "
                f"{verdicts.count('farther')}, no difference in {verdicts.count('no difference')}"
                f"{f', undefined in {unknown}' if unknown else ''} of {len(verdicts)} {what}"
            )
    return lines
