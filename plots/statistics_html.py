"""The tables of statistics as HTML, for the report."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from common.histograms import RAW
from plots.statistics import Row

NOTE = """<p>&chi;&sup2; with the statistical errors of data and MC and the variations, correlated over the bins; of
shapes, with the normalisation left free. KS and the null of the Jensen-Shannon distance know statistical errors alone.
An attack is <strong>visible</strong> if a 95 % &chi;&sup2; test of the shape, with data of this size and these
uncertainties, tells attacked from raw MC in at least half of all experiments; in brackets the probability. It is
unclear where the MC sample is so small that its own fluctuation may have made the difference. Correlations between
inputs are not in these histograms: an attack that is invisible here may be visible in them. All numbers:
<code>statistics.csv</code>.</p>"""
NEW = ' class="new"'
HEADS = ("variable", "tagger", "&chi;&sup2;/ndf", "p", "shape &chi;&sup2;/ndf", "p", "KS p", "JS", "JS null 95 %")


def statistics_html(region: str, rows: Sequence[Row]) -> str:
    """What is visible in a region, and under it every variable."""
    here = [row for row in rows if row.region == region]
    return f"<h3>{escape(region)}</h3>{verdicts_html(here)}{variables_html(region, here)}"


def verdicts_html(rows: Sequence[Row]) -> str:
    """A row for each tagger and attack: in how many variables it is visible, and in which most."""
    lines = []
    for tagger, attack in dict.fromkeys((row.tagger, row.attack) for row in rows if row.attack != RAW):
        mine = [row for row in rows if (row.tagger, row.attack) == (tagger, attack)]
        cells = "".join(f'<td class="text">{counted(mine, kind)}</td>' for kind in ("input", "discriminator"))
        lines.append(f'<tr><td>{escape(attack)}</td><td class="text">{escape(tagger)}</td>{cells}</tr>')
    if not lines:
        return ""
    heads = ("tagger", "visible in inputs", "visible in discriminators")
    return table("<th>attack</th>" + "".join(f'<th class="text">{head}</th>' for head in heads), lines)


def counted(rows: Iterable[Row], kind: str) -> str:
    """How many are visible, of how many that can be tested, and the three most visible."""
    tested = [row for row in rows if row.kind == kind and row.verdict]
    seen = sorted((row for row in tested if row.verdict == "visible"), key=lambda row: -row.shift_chi2)
    unclear = sum(row.verdict == "unclear" for row in tested)
    names = ", ".join(escape(row.variable) for row in seen[:3]) + (", &hellip;" if len(seen) > 3 else "")
    text = (
        f"{len(seen)} of {len(tested)}" + (f": {names}" if seen else "") + (f"; {unclear} unclear" if unclear else "")
    )
    return text if tested else "too few jets to say"


def variables_html(region: str, rows: Sequence[Row]) -> str:
    """Data against raw MC and the verdicts, folded: a row for each variable and tagger."""
    attacks = dict.fromkeys(row.attack for row in rows if row.attack != RAW)
    by_key = {(row.variable, row.tagger, row.attack): row for row in rows}
    heads = "".join(f'<th class="text">{head}</th>' if head in HEADS[1:2] else f"<th>{head}</th>" for head in HEADS)
    heads += "".join(f'<th class="text">{escape(attack)}</th>' for attack in attacks)
    lines, last = [], ""
    attacked = {row.variable for row in rows if row.tagger and row.attack != RAW}
    for variable, tagger in dict.fromkeys((row.variable, row.tagger) for row in rows):
        if not tagger and variable in attacked:
            continue  # raw inputs are the same for every tagger, whose rows show them
        raw = by_key.get((variable, tagger, RAW), by_key.get((variable, "", RAW)))
        numbers = "".join(f"<td>{cell}</td>" for cell in (raw_cells(raw) if raw is not None else [""] * 7))
        seen = "".join(
            f'<td class="text">{verdict_cell(by_key.get((variable, tagger, attack)))}</td>' for attack in attacks
        )
        start = f'<td>{escape(variable)}</td><td class="text">{escape(tagger)}</td>'
        lines.append(f"<tr{NEW if variable != last else ''}>{start}{numbers}{seen}</tr>")
        last = variable
    return f"<details><summary>Statistics of {escape(region)}</summary>{table(heads, lines)}</details>" if lines else ""


def raw_cells(row: Row) -> list[str]:
    """Data against raw MC."""
    numbers = [number(value) for value in (row.ks_p, row.js, row.js_null_95)]
    return [*test(row.chi2, row.ndf, row.p), *test(row.shape_chi2, row.shape_ndf, row.shape_p), *numbers]


def test(chi2: float, ndf: int, p: float) -> tuple[str, str]:
    """chi2 over degrees of freedom, and the p-value."""
    return ("", "") if np.isnan(chi2) else (f"{chi2:.1f}/{ndf}", number(p))


def verdict_cell(row: Row | None) -> str:
    """The verdict with its probability."""
    if row is None or not row.verdict:
        return ""
    text = f"<strong>{row.verdict}</strong>" if row.verdict == "visible" else row.verdict
    return f"{text} ({row.shift_power:.0%})"


def number(value: float) -> str:
    """Three digits, nothing if undefined."""
    return "" if np.isnan(value) else f"{value:.3g}"


def table(heads: str, lines: Sequence[str]) -> str:
    """A table that scrolls sideways."""
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
