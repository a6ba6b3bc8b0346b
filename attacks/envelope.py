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
MIN_ENTRIES = 100
"""Effective data entries below which a shape says nothing."""


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

    Simulation is normalised to data and shifted by d, entries spread evenly over their bin; chi2(d) with the
    variances of both. Open are all d with chi2 <= chi2_min + S^2, S^2 = max(1, chi2_min/ndf): where no shift
    describes the data, the envelope widens by the scale factor of the Particle Data Group (Review of Particle Physics,
    introduction).

    Args:
        edges: [bins + 1]
        data: [bins], contents; likewise the others
        data_variance: sums of squared weights
        mc: weighted contents
        mc_variance: sums of squared weights
    """
    factor = data.sum() / mc.sum()
    variance = data_variance + factor**2 * mc_variance
    used = variance > 0
    ndf = max(int(used.sum()) - 2, 1)
    cumulative = np.concatenate([[0.0], np.cumsum(factor * mc)])

    def chi2(shifts: Array) -> Array:
        shifted = np.diff(np.interp(edges - shifts[:, None], edges, cumulative), axis=1)
        return np.asarray((((data - shifted) ** 2)[:, used] / variance[used]).sum(1))

    def open_shifts(shifts: Array) -> tuple[Array, Array]:
        found = chi2(shifts)
        return shifts[found <= found.min() + max(1.0, found.min() / ndf)], found

    reach = (edges[-1] - edges[0]) / 4
    for _ in range(3):  # a grid, then finer ones over what was left open
        shifts = np.linspace(-reach, reach, STEPS)
        left, found = open_shifts(shifts)
        step = shifts[1] - shifts[0]
        reach = min(reach, np.abs(left).max() + 2 * step)
    best = int(found.argmin())
    return Envelope(float(np.abs(left).max()), float(shifts[best]), float(found[best]), ndf)


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
