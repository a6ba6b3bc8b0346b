"""What the report is made from: the figures and tables that lie in a plots folder, and the histogram file."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import AdvtagError
from common.histograms import RAW, HistogramFile
from plots.catalogue import CATALOGUE, Listed, read_catalogue
from plots.page import Names
from plots.run import AUC
from plots.shapes import regions_of
from plots.statistics import STATISTICS, Row, read_statistics

LONGEST = 8
"""Names of missing files that a note gives."""
KEYS = ("region", "tagger", "attack", "discriminator")


@dataclass(frozen=True)
class Found:
    """What the page is made from."""

    histograms: HistogramFile | None
    figures: list[Listed]
    """Pictures on disk."""
    tables: list[tuple[Listed, list[list[str]]]]
    """CSV files on disk and their rows, the headings first."""
    auc: list[dict[str, Any]]
    """Rows of region, tagger, attack, discriminator and auc."""
    statistics: list[Row]
    notes: list[str]
    """What is missing, for the reader of the page."""

    def names(self) -> Names:
        """Regions, variables, taggers and attacks that anything is of, in their order."""
        about = [each.about for each in (*self.figures, *(each for each, _ in self.tables))]
        shown = dict.fromkeys([row["region"] for row in self.auc] + [a.region for a in about])
        known = [] if self.histograms is None else [name for name in regions_of(self.histograms) if name in shown]
        names: dict[str, Iterable[str]] = {
            "region": [*known, *shown],
            "variable": [*(row.variable for row in self.statistics), *(a.variable for a in about)],
            "tagger": [*(row["tagger"] for row in self.auc), *(name for a in about for name in a.taggers)],
            "attack": [*(row["attack"] for row in self.auc), *(name for a in about for name in a.attacks)],
        }
        return {key: [name for name in dict.fromkeys(found) if name not in ("", RAW)] for key, found in names.items()}

    def file_of(self, region: str, variable: str) -> str:
        """The first figure of a variable in a region, relative to the folder; empty if there is none."""
        of = (each.file for each in self.figures if (each.about.region, each.about.variable) == (region, variable))
        return next(of, "")


def find(histograms: HistogramFile | None, folder: Path, notes: Sequence[str]) -> Found:
    """Read the lists and tables of a plots folder.

    Raises:
        AdvtagError: no list of figures, none of them on disk, one outside of the folder, or a table that is none.
    """
    there: list[Listed] = []
    lost: list[Listed] = []
    for each in read_catalogue(folder):
        if PurePosixPath(each.file).is_absolute() or ".." in PurePosixPath(each.file).parts:
            raise AdvtagError(f"{folder / CATALOGUE}: {each.file!r} is not inside this folder; draw the figures again")
        (there if (folder / each.file).is_file() else lost).append(each)
    if not there:
        raise AdvtagError(
            f"{folder}: no figures to report, none of {CATALOGUE} is on disk; draw them again with `advtag plot`"
        )
    notes = list(notes)
    if lost:
        some = ", ".join(each.file for each in lost[:LONGEST]) + (", …" if len(lost) > LONGEST else "")
        notes.append(f"{len(lost)} figures of {CATALOGUE} are not on disk: {some}. Draw them again.")
    if histograms is not None:
        absent = [name for name in (AUC, STATISTICS) if not (folder / name).is_file()]
        notes += [f"No {name}: draw all figures with `advtag plot` for its table." for name in absent]
    return Found(
        histograms,
        [each for each in there if not each.file.endswith(".csv")],
        [(each, read_csv(folder / each.file)) for each in there if each.file.endswith(".csv")],
        read_auc(folder / AUC) if (folder / AUC).is_file() else [],
        read_statistics(folder / STATISTICS) if (folder / STATISTICS).is_file() else [],
        notes,
    )


def read_auc(path: Path) -> list[dict[str, Any]]:
    """Read the table of AUCs that `make_plots` wrote: see `plots.roc.auc_table`.

    Raises:
        AdvtagError: it is no such table.
    """
    try:
        return [
            {key: str(row[key]) for key in KEYS} | {"auc": None if row["auc"] is None else float(row["auc"])}
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdvtagError(f"{path}: not a table of AUCs ({error!r}); draw it again with `advtag plot`") from error


def read_csv(path: Path) -> list[list[str]]:
    """Read a table, the headings first; short rows are filled up, long ones are an error.

    Raises:
        AdvtagError: it cannot be read, or a row is longer than the headings.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise AdvtagError(f"{path}: not a table ({error}); make it again") from error
    if not rows or max(map(len, rows)) > len(rows[0]):
        raise AdvtagError(f"{path}: not a table with a heading for each column; make it again")
    return [row + [""] * (len(rows[0]) - len(row)) for row in rows]
