"""Parts of the report's page: tables that one sorts and filters, and the page around its sections.

What a row, a column or a figure is of stands in its attributes: `data-region='["emu"]'`, a JSON list of names. Where it
has none it is of all of them, and stays whatever is chosen. `report.js` does the choosing; without it everything shows.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from urllib.parse import quote, urlencode

Names = Mapping[str, Sequence[str]]
"""What something is of: kind, region, variable, tagger, attack -> names."""
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A heading."""

    text: str
    number: bool = False
    """Sorted by `Cell.value`, else by text."""
    hint: str = ""
    names: Names = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """What a cell says, what it is sorted by in a column of numbers, small print, its class, a figure to open."""

    text: str
    value: float | None = None
    small: str = ""
    look: str = ""
    file: str = ""
    """File of the figure, relative to the page."""


@dataclass(frozen=True)
class Line:
    """A row of a table, and what it is of."""

    cells: Sequence[Cell | str]
    names: Names = field(default_factory=dict)


def number(value: float | None, style: str = ".3g") -> Cell:
    """A number, or a dash where there is none (None, nan)."""
    if value is None or math.isnan(value):
        return Cell(NONE)
    return Cell(format(value, style), float(value))


def table(title: str, columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """A table that scrolls in its own box.

    Args:
        title: what it is, for those who cannot see it.
        columns: headings.
        lines: rows, each with as many cells.
    """
    heads = "".join(_head(column) for column in columns)
    rows = []
    for line in lines:
        cells = "".join(_cell(cell, column) for cell, column in zip(line.cells, columns, strict=True))
        rows.append(f"<tr{attributes(line.names)}>{cells}</tr>\n")
    return (
        f'<div class="table"><div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{''.join(rows)}</tbody></table></div></div>\n"
    )


def _head(column: Column) -> str:
    hint = f' title="{escape(column.hint)}"' if column.hint else ""
    kind = "number" if column.number else "text"
    return f'<th scope="col" data-sort="{kind}"{attributes(column.names)}{hint}>{escape(column.text)}</th>'


def _cell(cell: Cell | str, column: Column) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    text = escape(cell.text) + (f" <small>{escape(cell.small)}</small>" if cell.small else "")
    if cell.file:
        text = f'<a href="{url(cell.file)}" data-file="{escape(cell.file)}">{text}</a>'
    looks = ["number"] * column.number + [cell.look] * bool(cell.look)
    look = f' class="{" ".join(looks)}"' if looks else ""
    value = "" if cell.value is None else f' data-value="{cell.value:.9g}"'
    return f"<td{look}{value}{attributes(column.names)}>{text}</td>"


def attributes(names: Names) -> str:
    """What an element is of, as attributes; nothing of what is empty."""
    kept = {key: [name for name in of if name] for key, of in names.items()}
    return "".join(f' data-{key}="{escape(json.dumps(of, ensure_ascii=False))}"' for key, of in kept.items() if of)


def url(file: str) -> str:
    """A file beside the page as an attribute of HTML, whatever its name holds."""
    return escape(quote(file))


def choice(**chosen: str) -> str:
    """A link to a selection, as an attribute of HTML."""
    return escape("#" + urlencode(chosen))


def folded(title: str, body: str) -> str:
    """Something to unfold."""
    return f"<details><summary>{escape(title)}</summary>\n{body}</details>\n" if body else ""


def page(title: str, sections: Mapping[str, tuple[str, str]], controls: str) -> str:
    """The page.

    Args:
        title: its heading.
        sections: id -> heading and HTML; those without HTML are left out.
        controls: HTML of the selection.
    """
    there = {name: (heading, body) for name, (heading, body) in sections.items() if body}
    links = "".join(f'<a href="#{name}">{escape(heading)}</a>\n' for name, (heading, _) in there.items())
    parts = "".join(
        f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{body}</section>\n'
        for name, (heading, body) in there.items()
    )
    style, script = _shipped("report.css"), _shipped("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )  # nothing is fetched from elsewhere, and no other script runs
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{style}</style>\n</head>\n<body>\n<header><h1>{escape(title)}</h1></header>\n"
        f'<div class="bar">\n<nav>\n{links}</nav>\n{controls}</div>\n'
        f"<main>\n{parts}</main>\n{DIALOG}<script>{script}</script>\n</body>\n</html>\n"
    )


DIALOG = """<dialog id="large" aria-labelledby="large-title">
<form method="dialog"><strong id="large-title"></strong> <span id="large-place"></span>
<a id="large-png" target="_blank">PNG</a> <a id="large-pdf" target="_blank">PDF</a>
<button type="button" data-step="-1" aria-label="previous">&larr;<span class="word"> previous</span></button>
<button type="button" data-step="1" aria-label="next"><span class="word">next </span>&rarr;</button>
<button autofocus>close</button></form>
<div id="large-image"></div>
</dialog>
"""


def _shipped(name: str) -> str:
    return (files("plots") / name).read_text(encoding="utf-8")
