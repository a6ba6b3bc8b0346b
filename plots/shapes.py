"""From a histogram file to what one figure shows: scaled, one region, summed over datasets, ready to draw.

`scaled` gives a small histogram with the axes flavour, tagger, attack and the variable; `stack` turns it into the
bin contents of one panel. Nothing here changes a histogram in place: `values(flow=True)` is a view of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import hist
import numpy as np

from common.errors import AdvtagError
from common.histograms import RAW, HistogramFile
from plots.style import FLAVOURS, Array
from plots.systematics import band, differences

NOMINAL = "nominal"
"""The variation that is none."""
SHOWN_BINS = 40
"""Bins in which a discriminator is drawn; ROC curves use all of them."""


def regions_of(file: HistogramFile) -> list[str]:
    """Names of the regions, in the order of their axis."""
    histograms = file.histograms.values()
    return list(dict.fromkeys(name for h in histograms for name in h.axes["region"]))


def scaled(file: HistogramFile, variable: str, region: str, variation: str = NOMINAL) -> hist.Hist:
    """One variable in one region, MC scaled to the luminosity, datasets summed, flow bins kept.

    Raises:
        AdvtagError: unknown variable, region or variation; a dataset that the file does not describe.
    """
    if variable not in file.histograms:
        raise AdvtagError(f"no histogram of {variable}; this file has {', '.join(file.histograms)}")
    h = file.histograms[variable]
    for axis, name in (("region", region), ("variation", variation)):
        if name not in list(h.axes[axis]):
            raise AdvtagError(f"{variable}: no {axis} {name!r}; it has {', '.join(h.axes[axis]) or 'none'}")
    h = h[{"region": hist.loc(region), "variation": hist.loc(variation)}]
    h = h.project("dataset", "flavour", "tagger", "attack", variable)
    total = hist.Hist(*list(h.axes)[1:], storage=hist.storage.Weight())
    source, target = h.view(flow=True), total.view(flow=True)
    for name in h.axes["dataset"]:
        part, factor = source[h.axes["dataset"].index(name)], scale_of(file, name)
        target["value"] += part["value"] * factor
        target["variance"] += part["variance"] * factor**2
    return total


def varied(file: HistogramFile, variable: str, region: str) -> dict[str, hist.Hist]:
    """Those variations of one variable in one region that hold something, raw MC alone, as `scaled` gives them.

    Raises:
        AdvtagError: see `scaled`.
    """
    names = [name for name in file.histograms[variable].axes["variation"] if name != NOMINAL]
    found = {}
    for name in names:
        shapes = scaled(file, variable, region, name)
        if RAW in filled(shapes, "attack"):
            attack = hist.axis.StrCategory([RAW], name="attack", growth=True)
            raw = hist.Hist(*list(shapes.axes)[:2], attack, shapes.axes[-1], storage=hist.storage.Weight())
            raw.view(flow=True)[...] = shapes.view(flow=True)[:, :, [shapes.axes["attack"].index(RAW)]]
            found[name] = raw
    return found


def scale_of(file: HistogramFile, dataset: str) -> float:
    """Factor from a dataset's sum of weights to the luminosity, or an error that names the dataset."""
    if dataset not in file.datasets:
        raise AdvtagError(f"dataset {dataset} has histograms but no entry in the file; fill the histograms again")
    try:
        return file.datasets[dataset].scale(file.luminosity)
    except ZeroDivisionError:
        raise AdvtagError(
            f"dataset {dataset}: its sum of generator weights is 0, so it cannot be scaled to the luminosity; "
            "remove it from the fileset or give data no cross-section"
        ) from None


def filled(shapes: hist.Hist, axis: str) -> list[str]:
    """Categories that hold something: an axis may name categories that were never filled."""
    others = tuple(i for i, other in enumerate(shapes.axes) if other.name != axis)
    content = np.abs(shapes.view(flow=True)["variance"]).sum(axis=others)
    return [name for name in shapes.axes[axis] if content[shapes.axes[axis].index(name)] > 0]


