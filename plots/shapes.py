"""From a histogram file to what one figure shows: scaled, one region, summed over datasets, ready to draw.

`scaled` gives a small histogram with the axes flavour, tagger, attack and the variable; `plots.stack` turns it into
the bin contents of one panel. Nothing here changes a histogram in place: `values(flow=True)` is a view of it.

Histograms hold the entries that are there. How many are absent, such as the third track of a jet with two, is what is
left of all jets, `jets_in`; they are drawn as a bin of their own at the left.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import hist
import numpy as np

from common.errors import AdvtagError
from common.histograms import RAW, HistogramFile
from plots.style import Array

NOMINAL = "nominal"
"""The variation that is none."""
SHOWN_BINS = 40
"""Bins in which a discriminator is drawn; ROC curves use all of them."""


def regions_of(file: HistogramFile) -> list[str]:
    """Names of the regions, in the order of their axis."""
    histograms = file.histograms.values()
    return list(dict.fromkeys(name for h in histograms for name in h.axes["region"]))


def scaled(
    file: HistogramFile, variable: str, region: str, variation: str = NOMINAL, *, by_process: bool = False
) -> hist.Hist:
    """One variable in one region, MC scaled to the luminosity, flow bins kept.

    Datasets are summed; or flavours are, `by_process`: the axis `flavour` then names MC datasets, and `data`.

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
    axes = list(h.axes)[1:]
    if by_process:
        mc = [name for name in h.axes["dataset"] if name in file.datasets and not file.datasets[name].data]
        axes[0] = hist.axis.StrCategory([*mc, "data"], name="flavour", growth=True)
    total = hist.Hist(*axes, storage=hist.storage.Weight())
    source, target = h.view(flow=True), total.view(flow=True)
    for name in h.axes["dataset"]:
        part, factor = source[h.axes["dataset"].index(name)], scale_of(file, name)
        rows: Any = slice(None)
        if by_process:
            rows = axes[0].index("data" if file.datasets[name].data else name)
        for key, power in (("value", 1), ("variance", 2)):
            target[key][rows] += (part[key].sum(axis=0) if by_process else part[key]) * factor**power
    return total


def jets_in(file: HistogramFile, region: str, variation: str = NOMINAL, *, by_process: bool = False) -> hist.Hist:
    """All jets of a region, whatever they have, with the axes flavour, tagger and attack; see `scaled`.

    Every jet has an entry of every discriminator, in the underflow where that is undefined.
    """
    shapes = scaled(file, file.discriminators[0], region, variation, by_process=by_process)
    total = hist.Hist(*list(shapes.axes)[:-1], storage=hist.storage.Weight())
    for key in ("value", "variance"):
        total.view(flow=True)[key] = shapes.view(flow=True)[key].sum(axis=-1)
    return total


def varied(file: HistogramFile, variable: str, region: str, *, by_process: bool = False) -> dict[str, hist.Hist]:
    """Those variations of one variable in one region that hold something, raw MC alone, as `scaled` gives them.

    Raises:
        AdvtagError: see `scaled`.
    """
    names = [name for name in file.histograms[variable].axes["variation"] if name != NOMINAL]
    found = {}
    for name in names:
        shapes = scaled(file, variable, region, name, by_process=by_process)
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


def absent(
    shapes: hist.Hist, jets: hist.Hist, flavours: Iterable[str], tagger: str, attack: str
) -> tuple[float, float]:
    """Sums of weights, and of their squares, of jets that have no such entry: all jets less those that have.

    Args:
        shapes: an input, from `scaled`.
        jets: all of its jets, from `jets_in`.
        flavours: are summed.
        tagger: of the category.
        attack: of the category.
    """
    axes, flavours = jets.axes, list(flavours)
    if tagger not in list(axes["tagger"]) or attack not in list(axes["attack"]):
        return 0.0, 0.0
    if not contents(shapes, shapes.axes["flavour"], tagger, attack)[1].any():  # nobody looked
        return 0.0, 0.0
    rows = [axes["flavour"].index(name) for name in flavours if name in list(axes["flavour"])]
    total = jets.view(flow=True)[rows, axes["tagger"].index(tagger), axes["attack"].index(attack)]
    values, variances = contents(shapes, flavours, tagger, attack)
    variance = float(total["variance"].sum())
    if variance - variances.sum() <= 1e-9 * variance:  # rounding: nothing is absent
        return 0.0, 0.0
    return float(total["value"].sum() - values.sum()), float(variance - variances.sum())


def with_raw(shapes: hist.Hist, flavours: Sequence[str], taggers: Sequence[str]) -> str:
    """First of the taggers with raw content of these flavours."""
    return next((name for name in taggers if contents(shapes, flavours, name, RAW)[1].any()), taggers[0])


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
