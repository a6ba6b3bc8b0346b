"""Vulnerability against the number of inputs, from the scan that trains on growing sets of them.

    {"attack": "fgsm", "epochs": 10,
     "points": [{"inputs": 5, "added": ["trackSip2dSig_0", ...], "auc": {"raw": {"BvsL": 0.9, ...}, "fgsm": {...}}}]}

A point that was trained with several seeds also has `seeds`, a list of one `auc` for each; its own `auc` is their mean.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from common.errors import AdvtagError
from common.histograms import RAW
from models.classes import DISCRIMINATORS
from plots.histories import check_numbers, column
from plots.panels import GREY, legend, plain_numbers, say_if_empty, whole_numbers
from plots.style import LINES, Array, cms_style, headline, plain

Scan = Mapping[str, Any]


def read_scan(path: Path) -> dict[str, Any] | None:
    """Read a scan; None if there is no such file.

    Raises:
        AdvtagError: it is not a scan.
    """
    if not path.is_file():
        return None
    try:
        scan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check(scan)
    except (OSError, ValueError) as error:
        raise AdvtagError(f"{path}: not a scan of inputs ({error}); run the scan again") from error
    return scan


def check(scan: Any) -> None:
    """Refuse what cannot be drawn.

    Raises:
        ValueError: with the reason.
    """
    if not isinstance(scan, dict) or not isinstance(scan.get("attack"), str):
        raise ValueError("no 'attack'")
    points = scan.get("points")
    if not isinstance(points, list) or not points:
        raise ValueError("no 'points'")
    for number, point in enumerate(points, 1):
        if not isinstance(point, dict) or not isinstance(point.get("inputs"), int) or point["inputs"] < 1:
            raise ValueError(f"point {number}: no 'inputs', 1 or more")
        if not isinstance(point.get("seeds", []), list):
            raise ValueError(f"point {number}: 'seeds' is not a list of areas")
        for areas in (point.get("auc"), *point.get("seeds", [])):
            for attack in (RAW, scan["attack"]):
                table = areas.get(attack) if isinstance(areas, dict) else None
                check_numbers(table, DISCRIMINATORS, f"point {number}, auc of {attack}")


def auc_vs_inputs(scan: Scan, *, label: str = "Simulation") -> Figure:
    """Draw the raw and the attacked AUC of every discriminator, and their difference below, against the inputs.

    Where a point has seeds, a bar goes from the lowest to the highest of them.

    Args:
        scan: as read by `read_scan`.
        label: text above the axes.
    """
    points = sorted(scan["points"], key=lambda point: point["inputs"])
    inputs, attack = column(points, "inputs"), scan["attack"]
    with cms_style():
        figure = Figure(figsize=(10.5, 7.5))
        figure.subplots_adjust(left=0.1, right=0.73, bottom=0.1, top=0.93)
        heights = {"height_ratios": [2, 1], "hspace": 0.07}
        top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw=heights)
        for name, colour in zip(DISCRIMINATORS, LINES, strict=False):
            look = {"color": colour, "linewidth": 1.6, "marker": "o", "markersize": 5}
            raw, attacked = column(points, "auc", RAW, name), column(points, "auc", attack, name)
            top.plot(inputs, raw, **look)
            top.plot(inputs, attacked, **look, linestyle="dashed", markerfacecolor="white")
            bottom.plot(inputs, raw - attacked, **look)
            for point in points:
                seeds = point.get("seeds", ())
                of_raw, of_attacked = column(seeds, RAW, name), column(seeds, attack, name)
                bar(top, point["inputs"], of_raw, colour)
                bar(top, point["inputs"], of_attacked, colour)
                bar(bottom, point["inputs"], of_raw - of_attacked, colour)
        top.set_ylabel("AUC")
        bottom.set_ylabel("raw $-$ attacked")
        bottom.set_xlabel("number of inputs")
        input_axis(bottom, inputs)
        bottom.axhline(0, color="black", linewidth=0.8)
        say_if_empty(top)
        for axes in (top, bottom):
            axes.yaxis.set_label_coords(-0.105, 1)
            plain_numbers(axes)
        headline(top, top, label)
        colours = [Line2D([], [], color=LINES[i], linewidth=2, label=name) for i, name in enumerate(DISCRIMINATORS)]
        grey: dict[str, Any] = {"color": GREY, "linewidth": 1.6, "marker": "o", "markersize": 5}
        jets = [
            Line2D([], [], **grey, label=RAW),
            Line2D([], [], **grey, linestyle="dashed", markerfacecolor="white", label=plain(attack, 18)),
        ]
        legend(figure, {"discriminator": colours, "jets": jets})
        return figure


def input_axis(axes: Axes, inputs: Array) -> None:
    """Whole numbers, on a logarithmic axis where they grow tenfold: a scan goes in about equal ratios."""
    whole_numbers(axes)
    if inputs.max() >= 10 * inputs.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())


def bar(axes: Axes, x: float, values: Array, colour: str) -> None:
    """A vertical bar over the values that are defined, if there are any."""
    defined = values[np.isfinite(values)]
    if defined.size:
        axes.vlines(x, defined.min(), defined.max(), color=colour, linewidth=1.2)
