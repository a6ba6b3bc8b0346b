"""One HTML page of everything in a plots folder: opens from disk, fetches nothing, shows all of it without scripts too.

The figures are those of `figures.json`, the numbers those of `auc.json` and `statistics.csv`, all of which `make_plots`
wrote; event counts, cutflows and provenance are those of the histogram file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import whole_file
from common.histograms import HistogramFile
from plots.page import page
from plots.report_data import find
from plots.report_figures import controls_html, gallery_html
from plots.report_summary import summary_html
from plots.report_tables import (
    auc_html,
    configuration_html,
    csv_html,
    cutflow_html,
    dataset_html,
    versions_html,
)
from plots.statistics_html import statistics_html

EMBED_UP_TO = 16_000_000
"""Bytes of figures up to which they are put inside the page, which can then be moved alone."""


def make_report(
    histograms: HistogramFile | None,
    folder: Path,
    *,
    title: str,
    configuration: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write `folder/report.html` from what `make_plots` left in `folder`.

    Args:
        histograms: the histogram file that the figures were made from, if there is one.
        folder: folder of the figures.
        title: heading of the page.
        configuration: shown where the histogram file has none.
        notes: sentences for the top of the page.

    Returns:
        Path of the page.

    Raises:
        AdvtagError: there are no figures in `folder`, something in it cannot be read, or the page cannot be written.
    """
    provenance = {} if histograms is None else histograms.provenance
    lost = provenance.get("missing") or []
    notes = [*notes, *[f"Events are missing in {len(lost)} places: see failed.json."] * bool(lost)]
    found = find(histograms, folder, notes)
    embed = sum((folder / each.file).stat().st_size for each in found.figures) <= EMBED_UP_TO
    sections = {
        "summary": ("Summary", summary_html(found)),
        "auc": ("AUC", auc_html(found.auc)),
        "statistics": ("Data against MC", statistics_html(found)),
        "tables": ("Further tables", "".join(csv_html(each, rows) for each, rows in found.tables)),
        "datasets": ("Datasets", "" if histograms is None else dataset_html(histograms) + cutflow_html(histograms)),
        "configuration": ("Configuration", configuration_html(provenance.get("config") or configuration or {})),
        "versions": ("Versions", versions_html(provenance)),
        "figures": ("Figures", gallery_html(folder, found.figures, found.names(), embed=embed)),
    }
    path = folder / "report.html"
    with whole_file(path) as aside:
        aside.write_text(page(title, sections, controls_html(found.figures, found.names())), encoding="utf-8")
    return path
