"""Matrices of an inspection: correlations of the inputs before and after an attack, and confusion of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from common.histograms import RAW
from plots.heat import DIVERGING, heat, stem_label, stems_of, write
from plots.style import Array, cms_style, plain

ENOUGH = 30
"""Jets below which the correlation of a pair is not shown."""
LABELLED = 120
"""Inputs up to which each stem is named, and not only each group."""


def square(pairs: Sequence[float | None], number: int, diagonal: float) -> Array:
    """The symmetric matrix [number, number] whose upper triangle is given row by row; null is nan."""
    matrix = np.full((number, number), float(diagonal))
    upper = np.triu_indices(number, 1)
    matrix[upper] = np.array(pairs, np.float64)
    matrix.T[upper] = matrix[upper]
    return matrix


def correlation_matrices(table: Mapping[str, Any], *, title: str, label: str = "Simulation") -> Figure:
    """Draw the correlations of the inputs before an attack, after it, and their difference, inputs ordered by group.

    Args:
        table: `inputs` as an inspection describes them, `jets`, and of the pairs above the diagonal `raw`, `attacked`
            and `pairs`, the number of jets that have both.
        title: what was attacked.
        label: text above the axes.
    """
    inputs, stems = table["inputs"], stems_of(table["inputs"])
    order = [k for places in stems.values() for k in places]
    number, jets = len(inputs), square(table["pairs"], len(inputs), table["jets"])
    raw, attacked = (square(table[name], number, 1.0) for name in (RAW, "attacked"))
    hidden = jets < ENOUGH
    few = np.ix_(order, order)
    raw, attacked = (np.where(hidden, np.nan, matrix)[few] for matrix in (raw, attacked))
    change = attacked - raw
    reach = float(np.nanmax(np.abs(change), initial=0)) if np.isfinite(change).any() else 0.0
    reach = reach or 1.0
    side = float(np.clip(number * 0.105, 3.5, 10))
    with cms_style():
        width, height = 3.6 + 3 * side + 4.0, side + 4.6
        figure = Figure(figsize=(width, height))
        drawn = ((RAW, raw, 1.0), ("attacked", attacked, 1.0), ("attacked $-$ raw", change, reach))
        left = 3.6
        for place, (name, matrix, limit) in enumerate(drawn):
            axes = figure.add_axes((left / width, 3.7 / height, side / width, side / height))
            image = heat(axes, matrix, Normalize(-limit, limit), DIVERGING)
            name_rows(axes, inputs, stems, rows=place == 0)
            axes.set_title(name, loc="right", fontsize=14)
            if place == 0:
                axes.set_title(plain(label), loc="left", fontweight="bold", fontstyle="italic", fontsize=17)
            left += side + 0.3
            if place:
                bar = figure.add_axes(((left - 0.2) / width, 3.7 / height, 0.16 / width, side / height))
                figure.colorbar(image, cax=bar).set_label(
                    "Pearson correlation" if place == 1 else "change", fontsize=13
                )
                bar.tick_params(labelsize=11)
                left += 1.15
        fewest = int(np.min(jets[np.triu_indices(number, 1)], initial=table["jets"]))
        figure.text(
            0.2 / width,
            0.2 / height,
            f"{title}\n{table['jets']:,} jets; a pair counts the jets that have both inputs, {fewest:,} at least\n"
            f"grey: fewer than {ENOUGH} jets, or a constant",
            fontsize=12,
        )
        return figure


def name_rows(
    axes: Axes, inputs: Sequence[Mapping[str, Any]], stems: Mapping[tuple[str, str], list[int]], *, rows: bool
) -> None:
    """Name the stems below a matrix, with `rows` beside it, too; lines around stems with slots, thick around groups."""
    starts = np.cumsum([0, *(len(places) for places in stems.values())])
    middles = (starts[:-1] + starts[1:] - 1) / 2
    groups = [group for group, _ in stems]
    size = 7.0 if len(inputs) <= LABELLED else 12.0
    if len(inputs) > LABELLED:
        first = [i for i in range(len(groups)) if i == 0 or groups[i] != groups[i - 1]]
        ends = [*(starts[i] for i in first[1:]), starts[-1]]
        middles = [(starts[i] + end - 1) / 2 for i, end in zip(first, ends, strict=True)]
        labels = [groups[i] for i in first]
    else:
        labels = [stem_label(inputs[places[0]]) for places in stems.values()]
    axes.set_xticks(middles, labels, rotation=90, fontsize=size)
    axes.set_yticks(middles if rows else [], labels if rows else [], fontsize=size)
    for i in range(1, len(groups)):
        new = groups[i] != groups[i - 1]
        sizes = [len(places) for places in stems.values()]
        if new or max(sizes[i - 1 : i + 1]) > 1:
            look: dict[str, Any] = {"color": "black", "linewidth": 1.2 if new else 0.3}
            axes.axhline(starts[i] - 0.5, **look)
            axes.axvline(starts[i] - 0.5, **look)


def confusion(table: Mapping[str, Any], *, attack: str, label: str = "Simulation") -> Figure:
    """Draw how jets of each class are classified by their most probable class: raw above, attacked below.

    Args:
        table: `classes`, and `taggers`: by name and then `raw` and the attack, `jets` and `fraction` of an inspection.
        attack: its name.
        label: text above the axes.
    """
    classes, taggers = table["classes"], table["taggers"]
    side = 0.95 * len(classes)
    with cms_style():
        width, height = 1.3 + len(taggers) * (side + 0.45) + 1.1, 2 * side + 2.4
        figure = Figure(figsize=(width, height))
        for column, (tagger, kinds) in enumerate(taggers.items()):
            for row, kind in enumerate((RAW, attack)):
                corner = (1.3 + column * (side + 0.45), 0.85 + (1 - row) * (side + 0.6))
                axes = figure.add_axes((corner[0] / width, corner[1] / height, side / width, side / height))
                image = confusion_panel(axes, kinds[kind], classes)
                if column:
                    axes.set_yticks([])
                axes.set_title(plain(kind, 14), loc="right", fontsize=12)
                axes.set_title(plain(tagger, 20), loc="left", fontsize=12, fontweight="bold")
                axes.set_xlabel("most probable class" if row else "", fontsize=12)
                axes.set_ylabel("true class" if column == 0 else "", fontsize=12)
        bar = figure.add_axes(((width - 0.85) / width, 0.2, 0.18 / width, 0.6))
        figure.colorbar(image, cax=bar).set_label("part of the true class", fontsize=12)
        bar.tick_params(labelsize=11)
        figure.text(1.3 / width, 1 - 0.35 / height, plain(label), fontweight="bold", fontstyle="italic", fontsize=17)
        return figure


def confusion_panel(axes: Axes, table: Mapping[str, Any], classes: Sequence[str]) -> Any:
    """One matrix, with fractions and numbers of jets."""
    fractions = np.array(table["fraction"], np.float64)
    image = heat(axes, fractions, Normalize(0, 1))
    texts: dict[tuple[int, float], str] = {
        (i, j): f"{fractions[i, j]:.3f}\n{table['jets'][i][j]:,}"
        for i, j in np.argwhere(np.isfinite(fractions)).tolist()
    }
    write(image, texts, size=10)
    axes.set_xticks(range(len(classes)), classes, fontsize=11)
    axes.set_yticks(range(len(classes)), classes, fontsize=11)
    return image
