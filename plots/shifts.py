"""Where attacks move an input, by the true flavour of the jets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plots.panels import GREY, LEGEND, legend
from plots.style import Array, cms_style, headline, plain

COLOURS = {"b": "#1f6fc4", "bb": "#5b6b69", "c": "#d98200", "udsg": "#1b9fa6"}
"""Of lines of flavours: the hues of the stack, darker."""
FEWEST = 20
"""Jets in a bin whose ratio and average shift are shown."""


def colour_of(flavour: str) -> str:
    """Colour of the line of a flavour."""
    return COLOURS.get(flavour, GREY)


def flavour_shifts(table: Mapping[str, Any], *, attack: str, capped: bool, label: str = "Simulation") -> Figure:
    """Draw one input raw and attacked by flavour, attacked/raw, and the average shift against the raw value.

    Raw and attacked jets are the same, so that attacked/raw has no independent errors; none are drawn. The error of the
    average shift is statistical.

    Args:
        table: `edges`, `axis_label`, `raw` by flavour (`jets`, `raw`) and `taggers`: by name and flavour, `attacked`,
            `shift`, `error`, `up` and `down` of an inspection.
        attack: its name.
        capped: whether the relative caps of the card held.
        label: text above the axes.
    """
    edges, taggers = np.array(table["edges"], np.float64), table["taggers"]
    with cms_style():
        width = 5.6 * len(taggers) + LEGEND
        figure = Figure(figsize=(width, 10.5))
        figure.subplots_adjust(
            left=1.15 / width, right=1 - (LEGEND + 0.05) / width, bottom=0.08, top=0.93, wspace=0.06, hspace=0.06
        )
        heights = {"height_ratios": [2, 1, 1.5]}
        panels = figure.subplots(3, len(taggers), sharex=True, sharey="row", squeeze=False, gridspec_kw=heights)
        for column, (name, flavours) in zip(panels.T, taggers.items(), strict=True):
            for flavour, moved in flavours.items():
                one_flavour(column, edges, table["raw"][flavour], moved, colour_of(flavour))
            column[0].set_title(plain(name, 22), loc="right", fontsize=14)
            column[0].set_yscale("log")
            column[1].axhline(1, color="black", linewidth=0.8)
            column[2].axhline(0, color="black", linewidth=0.8)
            column[2].set_xlabel(table["axis_label"], fontsize=14)
            column[0].set_xlim(edges[0], edges[-1])
            asymmetries(column[0], flavours)
        for axes, text in zip(
            panels[:, 0], ("part of the jets / bin", "attacked / raw", "attacked $-$ raw"), strict=True
        ):
            axes.set_ylabel(text)
            axes.yaxis.set_label_coords(-0.13, 1)
        low, high = panels[0, 0].get_ylim()
        panels[0, 0].set_ylim(low, high * 10)
        panels[1, 0].set_ylim(*ratio_range(panels[1]))
        headline(panels[0, 0], panels[0, 0], label)
        shown = list(table["raw"])
        legend(
            figure,
            {
                "flavour": [Line2D([], [], color=colour_of(name), linewidth=2, label=name) for name in shown],
                "jets": [
                    Line2D([], [], color=GREY, linewidth=1.2, linestyle=(0, (1, 1.2)), label="raw"),
                    Line2D([], [], color=GREY, linewidth=1.8, label=plain(attack, 18)),
                ],
                "caps of the card": [Line2D([], [], linestyle="none", label="on" if capped else "off")],
            },
        )
        return figure


def one_flavour(panels: Array, edges: Array, raw: Mapping[str, Any], moved: Mapping[str, Any], colour: str) -> None:
    """Draw one flavour in the three panels of a tagger; flow bins count in the normalisation and are not drawn."""
    before, after = np.array(raw["raw"], np.float64), np.array(moved["attacked"], np.float64)
    total = before.sum()
    if not total > 0:
        return
    for content, look in ((before, {"linewidth": 1.2, "linestyle": (0, (1, 1.2))}), (after, {"linewidth": 1.8})):
        shown = np.where(content > 0, content / total, np.nan)[1:-1]  # no line down to nothing on a logarithmic axis
        panels[0].stairs(shown, edges, color=colour, baseline=None, **look)
    jets = before / total * raw["jets"]
    ratio = np.divide(after, before, out=np.full_like(before, np.nan), where=jets >= FEWEST)[1:-1]
    panels[1].stairs(ratio, edges, color=colour, linewidth=1.5, baseline=None)
    shift, error = (np.array(moved[key], np.float64)[1:-1] for key in ("shift", "error"))
    seen = jets[1:-1] >= FEWEST
    middle = (edges[1:] + edges[:-1]) / 2
    look = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1, "elinewidth": 1}
    panels[2].errorbar(middle[seen], shift[seen], error[seen], **look)


def ratio_range(panels: Array) -> tuple[float, float]:
    """A range around 1 that holds nearly all ratios, the same for all panels of the row."""
    values = [patch.get_data().values for axes in panels for patch in axes.patches]
    found = np.concatenate([np.asarray(v, float) for v in values] or [np.ones(1)])
    found = found[np.isfinite(found)]
    reach = max(0.05, 1.15 * float(np.quantile(np.abs(found - 1), 0.98))) if found.size else 0.05
    return max(0.0, 1 - reach), 1 + reach


def asymmetries(axes: Axes, flavours: Mapping[str, Mapping[str, Any]]) -> None:
    """Write how many more entries of each flavour went up than down, as parts of those that moved."""
    for line, (flavour, moved) in enumerate(flavours.items()):
        text = f"{flavour}: {asymmetry(moved):+.2f}" if asymmetry(moved) is not None else f"{flavour}: none moved"
        place: dict[str, Any] = {"ha": "right", "va": "top", "transform": axes.transAxes, "fontsize": 11.5}
        axes.text(0.97, 0.89 - 0.065 * line, text, color=colour_of(flavour), **place)
    axes.text(0.97, 0.95, "(up $-$ down)/(up + down)", ha="right", va="top", transform=axes.transAxes, fontsize=11)


def asymmetry(moved: Mapping[str, Any]) -> float | None:
    """(up - down)/(up + down) of a flavour: 1 if all entries went up, 0 if as many went up as down; None if none."""
    up, down = moved["up"], moved["down"]
    return None if up is None or down is None or not up + down else float((up - down) / (up + down))
