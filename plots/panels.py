"""What the figures of trainings share: panels in a grid, numbers on axes, looks of lines, the legend."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from common.histograms import RAW
from plots.histories import Histories, attacks_of
from plots.style import Array, attack_colours, plain, tagger_styles

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MARKED = 25
"""Points of a line up to which each has a marker; of more, every n-th has one."""
GREY = "#666666"
LEGEND = 2.75
"""Inches beside the panels."""

Looks = dict[tuple[str, str], dict[str, Any]]
"""How a line is drawn, by tagger and attack."""


def looks_of(histories: Histories, attacks: Sequence[str]) -> Looks:
    """A colour for each attack, raw in black, then `attacks`; a line style and a marker for each tagger."""
    colours = attack_colours(list(dict.fromkeys([*attacks, *attacks_of(histories)])))
    styles = tagger_styles(list(histories))
    looks: Looks = {}
    for i, (tagger, epochs) in enumerate(histories.items()):
        marked = {"marker": MARKERS[i % len(MARKERS)], "markersize": 4, "markevery": math.ceil(len(epochs) / MARKED)}
        for attack, colour in colours.items():
            looks[tagger, attack] = {"color": colour, "linestyle": styles[tagger], "linewidth": 1.5, **marked}
    return looks


def grid_of(number: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, up to three in a row, and room for a legend on the right."""
    columns = number if number < 3 else 2 if number < 5 else 3
    rows = math.ceil(number / columns)
    width, height = 6.0 * columns + (1.0 if columns == 1 else 0.0), 5.6 if rows == 1 else 4.7 * rows
    figure = Figure(figsize=(width + LEGEND, height))
    gaps = {"left": 1.05, "bottom": 0.75, "top": height - 0.5, "right": width - 0.1}
    figure.subplots_adjust(
        **{side: inches / (width + LEGEND if side in ("left", "right") else height) for side, inches in gaps.items()},
        wspace=0.3,
        hspace=0.32,
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[number:]:
        spare.remove()
    return figure, panels[:number]


def epoch_axis(axes: Axes, epochs: Array) -> None:
    """Whole epochs, from the first to the last."""
    space = max(0.5, 0.015 * float(np.ptp(epochs)))
    axes.set_xlim(float(epochs.min()) - space, float(epochs.max()) + space)
    whole_numbers(axes)
    axes.set_xlabel("epoch")


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at round whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_minor_locator(NullLocator())


def plain_numbers(axes: Axes, which: str = "y") -> None:
    """Write numbers out: 0.9412 and not 0.0012 + 0.94."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    axis.set_major_formatter(formatter)
    axes.grid(visible=True, which="major", linewidth=0.6)


def say_if_empty(axes: Axes) -> None:
    """Write why there is nothing in these axes, if there is nothing."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.zeros(0)])
    if not np.isfinite(values).any():
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "undefined: a class has no jets", ha="center", transform=axes.transAxes)


def attack_lines(attacks: Iterable[str], looks: Looks) -> list[Line2D]:
    """Legend entries of the colours of raw and of attacked jets."""
    colours = {attack: look["color"] for (_, attack), look in looks.items()}
    return [Line2D([], [], color=colours[name], linewidth=2, label=plain(name, 18)) for name in (RAW, *attacks)]


def tagger_lines(looks: Looks) -> list[Line2D]:
    """Legend entries of the line styles and markers of taggers."""
    names = dict.fromkeys(tagger for tagger, _ in looks)
    return [Line2D([], [], **{**looks[name, RAW], "color": GREY}, label=plain(name, 18)) for name in names]


def legend(figure: Figure, groups: Mapping[str, Sequence[Line2D]]) -> None:
    """One legend beside the panels: groups of entries, each below its heading."""
    handles: list[Line2D] = []
    headings = []
    for heading, lines in groups.items():
        if handles:
            handles.append(Line2D([], [], linestyle="none", label=" "))
        headings.append(len(handles))
        handles += [Line2D([], [], linestyle="none", label=heading), *lines]
    left = 1 - (LEGEND - 0.05) / figure.get_figwidth()
    top = 1 - 0.45 / figure.get_figheight()
    size = 12.5 * min(1.0, 3.0 * figure.get_figheight() / len(handles))
    box = figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left, top), borderaxespad=0, handlelength=2.4, fontsize=size
    )
    for row in headings:
        box.get_texts()[row].set_fontweight("bold")
