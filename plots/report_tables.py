"""Tables of the report that are not statistics: AUCs, datasets, cutflows, CSV files; the configuration, versions."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from common.histograms import RAW, HistogramFile
from plots.catalogue import Listed
from plots.page import NONE, Cell, Column, Line, folded, number, table
from plots.report_figures import heading, names_of
from plots.shapes import scale_of

TEXT = {"region", "variable", "tagger", "attack", "kind"}
"""Headings of CSV files that say what a row is of."""


def auc_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each region, discriminator and tagger, a column for each attack with what it costs."""
    if not rows:
        return ""
    attacks = list(dict.fromkeys([RAW, *(str(row["attack"]) for row in rows)]))
    areas = {(row["region"], row["discriminator"], row["tagger"], row["attack"]): row["auc"] for row in rows}
    columns = [Column("region"), Column("discriminator"), Column("tagger")]
    columns += [Column(name, number=True, names={} if name == RAW else {"attack": [name]}) for name in attacks]
    lines = []
    for key in dict.fromkeys((row["region"], row["discriminator"], row["tagger"]) for row in rows):
        raw = areas.get((*key, RAW))
        cells = [auc_cell(areas.get((*key, attack)), None if attack == RAW else raw) for attack in attacks]
        lines.append(Line([*key, *cells], {"region": key[:1], "variable": key[1:2], "tagger": key[2:]}))
    note = "<p>Under an attack the small print is the difference from raw.</p>\n" if len(attacks) > 1 else ""
    return note + table("Areas under the ROC curves", columns, lines)


def auc_cell(area: float | None, raw: float | None) -> Cell:
    """An AUC, and under an attack its difference from the raw one."""
    if area is None:
        return Cell(NONE)
    if raw is None:
        return Cell(f"{area:.4f}", area)
    return Cell(f"{area:.4f}", area, f"{area - raw:+.4f}", look="loss" if area < raw else "")


def dataset_html(file: HistogramFile) -> str:
    """What each dataset contributed and how it was scaled."""
    names = ("events", "jets", "sum of weights", "cross-section [pb]", "scale factor")
    columns = [Column("dataset"), Column("kind"), *(Column(name, number=True) for name in names)]
    lines = [
        Line(
            [
                name,
                "data" if d.data else "MC",
                number(d.events, ",d"),
                number(d.jets, ",d"),
                number(d.sum_weights, ".6g"),
                number(d.cross_section, "g"),
                number(scale_of(file, name), ".5g"),
            ]
        )
        for name, d in file.datasets.items()
    ]
    luminosity = f"<p>MC is scaled to a luminosity of {file.luminosity:g} pb<sup>-1</sup>.</p>\n"
    return luminosity + table("Datasets", columns, lines)


def cutflow_html(file: HistogramFile) -> str:
    """Events and weights that are left after each cut, a row for each region, dataset and cut."""
    names = ("step", "cut", "events", "of all [%]", "of previous [%]", "sum of weights", "events at luminosity")
    columns = [Column("region"), Column("dataset")]
    columns += [Column(name, number=name != "cut") for name in names]
    lines = []
    for region in dict.fromkeys(name for d in file.datasets.values() for name in d.cutflow):
        for dataset, d in file.datasets.items():
            steps = list(d.cutflow.get(region, {}).items())
            for i, (cut, (events, weights)) in enumerate(steps):
                first, last = steps[0][1][0], steps[max(i - 1, 0)][1][0]
                counts = [number(events, ",.0f"), percent(events, first), percent(events, last)]
                scaled = number(weights * scale_of(file, dataset), ".6g")
                cells: list[Cell | str] = [
                    region,
                    dataset,
                    number(i, "d"),
                    cut,
                    *counts,
                    number(weights, ".6g"),
                    scaled,
                ]
                lines.append(Line(cells, {"region": [region]}))
    return folded(f"Cutflows ({len(lines)} rows)", table("Cutflows", columns, lines)) if lines else ""


def percent(part: float, whole: float) -> Cell:
    """A part in percent."""
    return number(100 * part / whole if whole else None, ".1f")


def csv_html(listed: Listed, rows: Sequence[Sequence[str]]) -> str:
    """A table of the catalogue. Columns named like a field of the selection say what a row is of."""
    heads, body = rows[0], rows[1:]
    numbers = [name not in TEXT and all(_is_number(row[i]) for row in body) for i, name in enumerate(heads)]
    lines = []
    for row in body:
        own = {name: [cell] for name, cell in zip(heads, row, strict=True) if name in TEXT and name != "kind"}
        cells = [Cell(c, _value(c)) if n else c for c, n in zip(row, numbers, strict=True)]
        lines.append(Line(cells, {**names_of(listed.about), "kind": [], **own}))
    columns = [Column(name, number=n) for name, n in zip(heads, numbers, strict=True)]
    title = listed.about.title
    return f"<h3>{escape(title)}</h3>\n<p>{escape(heading(listed.about.kind))}</p>\n" + table(title, columns, lines)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _value(text: str) -> float | None:
    return float(text) if text and math.isfinite(float(text)) else None


def configuration_html(configuration: Mapping[str, Any]) -> str:
    """A configuration as YAML."""
    if not configuration:
        return ""
    text = yaml.safe_dump(json.loads(json.dumps(configuration, default=str)), sort_keys=False, allow_unicode=True)
    return folded("Configuration with all defaults", f"<pre>{escape(text)}</pre>\n")


def versions_html(provenance: Mapping[str, Any]) -> str:
    """What made the histograms, without the configuration."""
    flat: dict[str, Any] = {}
    for key, value in provenance.items():
        if key != "config" and value not in ([], {}, None):
            flat |= value if isinstance(value, dict) else {key: value}
    texts = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in flat.items()}
    lines = [Line([key, text]) for key, text in texts.items()]
    return table("Versions", [Column("of"), Column("version")], lines) if lines else ""
