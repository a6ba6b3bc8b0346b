"""The list of figures in a plots folder, `figures.json`: what each one shows, for the report and for scripts.

    [{"file": "emu/BvsL.png", "kind": "discriminators", "title": "BvsL", "region": "emu", "variable": "BvsL",
      "taggers": ["nominal"], "attacks": ["fgsm"]}, ...]

`file` is relative to the folder, with `/`; the PDF of the same name lies beside it if PDFs were asked for.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import AdvtagError
from common.files import whole_file

CATALOGUE = "figures.json"

KINDS = {
    "discriminators": "Discriminators and node outputs",
    "processes": "Discriminators by process",
    "roc": "ROC curves",
    "residual": "Uncertainties from attacks",
    "study": "Study",
    "inputs": "Inputs",
    "flavours": "Shapes by flavour",
    "correlations": "Correlations of inputs",
    "cutflow": "Cutflows",
    "training": "Trainings",
    "jets": "Attacks on single jets",
}
"""Kinds of figures and their headings, in the order of the report."""


@dataclass(frozen=True)
class About:
    """What a figure shows; empty where it is of none or of all."""

    kind: str
    title: str
    region: str = ""
    variable: str = ""
    taggers: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """A figure of the catalogue."""

    file: str
    about: About


def write_catalogue(folder: Path, figures: Iterable[Listed]) -> Path:
    """Add figures to the list of a folder, in the place of earlier ones of the same file; return its path."""
    path = folder / CATALOGUE
    listed = {each.file: each for each in (read_catalogue(folder) if path.is_file() else [])}
    listed |= {each.file: each for each in figures}
    with whole_file(path) as aside:
        aside.write_text(json.dumps([{"file": f.file, **asdict(f.about)} for f in listed.values()], indent=1))
    return path


def read_catalogue(folder: Path) -> list[Listed]:
    """Read the list of a folder.

    Raises:
        AdvtagError: there is none, or it is not a list of figures.
    """
    path = folder / CATALOGUE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            Listed(
                str(entry["file"]),
                About(
                    str(entry["kind"]),
                    str(entry["title"]),
                    str(entry["region"]),
                    str(entry["variable"]),
                    tuple(map(str, entry["taggers"])),
                    tuple(map(str, entry["attacks"])),
                ),
            )
            for entry in found
        ]
    except FileNotFoundError:
        raise AdvtagError(f"{folder}: no {CATALOGUE}; draw the figures first with `advtag plot`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdvtagError(f"{path}: not a list of figures ({error!r}); draw them again with `advtag plot`") from error
