"""Matrices of an inspection: correlations of the inputs before and after an attack, and confusion of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from common.histograms import RAW
from plots.heat import heat, stems_of, write
from plots.input_matrices import Panel, change, matrices
from plots.style import Array, cms_style, plain

ENOUGH = 30
"""Jets below which the correlation of a pair is not shown."""


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
    inputs, number = table["inputs"], len(table["inputs"])
    order = [k for places in stems_of(inputs).values() for k in places]
    jets = square(table["pairs"], number, table["jets"])
    raw, attacked = (
        np.where(jets < ENOUGH, np.nan, square(table[name], number, 1.0))[np.ix_(order, order)]
        for name in (RAW, "attacked")
    )
    panels = [Panel(name, values, 1.0, "correlation") for name, values in ((RAW, raw), ("attacked", attacked))]
    panels.append(change("attacked - raw", raw, attacked))
    fewest = int(np.min(jets[np.triu_indices(number, 1)], initial=table["jets"]))
    note = f"{table['jets']:,} jets; a pair counts the jets that have both inputs, {fewest:,} at least"
    names, groups = ([inputs[k][key] for k in order] for key in ("name", "group"))
    headings = [title, f"{note}; grey: fewer than {ENOUGH} jets, or a constant"]
    return matrices(panels, names=names, groups=groups, label=label, headings=headings)


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
