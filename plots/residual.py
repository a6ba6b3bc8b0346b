"""Uncertainty from attacks: what could be wrong with a tagger without being seen in data/MC.

An attack that stays invisible in a control region is a mismodelling that the comparison of data and MC there does not
exclude. How far it moves an efficiency or a mistag rate at a working point is an uncertainty that is left over beside
those of the variations of the simulation: the proposal of CONSERVAttack (arXiv:2603.13970). A table for every region,
tagger, working point, flavour and attack, from a histogram file alone.

Attacks are built to do harm, each jet towards its own wrong answer: the shift is a bound for mismodelling of that size,
not what is expected of it. The verdict is of `plots.statistics`: with more data fewer attacks stay invisible.

A working point that is set in a region is left out there if fewer than `JETS_ABOVE` effective light jets, (sum w)^2 /
sum w^2, are above its cut: where the cut lies, and what an attack does to so few jets, is chance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import hist
import numpy as np

from common.errors import AdvtagError
from common.histograms import RAW, TRANSFER, HistogramFile
from plots.shapes import contents, filled, regions_of, scaled, varied
from plots.statistics import CORRELATIONS, Row
from plots.style import Array
from plots.systematics import band, differences

RESIDUAL = "residual.csv"
WORKING_POINTS = {"loose": 0.1, "medium": 0.01, "tight": 0.001}
"""Fractions of light jets above the cut, those of CMS (JINST 13 (2018) P05011, arXiv:1712.07158)."""
FLAVOURS: dict[str, tuple[str, ...]] = {"b": ("b", "bb"), "c": ("c",), "light": ("udsg",)}
NAN = float("nan")
KINDS = ("input", CORRELATIONS, "discriminator")
NOT_MADE = "not made"
"""In the place of a verdict on correlations, where the file has none."""
JETS_ABOVE = 10


@dataclass(frozen=True)
class Residual:
    """What one attack does to one efficiency, beside the other uncertainties of it."""

    region: str
    tagger: str
    working_point: str
    cut: float
    """On the discriminator, at an edge of its bins."""
    flavour: str
    efficiency: float
    """Of raw MC; for light jets the mistag rate."""
    error: float
    """Statistical, of the MC."""
    conventional_down: float
    """All variations in quadrature; nan without any."""
    conventional_up: float
    attack: str
    shift: float
    """Efficiency of the attacked jets minus that of the raw ones."""
    shift_error: float
    """Least statistical error of the shift: sqrt of the net movement of squared weights across the cut, over the sum of
    weights. It is the error if jets crossed the cut in one direction only; those that changed places are not seen in a
    histogram, and would add to it (the least movement of `plots.visibility`)."""
    input: str
    """Worst verdict of the attack in this region over all inputs: visible, unclear, invisible, or empty."""
    correlations: str
    """The same in their correlations; `not made` if the file has none. Of examples made on another tagger,
    `fgsm@other`, it is the verdict of `fgsm` on that tagger: the inputs are the same."""
    discriminator: str
    """The same over all discriminators of this tagger."""
    residual_inputs: float
    """Largest |shift| of the attacks that are invisible in inputs and correlations; nan if none is."""
    residual: float
    """The same of those that are invisible in discriminators, too."""


def residuals(
    file: HistogramFile,
    rows: Iterable[Row],
    *,
    discriminator: str = "BvsL",
    working_points: Mapping[str, float] = WORKING_POINTS,
    cuts: Mapping[tuple[str, str], float] | None = None,
) -> list[Residual]:
    """The table; empty without attacks.

    Args:
        file: histograms.
        rows: of `plots.statistics.statistics`, of the same file; regions without rows are left out.
        discriminator: that is cut on.
        working_points: fractions of raw light jets of each region above its cut; one with too few is left out.
        cuts: by tagger and working point, instead; none of them is left out.

    Raises:
        AdvtagError: no such discriminator, a dataset that cannot be scaled.
    """
    if discriminator not in file.discriminators:
        raise AdvtagError(f"no discriminator {discriminator!r}; this file has {', '.join(file.discriminators)}")
    rows = list(rows)
    verdicts = worst(rows)
    if not any(row.kind == CORRELATIONS for row in rows):
        verdicts |= {(*key[:3], CORRELATIONS): NOT_MADE for key in verdicts}
    known = {region for region, *_ in verdicts}
    return [
        row
        for region in regions_of(file)
        if region in known
        for row in _region(file, region, discriminator, (working_points, cuts), verdicts)
    ]


def worst(rows: Iterable[Row]) -> dict[tuple[str, str, str, str], str]:
    """The worst verdict by region, tagger, attack and kind of variable; empty where none could be given."""
    order = ("", "invisible", "unclear", "visible")
    found: dict[tuple[str, str, str, str], str] = {}
    for row in rows:
        if row.attack != RAW:
            key = (row.region, row.tagger, row.attack, row.kind)
            found[key] = max(found.get(key, ""), row.verdict, key=order.index)
    return found


@dataclass(frozen=True)
class _Passing:
    """Efficiency by cut: of raw jets, of varied ones and under attack."""

    raw: Array
    error: Array
    varied: dict[str, Array]
    attacked: dict[str, Array]
    crossed: dict[str, Array]
    """Least error of attacked minus raw."""
    effective: Array
    """Number of raw jets above."""


def _region(
    file: HistogramFile,
    region: str,
    discriminator: str,
    points: tuple[Mapping[str, float], Mapping[tuple[str, str], float] | None],
    verdicts: Mapping[tuple[str, str, str, str], str],
) -> Iterator[Residual]:
    shapes, variations = scaled(file, discriminator, region), varied(file, discriminator, region)
    edges = np.asarray(shapes.axes[-1].edges, float)
    for tagger in filled(shapes, "tagger"):
        found = {}
        for flavour, names in FLAVOURS.items():
            curve = _passing(shapes, variations, names, tagger)
            if np.isfinite(curve.raw).all():
                found[flavour] = curve
        for point in points[0]:
            cut = _cut(edges, found.get("light"), points[0][point], (points[1] or {}).get((tagger, point)))
            if cut is not None:
                for flavour, curve in found.items():
                    yield from _rows((region, tagger, point, float(edges[cut]), flavour), curve, cut, verdicts)


def _passing(shapes: hist.Hist, variations: Mapping[str, hist.Hist], names: Sequence[str], tagger: str) -> _Passing:
    """Of these flavours together."""
    values, variances = contents(shapes, names, tagger, RAW)
    distorted = {name: contents(shapes, names, tagger, name) for name in filled(shapes, "attack") if name != RAW}
    part, squares = above(values), above(variances)
    return _Passing(
        *passing(values, variances),
        varied={name: passing(*contents(other, names, tagger, RAW))[0] for name, other in variations.items()},
        attacked={name: passing(*both)[0] for name, both in distorted.items()},
        crossed={
            name: np.sqrt(_net(above(both[1]), squares)) / (values.sum() or NAN) for name, both in distorted.items()
        },
        effective=np.divide(part**2, squares, out=np.zeros_like(part), where=squares > 0),
    )


def _net(moved: Array, before: Array) -> Array:
    """|difference| of sums, 0 where that is rounding."""
    difference: Array = np.abs(moved - before)
    return np.where(difference > 1e-9 * before.max(), difference, 0.0)


def _cut(edges: Array, light: _Passing | None, fraction: float, value: float | None) -> int | None:
    """Place of the cut among the edges; None without a value and (enough) light jets."""
    if value is not None:
        return int(np.abs(edges - value).argmin())
    if light is None:
        return None
    cut = int(np.abs(light.raw - fraction).argmin())
    return cut if light.effective[cut] >= JETS_ABOVE else None


def _rows(
    key: tuple[str, str, str, float, str], curve: _Passing, cut: int, verdicts: Mapping[tuple[str, str, str, str], str]
) -> Iterator[Residual]:
    region, tagger = key[:2]
    moved = differences(curve.raw[[cut]], {name: values[[cut]] for name, values in curve.varied.items()})
    sides = band(curve.raw[[cut]], moved)[:, 0] if moved else np.full(2, NAN)
    shifts = {attack: float(v[cut] - curve.raw[cut]) for attack, v in curve.attacked.items() if np.isfinite(v[cut])}
    seen = {attack: [verdict_of(verdicts, (region, tagger, attack), kind) for kind in KINDS] for attack in shifts}

    def largest(kinds: int) -> float:
        return max((abs(shifts[attack]) for attack in shifts if hidden(seen[attack][:kinds])), default=NAN)

    for attack, shift in shifts.items():
        yield Residual(
            *key,
            float(curve.raw[cut]),
            float(curve.error[cut]),
            float(sides[0]),
            float(sides[1]),
            attack,
            shift,
            float(curve.crossed[attack][cut]),
            seen[attack][0],
            seen[attack][1],
            seen[attack][2],
            largest(2),
            largest(3),
        )


def verdict_of(verdicts: Mapping[tuple[str, str, str, str], str], key: tuple[str, str, str], kind: str) -> str:
    """Verdict on an attack (region, tagger, attack) by variables of one kind; empty if there is none.

    Correlations of examples that another tagger is shown are those of the tagger they were made on.
    """
    region, _, attack = key
    name, _, made_on = attack.partition(TRANSFER)
    if made_on and kind == CORRELATIONS and verdicts.get((*key, kind)) != NOT_MADE:
        return verdicts.get((region, made_on, name, kind), "")
    return verdicts.get((*key, kind), "")


def hidden(seen: Sequence[str]) -> bool:
    """Whether an attack is invisible by all of these verdicts; one that could not be given hides nothing."""
    return all(each in ("invisible", NOT_MADE) for each in seen)


def above(content: Array) -> Array:
    """Sums above each edge, from contents with flow bins."""
    sums: Array = np.cumsum(content[::-1])[::-1][1:]
    return sums


def passing(values: Array, variances: Array) -> tuple[Array, Array]:
    """Part of the jets above each edge of the discriminator, and its statistical error, from contents with flow bins.

    Jets for which the discriminator is undefined (underflow) fail. nan without jets.
    """
    total, total_variance = values.sum(), variances.sum()
    if total <= 0:
        return np.full(len(values) - 1, NAN), np.full(len(values) - 1, NAN)
    part = above(values) / total
    squares = (1 - 2 * part) * above(variances) + part**2 * total_variance
    return part, np.sqrt(squares.clip(0)) / total
