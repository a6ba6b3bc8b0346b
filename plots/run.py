"""Draw every figure of a histogram file, in a few worker processes.

Layout of the output folder, which the report reads:

    REGION/VARIABLE.png   data/MC of every input and every discriminator
    REGION/roc.png        b against light, every tagger, raw and attacked
    auc_vs_epoch.png      if there are training histories
    auc.json              list of {region, tagger, attack, discriminator, auc}
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import HistogramFile
from common.progress import progress_bar
from plots.datamc import data_mc
from plots.jobs import Job, draw_all
from plots.roc import auc_table, roc
from plots.shapes import filled, regions_of, scaled
from plots.training import auc_against_epoch

ROC, EPOCHS, AUC = "roc.png", "auc_vs_epoch.png", "auc.json"


def make_plots(
    histograms: HistogramFile,
    histories: dict[str, list[dict[str, Any]]],
    folder: Path,
    *,
    regions: Sequence[str] | None = None,
    label: str = "Simulation",
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Write all figures and the table of AUCs into `folder`, each file whole or not at all.

    Args:
        histograms: the histogram file.
        histories: training histories by tagger; may be empty.
        folder: where to write, see the top of this file.
        regions: regions to draw; all that hold jets by default.
        label: text above the axes, "Simulation" or "Private work".
        workers: processes; with 1 everything is drawn in this one.
        progress: show a progress bar on stderr.

    Returns:
        Paths of all files written, the table of AUCs last.

    Raises:
        AdvtagError: an unknown or empty region, a figure that cannot be drawn, a folder that cannot be written.
    """
    console = Console(stderr=True)
    names = wanted_regions(histograms, regions, console)
    jobs = list(figures(histograms, histories, folder, names, label))
    with progress_bar("figures", show=progress) as bar:
        task = bar.add_task("plots", total=len(jobs))
        paths = draw_all(jobs, workers, lambda: bar.advance(task))
    with whole_file(folder / AUC) as aside:
        aside.write_text(json.dumps(auc_table(histograms, names), indent=1, allow_nan=False))
    return [*paths, folder / AUC]


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


def figures(
    file: HistogramFile,
    histories: dict[str, list[dict[str, Any]]],
    folder: Path,
    regions: Sequence[str],
    label: str,
) -> Iterator[Job]:
    """Say what to draw, the large figures first, so that no worker is left alone with one at the end."""
    if any(histories.values()):
        yield Job(folder / EPOCHS, auc_against_epoch, histories, {"label": label})
    for region in regions:
        place, common = folder / file_name(region), {"label": label, "region": region}
        for name in (*file.discriminators, *file.inputs):
            options = {**common, "luminosity": file.luminosity, "discriminator": name in file.discriminators}
            yield Job(place / f"{file_name(name)}.png", data_mc, scaled(file, name, region), options)
        if "BvsL" in file.discriminators:
            yield Job(place / ROC, roc, scaled(file, "BvsL", region), common)


def file_name(name: str) -> str:
    """A region or variable as a name of a file: letters, digits, dot, dash and underscore, no leading dot."""
    return re.sub(r"[^\w.-]|^\.", "_", name)
