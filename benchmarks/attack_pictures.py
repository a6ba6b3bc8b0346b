"""Draw what each attack does to one input, by flavour: the figures of docs/attacks.md.

python benchmarks/attack_pictures.py HISTOGRAMS FIGURE [--variable trackSip2dSig_0] [--region pt30]

One panel per attack of a histogram file: normalised shapes before (dotted) and after it (solid), and their ratio.
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
from matplotlib.figure import Figure

from common.histograms import RAW, read_histograms
from plots.shapes import contents, filled, scaled, shown
from plots.style import cms_style, plain, save

GROUPS = {"b": (("b", "bb"), "#3f90da"), "c": (("c",), "#e76300"), "light": (("udsg",), "#1b7837")}
COLUMNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("histograms", type=Path)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--variable", default="trackSip2dSig_0")
    parser.add_argument("--region", default="pt30")
    wanted = parser.parse_args()
    file = read_histograms(wanted.histograms)
    shapes = scaled(file, wanted.variable, wanted.region)
    tagger = shapes.axes["tagger"][0]
    attacks = [name for name in filled(shapes, "attack") if name != RAW]
    edges = np.asarray(shapes.axes[-1].edges)
    rows = -(-len(attacks) // COLUMNS)
    with cms_style():
        figure = Figure(figsize=(5.2 * COLUMNS, 4.4 * rows))
        grid = figure.add_gridspec(
            3 * rows,
            COLUMNS,
            height_ratios=[2.2, 1.2, 0.55] * rows,
            hspace=0.06,
            wspace=0.2,
            left=0.06,
            right=0.99,
            top=0.985,
            bottom=0.01,
        )
        for place, attack in enumerate(attacks):
            row, column = divmod(place, COLUMNS)
            main_axes = figure.add_subplot(grid[3 * row, column])
            ratio_axes = figure.add_subplot(grid[3 * row + 1, column], sharex=main_axes)
            for label, (flavours, colour) in GROUPS.items():
                raw, moved = (
                    shown(contents(shapes, flavours, tagger, kind)[0], discriminator=False) for kind in (RAW, attack)
                )
                main_axes.stairs(raw / raw.sum(), edges, color=colour, linestyle=":", linewidth=1.4)
                main_axes.stairs(moved / moved.sum(), edges, color=colour, linewidth=1.4, label=label)
                quotient = moved / np.where(raw > 0, raw, np.nan)
                ratio_axes.stairs(quotient, edges, baseline=None, color=colour, linewidth=1.4)
            main_axes.set_yscale("log")
            main_axes.set_title(plain(attack), loc="left", fontsize=15, pad=4)
            main_axes.tick_params(labelbottom=False, labelsize=11)
            main_axes.legend(fontsize=11, loc="upper right")
            ratio_axes.axhline(1, color="black", linewidth=0.6)
            ratio_axes.set_ylim(0.5, 1.5)
            ratio_axes.set_xlim(edges[0], edges[-1])
            ratio_axes.tick_params(labelsize=11)
            ratio_axes.set_xlabel(shapes.axes[-1].label, fontsize=12, labelpad=1)
            if column == 0:
                main_axes.set_ylabel("jets, normalised", fontsize=12)
                ratio_axes.set_ylabel("attacked / raw", fontsize=12)
        save(figure, wanted.figure)


if __name__ == "__main__":
    main()
