"""AUC against epoch, from the histories that training writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from common.errors import AdvtagError
from plots.style import LINES, Array, cms_style, headline, plain

ENDING = ".history.json"


def read_histories(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read every NAME.history.json of a folder, by name.

    Raises:
        AdvtagError: a file is not a JSON list of epochs.
    """
    histories: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob(f"*{ENDING}")):
        try:
            epochs = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise AdvtagError(f"{path}: not a training history ({error}); train this tagger again") from error
        if not isinstance(epochs, list) or not all(isinstance(epoch, dict) for epoch in epochs):
            raise AdvtagError(f"{path}: a training history is a JSON list of epochs; train this tagger again")
        histories[path.name.removesuffix(ENDING)] = epochs
    return histories


def auc_against_epoch(histories: dict[str, list[dict[str, Any]]], *, label: str = "Simulation") -> Figure:
    """Draw the BvsL AUC on validation jets against the epoch, raw and attacked, and attacked/raw below.

    Args:
        histories: epochs by tagger, each with `epoch`, `auc_raw`, `auc_attacked` and the `attack` used.
        label: text above the axes.

    Raises:
        AdvtagError: no epochs, or an epoch without one of these keys.
    """
    table = {name: columns(name, epochs) for name, epochs in histories.items() if epochs}
    if not table:
        raise AdvtagError("no epochs in the training histories: there is no AUC to plot; train a tagger first")
    attacks = dict.fromkeys(str(epoch.get("attack", "attacked")) for h in histories.values() for epoch in h)
    with cms_style():
        figure = Figure(figsize=(10.5, 7.5))
        top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 1], "hspace": 0.07})
        figure.subplots_adjust(left=0.1, right=0.7, bottom=0.1, top=0.93)
        handles = []
        for i, (name, (epoch, raw, attacked)) in enumerate(table.items()):
            line: dict[str, Any] = {
                "color": LINES[i % len(LINES)],
                "linewidth": 1.6,
                "marker": "o",
                "markersize": 3.5,
            }
            top.plot(epoch, raw, **line)
            top.plot(epoch, attacked, **line, linestyle="dashed")
            bottom.plot(epoch, attacked / raw, **line)
            handles.append(Line2D([], [], **line, label=plain(name)))
        handles.append(Line2D([], [], color="#555555", label="raw"))
        text = f"attacked: {plain(', '.join(attacks), 20)}"
        handles.append(Line2D([], [], color="#555555", linestyle="dashed", label=text))
        bottom.axhline(1, color="black", linewidth=0.8)
        last = max(float(epoch.max()) for epoch, _, _ in table.values())
        first = min(float(epoch.min()) for epoch, _, _ in table.values())
        bottom.set_xlim(first - 0.5, last + 0.5)
        bottom.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        bottom.xaxis.set_minor_locator(NullLocator())
        bottom.set_xlabel("epoch")
        top.set_ylabel("AUC of BvsL, validation")
        bottom.set_ylabel("attacked / raw")
        for axes in (top, bottom):
            axes.yaxis.set_label_coords(-0.1, 1)
            axes.ticklabel_format(axis="y", useOffset=False)
            axes.grid(visible=True, which="major", linewidth=0.6)
        headline(top, top, label)
        top.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.01))
        return figure


def columns(name: str, epochs: list[dict[str, Any]]) -> tuple[Array, Array, Array]:
    """Epoch, raw AUC and attacked AUC of a history; an AUC of null is a gap in the line."""
    for key in ("epoch", "auc_raw", "auc_attacked"):
        for row, epoch in enumerate(epochs):
            if key not in epoch:
                raise AdvtagError(f"history of {name}: entry {row} has no {key!r}; train this tagger again")
    keys = ("epoch", "auc_raw", "auc_attacked")
    table = [[np.nan if epoch[key] is None else float(epoch[key]) for epoch in epochs] for key in keys]
    return np.array(table[0]), np.array(table[1]), np.array(table[2])
