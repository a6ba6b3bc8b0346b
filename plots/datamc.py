"""Data against MC, and against MC whose inputs were distorted by an attack."""

from collections.abc import Mapping
from typing import Any

import hist
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots.frame import data_span, empty, finish, legend, side_text
from plots.shapes import filled
from plots.stack import Drawing, Stack, ratio, stack
from plots.style import (
    BAND,
    TOTAL,
    Array,
    attack_colours,
    cms_style,
    fill_colours,
    headline,
    poisson_errors,
    steps,
    tagger_styles,
)

POINTS: dict[str, Any] = {"fmt": "o", "color": "black", "markersize": 4, "linewidth": 1}


def data_mc(
    shapes: hist.Hist,
    *,
    luminosity: float,
    label: str = "Simulation",
    region: str = "",
    drawing: Drawing = Drawing(),
    variations: Mapping[str, hist.Hist] | None = None,
    jets: Mapping[str, hist.Hist] | None = None,
) -> Figure:
    """Draw the MC stack by flavour or by process with data, data/MC, and distorted/nominal MC.

    The top panel has the raw MC stacked with its statistical band, and around it, if there are
    variations, that of statistical and systematic errors in quadrature; data with Poisson errors, and for each
    attack and tagger the total distorted MC as a line. The second panel, only if there are data, has data/MC with
    the bands of the MC. The third has distorted/raw MC. It has no error bars: raw and distorted histograms
    hold the same jets, so their fluctuations are almost the same and independent errors would be far too large.

    Args:
        shapes: one variable of one region, from `plots.shapes.scaled`.
        luminosity: 1/pb, for the text above.
        label: text above the axes, "Simulation" or "Private work".
        region: name written beside the axes.
        drawing: see there. An output of the taggers has one column for each tagger, is rebinned, and undefined values
            (underflow) are left out. The raw inputs are the same for every tagger: one column. With `area` the factor
            is written on the figure, and the systematic band is that of shapes.
        variations: of the raw MC, from `plots.shapes.varied`.
        jets: all jets by variation, from `plots.shapes.jets_in`: absent entries get a bin of their own.
    """
    taggers = filled(shapes, "tagger")
    groups = [[name] for name in taggers] if drawing.discriminator else [taggers]
    stacks = [stack(shapes, group, drawing, variations=variations, jets=jets) for group in groups if group]
    with cms_style():
        if not stacks:
            return empty(shapes, label, region)
        with_data = any(s.data is not None for s in stacks)
        with_attacks = any(s.distorted for s in stacks)
        heights = [3.0] + [1.0] * (with_data + with_attacks)
        width = 6.6 * len(stacks) + 2.9
        figure = Figure(figsize=(width, 8))
        grid = figure.subplots(
            len(heights),
            len(stacks),
            sharex="col",
            sharey="row",
            squeeze=False,
            gridspec_kw={"height_ratios": heights, "hspace": 0.07, "wspace": 0.06},
        )
        figure.subplots_adjust(left=1.0 / width, right=1 - 2.75 / width, bottom=0.09, top=0.93)
        colours = attack_colours(list(shapes.axes["attack"]))
        styles = dict.fromkeys(taggers, "solid") if drawing.discriminator else tagger_styles(taggers)
        for column, s in zip(grid.T, stacks, strict=True):
            draw_stack(column[0], s, colours, styles)
            if with_data:
                draw_data_ratio(column[1], s, data_span(stacks))
            if with_attacks:
                draw_distortion(column[-1], s, colours, styles)
        finish(grid, stacks, taggers if drawing.discriminator else [], shapes.axes[-1], log=drawing.log)
        headline(grid[0, 0], grid[0, -1], label, luminosity)
        side_text(figure, stacks, region, discriminator=drawing.discriminator)
        legend(figure, stacks, colours, styles if not drawing.discriminator else {})
        return figure


def draw_stack(axes: Axes, s: Stack, colours: dict[str, str], styles: dict[str, Any]) -> None:
    """Stack, band, distorted MC and data, on one axes."""
    if s.flavours:
        colour = fill_colours(s.flavours)
        fills = [colour[name] for name in s.flavours]
        mplhep.histplot(
            list(s.flavours.values()), s.edges, stack=True, histtype="fill", color=fills, flow="none", ax=axes
        )
        draw_bands(axes, s, s.mc, np.ones_like(s.mc))
    for (tagger, attack), values in s.distorted.items():
        steps(axes, values, s.edges, baseline=None, **line(colours[attack], styles[tagger]))
    if s.data is not None:
        errors = poisson_errors(s.data, s.data_variance)
        worth = (s.data > 0) | (s.mc > 0)
        axes.errorbar(centres(s)[worth], s.data[worth], yerr=errors[:, worth], **POINTS)


def draw_bands(axes: Axes, s: Stack, middle: Array, unit: Array) -> None:
    """Total and statistical error of the MC around a line, in units of `unit`; none where that is 0 or less."""
    unit = np.where(unit > 0, unit, np.inf)
    if s.systematic is not None:
        down, up = np.sqrt(s.systematic**2 + s.mc_variance) / unit
        steps(axes, middle + up, s.edges, baseline=middle - down, fill=True, **TOTAL)
    error = np.sqrt(s.mc_variance) / unit
    steps(axes, middle + error, s.edges, baseline=middle - error, fill=True, **BAND)


def draw_data_ratio(axes: Axes, s: Stack, half: float) -> None:
    """Data over raw MC, and the relative errors of the MC as bands around 1."""
    draw_bands(axes, s, np.ones_like(s.mc), s.mc)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("data / MC", fontsize=13)
    axes.set_ylim(1 - half, 1 + half)
    if s.data is not None:
        good, points = s.mc > 0, ratio(s.data, s)
        errors = ratio(poisson_errors(s.data, s.data_variance), s)
        axes.errorbar(centres(s)[good], points[good], yerr=errors[:, good], **POINTS)
        mark_outside(axes, centres(s), points)


def mark_outside(axes: Axes, x: Array, y: Array) -> None:
    """Put a triangle at the border for every point that the range leaves out."""
    low, high = axes.get_ylim()
    margin = 0.04 * (high - low)
    for outside, marker, place in ((y > high, "^", high - margin), (y < low, "v", low + margin)):
        axes.plot(x[outside], np.full(int(outside.sum()), place), marker, color="black", markersize=4)


def draw_distortion(axes: Axes, s: Stack, colours: dict[str, str], styles: dict[str, Any]) -> None:
    """Distorted over raw MC, without error bars (see `data_mc`)."""
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("distorted / raw", fontsize=13)
    for (tagger, attack), values in s.distorted.items():
        steps(axes, ratio(values, s), s.edges, baseline=None, **line(colours[attack], styles[tagger]))


def line(colour: str, style: Any) -> dict[str, Any]:
    """How a distorted spectrum is drawn."""
    return {"color": colour, "linestyle": style, "linewidth": 1.5}


def centres(s: Stack) -> Array:
    """Bin centres."""
    return (s.edges[1:] + s.edges[:-1]) / 2
