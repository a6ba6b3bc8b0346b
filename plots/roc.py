"""Efficiency against mistag rate, and the area under it, from histograms of discriminators.

A cut at each bin edge gives one point. Jets whose discriminator is undefined (-1, in the underflow) fail every
cut; the value 1 exactly (in the overflow) passes every cut. With 1000 bins the area differs from that of the
unbinned values by less than 1e-3.

Negative generator weights need no special care in the sums: efficiency, mistag rate and area stay the unbiased
estimates they are with positive weights, but the curve may step back in sparse bins. Refused is only a sum of
weights that is not positive, which has no efficiency.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import hist
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.errors import AdvtagError
from common.histograms import RAW, HistogramFile
from models.classes import CLASSES, DISCRIMINATORS, TAGGER_SCORES
from plots.shapes import contents, filled, regions_of, scaled
from plots.style import Array, attack_colours, cms_style, headline, plain, tagger_styles


def roc_points(h: hist.Hist, signal_flavours: Iterable[str], background_flavours: Iterable[str]) -> tuple[Array, Array]:
    """Efficiency and mistag rate for cuts from the tightest, (0, 0), to none, (1, 1).

    Args:
        h: histogram with a `flavour` axis and the discriminator's axis.
        signal_flavours: flavours to be tagged; they are summed.
        background_flavours: flavours to be rejected; they are summed.

    Raises:
        AdvtagError: signal or background is empty or has a sum of weights that is not positive.
    """
    values = h.project("flavour", h.axes[-1].name).values(flow=True)
    axis = h.axes["flavour"]
    rates = []
    for flavours in (list(signal_flavours), list(background_flavours)):
        rows = [values[axis.index(name)] for name in flavours if name in list(axis)]
        content = np.sum(rows, axis=0) if rows else np.zeros(1)
        rates.append(rate(content, f"{h.axes[-1].name}: flavour {'+'.join(flavours)}"))
    return rates[0], rates[1]


def rate(content: Array, name: str) -> Array:
    """Part of a histogram (flow bins included) that passes each cut, from the tightest cut."""
    total = content.sum()
    if not total > 0:
        raise AdvtagError(f"{name} has a sum of weights of {total:g}; no efficiency is defined")
    passing: Array = np.concatenate([[0.0], np.cumsum(content[::-1])]) / total
    return passing


def auc(efficiency: Array, mistag: Array) -> float:
    """Area under efficiency against mistag rate: 1 separates perfectly, 0.5 is blind, ties count half."""
    return float(np.trapezoid(efficiency, mistag))


def curves(shapes: hist.Hist, discriminator: str) -> dict[tuple[str, str], tuple[Array, Array] | None]:
    """ROC points by (tagger, attack), from `plots.shapes.scaled`; None where a flavour is missing."""
    found: dict[tuple[str, str], tuple[Array, Array] | None] = {}
    signal, background = TAGGER_SCORES[discriminator]
    attacks = sorted(filled(shapes, "attack"), key=lambda name: name != RAW)
    for tagger, attack in itertools.product(filled(shapes, "tagger"), attacks):
        if not contents(shapes, CLASSES, tagger, attack)[1][1:].any():  # nothing was filled, or all is undefined
            continue
        try:
            h = shapes[{"tagger": hist.loc(tagger), "attack": hist.loc(attack)}]
            found[tagger, attack] = roc_points(h, signal, background)
        except AdvtagError:
            found[tagger, attack] = None
    return found


def auc_table(file: HistogramFile, regions: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """AUC of every discriminator by region, tagger and attack; None where a flavour is missing."""
    rows: list[dict[str, Any]] = []
    names = [name for name in DISCRIMINATORS if name in file.discriminators]
    for region, name in itertools.product(regions_of(file) if regions is None else regions, names):
        for (tagger, attack), points in curves(scaled(file, name, region), name).items():
            area = None if points is None else auc(*points)
            rows.append({"region": region, "tagger": tagger, "attack": attack, "discriminator": name, "auc": area})
    return rows


def roc(shapes: hist.Hist, *, label: str = "Simulation", region: str = "") -> Figure:
    """Draw the mistag rate against the efficiency of every tagger, raw and attacked, for one discriminator or node.

    Args:
        shapes: a discriminator or node output of one region, from `plots.shapes.scaled`.
        label: text above the axes.
        region: name written above the axes.
    """
    name = shapes.axes[-1].name
    signal, background = ("+".join(flavours) for flavours in TAGGER_SCORES[name])
    found = {pair: points for pair, points in curves(shapes, name).items() if points is not None}
    colours = attack_colours(list(shapes.axes["attack"]))
    styles = tagger_styles(filled(shapes, "tagger"))
    with cms_style():
        figure = Figure(figsize=(10.5, 7.5))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.66, bottom=0.1, top=0.93)
        handles: dict[str, list[Line2D]] = {}
        for (tagger, attack), (efficiency, mistag) in found.items():
            text = f"{plain(attack, 18)}: {auc(efficiency, mistag):.4f}"
            cut = mistag > 0
            look = {"color": colours[attack], "linestyle": styles[tagger], "linewidth": 1.6, "label": text}
            handles.setdefault(tagger, [Line2D([], [], linestyle="none", label=plain(tagger))])
            handles[tagger] += axes.plot(efficiency[cut], mistag[cut], **look)
        axes.set_yscale("log")
        axes.set_xlim(0, 1)
        axes.set_ylim(1e-4, 1)
        axes.grid(visible=True, which="major", linewidth=0.6)
        axes.set_xlabel(f"efficiency of {signal}")
        axes.set_ylabel(f"mistag rate of {background}")
        axes.text(0.03, 0.97, shapes.axes[-1].label or name, transform=axes.transAxes, va="top")
        headline(axes, axes, label)
        axes.set_title(plain(region), loc="right", fontsize=14, y=1.0)
        if found:
            rows = [handle for group in handles.values() for handle in group]
            size = 11.5 * min(1.0, 26 / len(rows))
            box = axes.legend(handles=rows, loc="upper left", bbox_to_anchor=(1.01, 1.01), title="AUC", fontsize=size)
            for entry in box.get_texts():
                entry.set_fontweight("bold" if entry.get_text() in {plain(name) for name in handles} else "normal")
        else:
            axes.text(0.5, 0.5, f"no {signal} or no {background} jets", ha="center", transform=axes.transAxes)
        return figure
