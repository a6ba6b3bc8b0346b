"""What is drawn of a histogram file, of trainings and of scans: one job for each figure.

Each figure is made ready only when its turn comes: with many variations, those of all figures would not fit in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.histograms import RAW, HistogramFile
from models.classes import DISCRIMINATORS, TAGGER_SCORES
from plots.catalogue import About
from plots.cutflow import cutflow, cutflows
from plots.datamc import data_mc
from plots.flavours import flavour_shapes
from plots.histories import Histories, attacks_of
from plots.jobs import Job, Later, file_name
from plots.roc import roc
from plots.scan import Scan, auc_vs_inputs
from plots.shapes import NOMINAL, filled, jets_in, scaled, varied
from plots.stack import Drawing
from plots.training import auc_vs_epoch, loss_vs_epoch, roc_vs_epoch, susceptibility

SCALES: dict[str, dict[str, bool | None]] = {
    "auto": {"": None}, "linear": {"": False}, "log": {"": True}, "both": {"": False, "_log": True}
}  # fmt: skip
"""Logarithmic or not, by what is added to the name of a figure; None: where the contents differ much."""


@dataclass(frozen=True)
class Style:
    """How figures of histograms are drawn.

    Attributes:
        label: text above the axes.
        area: scale the MC of data/MC figures to the area of the data.
        rebin: merge so many bins, or the most below that divide their number; integer inputs stay as they are.
        yscale: `auto` is logarithmic where the contents differ much; `both` makes two figures, X and X_log.
        by: stack flavours; or processes, which otherwise is done for the discriminators alone, if there are several.
    """

    label: str = "Simulation"
    area: bool = False
    rebin: int = 1
    yscale: Literal["auto", "linear", "log", "both"] = "auto"
    by: Literal["flavour", "process"] = "flavour"


def histogram_figures(file: HistogramFile, folder: Path, regions: Sequence[str], style: Style) -> Iterator[Job]:
    """Say what to draw of histograms, the large figures first, so that no worker is left alone with one at the end."""
    several = sum(not dataset.data for dataset in file.datasets.values()) > 1
    attacked = any(set(h.axes["attack"]) - {RAW} for h in file.histograms.values())
    for region in regions:
        place = folder / file_name(region)
        for name in (*file.discriminators, *file.inputs):
            yield from data_mc_figures(file, place, region, name, style, by_process=style.by == "process")
            if several and style.by != "process" and name in DISCRIMINATORS:
                yield from data_mc_figures(file, place, region, name, style, by_process=True)
            if attacked:
                yield from shape_figures(file, place, region, name, style)
        for name in [name for name in TAGGER_SCORES if name in file.discriminators]:
            yield roc_figure(file, place, region, name, style)
        found = cutflows(file, region)
        if found:
            about = About("cutflow", "Cutflow", region)
            options = {"luminosity": file.luminosity, "label": style.label, "region": region}
            yield Job(place / "cutflow.png", cutflow, found, options, about)


def data_mc_figures(
    file: HistogramFile, place: Path, region: str, name: str, style: Style, *, by_process: bool
) -> Iterator[Job]:
    """Data/MC of one variable."""
    score = name in file.discriminators
    common = {"label": style.label, "region": region, "luminosity": file.luminosity}
    kind = "processes" if by_process else "discriminators" if score else "inputs"
    place = place / "by_process" if by_process else place

    def ready(drawing: Drawing) -> tuple[Any, dict[str, Any]]:
        variations = varied(file, name, region, by_process=by_process)
        jets = {
            variation: jets_in(file, region, variation, by_process=by_process)
            for variation in (() if score or not file.discriminators else (NOMINAL, *variations))
        }
        options = {**common, "drawing": drawing, "variations": variations, "jets": jets}
        return scaled(file, name, region, by_process=by_process), options

    for ending, log in SCALES[style.yscale].items():
        drawing = Drawing(score, style.area, style.rebin, log)
        yield Job(
            place / f"{file_name(name)}{ending}.png",
            data_mc,
            Later(ready, drawing),
            {},
            about(file, kind, region, name),
        )


def shape_figures(file: HistogramFile, place: Path, region: str, name: str, style: Style) -> Iterator[Job]:
    """Shapes of one variable by flavour, raw and distorted."""
    score = name in file.discriminators

    def ready(drawing: Drawing) -> tuple[Any, dict[str, Any]]:
        jets = {} if score or not file.discriminators else {NOMINAL: jets_in(file, region)}
        options = {"label": style.label, "region": region, "drawing": drawing, "jets": jets}
        return scaled(file, name, region), options

    for ending, log in SCALES[style.yscale].items():
        path = place / "flavours" / f"{file_name(name)}{ending}.png"
        drawing = Drawing(score, rebin=style.rebin, log=log)
        yield Job(path, flavour_shapes, Later(ready, drawing), {}, about(file, "flavours", region, name))


def roc_figure(file: HistogramFile, place: Path, region: str, name: str, style: Style) -> Job:
    """ROC curves of one discriminator or node output."""
    options = {"label": style.label, "region": region}
    what = Later(lambda _: (scaled(file, name, region), options), Drawing())
    return Job(place / f"roc_{name}.png", roc, what, {}, about(file, "roc", region, name))


def about(file: HistogramFile, kind: str, region: str, name: str) -> About:
    """What a figure of a histogram shows."""
    axes = file.histograms[name].axes
    label = str(axes[-1].label or name)
    title = label if label == name else f"{name}: {label}"
    attacks = tuple(attack for attack in axes["attack"] if attack != RAW)
    return About(kind, title, region, name, tuple(axes["tagger"]), attacks)


def training_figures(
    histories: Histories, scan: Scan | None, folder: Path, attacks: Sequence[str], label: str
) -> Iterator[Job]:
    """Say what to draw of trainings; `attacks` come first in the order of colours."""
    options = {"label": label, "attacks": attacks}
    shown = About("training", "", taggers=tuple(histories), attacks=tuple(attacks_of(histories)))
    if any(histories.values()):
        for name in DISCRIMINATORS:
            title = f"AUC of {name} against epoch"
            path = folder / "training" / f"auc_vs_epoch_{name}.png"
            yield Job(path, auc_vs_epoch, histories, {**options, "discriminator": name}, replace(shown, title=title))
            if any(epoch.get("mistag") for epochs in histories.values() for epoch in epochs):
                path, title = folder / "training" / f"roc_vs_epoch_{name}.png", f"ROC curves of {name} by epoch"
                own = {"label": label, "discriminator": name}
                yield Job(path, roc_vs_epoch, histories, own, replace(shown, title=title))
        if attacks_of(histories):
            title = "BvsL: what attacks take from the AUC, against the raw AUC, a point for each epoch"
            path = folder / "training" / "susceptibility.png"
            yield Job(path, susceptibility, histories, {"label": label}, replace(shown, title=title))
        path = folder / "training" / "loss_vs_epoch.png"
        yield Job(path, loss_vs_epoch, histories, options, replace(shown, title="Loss against epoch"))
    if scan is not None:
        path, title = folder / "training" / "scan.png", "AUC against the number of inputs"
        yield Job(path, auc_vs_inputs, scan, {"label": label}, About("training", title))


def filled_in(file: HistogramFile, region: str) -> bool:
    """Whether any histogram has an entry in this region."""
    return any(
        region in list(file.histograms[name].axes["region"]) and filled(scaled(file, name, region), "tagger")
        for name in (*file.discriminators, *file.inputs)
    )
