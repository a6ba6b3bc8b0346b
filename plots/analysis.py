"""The two jobs of `plots`: the figures of an analysis, and its report."""

from pathlib import Path

from common.files import whole_folder
from common.histograms import HISTOGRAMS, HistogramFile, read_histograms
from configs.schema import Analysis
from plots.report import make_report
from plots.run import make_plots
from plots.training import read_histories


def draw(analysis: Analysis, *, progress: bool = True) -> Path:
    """Draw all figures of an analysis into `output/plots`, in the place of earlier ones; return that folder."""
    histories = read_histories(analysis.output / "taggers")
    histories = {name: history for name, history in histories.items() if name in analysis.training}
    workers, folder = analysis.run.workers, analysis.output / "plots"
    with whole_folder(folder) as aside:
        make_plots(_histograms(analysis), histories, aside, label=analysis.label, workers=workers, progress=progress)
    return folder


def report(analysis: Analysis) -> Path:
    """Write `output/plots/report.html` and return its path."""
    return make_report(_histograms(analysis), analysis.output / "plots", title=analysis.name)


def _histograms(analysis: Analysis) -> HistogramFile:
    """The histograms, with the luminosity and cross-sections that the configuration has now."""
    cross_sections = {name: dataset.cross_section for name, dataset in analysis.datasets.items()}
    return read_histograms(analysis.output / HISTOGRAMS).normalised(analysis.luminosity, cross_sections)
