"""Draw every figure of a histogram file and of the trainings, in a few worker processes.

Layout of the output folder, every PNG with a PDF beside it; `figures.json` lists what each figure shows:

    REGION/VARIABLE.png             data/MC of every input, discriminator and node output, stacked by flavour
    REGION/by_process/VARIABLE.png  the same stacked by process, of discriminators where there are several
    REGION/flavours/VARIABLE.png    shapes by flavour, raw and distorted, if there are attacks
    REGION/roc_SCORE.png            every tagger, raw and attacked
    REGION/cutflow.png
    REGION/correlations.png         data, MC and their difference; correlations/TAGGER/ATTACK.png; if they were filled
    REGION/residual.png             shifts of efficiencies under attacks, see plots.residual
    training/                       auc_vs_epoch_BvsL.png, roc_vs_epoch_BvsL.png, ..., susceptibility.png,
                                    loss_vs_epoch.png, scan.png
    auc.json                        list of {region, tagger, attack, discriminator, auc}
    inspection/                     what attacks do to single jets, if there is an inspection: see plots.inspection
    statistics.csv                  data/MC of every variable, tagger and attack: see plots.statistics
    residual.csv                    uncertainties from attacks: see plots.residual
    figures.json
"""

import json
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import HistogramFile
from common.progress import progress_bar
from common.tables import write_table
from plots.catalogue import About, Listed, write_catalogue
from plots.correlation_figures import correlation_figures
from plots.figures import Style, filled_in, histogram_figures, training_figures
from plots.histories import Histories
from plots.inspection import Inspection, inspection_figures
from plots.jobs import Job, draw_all, file_name
from plots.residual import RESIDUAL, Residual, residuals
from plots.residual_figures import residual_figures
from plots.roc import auc_table
from plots.scan import Scan
from plots.shapes import regions_of
from plots.statistics import STATISTICS, Row, statistics

AUC = "auc.json"
RESIDUALS = About("residual", "Uncertainties from attacks")


def make_plots(
    histograms: HistogramFile | None,
    histories: Histories,
    folder: Path,
    *,
    scan: Scan | None = None,
    inspection: Inspection | None = None,
    regions: Sequence[str] | None = None,
    only: str | None = None,
    style: Style = Style(),
    tables: bool = True,
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Write all figures, their list, the table of AUCs and that of statistics into `folder`, each file whole or not at
    all.

    Args:
        histograms: the histogram file; without one, only the figures of trainings are drawn.
        histories: training histories by tagger; may be empty.
        folder: where to write, see the top of this file.
        scan: the scan of inputs, if there is one.
        inspection: what attacks do to single jets, of `advtag inspect`, if there is one.
        regions: regions to draw, or patterns like `emu*`; all that hold jets by default.
        only: regular expression; figures without a match in their name, like `BvsL`, are not drawn. With a slash in it,
            the match is with folder and name, like `flavours/BvsL`.
        style: how they are drawn.
        tables: write the tables, too.
        workers: processes; with 1 everything is drawn in this one.
        progress: show a progress bar on stderr.

    Returns:
        Paths of all files written, the tables and the list of figures last.

    Raises:
        AdvtagError: an unknown or empty region, nothing that `only` matches, a figure that cannot be drawn, a folder
            that cannot be written.
    """
    console = Console(stderr=True)
    chosen = chooser(only)
    attacks = [] if histograms is None else attack_names(histograms)
    jobs = list(training_figures(histories, scan, folder, attacks, style.label))
    if inspection is not None:
        jobs += inspection_figures(inspection, folder, style.label)
    found = None
    if histograms is None:
        console.print("no histograms: only the figures of trainings are drawn", style="yellow")
    else:
        names = wanted_regions(histograms, regions, console)
        jobs += histogram_figures(histograms, folder, names, style)
        jobs += correlation_figures(histograms, names, folder, style.label)
        if tables or any(chosen(f"{file_name(name)}/residual") for name in names):
            found = Tables(histograms, names)
            jobs += residual_figures(found.residuals, folder, style.label)
    jobs = selected(jobs, folder, chosen, only)
    with progress_bar("figures", show=progress) as bar:
        task = bar.add_task("plots", total=len(jobs))
        paths = draw_all(jobs, workers, lambda: bar.advance(task))
    listed = [Listed(job.path.relative_to(folder).as_posix(), job.about) for job in jobs if job.about is not None]
    if found is not None and tables:
        written = found.write(folder)
        paths += written
        listed += [Listed(RESIDUAL, RESIDUALS) for path in written if path.name == RESIDUAL]
    return [*paths, write_catalogue(folder, listed)]


class Tables:
    """The tables of some regions of a histogram file."""

    def __init__(self, file: HistogramFile, regions: Sequence[str]) -> None:
        self.areas = auc_table(file, regions)
        self.statistics = statistics(file, regions)
        self.residuals = residuals(file, self.statistics) if "BvsL" in file.discriminators else []

    def write(self, folder: Path) -> list[Path]:
        """Write those that hold something; return their paths."""
        with whole_file(folder / AUC) as aside:
            aside.write_text(json.dumps(self.areas, indent=1, allow_nan=False))
        write_table(folder / STATISTICS, Row, self.statistics)
        if not self.residuals:
            return [folder / AUC, folder / STATISTICS]
        write_table(folder / RESIDUAL, Residual, self.residuals)
        return [folder / name for name in (AUC, STATISTICS, RESIDUAL)]


def chooser(only: str | None) -> Callable[[str], bool]:
    """Whether a figure, `FOLDER/NAME`, is wanted: see `only` of `make_plots`.

    Raises:
        AdvtagError: `only` is no regular expression.
    """
    try:
        pattern = re.compile(only or "")
    except re.error as error:
        raise AdvtagError(f"{only!r} is no regular expression ({error}); write BvsL, or BvsL|roc") from error
    whole = "/" in (only or "")
    return lambda name: pattern.search(name if whole else name.rpartition("/")[2]) is not None


def selected(jobs: list[Job], folder: Path, chosen: Callable[[str], bool], only: str | None) -> list[Job]:
    """Those figures that are wanted.

    Raises:
        AdvtagError: none is.
    """
    found = [job for job in jobs if chosen(job.path.relative_to(folder).with_suffix("").as_posix())]
    if not found and only is not None:
        known = ", ".join(dict.fromkeys(job.path.stem for job in jobs))
        raise AdvtagError(f"no figure matches {only!r}; there are {known}")
    return found


def wanted_regions(file: HistogramFile, regions: Sequence[str] | None, console: Console) -> list[str]:
    """Regions to draw. An empty one is skipped with a note, or is an error if it was asked for by its name."""
    known = regions_of(file)
    asked: dict[str, bool] = dict.fromkeys(known, False) if regions is None else {}
    for pattern in regions or []:
        found = [name for name in known if name == pattern] or [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise AdvtagError(f"no region {pattern!r} in the histograms; they have {', '.join(known) or 'none'}")
        asked |= {name: name == pattern or asked.get(name, False) for name in found}
    names = []
    for name, by_name in asked.items():
        if filled_in(file, name):
            names.append(name)
        elif by_name:
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


def attack_names(file: HistogramFile) -> list[str]:
    """Names of the attacks in the order of their colours in ROC curves."""
    return list(dict.fromkeys(name for h in file.histograms.values() for name in h.axes["attack"]))
