"""The tables of statistics as HTML, for the report."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from common.histograms import RAW
from plots.page import NONE, Cell, Column, Line, folded, number, table
from plots.report_data import Found
from plots.statistics import Row

NOTE = """<p>&chi;&sup2; with the statistical errors of data and MC and the variations, correlated over the bins; of
shapes, with the normalisation left free. KS and the null of the Jensen-Shannon distance know statistical errors alone.
An attack is <strong>visible</strong> if a 95 % &chi;&sup2; test of the shape, with data of this size and these
uncertainties, tells attacked from raw MC in at least half of all experiments, whose share is the small print. It is
unclear where the MC sample is so small that its own fluctuation may have made the difference. All numbers:
<code>statistics.csv</code>.</p>
"""
NO_CORRELATIONS = """<p>Correlations between inputs are not in these tables: an attack that is invisible here may be
visible in them.</p>
"""
NUMBERS = (
    ("χ²/ndf", "with the normalisation of the luminosity"),
    ("p", "of χ²/ndf"),
    ("shape χ²/ndf", "with the normalisation left free"),
    ("shape p", "of shape χ²/ndf"),
    ("KS p", "weighted Kolmogorov-Smirnov, statistical errors alone"),
    ("JS", "Jensen-Shannon distance of the shapes"),
    ("JS null 95 %", "what statistical errors alone exceed in 5 % of experiments"),
)
KINDS = {"input": "inputs", "correlations": "correlations", "discriminator": "discriminators"}
"""Kinds of rows, and many of them."""


def statistics_html(found: Found) -> str:
    """What is visible in each region, and every variable."""
    if not found.statistics:
        return ""
    verdicts = verdicts_html("Which attacks would be seen where", found.statistics, ("region", "attack", "tagger"))
    correlated = any(row.kind == "correlations" for row in found.statistics)
    return NOTE + NO_CORRELATIONS * (not correlated) + verdicts + variables_html(found)


def verdicts_html(title: str, rows: Sequence[Row], by: Sequence[str]) -> str:
    """Where attacks would be seen.

    Args:
        title: heading.
        rows: statistics; those of raw MC have no verdict.
        by: fields of a row, like region, attack and tagger, by which the verdicts are put together.
    """
    by_key: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.attack != RAW:
            by_key.setdefault(tuple(getattr(row, field) for field in by), []).append(row)
    if not by_key:
        return ""
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    lines = []
    for key, mine in by_key.items():
        verdicts = [counted(row.verdict for row in mine if row.kind == kind) for kind in kinds]
        most = ", ".join(row.pair or row.variable for row in most_visible(mine)[:3])
        lines.append(Line([*key, *verdicts, Cell(most, look="text")], {f: [k] for f, k in zip(by, key, strict=True)}))
    columns = [*map(Column, by), *(Column(f"in {kind}", number=True) for kind in map(KINDS.get, kinds))]
    return f"<h3>{title}</h3>\n" + table(title, [*columns, Column("most visible in")], lines)


def counted(verdicts: Iterable[str]) -> Cell:
    """Verdicts on several variables put together, sorted by how many are visible.

    Visible if any of them is, else unclear if any of them is, else invisible if any can be tested.
    """
    tested = [verdict for verdict in verdicts if verdict]
    known = [verdict for verdict in ("visible", "unclear", "invisible") if verdict in tested]
    if not known:
        return Cell("too few jets")
    text = f"{tested.count(known[0])} of {len(tested)}"
    if known[0] == "visible" and "unclear" in known:
        text += f", {tested.count('unclear')} unclear"
    return Cell(known[0], tested.count("visible"), text, look=known[0])


def most_visible(rows: Iterable[Row]) -> list[Row]:
    """Those that are visible, the most visible first."""
    return sorted((row for row in rows if row.verdict == "visible"), key=lambda row: -row.shift_chi2)


def variables_html(found: Found) -> str:
    """Data against raw MC and the verdicts, folded: a row for each region, variable and tagger."""
    rows = found.statistics
    attacks = list(dict.fromkeys(row.attack for row in rows if row.attack != RAW))
    by_key = {(row.region, row.variable, row.tagger, row.attack): row for row in rows}
    attacked = {(row.region, row.variable) for row in rows if row.tagger and row.attack != RAW}
    columns = [Column("region"), Column("variable"), Column("kind"), Column("tagger")]
    columns += [Column(name, number=True, hint=hint) for name, hint in NUMBERS]
    columns += [Column(name, number=True, hint="probability to be seen", names={"attack": [name]}) for name in attacks]
    lines = []
    for region, variable, tagger in dict.fromkeys((row.region, row.variable, row.tagger) for row in rows):
        if not tagger and (region, variable) in attacked:
            continue  # raw inputs are the same for every tagger, whose rows show them
        mine = [by_key.get((region, variable, tagger, attack)) for attack in attacks]
        raw = by_key.get((region, variable, tagger, RAW), by_key.get((region, variable, "", RAW)))
        kind = next(row.kind for row in (raw, *mine) if row is not None)
        name = Cell(variable, small="" if raw is None else raw.pair, file=found.file_of(region, variable))
        numbers = raw_cells(raw) if raw is not None else [Cell(NONE)] * len(NUMBERS)
        cells: list[Cell | str] = [region, name, kind, tagger, *numbers, *map(power_cell, mine)]
        lines.append(Line(cells, {"region": [region], "variable": [variable], "tagger": [tagger]}))
    return folded(f"Every variable ({len(lines)} rows)", table("Statistics of every variable", columns, lines))


def raw_cells(row: Row) -> list[Cell]:
    """Data against raw MC."""
    numbers = [number(value) for value in (row.ks_p, row.js, row.js_null_95)]
    return [*test(row.chi2, row.ndf, row.p), *test(row.shape_chi2, row.shape_ndf, row.shape_p), *numbers]


def test(chi2: float, ndf: int, p: float) -> tuple[Cell, Cell]:
    """chi2 over degrees of freedom, which it is sorted by, and the p-value."""
    if np.isnan(chi2) or not ndf:  # the shape of a single bin
        return Cell(NONE), Cell(NONE)
    return Cell(f"{chi2:.1f}/{ndf}", chi2 / ndf), number(p)


def power_cell(row: Row | None) -> Cell:
    """The verdict with its probability, which it is sorted by."""
    if row is None or not row.verdict:
        return Cell(NONE)
    return Cell(row.verdict, row.shift_power, f"{row.shift_power:.0%}", look=row.verdict)


def agreement(rows: Iterable[Row], kind: str) -> dict[str, Any]:
    """How many variables of a kind are compared with data, how many of them have p < 0.05, and the worst first."""
    tested = [row for row in rows if row.kind == kind and row.attack == RAW and not np.isnan(row.chi2)]
    worst = sorted(tested, key=lambda row: (row.p, -row.chi2 / row.ndf))
    return {"tested": len(tested), "low": sum(row.p < 0.05 for row in tested), "worst": worst}
