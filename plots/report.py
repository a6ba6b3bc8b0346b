"""One HTML page of everything in a plots folder: no scripts, opens from disk, nothing fetched from elsewhere."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import RAW, HistogramFile
from plots.roc import auc_table
from plots.run import EPOCHS, LOSS, ROC, SCAN, SUSCEPTIBILITY, file_name
from plots.shapes import regions_of, scale_of
from plots.statistics import statistics
from plots.statistics_html import NEW, NOTE, statistics_html

EMBED_UP_TO = 8_000_000
"""Bytes of figures up to which they are put inside the page, which can then be moved alone."""

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 82rem; }
body { margin: 0 auto; padding: 0 1.5rem 4rem; }
h1 { margin: 1.5rem 0 .3rem; } h2 { border-bottom: 1px solid #ccc; margin-top: 2.5rem; }
h3 { margin: 1.5rem 0 .5rem; }
nav ul { columns: 2; padding-left: 1.2rem; max-width: 50rem; } a { color: #1f5fa8; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } thead th { background: #f2f4f7; }
td small { color: #a3271b; } tr.new td { border-top: 2px solid #bbb; }
details { border: 1px solid #ddd; border-radius: 6px; padding: .3rem 1rem; margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; font-size: 1.1rem; padding: .3rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
.large { grid-template-columns: minmax(0, 1fr); max-width: 62rem; }
figure { margin: 0; } img { width: 100%; height: auto; } figcaption { font-size: .85rem; color: #555; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""

TRAINING = {
    EPOCHS["BvsL"]: "AUC of BvsL against epoch",
    SUSCEPTIBILITY: "BvsL: loss of AUC under attack against raw AUC, a point for each epoch",
    LOSS: "loss against epoch",
    **{file: f"AUC of {name} against epoch" for name, file in EPOCHS.items() if name != "BvsL"},
    SCAN: "AUC against the number of inputs",
}
"""Captions of the figures of trainings, in their order."""


def make_report(histograms: HistogramFile | None, folder: Path, *, title: str) -> Path:
    """Write `folder/report.html` from the figures that `make_plots` left in `folder`.

    Args:
        histograms: the histogram file that the figures were made from, if there is one.
        folder: folder of the figures.
        title: heading of the page.

    Returns:
        Path of the page.

    Raises:
        AdvtagError: there are no figures in `folder`, or it cannot be written.
    """
    known = [] if histograms is None else regions_of(histograms)
    regions = [name for name in known if any((folder / file_name(name)).glob("*.png"))]
    training = [(folder / name, text) for name, text in TRAINING.items() if (folder / name).is_file()]
    if not regions and (histograms is not None or not training):
        raise AdvtagError(f"{folder}: no figures to report; draw them first with `advtag plot`")
    images = [path for name in regions for path in (folder / file_name(name)).glob("*.png")]
    images += [path for path, _ in training]
    page = Page(folder, embed=sum(path.stat().st_size for path in images) <= EMBED_UP_TO)
    if histograms is not None:
        rows = auc_table(histograms, regions)
        page.section("Areas under the ROC curves", *(auc_html(name, rows) for name in regions))
        found = statistics(histograms, regions)
        page.section("Data against MC", NOTE, *(statistics_html(name, found) for name in regions))
        page.section("Datasets", dataset_html(histograms))
    if training:
        page.section("Training", page.figures(training, large=True))
    if histograms is not None:
        region_sections(page, histograms, regions)
    path = folder / "report.html"
    with whole_file(path) as aside:
        aside.write_text(page.html(title), encoding="utf-8")
    return path


class Page:
    """Sections in order, their table of contents, and the figures of one folder."""

    def __init__(self, folder: Path, *, embed: bool) -> None:
        self.folder = folder
        self.embed = embed
        self.parts: list[tuple[str, str]] = []

    def section(self, title: str, *parts: str) -> None:
        """Add a section."""
        self.parts.append((title, "\n".join(parts)))

    def figures(self, pictures: Sequence[tuple[Path, str]], *, large: bool = False) -> str:
        """A grid of those figures that exist, each with its caption."""
        cells = [
            f'<figure><img src="{self.source(path)}" alt="{escape(text)}" loading="lazy">'
            f"<figcaption>{escape(text)}</figcaption></figure>"
            for path, text in pictures
            if path.is_file()
        ]
        return f'<div class="figures{" large" if large else ""}">{"".join(cells)}</div>' if cells else ""

    def source(self, path: Path) -> str:
        """Where the page finds a figure: in itself, or beside it."""
        if self.embed:
            return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        return escape(quote(path.relative_to(self.folder).as_posix()))

    def html(self, title: str) -> str:
        """The page."""
        contents = "".join(f'<li><a href="#s{i}">{escape(name)}</a></li>' for i, (name, _) in enumerate(self.parts))
        sections = "".join(
            f'<section id="s{i}"><h2>{escape(name)}</h2>\n{body}\n</section>\n'
            for i, (name, body) in enumerate(self.parts)
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{CSS}</style></head>\n<body><h1>{escape(title)}</h1>\n"
            f"<nav><ul>{contents}</ul></nav>\n{sections}</body></html>\n"
        )


def region_sections(page: Page, file: HistogramFile, regions: Sequence[str]) -> None:
    """A section for each region, and where the histograms come from."""
    skipped = [name for name in regions_of(file) if name not in regions]
    for region in regions:
        page.section(f"Region {region}", region_html(page, file, region, shown=region == regions[0]))
    note = f"<p>Not drawn: {escape(', '.join(skipped))}.</p>" if skipped else ""
    provenance = json.dumps(file.provenance, indent=1, default=str)
    page.section("Provenance", note, f"<pre>{escape(provenance)}</pre>")


def region_html(page: Page, file: HistogramFile, region: str, *, shown: bool) -> str:
    """ROC curves, discriminators and inputs of a region, to fold and unfold."""
    place = page.folder / file_name(region)

    def titled(names: Sequence[str]) -> list[tuple[Path, str]]:
        labels = {name: str(file.histograms[name].axes[-1].label or name) for name in names}
        texts = {name: name if labels[name] == name else f"{name}: {labels[name]}" for name in names}
        return [(place / f"{file_name(name)}.png", f"{texts[name]} ({region})") for name in names]

    parts = [
        ("ROC curves, b against light", page.figures([(place / ROC, f"ROC curves ({region})")], large=True)),
        ("Discriminators", page.figures(titled(file.discriminators), large=True)),
        ("Inputs", page.figures(titled(file.inputs))),
    ]
    body = "".join(f"<h3>{escape(name)}</h3>{figures}" for name, figures in parts if figures)
    return f"<details{' open' if shown else ''}><summary>Figures of {escape(region)}</summary>{body}</details>"


def auc_html(region: str, rows: Sequence[dict[str, Any]]) -> str:
    """AUCs of a region: a row for each discriminator and tagger, a column for each attack with what it costs."""
    here = [row for row in rows if row["region"] == region]
    attacks = dict.fromkeys(str(row["attack"]) for row in here)
    table = {(row["discriminator"], row["tagger"], row["attack"]): row["auc"] for row in here}
    pairs = dict.fromkeys((row["discriminator"], row["tagger"]) for row in here)
    lines, last = [], ""
    for name, tagger in pairs:
        raw = table.get((name, tagger, RAW))
        cells = "".join(f"<td>{auc_cell(table.get((name, tagger, attack)), raw, attack)}</td>" for attack in attacks)
        start = f'<td>{escape(name)}</td><td class="text">{escape(tagger)}</td>'
        lines.append(f"<tr{NEW if name != last else ''}>{start}{cells}</tr>")
        last = name
    heads = "".join(f"<th>{escape(attack)}</th>" for attack in attacks)
    return (
        f'<h3>{escape(region)}</h3><div class="wide"><table><thead><tr><th>discriminator</th>'
        f'<th class="text">tagger</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def auc_cell(area: float | None, raw: float | None, attack: str) -> str:
    """An AUC, and under an attack its difference from the raw one."""
    if area is None:
        return "&ndash;"
    change = "" if attack == RAW or raw is None else f" <small>{area - raw:+.4f}</small>"
    return f"{area:.4f}{change}"


def dataset_html(file: HistogramFile) -> str:
    """What each dataset contributed and how it was scaled."""
    names = ("dataset", "kind", "events", "jets", "sum of weights", "cross-section [pb]", "scale factor")
    head = "".join(f'<th class="text">{name}</th>' if name == "kind" else f"<th>{name}</th>" for name in names)
    lines = []
    for name, d in file.datasets.items():
        sigma = "&ndash;" if d.cross_section is None else f"{d.cross_section:g}"
        cells = (f"{d.events:,}", f"{d.jets:,}", f"{d.sum_weights:.6g}", sigma, f"{scale_of(file, name):.5g}")
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        kind = f'<td class="text">{"data" if d.data else "MC"}</td>'
        lines.append(f"<tr><td>{escape(name)}</td>{kind}{numbers}</tr>")
    return (
        f"<p>MC is scaled to a luminosity of {file.luminosity:g} pb<sup>-1</sup>.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
