"""Figures of a training: AUC and loss against epoch, and susceptibility against raw performance.

They take histories as `plots.histories` reads them. As in the other figures, a colour is an attack; a line style and a
marker are a tagger.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from common.errors import AdvtagError
from common.histograms import RAW
from models.classes import DISCRIMINATORS
from plots.histories import Epoch, Histories, attacks_of, column, with_epochs
from plots.panels import (
    GREY,
    MARKERS,
    attack_lines,
    epoch_axis,
    grid_of,
    legend,
    looks_of,
    plain_numbers,
    say_if_empty,
    tagger_lines,
)
from plots.style import LINES, Array, cms_style, headline, plain

TAGGERS = (*LINES[4:], *LINES[:4])
"""Colours of taggers where no colour is an attack; they begin with those that few attacks leave free."""
EPOCHS = 7
"""ROC curves of a panel."""
TRAINING: dict[str, Any] = {"color": "#b5b5b5", "linewidth": 3.5, "marker": "o", "markersize": 3.5, "zorder": 1}
"""The line of training jets, below those of validation jets."""


def auc_vs_epoch(
    histories: Histories, *, discriminator: str = "BvsL", attacks: Sequence[str] = (), label: str = "Simulation"
) -> Figure:
    """Draw the AUC of a discriminator on validation jets against the epoch, raw and attacked, and attacked/raw below.

    Args:
        histories: epochs by tagger.
        discriminator: whose AUC.
        attacks: names in the order of their colours; others of the histories follow.
        label: text above the axes.

    Raises:
        AdvtagError: no epochs.
    """
    histories = with_epochs(histories)
    names, looks = attacks_of(histories), looks_of(histories, attacks)
    rows = 2 if names else 1
    with cms_style():
        figure = Figure(figsize=(10.5, 7.5))
        figure.subplots_adjust(left=0.1, right=0.73, bottom=0.1, top=0.93)
        heights = {"height_ratios": [2.2, 1][:rows], "hspace": 0.07}
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False, gridspec_kw=heights)[:, 0]
        for name, epochs in histories.items():
            epoch, raw = column(epochs, "epoch"), column(epochs, "auc", RAW, discriminator)
            panels[0].plot(epoch, raw, **looks[name, RAW])
            for attack in attacks_of({name: epochs}):
                attacked = column(epochs, "auc", attack, discriminator)
                panels[0].plot(epoch, attacked, **looks[name, attack])
                panels[1].plot(epoch, quotient(attacked, raw), **looks[name, attack])
        say_if_empty(panels[0])
        panels[0].set_ylabel(f"AUC of {discriminator}, validation")
        if names:
            panels[1].set_ylabel("attacked / raw")
            panels[1].axhline(1, color="black", linewidth=0.8)
        epoch_axis(panels[-1], np.concatenate([column(epochs, "epoch") for epochs in histories.values()]))
        for axes in panels:
            axes.yaxis.set_label_coords(-0.105, 1)
            plain_numbers(axes)
        headline(panels[0], panels[0], label)
        legend(figure, {"jets": attack_lines(names, looks), "tagger": tagger_lines(looks)})
        return figure


def roc_vs_epoch(histories: Histories, *, discriminator: str = "BvsL", label: str = "Simulation") -> Figure:
    """Draw ROC curves of validation jets by epoch: a panel for each tagger, raw and under each of its attacks.

    At most `EPOCHS` epochs, spread evenly over their logarithm, for a training changes most at its begin. Arguments as
    in `auc_vs_epoch`.

    Raises:
        AdvtagError: no epochs with curves.
    """
    curves = with_epochs({name: [each for each in epochs if each.get("mistag")] for name, epochs in histories.items()})
    panels_of = [(name, attack) for name in curves for attack in (RAW, *attacks_of({name: curves[name]}))]
    last = max(epochs[-1]["epoch"] for epochs in curves.values())
    colour = matplotlib.colormaps["viridis"].resampled(256)
    with cms_style():
        figure, panels = grid_of(len(panels_of))
        lines: dict[int, Line2D] = {}
        for axes, (name, attack) in zip(panels, panels_of, strict=True):
            for epoch in spread(curves[name], EPOCHS):
                points = epoch["mistag"][attack][discriminator]
                efficiency = np.array([float(text) for text in points])
                mistag = np.array([np.nan if value is None else value for value in points.values()], float)
                look = {"color": colour(0.95 * np.log(epoch["epoch"]) / max(np.log(last), 1e-9)), "linewidth": 1.4}
                (line,) = axes.plot(efficiency, np.where(mistag > 0, mistag, np.nan), **look)
                lines.setdefault(epoch["epoch"], line)
            signal, background = ("+".join(flavours) for flavours in DISCRIMINATORS[discriminator])
            axes.set_title(plain(f"{name}: {attack}", 24), loc="right", fontsize=13, y=1.0)
            axes.set_yscale("log")
            axes.set_xlim(0, 1)
            axes.set_xlabel(f"efficiency of {signal}")
            axes.set_ylabel(f"mistag rate of {background}")
            axes.grid(visible=True, which="major", linewidth=0.6)
            say_if_empty(axes)
        headline(panels[0], panels[0], label)
        handles = [Line2D([], [], color=lines[i].get_color(), linewidth=2, label=str(i)) for i in sorted(lines)]
        legend(figure, {"epoch": handles})
        return figure


def spread(epochs: Sequence[Epoch], most: int) -> list[Epoch]:
    """At most so many of the epochs, evenly over their logarithm, the first and the last among them."""
    places = np.unique(np.round(np.geomspace(1, len(epochs), min(most, len(epochs)))).astype(int) - 1)
    return [epochs[i] for i in places]


def susceptibility(histories: Histories, *, discriminator: str = "BvsL", label: str = "Simulation") -> Figure:
    """Draw what each attack takes from the AUC, raw - attacked, against the raw AUC: a point for each epoch, joined.

    A training that gains performance moves to the right, and upwards where it pays with robustness. Arguments as in
    `auc_vs_epoch`.

    Raises:
        AdvtagError: no epochs, or no attacks.
    """
    histories = with_epochs(histories)
    attacks = attacks_of(histories)
    if not attacks:
        raise AdvtagError("no attacks in the training histories; name some in `evaluate_with` and train again")
    looks: dict[str, dict[str, Any]] = {
        name: {"color": TAGGERS[i % len(TAGGERS)], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(histories)
    }
    with cms_style():
        figure, panels = grid_of(len(attacks))
        for axes, attack in zip(panels, attacks, strict=True):
            for name in [name for name, epochs in histories.items() if attack in attacks_of({name: epochs})]:
                raw = column(histories[name], "auc", RAW, discriminator)
                trajectory(axes, raw, raw - column(histories[name], "auc", attack, discriminator), looks[name])
            axes.set_title(plain(attack, 20), loc="right", fontsize=14)
            axes.set_xlabel(f"AUC of {discriminator}, raw")
            axes.set_ylabel("AUC raw $-$ attacked")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            plain_numbers(axes, "x")
            plain_numbers(axes)
            say_if_empty(axes)
        headline(panels[0], panels[0], label)
        taggers = [Line2D([], [], **look, markersize=5, label=plain(name, 18)) for name, look in looks.items()]
        grey = {"color": GREY, "marker": "o"}
        first, last = (
            Line2D([], [], **end, label=text) for end, text in zip(ends(grey), ("first", "last"), strict=True)
        )
        legend(figure, {"tagger": taggers, "epoch": [first, last]})
        return figure


def trajectory(axes: Axes, x: Array, y: Array, look: dict[str, Any]) -> None:
    """Draw the way of a tagger through a plane: every epoch, the first one hollow, the last one with an edge."""
    axes.plot(x, y, color=look["color"], linewidth=0.8, alpha=0.45)
    axes.plot(x, y, **look, linestyle="none", markersize=3)
    defined = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    for i, end in zip(defined[[0, -1]] if defined.size else [], ends(look), strict=False):
        axes.plot(x[i], y[i], **end, zorder=5)


def ends(look: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The markers of the first and of the last epoch."""
    end = {**look, "linestyle": "none", "markersize": 9, "markeredgewidth": 1.4}
    return {**end, "markerfacecolor": "white"}, {**end, "markeredgecolor": "black"}


