"""The top of the report: what was compared, and the numbers that one asks for first."""

from html import escape
from typing import Any

import numpy as np

from common.histograms import RAW, HistogramFile
from plots.page import Cell, Column, Line, table
from plots.report_data import Found
from plots.report_tables import auc_cell
from plots.shapes import regions_of
from plots.statistics import Row
from plots.statistics_html import KINDS, agreement, test, verdicts_html

WORST = 5
"""Variables listed as those with the worst data/MC."""


def summary_html(found: Found) -> str:
    """What was compared, AUCs, which attacks would be seen, where data and MC differ most."""
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in found.notes)
    seen = verdicts_html("Would the attacks be seen in data/MC?", found.statistics, ("attack", "tagger"))
    tables = "".join(f"<div>{html}</div>\n" for html in (areas_html(found), seen, worst_html(found)) if html)
    return f'{notes}{compared_html(found)}<div class="beside">\n{tables}</div>\n'


def compared_html(found: Found) -> str:
    """Regions, taggers, attacks, events, luminosity, as a table of two columns."""
    names = found.names()
    facts = [(key + "s", ", ".join(names[key])) for key in ("region", "tagger", "attack") if names[key]]
    if found.histograms is not None:
        empty = [name for name in regions_of(found.histograms) if name not in names["region"]]
        facts += [("regions without figures", ", ".join(empty))] * bool(empty) + samples(found.histograms)
    facts.append(("figures", f"{len(found.figures):,d}"))
    cells = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>\n" for key, text in facts)
    return f"<dl>\n{cells}</dl>\n"


def samples(file: HistogramFile) -> list[tuple[str, str]]:
    """Events and jets of simulation and data."""
    facts = []
    for name, data in (("simulation", False), ("data", True)):
        mine = [d for d in file.datasets.values() if d.data == data]
        events, jets = sum(d.events for d in mine), sum(d.jets for d in mine)
        plural = "" if len(mine) == 1 else "s"
        text = f"{len(mine)} dataset{plural}, {events:,d} events, {jets:,d} selected jets"
        facts.append((name, text if mine else "none" + "; verdicts are for the data expected" * data))
    return [*facts, ("luminosity", f"{file.luminosity:g} pb⁻¹")]


def areas_html(found: Found) -> str:
    """AUC of b against light, or of the first discriminator: raw, and under the attack that costs most."""
    known = list(dict.fromkeys(row["discriminator"] for row in found.auc))
    if not known:
        return ""
    name = "BvsL" if "BvsL" in known else known[0]
    mine = [row for row in found.auc if row["discriminator"] == name]
    lines = []
    for region, tagger in dict.fromkeys((row["region"], row["tagger"]) for row in mine):
        here = [row for row in mine if (row["region"], row["tagger"]) == (region, tagger)]
        raw = next((row["auc"] for row in here if row["attack"] == RAW), None)
        attacked = [row for row in here if row["attack"] != RAW and row["auc"] is not None]
        none: dict[str, Any] = {"auc": None, "attack": ""}
        worst = min(attacked, key=lambda row: row["auc"], default=none)
        cells = [region, tagger, auc_cell(raw, None), auc_cell(worst["auc"], raw), worst["attack"]]
        lines.append(Line(cells, {"region": [region], "tagger": [tagger]}))
    columns = [Column("region"), Column("tagger"), Column("raw", number=True)]
    columns += [Column("lowest, attacked", number=True), Column("attack")]
    return f"<h3>AUC of {escape(name)}</h3>\n" + table(f"AUC of {name}", columns, lines)


def worst_html(found: Found) -> str:
    """Where data and raw MC differ most, and how many variables differ."""
    sentences, lines = [], []
    for kind, plural in KINDS.items():
        seen = agreement(found.statistics, kind)
        if seen["tested"]:
            tested, low = seen["tested"], seen["low"]
            by_chance = f"{0.05 * tested:.2g} would by chance if data followed this MC"
            sentences.append(f"{low} of {tested} {plural} have p < 0.05; {by_chance}.")
            lines += [worst_line(found, row) for row in seen["worst"][:WORST]]
    correlated = [row for row in found.statistics if row.attack == RAW and not np.isnan(row.largest_pull)]
    if correlated:
        row = min(correlated, key=lambda row: (row.largest_p, -row.largest_pull))
        where = f"Of {row.shape_ndf:,d} pairs of inputs in {row.region}, the correlation of {row.pair} differs most"
        sentences.append(f"{where}: pull {row.largest_pull:.1f}, p = {row.largest_p:.2g} for so many.")
    if not lines:
        return ""
    columns = [Column("kind"), Column("region"), Column("variable"), Column("tagger")]
    columns += [Column("χ²/ndf", number=True), Column("p", number=True)]
    text = f"<p>{escape(' '.join(sentences))} The worst:</p>\n"
    return "<h3>Data against raw MC</h3>\n" + text + table("Worst data/MC", columns, lines)


def worst_line(found: Found, row: Row) -> Line:
    """One of the worst."""
    name = Cell(row.variable, file=found.file_of(row.region, row.variable))
    of = {"region": [row.region], "variable": [row.variable], "tagger": [row.tagger]}
    return Line([row.kind, row.region, name, row.tagger, *test(row.chi2, row.ndf, row.p)], of)
