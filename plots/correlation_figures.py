"""Matrices of correlations in each region: data against MC, and what attacks do to them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.histograms import RAW, HistogramFile
from plots.catalogue import About
from plots.correlations import Samples, attacked, attacks_in, compare, samples
from plots.input_matrices import Panel, change, matrices
from plots.jobs import Job, file_name
from plots.style import Array, plain

PULLS = 5.0
"""Standard deviations at the ends of the colours."""


def correlation_figures(file: HistogramFile, regions: Sequence[str], folder: Path, label: str) -> Iterator[Job]:
    """Say what to draw: `REGION/correlations.png` and, for each attack, `REGION/correlations/TAGGER/ATTACK.png`.

    Nothing if the file has no correlations.

    Args:
        file: the histogram file.
        regions: to draw.
        folder: of the figures.
        label: above the panels.

    Raises:
        AdvtagError: a dataset that cannot be scaled.
    """
    common = {"names": file.inputs, "label": label, "luminosity": file.luminosity}
    for region in regions:
        place, raw = folder / file_name(region), samples(file, region)
        if raw is None:
            continue
        panels, heading = nominal_panels(raw, file.inputs)
        about = About("correlations", "Correlations of data and MC", region, attacks=(RAW,))
        options = {**common, "headings": [f"region {plain(region)}{heading}"]}
        yield Job(place / "correlations.png", matrices, panels, options, about)
        for tagger, attack in attacks_in(file, region):
            panels, heading = attacked_panels(file, region, raw, tagger, attack)
            if panels:
                about = About("correlations", f"Correlations under {attack}", region, "", (tagger,), (attack,))
                heading = f"region {plain(region)}, MC under {plain(attack)} on {plain(tagger)}{heading}"
                path = place / "correlations" / file_name(tagger) / f"{file_name(attack)}.png"
                yield Job(path, matrices, panels, {**common, "headings": [heading]}, about)


def nominal_panels(raw: Samples, names: Sequence[str]) -> tuple[list[Panel], str]:
    """Correlations of data and of MC, and the pulls between them; and what the heading says of these."""
    mc = Panel("MC", raw.mc.r, 1.0, "correlation")
    if raw.data is None:
        return [mc], ""
    found = compare(raw.data, raw.mc)
    panels = [Panel("data", raw.data.r, 1.0, "correlation"), mc]
    panels.append(Panel("data - MC", _both(found.pulls), PULLS, "difference of artanh r / statistical error"))
    if found.pair is None:
        return panels, ": too few jets to compare data with MC"
    i, j = found.pair
    worst = f"{names[i]}, {names[j]}: {found.pulls[i, j]:+.1f} s.d."
    return panels, f": {found.exceeding} of {found.pairs} pairs beyond 95 %; largest {worst}, p = {found.p:.2g}"


def attacked_panels(
    file: HistogramFile, region: str, raw: Samples, tagger: str, attack: str
) -> tuple[list[Panel], str]:
    """Correlations under an attack, their change, and that in units of the error of data/MC; and the verdict."""
    found = attacked(file, region, raw, tagger, attack)
    if found is None:
        return [], ""
    estimate, moved = found
    panels = [
        Panel("attacked MC", estimate.r, 1.0, "correlation"),
        change("attacked - raw MC", raw.mc.r, estimate.r),
        Panel(
            "the same, against data/MC", _both(moved.shifts), PULLS, "change of artanh r / statistical error of data/MC"
        ),
    ]
    if moved.pair is None:
        return panels, ": too few jets to say"
    i, j = moved.pair
    return panels, f": {moved.verdict}; largest {file.inputs[i]}, {file.inputs[j]}: {moved.shifts[i, j]:+.1f} s.d."


def _both(upper: Array) -> Array:
    """An upper triangle in both triangles."""
    whole: Array = np.where(np.isnan(upper), upper.T, upper)
    return whole
