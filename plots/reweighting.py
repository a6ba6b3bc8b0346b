"""Figures of the weights in pt, eta and flavour that a training uses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, NullFormatter

from plots.heat import DIVERGING, SEQUENTIAL, palette
from plots.panels import GREY, legend
from plots.shifts import colour_of
from plots.style import STYLES, Array, cms_style, headline, plain

DECADES = 4
"""Of the fractions that have a colour."""
LARGEST = 10.0
"""Weight at the end of the colours; 1 is white."""


def reweighting_maps(table: Mapping[str, Any], *, form: str, label: str = "Simulation") -> Figure:
    """Draw the spectra of the training jets in pt and eta by flavour, the weights, and the weighted spectra.

    Args:
        table: `pt_edges` (GeV), `eta_edges`; by flavour, [pt bin][eta bin], `before`, sums of weights, and `weights`.
        form: name of the weights.
        label: text above the axes.
    """
    flavours = list(table["before"])
    before = {name: np.array(table["before"][name], np.float64) for name in flavours}
    weights = {name: np.array(table["weights"][name], np.float64) for name in flavours}
    after = {name: before[name] * weights[name] for name in flavours}
    rows: list[tuple[str, dict[str, Array], Normalize, str]] = [
        ("before", {name: shares(x) for name, x in before.items()}, fraction_norm(before), SEQUENTIAL),
        (f"weight, {plain(form)}", weights, LogNorm(1 / LARGEST, LARGEST, clip=True), DIVERGING),
        ("after", {name: shares(x) for name, x in after.items()}, fraction_norm(before), SEQUENTIAL),
    ]
    with cms_style():
        figure = Figure(figsize=(3.5 * len(flavours) + 2.3, 10))
        figure.subplots_adjust(left=0.07, right=0.88, top=0.94, bottom=0.07, hspace=0.22, wspace=0.08)
        panels = figure.subplots(3, len(flavours), sharex=True, sharey=True, squeeze=False)
        for row, (name, tables, norm, colours) in enumerate(rows):
            for axes, flavour in zip(panels[row], flavours, strict=True):
                mesh = pt_eta(axes, table, tables[flavour], norm, colours)
                axes.set_title(f"{flavour}, {name}", loc="right", fontsize=12)
            place = panels[row, -1].get_position()
            bar = figure.add_axes((0.895, place.y0, 0.013, place.height))
            figure.colorbar(mesh, cax=bar).set_label("weight" if row == 1 else "part of the flavour", fontsize=12)
            bar.tick_params(labelsize=11)
            panels[row, 0].set_ylabel("jet η")
        for axes in panels[-1]:
            axes.set_xlabel("jet pT [GeV]")
        figure.text(0.07, 0.965, plain(label), fontweight="bold", fontstyle="italic", fontsize=17)
        return figure


def shares(x: Array) -> Array:
    """Parts of the sum; nan without one."""
    total = x.sum()
    part: Array = x / total if total > 0 else np.full_like(x, np.nan)
    return part


def fraction_norm(before: Mapping[str, Array]) -> LogNorm:
    """Colours of fractions, over `DECADES` below the highest of any flavour."""
    highest = float(np.nanmax([shares(x).max() for x in before.values()]))
    return LogNorm(highest / 10**DECADES, highest, clip=True)


def pt_eta(axes: Axes, table: Mapping[str, Any], values: Array, norm: Normalize, colours: str) -> Any:
    """A map in pt (logarithmic) and eta; what is not above 0 is grey."""
    shown = np.ma.masked_where(~(values > 0), values).T
    mesh = axes.pcolormesh(table["pt_edges"], table["eta_edges"], shown, cmap=palette(colours), norm=norm)
    pt_axis(axes)
    return mesh


def pt_axis(axes: Axes) -> None:
    """Logarithmic, with 20, 50, 100, ... written out."""
    axes.set_xscale("log")
    axes.set_xticks([20, 50, 100, 200, 500])
    axes.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(9, 9)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=11)


def spectra(table: Mapping[str, Any], *, form: str, label: str = "Simulation") -> Figure:
    """Draw pt and eta of the training jets by flavour before and after the weights, as parts of all jets.

    Arguments as in `reweighting_maps`.
    """
    before = {name: np.array(x, np.float64) for name, x in table["before"].items()}
    after = {name: x * np.array(table["weights"][name], np.float64) for name, x in before.items()}
    styles = STYLES[: len(before)]  # after the weights, lines lie on each other
    with cms_style():
        figure = Figure(figsize=(13.5, 9))
        figure.subplots_adjust(left=0.08, right=0.78, top=0.94, bottom=0.09, hspace=0.08, wspace=0.25)
        panels = figure.subplots(2, 2, sharex="col")
        for row, (name, tables) in enumerate((("before", before), ("after", after))):
            total = sum(x.sum() for x in tables.values())
            for column, edges in enumerate((table["pt_edges"], table["eta_edges"])):
                axes = panels[row, column]
                for (flavour, x), style in zip(tables.items(), styles, strict=False):
                    density = x.sum(1 - column) / np.diff(edges) / total
                    axes.stairs(density, edges, color=colour_of(flavour), linewidth=2, linestyle=style)
                axes.text(0.96, 0.94, name, ha="right", va="top", fontsize=13, transform=axes.transAxes)
                axes.set_yscale("log")
                axes.set_ylabel("part of all jets / GeV" if column == 0 else "part of all jets / unit of η")
            pt_axis(panels[row, 0])
        panels[1, 0].set_xlabel("jet pT [GeV]")
        panels[1, 1].set_xlabel("jet η")
        headline(panels[0, 0], panels[0, 0], label)
        lines = [
            Line2D([], [], color=colour_of(name), linewidth=2, linestyle=style, label=name)
            for name, style in zip(before, styles, strict=False)
        ]
        legend(figure, {"flavour": lines, "weights": [Line2D([], [], color=GREY, linestyle="none", label=plain(form))]})
        return figure
