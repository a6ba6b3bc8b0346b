"""Cutflows of a region: how many events are left after each cut, data beside simulation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from common.histograms import HistogramFile
from plots.shapes import scale_of
from plots.style import cms_style, fill_colours, headline, plain, poisson_errors

Left = Mapping[str, tuple[float, float]]
"""Cut -> events and sum of weights that are left after it; the sum scaled to the luminosity."""


def cutflows(file: HistogramFile, region: str) -> dict[str, tuple[bool, Left]]:
    """Cutflows by dataset, and whether it is data; those datasets that have one of this region."""
    found: dict[str, tuple[bool, Left]] = {}
    for name, dataset in file.datasets.items():
        if region in dataset.cutflow:
            factor = scale_of(file, name)
            cuts = {cut: (events, weights * factor) for cut, (events, weights) in dataset.cutflow[region].items()}
            found[name] = (dataset.data, cuts)
    return found


def cutflow(
    found: Mapping[str, tuple[bool, Left]], *, luminosity: float, label: str = "Simulation", region: str = ""
) -> Figure:
    """Draw the events left after each cut: simulation stacked by dataset, data as points, on a log axis.

    Below: the part of the events before the first cut that is left, of data and of the simulation together.

    Args:
        found: from `cutflows`, of one region.
        luminosity: 1/pb, for the text above.
        label: text above the axes.
        region: name written in the axes.
    """
    cuts = list(dict.fromkeys(cut for _, left in found.values() for cut in left))
    with cms_style():
        figure = Figure(figsize=(10.5, 7.5))
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 1], "hspace": 0.07})
        figure.subplots_adjust(left=0.11, right=0.74, bottom=0.2, top=0.93)
        x, colours = np.arange(len(cuts)), fill_colours(name for name, (data, _) in found.items() if not data)
        bottom, data = np.zeros(len(cuts)), np.zeros(len(cuts))
        for name, (is_data, left) in found.items():
            values = np.array([left[cut][1] if cut in left else np.nan for cut in cuts])
            if is_data:
                data += np.nan_to_num(values)
            else:
                upper.bar(x, values, 0.8, bottom, color=colours[name], label=plain(name))
                bottom += np.nan_to_num(values)
        for values, look in ((bottom, {"color": "#3f90da", "marker": "s"}), (data, {"color": "black", "marker": "o"})):
            if values.any() and values[0] > 0:
                lower.plot(x, values / values[0], linestyle="none", **look, label="data" if values is data else "MC")
        if data.any():
            upper.errorbar(x, data, yerr=poisson_errors(data), fmt="o", color="black", markersize=5, label="data")
        upper.set_yscale("log")
        drawn = [patch.get_height() for patch in upper.patches if patch.get_height() > 0] + list(data[data > 0])
        if drawn:
            upper.set_ylim(bottom=0.5 * min(drawn))
        upper.set_ylabel("events")
        lower.set_ylabel("part left")
        lower.set_yscale("log")
        lower.yaxis.set_minor_formatter(NullFormatter())
        lower.set_xticks(x, [plain(cut, 30) for cut in cuts], rotation=30, ha="right", fontsize=12)
        lower.xaxis.set_minor_locator(NullLocator())
        for axes in (upper, lower):
            axes.yaxis.set_label_coords(-0.11, 1)
            axes.grid(visible=True, axis="y", linewidth=0.4)
        upper.legend(loc="upper left", bbox_to_anchor=(1.01, 1.01), title=f"region: {plain(region, 18)}", reverse=True)
        lower.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        headline(upper, upper, label, luminosity)
        return figure
