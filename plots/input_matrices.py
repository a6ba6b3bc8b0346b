"""Square matrices of inputs against inputs, side by side, as heat maps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from plots.heat import DIVERGING, heat
from plots.style import Array, cms_style, headline, plain

ROW = 0.125
"""Inches of a row of a large matrix: its labels, of 8 points, do not touch."""
LARGEST = 10.0
"""Inches of a matrix, at most."""
LABELLED = 120
"""Inputs up to which each stem is named, and not only each group."""
LEAST = 0.05
"""Change of a correlation at the ends of the colours, at least."""


@dataclass(frozen=True)
class Ticks:
    """Labels of inputs beside each other, and lines between them."""

    places: list[float]
    labels: list[str]
    thin: list[int]
    """First rows of runs of slots, and of what follows these, but the first row: where lines go."""
    thick: list[int]
    """First rows of groups but the first."""


@dataclass(frozen=True)
class Panel:
    """One matrix and how it is shown."""

    title: str
    values: Array
    """[inputs, inputs]; nan is grey"""
    limit: float
    """The colours reach from -limit to limit."""
    scale: str
    """What the colours mean."""


def matrices(
    panels: Sequence[Panel],
    *,
    names: Sequence[str],
    groups: Sequence[str] = (),
    label: str,
    luminosity: float | None = None,
    headings: Sequence[str] = (),
) -> Figure:
    """Matrices of the same inputs side by side, with lines between runs of slots, thick ones between groups.

    Args:
        panels: from the left.
        names: of the inputs; those of the slots of one quantity end in _0, _1, ...
        groups: of the inputs, if they are known.
        label: above the first panel, "Simulation" or "Private work".
        luminosity: 1/pb, above the last panel.
        headings: lines of text above the panels.
    """
    side = min(max(4.0, ROW * len(names)), LARGEST)
    ticks = ticks_of(names, groups)
    left, right, bottom, gap = 2.0, 0.3, 1.9, 0.4
    top = 0.95 + 0.35 * len(headings)
    width, height = left + len(panels) * (side + 1.0) + (len(panels) - 1) * gap + right, bottom + side + top
    with cms_style():
        figure = Figure(figsize=(width, height))
        drawn = []
        for place, panel in enumerate(panels):
            start = left + place * (side + 1.0 + gap)
            axes = figure.add_axes((start / width, bottom / height, side / width, side / height))
            bar = figure.add_axes(((start + side + 0.1) / width, bottom / height, 0.18 / width, side / height))
            draw_matrix(axes, bar, panel, ticks, rows=place == 0, size=label_size(ticks, side / len(names)))
            drawn.append(axes)
        headline(drawn[0], drawn[-1], label, luminosity)
        for line, text in enumerate(headings):
            figure.text(left / width, 1 - (0.32 + 0.35 * line) / height, text, fontsize=20, va="center")
    return figure


def change(title: str, before: Array, after: Array) -> Panel:
    """The change of correlations as a panel."""
    values = after - before
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=LEAST))
    return Panel(title, values, largest, "change of the correlation")


def draw_matrix(axes: Axes, bar: Axes, panel: Panel, ticks: Ticks, *, size: float, rows: bool = True) -> None:
    """One heat map with its bar of colours; `rows`: name the rows, too."""
    image = heat(axes, panel.values, Normalize(-panel.limit, panel.limit), DIVERGING)
    axes.figure.colorbar(image, cax=bar)
    bar.tick_params(labelsize=13)
    bar.set_ylabel(panel.scale, fontsize=16)
    axes.set_title(panel.title, fontsize=18, pad=7)
    for borders, width in ((ticks.thin, 0.35), (ticks.thick, 1.2)):
        for border in borders:
            axes.axhline(border - 0.5, color="black", linewidth=width)
            axes.axvline(border - 0.5, color="black", linewidth=width)
    axes.set_xticks(ticks.places, ticks.labels, rotation=90, fontsize=size)
    axes.set_yticks(ticks.places, ticks.labels if rows else [""] * len(ticks.labels), fontsize=size)
    axes.tick_params(pad=3)


def label_size(ticks: Ticks, row: float) -> float:
    """Points of the labels: 10, or less where two of them would touch; a row has `row` inches."""
    return min(10.0, 8.0 / ROW * row * float(np.diff(ticks.places).min(initial=np.inf)))


def ticks_of(names: Sequence[str], groups: Sequence[str] = ()) -> Ticks:
    """Labels in the middle of runs of slots: `trackPtRel_0` to `trackPtRel_5` are `trackPtRel 0 to 5`.

    Single inputs side by side have no lines between them. More than `LABELLED` inputs of known groups have labels of
    their groups alone.
    """
    places, labels, thin, last, start = [], [], [], 0, 0
    for stem, found in groupby(names, lambda name: re.sub(r"_\d+$", "", name)):
        members = list(found)
        slots = [name.removeprefix(f"{stem}_") for name in members]
        labels.append(plain(f"{stem} {slots[0]} to {slots[-1]}" if len(slots) > 1 else members[0]))
        places.append(start + (len(slots) - 1) / 2)
        if start and (len(slots) > 1 or last > 1):
            thin.append(start)
        last, start = len(slots), start + len(slots)
    thick = [k for k in range(1, len(groups)) if groups[k] != groups[k - 1]]
    if groups and len(names) > LABELLED:
        edges = [0, *thick, len(names)]
        places = [(first + end - 1) / 2 for first, end in pairwise(edges)]
        labels = [plain(groups[first]) for first in edges[:-1]]
    return Ticks(places, labels, thin, thick)
