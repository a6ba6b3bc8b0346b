"""Draw every figure of a histogram file and of the trainings, in a few worker processes.

Layout of the output folder, which the report reads:

    REGION/VARIABLE.png   data/MC of every input and every discriminator
    REGION/roc.png        b against light, every tagger, raw and attacked
    auc.json              list of {region, tagger, attack, discriminator, auc}
    statistics.csv        data/MC of every variable, tagger and attack: see plots.statistics
    auc_vs_epoch.png      of BvsL, if there are training histories; those of others are auc_vs_epoch_BvsC.png, ...
    susceptibility.png    if these know attacks
    loss_vs_epoch.png     if there are training histories
    scan.png              if there is a scan of inputs
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import HistogramFile
from common.progress import progress_bar
from models.classes import DISCRIMINATORS
from plots.datamc import data_mc
from plots.histories import Histories, attacks_of
from plots.jobs import Job, draw_all
from plots.roc import auc_table, roc
from plots.scan import Scan, auc_vs_inputs
from plots.shapes import filled, regions_of, scaled, varied
from plots.statistics import STATISTICS, statistics, write_statistics
from plots.training import auc_vs_epoch, loss_vs_epoch, susceptibility

ROC, AUC = "roc.png", "auc.json"
SUSCEPTIBILITY, LOSS, SCAN = "susceptibility.png", "loss_vs_epoch.png", "scan.png"
EPOCHS = {name: f"auc_vs_epoch{'' if name == 'BvsL' else f'_{name}'}.png" for name in DISCRIMINATORS}
"""AUC against epoch, by discriminator."""


def make_plots(
    histograms: HistogramFile | None,
    histories: Histories,
    folder: Path,
    *,
    scan: Scan | None = None,
    regions: Sequence[str] | None = None,
    only: str | None = None,
    area: bool = False,
    tables: bool = True,
    label: str = "Simulation",
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Write all figures, the table of AUCs and that of statistics into `folder`, each file whole or not at all.

    Args:
        histograms: the histogram file; without one, only the figures of trainings are drawn.
        histories: training histories by tagger; may be empty.
        folder: where to write, see the top of this file.
        scan: the scan of inputs, if there is one.
        regions: regions to draw; all that hold jets by default.
        only: regular expression; figures without a match in their name, like `BvsL` or `roc`, are not drawn.
        area: scale the MC of data/MC figures to the area of the data.
        tables: write the tables, too.
        label: text above the axes, "Simulation" or "Private work".
        workers: processes; with 1 everything is drawn in this one.
        progress: show a progress bar on stderr.

    Returns:
        Paths of all files written, the tables last.

    Raises:
        AdvtagError: an unknown or empty region, nothing that `only` matches, a figure that cannot be drawn, a folder
            that cannot be written.
    """
    console = Console(stderr=True)
    attacks = [] if histograms is None else attack_names(histograms)
    jobs = list(training_figures(histories, scan, folder, attacks, label))
    names = []
    if histograms is None:
        console.print("no histograms: only the figures of trainings are drawn", style="yellow")
    else:
        names = wanted_regions(histograms, regions, console)
        jobs += figures(histograms, folder, names, label, area=area)
    jobs = selected(jobs, only)
    with progress_bar("figures", show=progress) as bar:
        task = bar.add_task("plots", total=len(jobs))
        paths = draw_all(jobs, workers, lambda: bar.advance(task))
    if histograms is not None and tables:
        with whole_file(folder / AUC) as aside:
            aside.write_text(json.dumps(auc_table(histograms, names), indent=1, allow_nan=False))
        write_statistics(statistics(histograms, names), folder / STATISTICS)
        paths += [folder / AUC, folder / STATISTICS]
    return paths


def selected(jobs: list[Job], only: str | None) -> list[Job]:
    """Those figures whose name, without its ending, has a match of a regular expression; all without one."""
    if only is None:
        return jobs
    try:
        found = [job for job in jobs if re.search(only, job.path.stem)]
    except re.error as error:
        raise AdvtagError(f"{only!r} is no regular expression ({error}); write BvsL, or BvsL|roc") from error
    if not found:
        names = dict.fromkeys(job.path.stem for job in jobs)
        raise AdvtagError(f"no figure matches {only!r}; there are {', '.join(names)}")
    return found


def wanted_regions(file: HistogramFile, regions: Sequence[str] | None, console: Console) -> list[str]:
    """Regions to draw. An empty one is skipped with a note, or is an error if it was asked for."""
    known = regions_of(file)
    for name in regions or []:
        if name not in known:
            raise AdvtagError(f"no region {name!r} in the histograms; they have {', '.join(known) or 'none'}")
    names = []
    for name in known if regions is None else dict.fromkeys(regions):
        if has_jets(file, name):
            names.append(name)
        elif regions is not None:
            raise AdvtagError(f"region {name!r} holds no jets; loosen its selection or leave it out")
        else:
            console.print(f"region {name!r} holds no jets: no plots of it", style="yellow", markup=False)
    if not names:
        raise AdvtagError("no region of the histograms holds jets; check the selection and the datasets")
    taken: dict[str, str] = {}
    for name in names:
        if taken.setdefault(file_name(name), name) != name:
            raise AdvtagError(f"regions {taken[file_name(name)]!r} and {name!r} need the same folder; rename one")
    return names


def has_jets(file: HistogramFile, region: str) -> bool:
    """Whether any histogram has an entry in this region."""
    return any(
        region in list(file.histograms[name].axes["region"]) and filled(scaled(file, name, region), "tagger")
        for name in (*file.discriminators, *file.inputs)
    )


def attack_names(file: HistogramFile) -> list[str]:
    """Names of the attacks in the order of their colours in ROC curves."""
    return list(dict.fromkeys(name for h in file.histograms.values() for name in h.axes["attack"]))


def training_figures(
    histories: Histories, scan: Scan | None, folder: Path, attacks: Sequence[str], label: str
) -> Iterator[Job]:
    """Say what to draw of trainings; `attacks` come first in the order of colours."""
    options = {"label": label, "attacks": attacks}
    if any(histories.values()):
        for name, file in EPOCHS.items():
            yield Job(folder / file, auc_vs_epoch, histories, {**options, "discriminator": name})
        if attacks_of(histories):
            yield Job(folder / SUSCEPTIBILITY, susceptibility, histories, {"label": label})
        yield Job(folder / LOSS, loss_vs_epoch, histories, options)
    if scan is not None:
        yield Job(folder / SCAN, auc_vs_inputs, scan, {"label": label})


def figures(
    file: HistogramFile, folder: Path, regions: Sequence[str], label: str, *, area: bool = False
) -> Iterator[Job]:
    """Say what to draw of histograms, the large figures first, so that no worker is left alone with one at the end."""
    for region in regions:
        place, common = folder / file_name(region), {"label": label, "region": region}
        for name in (*file.discriminators, *file.inputs):
            options = {**common, "luminosity": file.luminosity, "discriminator": name in file.discriminators}
            options |= {"variations": varied(file, name, region), "area": area}
            yield Job(place / f"{file_name(name)}.png", data_mc, scaled(file, name, region), options)
        if "BvsL" in file.discriminators:
            yield Job(place / ROC, roc, scaled(file, "BvsL", region), common)


def file_name(name: str) -> str:
    """A region or variable as a name of a file: letters, digits, dot, dash and underscore, no leading dot."""
    return re.sub(r"[^\w.-]|^\.", "_", name)
