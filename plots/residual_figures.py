"""Figures of the uncertainty from attacks: the shift of each efficiency, and whether data/MC would show it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plots.catalogue import About
from plots.jobs import Job
from plots.panels import GREY, MARKERS, grid_of, legend, say_if_empty
from plots.residual import Residual, hidden
from plots.style import LINES, TOTAL, cms_style, headline, plain

PALE = "#cccccc"


def residual_figures(rows: Sequence[Residual], folder: Path, label: str) -> Iterator[Job]:
    """Figures of the table, one for each region."""
    for region in dict.fromkeys(row.region for row in rows):
        these = [row for row in rows if row.region == region]
        about = About(
            "residual",
            "uncertainty from attacks",
            region,
            taggers=tuple(dict.fromkeys(row.tagger for row in these)),
            attacks=tuple(dict.fromkeys(row.attack for row in these)),
        )
        yield Job(folder / region / "residual.png", residual_figure, these, {"label": label}, about)


def residual_figure(
    rows: Sequence[Residual],
    *,
    true: Mapping[tuple[str, str, str], Sequence[float]] | None = None,
    label: str = "Simulation",
) -> Figure:
    """Draw the shift of the efficiency under each attack, and the variations as a band: a panel for each flavour.

    A full marker is an attack that is invisible everywhere, a pale one is not in a discriminator, a hollow one is not
    in an input or in correlations: there it is visible, unclear, or without a verdict.

    Args:
        rows: of one region.
        true: known shifts by flavour, working point and tagger, drawn as lines.
        label: text above the axes.
    """
    flavours = list(dict.fromkeys(row.flavour for row in rows))
    attacks = list(dict.fromkeys(row.attack for row in rows))
    places = list(dict.fromkeys((row.working_point, row.tagger) for row in rows))
    with cms_style():
        figure, panels = grid_of(len(flavours))
        names_below(figure)
        for axes, flavour in zip(panels, flavours, strict=True):
            axes.axhline(0, color="black", linewidth=0.8)
            for row in (row for row in rows if row.flavour == flavour):
                _mark(axes, row, places.index((row.working_point, row.tagger)), attacks)
            for x, (point, tagger) in enumerate(places):
                for value in (true or {}).get((flavour, point, tagger), ()):
                    axes.plot([x - 0.4, x + 0.4], [value, value], color="black", linewidth=1.2)
            names = [f"{plain(tagger, 14)}, {plain(point, 8)}" for point, tagger in places]
            axes.set_xticks(range(len(places)), names, rotation=40, ha="right", fontsize=10)
            axes.tick_params(axis="x", which="minor", bottom=False, top=False)
            axes.set_ylabel(f"shift of efficiency, {flavour} jets")
            say_if_empty(axes)
        headline(panels[0], panels[0], label)
        legend(figure, _legend(attacks, rows, known=bool(true)))
        return figure


def names_below(figure: Figure) -> None:
    """Room below every panel of `grid_of` for long, slanted names."""
    grid = figure.axes[0].get_gridspec()
    rows = 1 if grid is None else grid.nrows
    figure.set_figheight(figure.get_figheight() + 1.2 * rows)
    height = figure.get_figheight()
    figure.subplots_adjust(bottom=1.6 / height, top=1 - 0.5 / height, hspace=0.45)


def _mark(axes: Axes, row: Residual, x: int, attacks: Sequence[str]) -> None:
    """One attack, and the band of the variations below it."""
    i = attacks.index(row.attack)
    seen = (row.input, row.correlations, row.discriminator)
    fill = LINES[i % len(LINES)] if hidden(seen) else PALE if hidden(seen[:2]) else "white"
    place = x + 0.6 * ((i + 0.5) / len(attacks) - 0.5)
    look: dict[str, Any] = {"color": LINES[i % len(LINES)], "marker": MARKERS[i % len(MARKERS)], "markersize": 7}
    axes.plot([place], [row.shift], **look, markerfacecolor=fill, linestyle="none")
    if np.isfinite(row.conventional_up):
        axes.fill_between([x - 0.45, x + 0.45], -row.conventional_down, row.conventional_up, **TOTAL)


def _legend(attacks: Sequence[str], rows: Sequence[Residual], *, known: bool) -> dict[str, list[Line2D]]:
    marks = [
        Line2D(
            [],
            [],
            color=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle="none",
            label=plain(name, 18),
        )
        for i, name in enumerate(attacks)
    ]
    fills = [
        Line2D([], [], color=GREY, marker="o", linestyle="none", markerfacecolor=fill, label=text)
        for fill, text in ((GREY, "everywhere"), (PALE, "in inputs only"), ("white", "not in inputs"))
    ]
    others = [Line2D([], [], color="black", label="true shifts")] if known else []
    if any(np.isfinite(row.conventional_up) for row in rows):
        others.append(Line2D([], [], color="#444444", alpha=0.3, linewidth=8, label="variations"))
    return {"attack": marks, "invisible in data/MC": fills} | ({"": others} if others else {})
