"""A table of uncertainties from data: how far each input may be shifted before a control region notices.

advtag envelope HISTOGRAMS --region REGION
"""

from dataclasses import dataclass
from pathlib import Path

import hist
import numpy as np
import yaml
from numpy.typing import NDArray

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import RAW, HistogramFile, read_histograms

Array = NDArray[np.float64]
STEPS = 401
MARGIN = 0.125
"""Part of the range that is left out at each end."""
FEWEST = 3
"""Bins of which a shift, a normalisation and their fit can be told apart."""
MIN_ENTRIES = 100
"""Effective entries below which a shape says nothing."""
ENOUGH = 10.0
"""Entries, and effective entries of simulation, that a bin needs for chi2: an empty one has no variance."""


@dataclass(frozen=True)
class Envelope:
    """What the comparison of data and simulation says of one input."""

    uncertainty: float
    """largest |shift| that is left open, in the input's unit"""
    shift: float
    """best shift of simulation, in the same unit"""
    chi2: float
    """at the best shift"""
    ndf: int


def envelope(edges: Array, data: Array, data_variance: Array, mc: Array, mc_variance: Array) -> Envelope:
    """Largest shift |d| of all simulated entries together that data leave open at one standard deviation.

    Simulation is shifted by d, entries spread evenly over their bin, and normalised to data in a window: an eighth of
    the range is left out at both ends and is how far the shift may go, since nobody knows what lies beyond an edge,
    and a cut at it does not shift. chi2(d) is taken with the variances of both, in bins of that window where 10
    entries or more are expected; where there are fewer than three, all shifts are open. Open are all d with
    chi2 <= chi2_min + S^2, S^2 = max(1, chi2_min/ndf): where no shift describes the data, the envelope widens by the
    scale factor of the Particle Data Group (Review of Particle Physics, introduction).

    Args:
        edges: [bins + 1], of bins of one width
        data: [bins], contents; likewise the others
        data_variance: sums of squared weights
        mc: weighted contents
        mc_variance: sums of squared weights
    """
    factor = data.sum() / mc.sum()
    mc, mc_variance = factor * mc, factor**2 * mc_variance
    farthest = MARGIN * (edges[-1] - edges[0])
    starts = _starts(mc, mc_variance)
    kept = edges[np.append(starts, len(mc))]
    inside = (kept[:-1] >= edges[0] + farthest) & (kept[1:] <= edges[-1] - farthest)
    if inside.sum() < FEWEST:
        return Envelope(float(farthest), 0.0, 0.0, 0)
    window = slice(int(inside.argmax()), int(inside.argmax() + inside.sum()))
    kept = kept[window.start : window.stop + 1]
    data, data_variance = (np.add.reduceat(values, starts)[window] for values in (data, data_variance))
    variance = data_variance + np.add.reduceat(mc_variance, starts)[window]
    ndf = len(data) - 2
    numbers, below = np.arange(len(edges)), np.concatenate([[0.0], np.cumsum(mc)])

    def chi2(shifts: Array) -> Array:
        place = np.interp(kept - shifts[:, None], edges, numbers)
        shifted = np.diff(np.interp(place, numbers, below), axis=1)
        shifted *= (data.sum() / np.maximum(shifted.sum(1), 1e-300))[:, None]
        # an edge that cuts a bin into t and 1 - t leaves t^2 and (1 - t)^2 of its variance: without the rest,
        # simulation with few entries would fit best half a bin away, where neighbours are averaged
        part = place % 1
        lost = part * (1 - part) * mc_variance[np.minimum(place, len(mc) - 1).astype(int)]
        return np.asarray((((data - shifted) ** 2 + lost[:, :-1] + lost[:, 1:]) / variance).sum(1))

    def open_shifts(shifts: Array) -> tuple[Array, Array]:
        found = chi2(shifts)
        return shifts[found <= found.min() + max(1.0, found.min() / ndf)], found

    reach = farthest
    for _ in range(3):  # a grid, then finer ones over what was left open
        shifts = np.linspace(-reach, reach, STEPS)
        left, found = open_shifts(shifts)
        step = shifts[1] - shifts[0]
        reach = min(farthest, np.abs(left).max() + 2 * step)
    best = int(found.argmin())
    return Envelope(float(np.abs(left).max()), float(shifts[best]), float(found[best]), ndf)


