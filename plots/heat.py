"""Heat maps: tables of numbers as coloured cells, and the map of the inputs of a card.

Sequential colours are viridis, diverging ones RdBu with white at zero; both read well for colour-blind eyes and on
paper (viridis: S. van der Walt, N. Smith; RdBu: C. Brewer).
"""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from plots.style import Array, cms_style, plain

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
NOTHING = "#c8c8c8"
"""Of a cell whose number is not defined."""
WRITTEN = 36
"""Columns up to which the numbers are written into the cells."""

Inputs = Sequence[Mapping[str, Any]]
"""Inputs of a card, as an inspection describes them."""


def palette(colours: str) -> Colormap:
    """A colour map of matplotlib, in which what is not defined is grey."""
    return matplotlib.colormaps[colours].with_extremes(bad=NOTHING)


def heat(axes: Axes, values: Array, norm: Normalize, colours: str = SEQUENTIAL) -> AxesImage:
    """Draw values [rows, columns] as cells, the first row at the top; what is not finite is grey."""
    shown = np.ma.masked_invalid(values)
    image = axes.imshow(shown, cmap=palette(colours), norm=norm, aspect="auto", interpolation="nearest")
    axes.tick_params(which="both", length=0)
    axes.minorticks_off()
    return image


def write(image: AxesImage, texts: Mapping[tuple[int, float], str], *, size: float) -> None:
    """Write texts into the cells of a heat map, by row and column (x.5: between two cells), in black or white, whatever
    reads better.
    """
    values: Any = np.ma.asarray(image.get_array())
    for (row, column), text in texts.items():
        red, green, blue, _ = image.cmap(image.norm(values[row, int(column)]))
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
    label = str(feature["label"])
    return label if feature["slot"] is None else label.rpartition(", ")[0] or label


def input_map(
    table: Mapping[str, Any],
    *,
    title: str,
    scale: str,
    highest: float | None = None,
    note: str = "",
    label: str = "Simulation",
) -> Figure:
    """Draw a number of each input in one or more blocks: a row for each stem, a column for each of its slots.

    Args:
        table: `inputs`, as an inspection describes them; `blocks`, their numbers by heading, None where undefined; and
            maybe `weak`, bool of each input by heading: those numbers are written in brackets.
        title: above the figure.
        scale: label of the colours.
        highest: upper end of the colours; None: the highest number.
        note: below the figure.
        label: text above the axes.
    """
    inputs, blocks, stems = table["inputs"], table["blocks"], stems_of(table["inputs"])
    slots = max((feature["slot"] + 1 for feature in inputs if feature["slot"] is not None), default=1)
    finite = [x for numbers in blocks.values() for x in numbers if x is not None]
    norm = Normalize(0, highest or max([*finite, 1e-12]))
    columns = len(blocks) * slots
    size = max(columns * (0.42 if columns <= WRITTEN else 0.17), len(blocks) * 1.0), len(stems) * 0.29
    with cms_style():
        width = 4.2 + size[0] + 1.5
        lines = textwrap.wrap(note, int(11.5 * width))
        bottom = 0.8 + 0.2 * len(lines)
        height = bottom + size[1] + 1.0
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((4.2 / width, bottom / height, size[0] / width, size[1] / height))
        image = input_cells(axes, table, stems, slots, norm)
        bar = figure.add_axes(((width - 1.3) / width, bottom / height, 0.2 / width, size[1] / height))
        figure.colorbar(image, cax=bar).set_label(scale, fontsize=13)
        bar.tick_params(labelsize=11)
        figure.text(0.2 / width, 1 - 0.5 / height, plain(label), fontweight="bold", fontstyle="italic", fontsize=17)
        figure.text(1 - 1.5 / width, 1 - 0.5 / height, title, fontsize=14, ha="right")
        figure.text(0.2 / width, 0.12 / height, "\n".join(lines), fontsize=11)
        return figure


def input_cells(
    axes: Axes, table: Mapping[str, Any], stems: Mapping[tuple[str, str], list[int]], slots: int, norm: Normalize
) -> AxesImage:
    """The cells of `input_map`; an input without a slot fills all slots of its row."""
    inputs, blocks, weak = table["inputs"], table["blocks"], table.get("weak") or {}
    values = np.full((len(stems), len(blocks) * slots), np.nan)
    there, texts = np.zeros(values.shape, bool), {}
    for row, places in enumerate(stems.values()):
        for (block, (name, numbers)), k in itertools.product(enumerate(blocks.items()), places):
            first = block * slots + (inputs[k]["slot"] or 0)
            last = first + 1 if inputs[k]["slot"] is not None else first + slots
            there[row, first:last] = True
            if numbers[k] is not None:
                values[row, first:last] = numbers[k]
                text = f"{numbers[k]:.2f}".removeprefix("0")
                texts[row, (first + last - 1) / 2] = f"({text})" if name in weak and weak[name][k] else text
    image = heat(axes, values, norm)
    if values.shape[1] <= WRITTEN:
        write(image, texts, size=8.5)
    for row, column in np.argwhere(~there):  # no such input: no cell
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", linewidth=0))
    axes.set_yticks(range(len(stems)), [stem_label(inputs[places[0]]) for places in stems.values()], fontsize=10.5)
    slot_ticks(axes, list(blocks), slots)
    names = [group for group, _ in stems]
    for row in [row for row in range(1, len(names)) if names[row] != names[row - 1]]:
        axes.axhline(row - 0.5, color="black", linewidth=1.5)
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
