"""The two jobs of `plots`: the figures of an analysis, and its report."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.files import whole_folder
from common.histograms import HISTOGRAMS, HistogramFile, read_histograms
from configs.schema import Analysis
from plots.catalogue import CATALOGUE
from plots.figures import Style
from plots.histories import read_histories
from plots.inspection import read_inspection
from plots.report import make_report
from plots.run import make_plots
from plots.scan import read_scan
from plots.statistics import STATISTICS


def draw(
    analysis: Analysis,
    *,
    only: str | None = None,
    regions: Sequence[str] | None = None,
    style: Style = Style(),
    progress: bool = True,
) -> Path:
    """Draw all figures of an analysis into `output/plots`, in the place of earlier ones; return that folder.

    Where there are trainings or a scan but no histograms, only their figures are drawn. With `only` or `regions` (see
    `plots.run.make_plots`) the others and the tables stay as they are.
    """
    histories = read_histories(analysis.output / "taggers", analysis.training)
    scan = read_scan(analysis.output / "scan" / "scan.json")
    inspection = read_inspection(analysis.output / "inspection" / "inspection.json")
    histograms = None if (histories or scan or inspection) and not _has_histograms(analysis) else _histograms(analysis)
    folder, some = analysis.output / "plots", only is not None or regions is not None
    options: dict[str, Any] = {
        "scan": scan,
        "inspection": inspection,
        "regions": regions,
        "only": only,
        "tables": not some,
    }
    options |= {"style": replace(style, label=analysis.label), "workers": analysis.run.workers, "progress": progress}
    with nullcontext(folder) if some else whole_folder(folder) as place:
        make_plots(histograms, histories, place, **options)
    return folder


def report(analysis: Analysis) -> Path:
    """Write `output/plots/report.html` and return its path."""
    folder = analysis.output / "plots"
    only_training = not _has_histograms(analysis) and any(folder.rglob("*.png"))
    histograms = None if only_training else _histograms(analysis)
    configuration = analysis.model_dump(mode="json")
    return make_report(
        histograms, folder, title=analysis.name, configuration=configuration, notes=_outdated(analysis, folder)
    )


def _outdated(analysis: Analysis, folder: Path) -> list[str]:
    """Say so if the histograms are newer than what was drawn from them."""
    drawn = next((folder / name for name in (STATISTICS, CATALOGUE) if (folder / name).is_file()), None)
    filled = [path.stat().st_mtime for path in (analysis.output / HISTOGRAMS).glob("*.zip")]
    if drawn is None or not filled or max(filled) <= drawn.stat().st_mtime:
        return []
    return ["The histograms are newer than the figures and tables: draw them again with `advtag plot`."]


def _has_histograms(analysis: Analysis) -> bool:
    return any((analysis.output / HISTOGRAMS).glob("*.zip"))


def _histograms(analysis: Analysis) -> HistogramFile:
    """The histograms, with the luminosity and cross-sections that the configuration has now."""
    cross_sections = {name: dataset.cross_section for name, dataset in analysis.datasets.items()}
    return read_histograms(analysis.output / HISTOGRAMS).normalised(analysis.luminosity, cross_sections)
