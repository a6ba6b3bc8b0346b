"""What surrounds the data/MC panels: ranges, ticks, axis labels, legend, notes."""

from collections.abc import Sequence
from typing import Any

import hist
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from plots.stack import Stack, ratio
from plots.style import BAND, TOTAL, fill_colours, headline, plain

MANY_DECADES = 1e3
"""Range of a logarithmic axis from which it has no minor ticks: each of eight for each decade takes time."""
LOG_FROM = 300.0
"""Ratio of the fullest to the emptiest bin from which the y axis is logarithmic."""


def data_span(stacks: Sequence[Stack]) -> float:
    """Half range of data/MC around 1, the same for all columns: 85 % of the filled bins are well inside."""
    away = np.concatenate([np.abs(ratio(s.data, s) - 1)[s.data > 0] for s in stacks if s.data is not None])
    away = away[np.isfinite(away)]
    reach = np.quantile(away, 0.85) if away.size else 0.0
    return next((half for half in (0.25, 0.5) if reach < 0.8 * half), 1.0)


def distortion_limits(axes: Axes, stacks: Sequence[Stack]) -> None:
    """Range of the lowest panel: around 1, or logarithmic where an attack changes bins by large factors.

    Only well-filled bins count, in which the statistical error of the raw MC is below 15 %; where they are the
    minority, the range is at least 0.5 to 1.5, for the others scatter.
    """
    parts = [ratio(v, s)[s.mc_variance < (0.15 * s.mc.clip(0)) ** 2] for s in stacks for v in s.distorted.values()]
    flat = np.concatenate(parts)
    reach = np.abs(flat - 1).max(initial=0.0)
    drawn = sum(np.count_nonzero(s.mc > 0) * len(s.distorted) for s in stacks)
    halves = (0.1, 0.25, 0.5, 1.1) if 2 * len(flat) > drawn else (0.5, 1.1)
    half = next((half for half in halves if reach < 0.9 * half), None)
    if half is not None:
        axes.set_ylim(1 - half, 1 + half)
        return
    flat = flat[flat > 0]
    axes.set_yscale("log")
    axes.set_ylim(max(min(flat.min() / 1.5, 0.3), 1e-3), min(max(flat.max() * 1.5, 3.0), 1e3))
    axes.yaxis.set_minor_formatter(NullFormatter())


def power_text(value: float, place: int | None = None) -> str:
    """A power of ten as on a linear axis: 0.001, 1, 100, 10k."""
    return f"{value:g}" if value < 1000 else str(EngFormatter(sep="")(value, place))


def vertical_range(main: Axes, stacks: Sequence[Stack], *, log: bool | None = None) -> None:
    """Scale and range of the y axis so that all contents are in it."""
    tops = [v for s in stacks for v in (s.mc, s.data, *s.distorted.values()) if v is not None]
    top = max(float(v.max()) for v in tops)
    positive = np.concatenate([s.mc[s.mc > 0] for s in stacks] + [v[v > 0] for v in tops])
    differ = positive.size > 0 and top / positive.min() > LOG_FROM
    if positive.size and (differ if log is None else log):
        low = max(positive.min() / 2, top * 1e-7)
        main.set_yscale("log")
        main.set_ylim(low, top * (top / low) ** 0.12)
        main.yaxis.set_major_locator(LogLocator(numticks=8))
        main.yaxis.set_major_formatter(FuncFormatter(power_text))  # mathtext would be parsed anew for every figure
        if top / low > MANY_DECADES:
            main.yaxis.set_minor_locator(NullLocator())
    else:
        main.set_ylim(0, 1.15 * top if top > 0 else 1)
        main.yaxis.set_major_formatter(EngFormatter(sep=""))