def quotient(attacked: Array, raw: Array) -> Array:
    """Ratio of attacked to raw, NaN where raw is not positive."""
    ratio: Array = attacked / np.where(raw > 0, raw, np.nan)
    return ratio


def loss_vs_epoch(histories: Histories, *, attacks: Sequence[str] = (), label: str = "Simulation") -> Figure:
    """Draw the loss of training jets and of validation jets, raw and attacked, against the epoch: a panel per tagger.

    Arguments as in `auc_vs_epoch`.

    Raises:
        AdvtagError: no epochs.
    """
    histories = with_epochs(histories)
    names, looks = attacks_of(histories), looks_of(histories, attacks)
    with cms_style():
        figure, panels = grid_of(len(histories))
        for axes, (name, epochs) in zip(panels, histories.items(), strict=True):
            epoch = column(epochs, "epoch")
            axes.plot(epoch, column(epochs, "loss"), **TRAINING)
            for attack in (RAW, *attacks_of({name: epochs})):
                look = {**looks[name, attack], "linestyle": "solid", "marker": "o"}
                axes.plot(epoch, column(epochs, "validation_loss", attack), **look)
            axes.set_title(plain(name, 20), loc="right", fontsize=14)
            axes.set_ylabel("loss")
            plain_numbers(axes)
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # focal losses may be far below 1e-3
            epoch_axis(axes, epoch)
        headline(panels[0], panels[0], label)
        training = Line2D([], [], **{**TRAINING, "marker": ""}, label="as trained on")
        legend(figure, {"training jets": [training], "validation jets": attack_lines(names, looks)})
        return figure
