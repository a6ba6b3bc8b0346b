"""What attacks do to the shape of a variable, by true flavour: raw and distorted, and their ratio."""

from collections.abc import Mapping
from typing import Any

import hist
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import ScalarFormatter

from common.histograms import RAW
from plots.frame import distortion_limits, empty, finish, side_text, vertical_range
from plots.shapes import filled
from plots.stack import Drawing, Stack, ratio, stack
from plots.style import FLAVOURS, Array, attack_colours, cms_style, headline, plain, steps, tagger_styles

SHOWN = {"b": ("b", "bb"), "c": ("c",), "udsg": ("udsg",)}
"""Flavours of each column."""


def flavour_shapes(
    shapes: hist.Hist,
    *,
    label: str = "Simulation",
    region: str = "",
    drawing: Drawing = Drawing(),
    jets: Mapping[str, hist.Hist] | None = None,
) -> Figure:
    """Draw a variable by flavour, each normalised to its raw area: raw as a filled shape, distorted ones as lines.

    The lower panel has distorted over raw MC, without error bars: they hold the same jets. A colour is an attack, a
    line style a tagger. Raw inputs are the same for every tagger; raw outputs are not, and each has a line of its own.

    Args:
        shapes: one variable of one region, from `plots.shapes.scaled`.
        label: text above the axes.
        region: name written beside the axes.
        drawing: how bins are drawn; `area` has no effect.
        jets: all jets by variation, from `plots.shapes.jets_in`: absent entries get a bin of their own.
    """
    taggers = filled(shapes, "tagger")
    columns = {name: of_flavours(shapes, names) for name, names in SHOWN.items()}
    alike = {name: {key: of_flavours(each, SHOWN[name]) for key, each in (jets or {}).items()} for name in SHOWN}
    drawing = Drawing(drawing.discriminator, rebin=drawing.rebin, log=drawing.log)
    groups = [[tagger] for tagger in taggers] if drawing.discriminator else [taggers]
    stacks = {
        name: [unit(stack(column, group, drawing, jets=alike[name])) for group in groups]
        for name, column in columns.items()
        if filled(column, "tagger")
    }
    with cms_style():
        if not stacks:
            return empty(shapes, label, region)
        width = 4.6 * len(stacks) + 3.75
        figure = Figure(figsize=(width, 6.6))
        grid = figure.subplots(
            2, len(stacks), sharex=True, sharey="row", squeeze=False,
            gridspec_kw={"height_ratios": [2.2, 1], "hspace": 0.07, "wspace": 0.1},
        )  # fmt: skip
        figure.subplots_adjust(left=1.0 / width, right=1 - 2.75 / width, bottom=0.11, top=0.92)
        colours, styles = attack_colours(list(shapes.axes["attack"])), tagger_styles(taggers)
        for column, (name, parts) in zip(grid.T, stacks.items(), strict=True):
            draw_flavour(column, name, dict(zip(taggers, parts, strict=False)), colours, styles)
        every = [s for parts in stacks.values() for s in parts]
        finish(grid, [parts[0] for parts in stacks.values()], [], shapes.axes[-1], log=drawing.log)
        vertical_range(grid[0, 0], every, log=drawing.log)
        if any(s.distorted for s in every):
            distortion_limits(grid[1, 0], every)
        if grid[0, 0].get_yscale() == "linear":
            grid[0, 0].yaxis.set_major_formatter(ScalarFormatter())
        grid[0, 0].set_ylabel("jets / bin, raw area 1")
        grid[1, 0].set_ylabel("distorted / raw", fontsize=13)
        headline(grid[0, 0], grid[0, -1], label)
        side_text(figure, every, region, discriminator=drawing.discriminator)
        legend(figure, every, colours, styles, split=len(groups) > 1)
        return figure


def draw_flavour(
    column: Array, name: str, parts: Mapping[str, Stack], colours: Mapping[str, str], styles: Mapping[str, Any]
) -> None:
    """Shapes of one flavour, and their ratio to raw below; `parts` by tagger, one where raw is the same for all."""
    column[0].text(0.96, 0.96, f"{name} jets", fontsize=14, transform=column[0].transAxes, ha="right", va="top")
    for tagger, s in parts.items():
        if len(parts) == 1:
            steps(column[0], s.mc, s.edges, baseline=0, fill=True, color=FLAVOURS[name])
        else:
            steps(column[0], s.mc, s.edges, baseline=None, color="black", linestyle=styles[tagger])
        for (of, attack), values in s.distorted.items():
            look = {"color": colours[attack], "linestyle": styles[of], "linewidth": 1.4}
            steps(column[0], values, s.edges, baseline=None, **look)
            steps(column[1], ratio(values, s), s.edges, baseline=None, **look)
    column[1].axhline(1, color="black", linewidth=0.8)


def of_flavours(shapes: hist.Hist, names: tuple[str, ...]) -> hist.Hist:
    """The same histogram with these flavours alone, as one."""
    axes = list(shapes.axes)
    one = hist.Hist(
        hist.axis.StrCategory([names[0]], name="flavour", growth=True), *axes[1:], storage=hist.storage.Weight()
    )
    for name in names:
        if name in list(axes[0]):
            part = shapes.view(flow=True)[axes[0].index(name)]
            for key in ("value", "variance"):
                one.view(flow=True)[key][0] += part[key]
    return one


def unit(s: Stack) -> Stack:
    """The same with a raw area of 1, if it has one."""
    area = float(s.mc.sum())
    if area <= 0:
        return s

    def scaled(values: Array) -> Array:
        return np.asarray(values / area, np.float64)

    return Stack(
        edges=s.edges, integer=s.integer, absent=s.absent, flavours={}, mc=scaled(s.mc),
        mc_variance=s.mc_variance / area**2, data=None, data_variance=None,
        distorted={pair: scaled(values) for pair, values in s.distorted.items()}, undefined=s.undefined,
    )  # fmt: skip


def legend(
    figure: Figure, stacks: list[Stack], colours: Mapping[str, str], styles: Mapping[str, Any], *, split: bool
) -> None:
    """A colour for each attack, a line style for each tagger."""
    raw = Line2D([], [], color=colours[RAW], label=RAW) if split else Patch(facecolor="#bbbbbb", label=RAW)
    attacks = dict.fromkeys(attack for s in stacks for _, attack in s.distorted)
    handles = [raw, *(Line2D([], [], color=colours[name], label=plain(name, 18)) for name in attacks)]
    if len(styles) > 1:
        handles += [Line2D([], [], color="#555555", linestyle=style, label=plain(n, 18)) for n, style in styles.items()]
    left = 1 - 2.7 / figure.get_figwidth()
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(left, 0.935), borderaxespad=0.2, handlelength=1.9)