def finish(
    grid: np.ndarray[tuple[int, int], np.dtype[np.object_]],
    stacks: Sequence[Stack],
    names: Sequence[str],
    axis: hist.axis.AxesMixin,
    *,
    log: bool | None = None,
) -> None:
    """Ranges, ticks and axis labels; with `log` None the y axis is logarithmic where contents differ much."""
    vertical_range(grid[0, 0], stacks, log=log)
    if any(s.distorted for s in stacks):
        distortion_limits(grid[-1, 0], stacks)
    grid[0, 0].set_ylabel("jets / bin")
    for row in grid:
        row[0].yaxis.set_label_coords(-0.105, 1)
        for other in row[1:]:
            other.set_ylabel("")
    for column, s in zip(grid.T, stacks, strict=True):
        column[-1].set_xlim(s.edges[0], s.edges[-1])
        if s.integer:
            column[-1].xaxis.set_major_locator(MaxNLocator(12, integer=True))
            column[-1].xaxis.set_minor_locator(NullLocator())
        if s.absent:
            mark_absent(list(column), s)
        text = axis.label or axis.name
        column[-1].set_xlabel(text, fontsize=15 if len(text) < 55 else 11)
    for axes, name in zip(grid[0], names, strict=False):
        axes.text(0.03, 0.97, f"tagger: {plain(name)}", transform=axes.transAxes, va="top", fontsize=13)


def mark_absent(column: Sequence[Axes], s: Stack) -> None:
    """Set the bin of absent entries, the first one, apart from the axis, which begins at the third."""
    low, lowest = s.edges[2], column[-1]
    ticks = [tick for tick in lowest.get_xticks() if low <= tick <= s.edges[-1]]
    lowest.xaxis.set_major_locator(FixedLocator(ticks))
    lowest.xaxis.set_minor_locator(NullLocator())
    for axes in column[1:]:
        axes.axvline((s.edges[1] + low) / 2, color="#888888", linewidth=0.8, linestyle=(0, (2, 2)))
    place: dict[str, Any] = {"transform": column[0].get_xaxis_transform(), "ha": "center", "va": "top", "rotation": 90}
    column[0].text((s.edges[1] + low) / 2, 0.98, "absent", fontsize=10, color="#555555", **place)


def side_text(figure: Figure, stacks: Sequence[Stack], region: str, *, discriminator: bool) -> None:
    """Write the region and what became of under- and overflow beside the lowest panel."""
    if discriminator:
        most = max(s.undefined for s in stacks)
        note = f"undefined, not shown:\n{most:.2%} of the MC"
    else:
        note = "edge bins include\nunder- and overflow"
    if any(s.factor != 1 for s in stacks):
        factors = ", ".join(dict.fromkeys(f"{s.factor:.3g}" for s in stacks))
        note = f"MC scaled to the area\nof the data, by {factors}\n\n{note}"
    width = figure.get_figwidth()
    figure.text(
        1 - 2.6 / width,
        0.09,
        f"region: {plain(region, 20)}\n\n{note}",
        va="bottom",
        fontsize=11.5,
        color="#333333",
    )


def legend(figure: Figure, stacks: Sequence[Stack], colours: dict[str, str], styles: dict[str, Any]) -> None:
    """One legend beside the axes: what is stacked, then a colour for each attack and a line for each tagger."""
    handles: list[Line2D | Patch] = []
    if any(s.data is not None for s in stacks):
        handles.append(Line2D([], [], color="black", marker="o", markersize=4, linewidth=1, label="data"))
    names = dict.fromkeys(name for s in stacks for name in reversed(s.flavours))
    colour = fill_colours(name for s in stacks for name in s.flavours)
    handles += [Patch(facecolor=colour[name], label=plain(name, 22)) for name in names]
    if names:
        handles.append(Patch(**BAND, label="MC stat. error"))
    if any(s.systematic is not None for s in stacks):
        handles.append(Patch(**TOTAL, label="MC stat. + syst."))
    attacks = dict.fromkeys(attack for s in stacks for _, attack in s.distorted)
    handles += [Line2D([], [], color=colours[name], label=f"MC, {plain(name, 20)}") for name in attacks]
    if attacks and len(styles) > 1:
        handles += [
            Line2D([], [], color="#555555", linestyle=style, label=f"for {plain(name, 17)}")
            for name, style in styles.items()
        ]
    left = 1 - 2.75 / figure.get_figwidth()
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(left, 0.945), borderaxespad=0.4, handlelength=1.9)


def empty(shapes: hist.Hist, label: str, region: str) -> Figure:
    """A figure that says that nothing was filled."""
    figure = Figure(figsize=(9.5, 8))
    axes = figure.subplots()
    axes.text(0.5, 0.5, f"no entries in {plain(region)}", ha="center", transform=axes.transAxes)
    axes.set_xlabel(shapes.axes[-1].label or shapes.axes[-1].name)
    axes.set_xlim(shapes.axes[-1].edges[0], shapes.axes[-1].edges[-1])
    axes.set_yticks([])
    headline(axes, axes, label)
    return figure
