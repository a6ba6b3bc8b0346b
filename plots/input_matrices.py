"""Square matrices of inputs against inputs, side by side, as heat maps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from plots.heat import DIVERGING, heat
from plots.style import Array, cms_style, headline, plain

ROW = 0.125
"""Inches of a row of a large matrix: its labels, of 8 points, do not touch."""


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
    label: str,
    luminosity: float | None = None,
    headings: Sequence[str] = (),
) -> Figure:
    """Matrices of the same inputs side by side, with lines between groups of slots.

    Args:
        panels: from the left.
        names: of the inputs; those of the slots of one quantity end in _0, _1, ...
        label: above the first panel, "Simulation" or "Private work".
        luminosity: 1/pb, above the last panel.
        headings: lines of text above the panels.
    """
    side = max(4.0, ROW * len(names))
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
            draw_matrix(axes, bar, panel, names, rows=place == 0)
            drawn.append(axes)
        headline(drawn[0], drawn[-1], label, luminosity)
        for line, text in enumerate(headings):
            figure.text(left / width, 1 - (0.32 + 0.35 * line) / height, text, fontsize=20, va="center")
    return figure


def draw_matrix(axes: Axes, bar: Axes, panel: Panel, names: Sequence[str], *, rows: bool = True) -> None:
    """One heat map with its bar of colours; `rows`: name the rows, too."""
    image = heat(axes, panel.values, Normalize(-panel.limit, panel.limit), DIVERGING)
    axes.figure.colorbar(image, cax=bar)
    bar.tick_params(labelsize=13)
    bar.set_ylabel(panel.scale, fontsize=16)
    axes.set_title(panel.title, fontsize=18, pad=7)
    places, labels, borders = groups(names)
    for border in borders:
        axes.axhline(border - 0.5, color="black", linewidth=0.35)
        axes.axvline(border - 0.5, color="black", linewidth=0.35)
    size = 8 if len(names) > 25 else 10
    axes.set_xticks(places, labels, rotation=90, fontsize=size)
    axes.set_yticks(places, labels if rows else [""] * len(labels), fontsize=size)
    axes.tick_params(pad=3)


def groups(names: Sequence[str]) -> tuple[list[float], list[str], list[int]]:
    """Labels of runs of slots: `trackPtRel_0` to `trackPtRel_5` are `trackPtRel 0 to 5`, in their middle.

    Returns:
        Place and text of each label, and the first rows of the groups but the first, where lines go: those of single
        inputs side by side are one group.
    """
    places, labels, borders, last, start = [], [], [], 0, 0
    for stem, found in groupby(names, lambda name: re.sub(r"_\d+$", "", name)):
        members = list(found)
        slots = [name.removeprefix(f"{stem}_") for name in members]
        labels.append(plain(f"{stem} {slots[0]} to {slots[-1]}" if len(slots) > 1 else members[0]))
        places.append(start + (len(slots) - 1) / 2)
        if start and (len(slots) > 1 or last > 1):
            borders.append(start)
        last, start = len(slots), start + len(slots)
    return places, labels, borders
