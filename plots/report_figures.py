"""The figures of the report, and the fields by which one chooses among them."""

import base64
import struct
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from common.errors import AdvtagError
from plots.catalogue import KINDS, About, Listed
from plots.page import Names, attributes, url

BROAD = 1150
"""Pixels from which a figure, such as one of several taggers side by side, has a line of its own."""
PNG = b"\x89PNG\r\n\x1a\n"


def gallery_html(folder: Path, figures: Sequence[Listed], names: Names, *, embed: bool) -> str:
    """Figures by kind.

    Args:
        folder: where they and the page are.
        figures: what to show.
        names: all taggers and attacks, which no caption repeats.
        embed: put the pictures inside the page, else it refers to them.

    Raises:
        AdvtagError: a file that is no PNG.
    """
    kinds = [kind for kind in KINDS if any(each.about.kind == kind for each in figures)]
    kinds += [kind for kind in dict.fromkeys(each.about.kind for each in figures) if kind not in KINDS]
    groups = []
    for kind in kinds:
        mine = "".join(figure_html(folder, each, names, embed=embed) for each in figures if each.about.kind == kind)
        groups.append(
            f'<div class="group">\n<h3>{escape(heading(kind))}</h3>\n<div class="figures">\n{mine}</div></div>\n'
        )
    return f'<p id="count" aria-live="polite">{len(figures)} figures</p>\n{"".join(groups)}'


def heading(kind: str) -> str:
    """A kind of figures in words."""
    return KINDS.get(kind, kind.replace("_", " ").capitalize())


def figure_html(folder: Path, each: Listed, known: Names, *, embed: bool) -> str:
    """One figure with its caption. The picture waits in a noscript element until the script wants to show it."""
    about, pdf = each.about, Path(each.file).with_suffix(".pdf")
    width, height = size(folder / each.file)
    source = picture(folder / each.file) if embed else url(each.file)
    title = about.title + (f" ({about.region})" if about.region else "")
    names = attributes(names_of(about))
    beside = f' data-pdf="{url(pdf.as_posix())}"' if (folder / pdf).is_file() else ""
    link = f' <a href="{url(pdf.as_posix())}">PDF</a>' if beside else ""
    wide = ' class="broad"' if width > BROAD else ""
    return (
        f'<figure{wide} data-file="{escape(each.file)}" data-title="{escape(title)}"{beside}{names}>'
        f'<a class="frame" href="{url(each.file)}" style="aspect-ratio: {width} / {height}">'
        f'<noscript><img src="{source}" alt="{escape(title)}" width="{width}" height="{height}"></noscript></a>'
        f"<figcaption><strong>{escape(title)}</strong> {escape(details(about, known))}{link}</figcaption></figure>\n"
    )


def details(about: About, known: Names) -> str:
    """Taggers and attacks in words, unless it is of all of them."""
    some = [(names, known[key]) for key, names in (("tagger", about.taggers), ("attack", about.attacks))]
    return "; ".join(", ".join(names) for names, every in some if not set(names) >= set(every))


def names_of(about: About) -> Names:
    """What a figure or table is of."""
    one = {"kind": [about.kind], "region": [about.region], "variable": [about.variable]}
    return {**one, "tagger": about.taggers, "attack": about.attacks}


def picture(path: Path) -> str:
    """A picture as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG file, pixels.

    Raises:
        AdvtagError: it is none.
    """
    with path.open("rb") as stream:
        start = stream.read(24)
    if len(start) < 24 or not start.startswith(PNG):
        raise AdvtagError(f"{path}: not a PNG picture; draw it again with `advtag plot`")
    width, height = struct.unpack(">II", start[16:])
    return int(width), int(height)


def controls_html(figures: Sequence[Listed], names: Mapping[str, Sequence[str]]) -> str:
    """The fields of a selection; the script shows them."""
    kinds = {kind: heading(kind) for kind in (*KINDS, *(each.about.kind for each in figures))}
    kinds = {kind: text for kind, text in kinds.items() if any(each.about.kind == kind for each in figures)}
    fields = [
        select("kind", "figures", kinds),
        select("region", "region", {name: name for name in names["region"]}),
        '<label>variable<input type="search" name="variable" list="variables" '
        'placeholder="name or regular expression"></label>',
        select("tagger", "tagger", {name: name for name in names["tagger"]}),
        select("attack", "attack", {name: name for name in names["attack"]}),
        '<button type="reset">clear</button>',
        '<button type="button" id="print">print</button>',
    ]
    variables = "".join(f'<option value="{escape(name)}">' for name in names["variable"])
    listed = f'<datalist id="variables">{variables}</datalist>'
    return (
        '<form id="selection" hidden autocomplete="off"><details open><summary>Selection</summary>\n'
        f'<div class="fields">{"".join(fields)}</div></details>\n{listed}</form>\n'
    )


def select(name: str, label: str, options: Mapping[str, str]) -> str:
    """A field to choose one of several from, or all."""
    listed = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options.items())
    return f'<label>{label}<select name="{name}"><option value="">all</option>{listed}</select></label>'
