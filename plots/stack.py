"""Bin contents of one column of a data/MC figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import hist
import numpy as np

from common.histograms import RAW
from plots.shapes import NOMINAL, absent, contents, filled, merged, shown, with_raw
from plots.style import FLAVOURS, Array
from plots.systematics import band, differences

ABSENT_WIDTH = 0.04
"""Width of the bin of absent entries, and of the gap beside it, at least; in units of the axis."""


@dataclass(frozen=True)
class Stack:
    """Bin contents of one column of a data/MC figure."""

    edges: Array
    integer: bool
    absent: bool
    """The first bin holds absent entries, the second is a gap."""
    flavours: dict[str, Array]
    """Or processes."""
    mc: Array
    mc_variance: Array
    data: Array | None
    data_variance: Array | None
    distorted: dict[tuple[str, str], Array]
    """Total MC by (tagger, attack)."""
    undefined: float
    """Part of the MC for which the discriminator is undefined."""
    systematic: Array | None = None
    """Distances down and up to the ends of the band of the variations, [2, bins]; see `plots.systematics.band`."""
    factor: float = 1.0
    """What the MC was multiplied with to have the area of the data."""


@dataclass(frozen=True)
class Drawing:
    """How bin contents are drawn.

    Attributes:
        discriminator: the variable is an output of the taggers.
        area: give the MC, distorted and varied too, the area of the data, where both have one.
        rebin: merge so many bins, or the most below that divide their number; integer inputs stay as they are.
        log: a logarithmic y axis; None: where the contents differ much.
    """

    discriminator: bool = False
    area: bool = False
    rebin: int = 1
    log: bool | None = None


class Reader:
    """Reads drawn bin contents off histograms, absent entries first if there are any.

    Args:
        shapes: from `plots.shapes.scaled`, by variation.
        jets: from `plots.shapes.jets_in`, by variation; empty: absent entries are not drawn.
        drawing: see there.
    """

    def __init__(self, shapes: Mapping[str, hist.Hist], jets: Mapping[str, hist.Hist], drawing: Drawing) -> None:
        self.shapes = shapes
        self.jets = jets
        self.discriminator = drawing.discriminator
        axis = shapes[NOMINAL].axes[-1]
        self.integer = isinstance(axis, hist.axis.Integer)
        edges = np.asarray(axis.edges, float) - (0.5 if self.integer else 0.0)
        if drawing.discriminator:
            edges = edges[:: merged(edges.size - 1)]
        bins = edges.size - 1
        self.rebin = 1 if self.integer else max(n for n in range(1, drawing.rebin + 1) if bins % n == 0)
        self.edges = edges[:: self.rebin]
        nominal = shapes[NOMINAL]
        taggers = [(tagger, ["data"]) for tagger in filled(nominal, "tagger")]
        taggers += [(tagger, [name for name in nominal.axes["flavour"] if name != "data"]) for tagger, _ in taggers]
        self.absent = False
        if jets and not drawing.discriminator:
            self.absent = any(absent(nominal, jets[NOMINAL], names, tagger, RAW)[0] != 0 for tagger, names in taggers)
        if self.absent:
            width = max(self.edges[1] - self.edges[0], ABSENT_WIDTH * (self.edges[-1] - self.edges[0]))
            self.edges = np.concatenate([self.edges[0] - width * np.array([2, 1]), self.edges])

    def __call__(
        self, flavours: Iterable[str], tagger: str, attack: str, variation: str = NOMINAL
    ) -> tuple[Array, Array]:
        """Values and variances [bins], summed over flavours."""
        flavours = list(flavours)
        found = []
        for each in contents(self.shapes[variation], flavours, tagger, attack):
            drawn = shown(each, discriminator=self.discriminator)
            found.append(drawn.reshape(-1, self.rebin).sum(axis=1))
        if self.absent:
            missing = absent(self.shapes[variation], self.jets[variation], flavours, tagger, attack)
            found = [np.concatenate([[m, 0.0], each]) for m, each in zip(missing, found, strict=True)]
        return found[0], found[1]


def stack(
    shapes: hist.Hist,
    taggers: Sequence[str],
    drawing: Drawing = Drawing(),
    *,
    variations: Mapping[str, hist.Hist] | None = None,
    jets: Mapping[str, hist.Hist] | None = None,
) -> Stack:
    """Bin contents of a column: raw MC and data of the first tagger that has them, distorted MC of all.

    Args:
        shapes: from `plots.shapes.scaled`.
        taggers: of this column.
        drawing: how bins are drawn.
        variations: from `plots.shapes.varied`.
        jets: all jets by variation, from `plots.shapes.jets_in`, to draw absent entries.
    """
    draw = Reader({NOMINAL: shapes, **(variations or {})}, jets or {}, drawing)
    names = [name for name in filled(shapes, "flavour") if name != "data"]
    names = [name for name in FLAVOURS if name in names] + [name for name in names if name not in FLAVOURS]
    first = with_raw(shapes, names, taggers)
    mc, mc_variance = draw(names, first, RAW)
    data, data_variance = draw(["data"], with_raw(shapes, ["data"], taggers), RAW)
    attacks = [name for name in filled(shapes, "attack") if name != RAW]
    pairs = {(tagger, attack): draw(names, tagger, attack) for tagger in taggers for attack in attacks}
    raw = contents(shapes, names, first, RAW)[0]
    moved = {name: draw(names, first, RAW, name)[0] for name in variations or {}}
    found = differences(mc, moved, area=drawing.area)
    whole = Stack(
        edges=draw.edges,
        integer=draw.integer,
        absent=draw.absent,
        flavours={name: draw([name], first, RAW)[0] for name in names},
        mc=mc,
        mc_variance=mc_variance,
        data=data if data_variance.any() else None,
        data_variance=data_variance if data_variance.any() else None,
        distorted={pair: values for pair, (values, variances) in pairs.items() if variances.any()},
        undefined=float(raw[0] / raw.sum()) if drawing.discriminator and raw.sum() else 0.0,
        systematic=band(mc, found) if found else None,
    )
    return to_area(whole) if drawing.area else whole


def to_area(s: Stack) -> Stack:
    """The same with the MC scaled to the area of the data, if both have one."""
    if s.data is None or s.data.sum() <= 0 or s.mc.sum() <= 0:
        return s
    factor = float(s.data.sum() / s.mc.sum())
    return replace(
        s,
        flavours={name: values * factor for name, values in s.flavours.items()},
        mc=s.mc * factor,
        mc_variance=s.mc_variance * factor**2,
        distorted={pair: values * factor for pair, values in s.distorted.items()},
        systematic=None if s.systematic is None else s.systematic * factor,
        factor=factor,
    )


def ratio(values: Array, s: Stack) -> Array:
    """Values over the raw MC; undefined where the MC is not positive."""
    quotient: Array = values / np.where(s.mc > 0, s.mc, np.nan)
    return quotient