def contents(shapes: hist.Hist, flavours: Iterable[str], tagger: str, attack: str) -> tuple[Array, Array]:
    """Values and variances with both flow bins, summed over flavours; new arrays, zeros if nothing was filled."""
    axes, traits = shapes.axes, shapes.axes[-1].traits
    values, variances = np.zeros(axes[-1].size + 2), np.zeros(axes[-1].size + 2)
    bins = slice(int(not traits.underflow), axes[-1].size + 1 + int(traits.overflow))
    if tagger in list(axes["tagger"]) and attack in list(axes["attack"]):
        view = shapes.view(flow=True)[:, axes["tagger"].index(tagger), axes["attack"].index(attack)]
        for flavour in flavours:
            if flavour in list(axes["flavour"]):
                part = view[axes["flavour"].index(flavour)]
                values[bins] += part["value"]
                variances[bins] += part["variance"]
    return values, variances


def shown(content: Array, *, discriminator: bool) -> Array:
    """Bin contents as drawn, from contents with flow bins, which are left as they are.

    Underflow and overflow are added to the edge bins. The underflow of a discriminator holds the jets for which
    it is undefined, and is left out; its overflow holds the value 1 exactly. Discriminators are rebinned.
    """
    bins: Array = content[1:-1].copy()
    bins[-1] += content[-1]
    if not discriminator:
        bins[0] += content[0]
        return bins
    drawn: Array = bins.reshape(-1, merged(bins.size)).sum(axis=1)
    return drawn


def merged(bins: int) -> int:
    """How many bins of a discriminator make a drawn one, so that about SHOWN_BINS are drawn."""
    return min((n for n in range(1, bins + 1) if bins % n == 0), key=lambda n: abs(bins // n - SHOWN_BINS))


@dataclass(frozen=True)
class Stack:
    """Bin contents of one column of a data/MC figure."""

    edges: Array
    integer: bool
    flavours: dict[str, Array]
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


def stack(
    shapes: hist.Hist,
    taggers: Sequence[str],
    *,
    discriminator: bool = False,
    variations: Mapping[str, hist.Hist] | None = None,
    area: bool = False,
) -> Stack:
    """Bin contents of a column: raw MC and data of the first tagger that has them, distorted MC of all.

    Args:
        shapes: from `scaled`.
        taggers: of this column.
        discriminator: the variable is an output of the taggers.
        variations: from `varied`.
        area: give the MC, distorted and varied too, the area of the data, where both have one.
    """
    axis = shapes.axes[-1]
    integer = isinstance(axis, hist.axis.Integer)
    edges = np.asarray(axis.edges, float) - (0.5 if integer else 0.0)
    if discriminator:
        edges = edges[:: merged(edges.size - 1)]
    names = [name for name in filled(shapes, "flavour") if name != "data"]
    names = [name for name in FLAVOURS if name in names] + [name for name in names if name not in FLAVOURS]

    def draw(flavours: Iterable[str], tagger: str, attack: str, source: hist.Hist = shapes) -> tuple[Array, Array]:
        values, variances = contents(source, flavours, tagger, attack)
        return shown(values, discriminator=discriminator), shown(variances, discriminator=discriminator)

    first = with_raw(shapes, names, taggers)
    mc, mc_variance = draw(names, first, RAW)
    data, data_variance = draw(["data"], with_raw(shapes, ["data"], taggers), RAW)
    attacks = [name for name in filled(shapes, "attack") if name != RAW]
    pairs = {(tagger, attack): draw(names, tagger, attack) for tagger in taggers for attack in attacks}
    raw = contents(shapes, names, first, RAW)[0]
    moved = {name: draw(names, first, RAW, other)[0] for name, other in (variations or {}).items()}
    found = differences(mc, moved, area=area)
    whole = Stack(
        edges=edges,
        integer=integer,
        flavours={name: draw([name], first, RAW)[0] for name in names},
        mc=mc,
        mc_variance=mc_variance,
        data=data if data_variance.any() else None,
        data_variance=data_variance if data_variance.any() else None,
        distorted={pair: values for pair, (values, variances) in pairs.items() if variances.any()},
        undefined=float(raw[0] / raw.sum()) if discriminator and raw.sum() else 0.0,
        systematic=band(mc, found) if found else None,
    )
    return to_area(whole) if area else whole


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


def with_raw(shapes: hist.Hist, flavours: Sequence[str], taggers: Sequence[str]) -> str:
    """First of the taggers with raw content of these flavours."""
    return next((name for name in taggers if contents(shapes, flavours, name, RAW)[1].any()), taggers[0])


def ratio(values: Array, s: Stack) -> Array:
    """Values over the raw MC; undefined where the MC is not positive."""
    quotient: Array = values / np.where(s.mc > 0, s.mc, np.nan)
    return quotient
