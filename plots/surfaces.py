"""The loss around jets, along an attack and along a random direction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from plots.heat import DIVERGING
from plots.panels import grid_of, legend
from plots.style import LINES, Array, cms_style, headline, plain

DIRECTIONS = {"attack": LINES[0], "random": LINES[4]}
LEVELS = 15
"""Contours above 0, about."""


def loss_lines(table: Mapping[str, Any], *, attack: str, label: str = "Simulation") -> Figure:
    """Draw by how much the loss rises along an attack and along a random direction: a panel for each tagger.

    Lines are means over jets, dashes medians, and the bands hold the central 68 % of the jets.

    Args:
        table: `line`, `jets`, and `taggers`: by name, what an inspection says of the surface.
        attack: its name.
        label: text above the axes.
    """
    line = np.array(table["line"])
    with cms_style():
        figure, panels = grid_of(len(table["taggers"]))
        for axes, (name, found) in zip(panels, table["taggers"].items(), strict=True):
            for direction, colour in DIRECTIONS.items():
                low, middle, high = np.array(found[direction]["quantiles"])
                axes.fill_between(line, low, high, color=colour, alpha=0.2, linewidth=0)
                axes.plot(line, middle, color=colour, linewidth=1.2, linestyle="dashed")
                axes.plot(line, found[direction]["mean"], color=colour, linewidth=2)
            axes.set_title(plain(name, 20), loc="right", fontsize=14)
            axes.text(0.04, 0.93, f"clean loss {found['clean']:.3f}", transform=axes.transAxes, fontsize=12)
            axes.set_xlabel(f"distance / size of {plain(attack, 16)}")
            axes.set_ylabel("loss $-$ clean loss")
            axes.set_xlim(line[0], line[-1])
            axes.axhline(0, color="black", linewidth=0.6)
            axes.axvline(1, color="black", linewidth=0.6, linestyle="dotted")
        low, high = np.array([axes.get_ylim() for axes in panels]).T
        for axes in panels:
            axes.set_ylim(low.min(), high.max() + 0.08 * (high.max() - low.min()))
        headline(panels[0], panels[0], label)
        along = [Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in DIRECTIONS.items()]
        jets = [
            Line2D([], [], color="black", linewidth=2, label="mean"),
            Line2D([], [], color="black", linewidth=1.2, linestyle="dashed", label="median"),
            Line2D([], [], color="#cccccc", linewidth=9, label="68 % of the jets"),
        ]
        legend(figure, {"direction": along, f"{table['jets']} jets": jets})
        return figure


def loss_planes(table: Mapping[str, Any], *, attack: str, label: str = "Simulation") -> Figure:
    """Draw the increase of the loss in the plane of an attack and a random direction, mean over jets and of one jet.

    A row for each tagger, all with the colours of their column. The cross is where the jets are; the circle is the end
    of the attack. The one jet is that whose increase there is the median for the first tagger. Arguments as in
    `loss_lines`; the table also has `grid` and `classes`.
    """
    grid, taggers = np.array(table["grid"]), table["taggers"]
    columns = {
        "mean": [np.array(found["plane"]) for found in taggers.values()],
        "jet": [np.array(found["jet"]["plane"]) for found in taggers.values()],
    }
    with cms_style():
        figure = Figure(figsize=(13.4, 4.7 * len(taggers) + 0.9))
        height = figure.get_figheight()
        figure.subplots_adjust(
            left=0.075, right=0.93, top=1 - 0.5 / height, bottom=0.8 / height, wspace=0.36, hspace=0.2
        )
        panels = figure.subplots(len(taggers), 2, squeeze=False, sharex=True, sharey=True)
        for column, (kind, planes) in enumerate(columns.items()):
            reach = max(float(np.abs(plane).max()) for plane in planes) or 1.0
            levels = np.array(MaxNLocator(2 * LEVELS, symmetric=True).tick_values(-reach, reach))
            for axes, (name, found), plane in zip(panels[:, column], taggers.items(), planes, strict=True):
                contours(axes, grid, plane, levels)
                jet = found["jet"]
                what = f"{table['jets']} jets, mean"
                if kind == "jet":
                    flavour = table["classes"][jet["class"]]
                    what = f"one {flavour} jet, pT {jet['pt']:.0f} GeV, η {jet['eta']:.1f}"
                axes.set_title(f"{plain(name, 18)}: {what}", loc="right", fontsize=13)
        for axes in panels[-1]:
            axes.set_xlabel(f"along the attack / size of {plain(attack, 16)}")
        for axes in panels[:, 0]:
            axes.set_ylabel("random direction / the same")
        figure.text(0.075, 1 - 0.3 / height, plain(label), fontweight="bold", fontstyle="italic", fontsize=17)
        return figure


def contours(axes: Axes, grid: Array, plane: Array, levels: Array) -> None:
    """Filled contours of one plane, with lines, a scale, and what lies where; levels go as far down as up."""
    filled = axes.contourf(grid, grid, plane, levels=levels, cmap=DIVERGING)
    axes.contour(grid, grid, plane, levels=levels, colors="black", linewidths=0.4, linestyles="solid")
    axes.plot(0, 0, marker="+", color="black", markersize=12, markeredgewidth=1.8)
    axes.plot(1, 0, marker="o", color="black", markersize=7, markerfacecolor="none", markeredgewidth=1.6)
    axes.set_aspect("equal")
    bar = axes.figure.colorbar(filled, ax=axes, fraction=0.05, pad=0.03)
    bar.locator = MaxNLocator(8)
    bar.update_ticks()
    bar.set_label("loss $-$ clean loss", fontsize=12)
    bar.ax.tick_params(labelsize=10.5)
