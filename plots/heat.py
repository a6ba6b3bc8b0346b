"""Heat maps: tables of numbers as coloured cells, and the map of the inputs of a card.

Sequential colours are viridis, diverging ones RdBu with white at zero; both read well for colour-blind eyes and on
paper (viridis: S. van der Walt, N. Smith; RdBu: C. Brewer).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from plots.style import Array, cms_style, headline, plain

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
NOTHING = "#c8c8c8"
"""Of a cell whose number is not defined."""
WRITTEN = 34
"""Columns up to which the numbers are written into the cells."""

Inputs = Sequence[Mapping[str, Any]]
"""Inputs of a card, as an inspection describes them."""


def heat(axes: Axes, values: Array, norm: Normalize, colours: str = SEQUENTIAL) -> AxesImage:
    """Draw values [rows, columns] as cells, the first row at the top; what is not finite is grey."""
    palette = matplotlib.colormaps[colours].copy()
    palette.set_bad(NOTHING)
    shown = np.ma.masked_invalid(values)
    image = axes.imshow(shown, cmap=palette, norm=norm, aspect="auto", interpolation="nearest")
    axes.tick_params(which="both", length=0)
    axes.minorticks_off()
    return image


def write(image: AxesImage, texts: Mapping[tuple[int, int], str], *, size: float) -> None:
    """Write texts into the cells of a heat map, by row and column, in black or white, whatever reads better."""
    values = np.ma.asarray(image.get_array())
    for (row, column), text in texts.items():
        red, green, blue, _ = image.cmap(image.norm(values[row, column]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # luma of ITU-R BT.601
        image.axes.text(column, row, text, ha="center", va="center", size=size, color="white" if dark else "black")


def stems_of(inputs: Inputs) -> dict[tuple[str, str], list[int]]:
    """Places of the inputs by group and stem: groups in the order of the card, and stems in each."""
    groups = list(dict.fromkeys(feature["group"] for feature in inputs))
    found: dict[tuple[str, str], list[int]] = {}
    for group in groups:
        for k, feature in enumerate(inputs):
            if feature["group"] == group:
                found.setdefault((group, feature["stem"]), []).append(k)
    return found


def stem_label(feature: Mapping[str, Any]) -> str:
    """Label of an input without its slot."""
    label = feature["label"] if feature["slot"] is None else feature["label"].rpartition(", ")[0]
    return label or feature["label"]


def input_map(
    table: Mapping[str, Any],
    *,
    title: str,
    scale: str,
    highest: float | None = None,
    note: str = "",
    label: str = "Simulation",
) -> Figure:
    """Draw a number of each input, in one or more blocks: inputs with slots as rows of a table, the others beside it.

    Args:
        table: `inputs`, as an inspection describes them; `blocks`, their numbers by heading; and `weak`, bool of each
            input and block, or None: those numbers are written in brackets.
        title: above the figure.
        scale: label of the colours.
        highest: upper end of the colours; None: the highest number.
        note: below the figure.
        label: text above the axes.
    """
    inputs, blocks, stems = table["inputs"], table["blocks"], stems_of(table["inputs"])
    slotted = {key: places for key, places in stems.items() if inputs[places[0]]["slot"] is not None}
    single = {key: places for key, places in stems.items() if key not in slotted}
    slots = max((inputs[k]["slot"] + 1 for places in slotted.values() for k in places), default=0)
    finite = [x for numbers in blocks.values() for x in numbers if x is not None]
    norm = Normalize(0, highest or max([*finite, 1e-12]))
    wide = len(blocks) * slots
    cell = 0.42 if wide <= WRITTEN else 0.17
    shape = {"slotted": wide * cell, "single": len(blocks) * 0.85}
    rows = max(len(slotted), len(single))
    with cms_style():
        width, height = 3.7 + shape["slotted"] + 3.9 + shape["single"] + 1.5, rows * 0.3 + 2.3
        figure = Figure(figsize=(width, height))

        def panel(left: float, width_of: float, rows_of: int) -> Axes:
            bottom = (height - 1.15 - rows_of * 0.3) / height
            return figure.add_axes((left / width, bottom, width_of / width, rows_of * 0.3 / height))

        panels = []
        for left, groups, columns in ((3.7, slotted, slots), (7.6 + shape["slotted"], single, 1)):
            if not groups:
                continue
            axes = panel(left, shape["slotted" if columns > 1 or groups is slotted else "single"], len(groups))
            image = block_panel(axes, table, groups, columns, norm)
            panels.append(axes)
        bar = figure.add_axes(((width - 1.2) / width, 0.2, 0.2 / width, 0.6))
        figure.colorbar(image, cax=bar).set_label(scale, fontsize=13)
        bar.tick_params(labelsize=11)
        headline(panels[0], panels[0], label)
        panels[0].title.set_position((0, 1.0))
        panels[-1].set_title(title, loc="right", fontsize=14, pad=24)
        panels[0].set_title(plain(label), loc="left", fontweight="bold", fontstyle="italic", fontsize=17, pad=24)
        figure.text(0.2 / width, 0.15 / height, note, fontsize=11)
        return figure


def block_panel(
    axes: Axes, table: Mapping[str, Any], groups: Mapping[tuple[str, str], list[int]], slots: int, norm: Normalize
) -> AxesImage:
    """One panel of `input_map`: a row for each stem, a column for each block and slot."""
    inputs, blocks, weak = table["inputs"], table["blocks"], table.get("weak") or {}
    values = np.full((len(groups), len(blocks) * slots), np.nan)
    texts: dict[tuple[int, int], str] = {}
    there = np.zeros(values.shape, bool)
    for row, places in enumerate(groups.values()):
        for block, (name, numbers) in enumerate(blocks.items()):
            for k in places:
                column = block * slots + (inputs[k]["slot"] or 0)
                there[row, column] = True
                if numbers[k] is not None:
                    values[row, column] = numbers[k]
                    text = f"{numbers[k]:.2f}".removeprefix("0")
                    texts[row, column] = f"({text})" if weak.get(name, [False] * len(inputs))[k] else text
    image = heat(axes, values, norm)
    if slots * len(blocks) <= WRITTEN:
        write(image, texts, size=8.5)
    for row, column in np.argwhere(~there):  # no such input: no cell
        axes.add_patch(matplotlib.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", linewidth=0))
    axes.set_yticks(range(len(groups)), [stem_label(inputs[places[0]]) for places in groups.values()], fontsize=10.5)
    slot_ticks(axes, list(blocks), slots)
    names = [group for group, _ in groups]
    for row in [row for row in range(1, len(names)) if names[row] != names[row - 1]]:
        axes.axhline(row - 0.5, color="black", linewidth=1.2)
    return image


def slot_ticks(axes: Axes, blocks: Sequence[str], slots: int) -> None:
    """Headings of the blocks above, numbers of the slots below, lines between the blocks."""
    for block, name in enumerate(blocks):
        axes.text((block + 0.5) * slots - 0.5, -0.65, plain(name, 14), ha="center", va="bottom", fontsize=11.5)
        if block:
            axes.axvline(block * slots - 0.5, color="white", linewidth=4)
            axes.axvline(block * slots - 0.5, color="black", linewidth=1.2)
    if slots == 1:
        axes.set_xticks([])
        return
    step = 1 if len(blocks) * slots <= WRITTEN else 5
    shown = [(b * slots + s, s + 1) for b in range(len(blocks)) for s in range(slots) if (s + 1) % step == 0]
    axes.set_xticks([place for place, _ in shown], [str(number) for _, number in shown], fontsize=9)
    axes.set_xlabel("slot", fontsize=11)
