"""Figures of a study: true and measured scale factors, how far they are from 1, and data/MC of the discriminators."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plots.catalogue import About
from plots.jobs import Job
from plots.panels import MARKERS, grid_of, legend, say_if_empty
from plots.residual_figures import names_below
from plots.style import LINES, cms_style, headline, plain
from study.agreement import Agreement
from study.conclude import TRUE, Comparison, Row

KIND = "study"


def study_figures(
    table: Sequence[Row], found: Sequence[Comparison], shapes: Sequence[Agreement], folder: Path, label: str
) -> Iterator[Job]:
    """All figures of a study but that of the attacks."""
    options = {"label": label}
    for name, draw, what, title in (
        ("scale_factors_true.png", true_factors, table, "true scale factors"),
        ("scale_factors_closure.png", closure, table, "measured minus true scale factors"),
        ("distance_from_one.png", distances, found, "mean |SF - 1|"),
        ("agreement.png", shape_agreement, shapes, "data/MC of the discriminator"),
    ):
        if what:
            yield Job(folder / name, draw, what, options, About(KIND, title))


def true_factors(table: Sequence[Row], *, label: str = "Simulation") -> Figure:
    """Draw the true scale factors: a panel for each flavour and working point, variants along the axis."""
    rows = [row for row in table if row.method == TRUE]
    keys = dict.fromkeys((row.flavour, row.working_point) for row in rows)
    return _by_variant(
        rows,
        {f"{flavour} jets, {point}": (flavour, point) for flavour, point in keys},
        lambda row: (row.flavour, row.working_point),
        lambda row: (row.scale_factor, row.error),
        ("true scale factor", 1.0, label),
    )


def closure(table: Sequence[Row], *, label: str = "Simulation") -> Figure:
    """Draw measured minus true scale factors: a panel for each method and working point."""
    rows = [row for row in table if row.method != TRUE]
    keys = dict.fromkeys((row.method, row.working_point) for row in rows)
    return _by_variant(
        rows,
        {f"{method}, {point}": (method, point) for method, point in keys},
        lambda row: (row.method, row.working_point),
        lambda row: (row.minus_true, row.minus_true_error),
        ("SF measured $-$ true", 0.0, label),
    )


def shape_agreement(shapes: Sequence[Agreement], *, label: str = "Simulation") -> Figure:
    """Draw chi2/ndf of the discriminator's shape: a panel for each process."""
    processes = dict.fromkeys(row.process for row in shapes)
    return _by_variant(
        shapes,
        {process: process for process in processes},
        lambda row: row.process,
        lambda row: (row.chi2 / row.ndf if row.ndf else np.nan, np.nan),
        ("$\\chi^2$/ndf of data/MC", 1.0, label),
        log=True,
    )


def _by_variant(
    rows: Sequence[Row] | Sequence[Agreement],
    keys: dict[str, object],
    key_of: Callable[..., object],
    value_of: Callable[..., tuple[float, float]],
    words: tuple[str, float, str],
    *,
    log: bool = False,
) -> Figure:
    """Panels with variants along the axis, a colour and a marker for each tagger, a line at what is ideal."""
    variants, taggers = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("variant", "tagger"))
    with cms_style():
        figure, panels = grid_of(len(keys))
        names_below(figure)
        for axes, (title, key) in zip(panels, keys.items(), strict=True):
            axes.axhline(words[1], color="black", linewidth=0.8)
            for row in (row for row in rows if key_of(row) == key):
                i = taggers.index(row.tagger)
                place = variants.index(row.variant) + 0.6 * ((i + 0.5) / len(taggers) - 0.5)
                axes.errorbar([place], [value_of(row)[0]], [value_of(row)[1]], **_look(i), markersize=5, elinewidth=1.2)
            axes.margins(y=0.1)
            _names(axes, variants)
            axes.set_title(title, loc="right", fontsize=13)
            axes.set_ylabel(words[0])
            if log:
                axes.set_yscale("log")
            say_if_empty(axes)
        headline(panels[0], panels[0], words[2])
        legend(
            figure, {"tagger": [Line2D([], [], **_look(i), label=plain(name, 18)) for i, name in enumerate(taggers)]}
        )
        return figure


def distances(found: Sequence[Comparison], *, label: str = "Simulation") -> Figure:
    """Draw the mean of |SF - 1| of the true scale factors over the variants: a panel for each flavour and working
    point, the reference tagger first, with a line.
    """
    rows = [row for row in found if row.method == TRUE]
    keys = list(dict.fromkeys((row.flavour, row.working_point) for row in rows))
    taggers = list(dict.fromkeys(row.tagger for row in rows))
    with cms_style():
        figure, panels = grid_of(len(keys))
        names_below(figure)
        for axes, (flavour, point) in zip(panels, keys, strict=True):
            for row in (row for row in rows if (row.flavour, row.working_point) == (flavour, point)):
                axes.axhline(row.off_reference, color="black", linewidth=0.8)
                axes.errorbar([0], [row.off_reference], [row.off_reference_error], **_look(0), markersize=6)
                i = 1 + taggers.index(row.tagger)
                axes.errorbar([i], [row.off], [row.off_error], **_look(i), markersize=6)
            _names(axes, ["reference", *taggers])
            axes.margins(y=0.15)
            axes.set_ylim(bottom=0)
            axes.set_title(f"{flavour} jets, {point}", loc="right", fontsize=13)
            axes.set_ylabel("mean |SF $-$ 1|, true")
            say_if_empty(axes)
        headline(panels[0], panels[0], label)
        return figure


def _look(i: int) -> dict[str, Any]:
    colour = ("black", *LINES)[i % (1 + len(LINES))]
    return {"color": colour, "marker": MARKERS[i % len(MARKERS)], "linestyle": "none"}


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [plain(name, 18) for name in names], rotation=35, ha="right", fontsize=11)
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.set_xlim(-0.6, len(names) - 0.4)