def _starts(mc: Array, mc_variance: Array) -> NDArray[np.intp]:
    """First bin of each group of bins in which enough entries are expected: from the left, the rest joins the last."""

    def enough(first: int, end: int | None = None) -> bool:
        content, variance = mc[first:end].sum(), mc_variance[first:end].sum()
        return bool(content >= ENOUGH and content**2 >= ENOUGH * variance)

    starts = [0]
    for place in range(1, len(mc)):
        if enough(starts[-1], place):
            starts.append(place)
    while len(starts) > 1 and not enough(starts[-1]):
        starts.pop()
    return np.array(starts)


def envelopes(file: HistogramFile, region: str) -> dict[str, Envelope]:
    """The envelope of every continuous input in a region of a histogram file; all data against all simulation.

    Raises:
        AdvtagError: no such region, no data or no simulation in it, or too few of them
    """
    found = {}
    for name in file.inputs:
        histogram = file.histograms[name]
        if isinstance(histogram.axes[-1], hist.axis.Integer):
            continue
        known = list(histogram.axes["region"])
        if region not in known:
            raise AdvtagError(f"no region {region!r} in the histograms; known: {', '.join(known)}")
        sums = {kind: _summed(file, histogram, region, data=kind == "data") for kind in ("data", "simulation")}
        for kind, (content, variance) in sums.items():
            effective = content.sum() ** 2 / max(variance.sum(), 1e-300)
            if effective < MIN_ENTRIES:
                raise AdvtagError(
                    f"input {name!r}, region {region!r}: {effective:.0f} entries of {kind} inside its binning, "
                    f"expected {MIN_ENTRIES} or more; choose another region"
                )
        found[name] = envelope(histogram.axes[-1].edges, *sums["data"], *sums["simulation"])
    return found


def _summed(file: HistogramFile, histogram: hist.Hist, region: str, *, data: bool) -> tuple[Array, Array]:
    bins = len(histogram.axes[-1])
    content, variance = np.zeros(bins), np.zeros(bins)
    tagger = histogram.axes["tagger"][0]  # raw inputs are the same under every tagger
    for name, dataset in file.datasets.items():
        if dataset.data == data and name in histogram.axes["dataset"]:
            chosen = histogram[{"dataset": name, "region": region, "tagger": tagger, "attack": RAW}]
            view = chosen[{"flavour": sum, "variation": "nominal"}].view()
            scale = dataset.scale(file.luminosity)
            content += scale * view["value"]
            variance += scale**2 * view["variance"]
    return content, variance


def write_envelope(histograms: Path, region: str, output: Path) -> Path:
    """Derive a table of uncertainties from a histogram file and write it as YAML; `scale: FILE` of an attack reads it.

    Raises:
        AdvtagError: see `envelopes`, or the files cannot be read or written
    """
    found = envelopes(read_histograms(histograms), region)
    page = {
        "source": {"histograms": histograms.name, "region": region},
        "uncertainties": {name: float(f"{entry.uncertainty:.4g}") for name, entry in found.items()},
        "comparison": {
            name: {
                "best_shift": float(f"{entry.shift:.4g}"),
                "chi2": float(f"{entry.chi2:.4g}"),
                "ndf": entry.ndf,
            }
            for name, entry in found.items()
        },
    }
    heading = (
        "# Uncertainty of each input in its own unit: the largest common shift of simulation that data leave open\n"
        "# (68 %, widened where no shift describes the data). Written by `advtag envelope`.\n"
    )
    with whole_file(output) as aside:
        aside.write_text(heading + yaml.safe_dump(page, sort_keys=False), encoding="utf-8")
    return output
