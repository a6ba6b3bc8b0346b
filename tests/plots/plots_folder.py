"""A plots folder such as `make_plots` leaves, with small pictures in the place of figures."""

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from common.histograms import HistogramFile
from common.tables import write_table
from plots.catalogue import About, Listed, write_catalogue
from plots.roc import auc_table
from plots.statistics import Row, statistics

TAGGERS, ATTACKS = ("nominal", "adversarial"), ("noise", "fgsm", "pgd")
ODD = "50% <b>\"a&b\"</b> 'x' #1 </script><!-- é"
"""A name of everything that means something in HTML, in JSON or in a URL."""


def draw(folder: Path, figures: Iterable[Listed]) -> list[Listed]:
    """A picture for each, no two alike, and their list."""
    figures = list(figures)
    for i, each in enumerate(figures):
        path = folder / each.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 300), (i % 256, 100 + i // 256, 50)).save(path)
    write_catalogue(folder, figures)
    return figures


def figures_of(regions: Iterable[str], variables: Iterable[str]) -> list[Listed]:
    """Of every region and variable; of trainings; of a kind that nobody knows."""
    figures = []
    for region in regions:
        for name in variables:
            kind = "discriminators" if "vs" in name else "inputs"
            figures.append(Listed(f"{region}/{name}.png", About(kind, name, region, name, TAGGERS, ATTACKS)))
        for tagger in TAGGERS:
            about = About("roc", f"ROC of {tagger}", region, "BvsL", (tagger,), ("fgsm",))
            figures.append(Listed(f"{region}/roc_{tagger}.png", about))
    figures.append(Listed("loss_vs_epoch.png", About("training", "loss against epoch")))
    figures.append(Listed("pull.png", About("some_study", "pulls", attacks=("pgd",))))
    return figures


def make_folder(folder: Path, file: HistogramFile, regions: Iterable[str]) -> list[Listed]:
    """Figures, their list, and the tables of a histogram file."""
    regions = list(regions)
    write_tables(folder, file, regions)
    return draw(folder, figures_of(regions, file.variables))


def write_tables(folder: Path, file: HistogramFile, regions: list[str]) -> None:
    """The table of AUCs and that of statistics."""
    (folder / "auc.json").write_text(json.dumps(auc_table(file, regions)))
    write_table(folder / "statistics.csv", Row, statistics(file, regions))
