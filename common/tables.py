"""Tables of dataclasses as CSV: text and numbers; a number that is not defined is an empty cell."""

import csv
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from common.files import whole_file


def write_table(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Write rows as CSV, whole or not at all: a column for each field, numbers with six digits, nan empty.

    Args:
        path: of the file.
        kind: the dataclass of the rows, whose fields are text, float or int; without rows there are its columns.
        rows: of it.

    Raises:
        AdvtagError: it cannot be written.
    """
    names = [field.name for field in fields(kind)]
    with whole_file(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        for row in rows:
            writer.writerow(_cell(getattr(row, name)) for name in names)


def _cell(value: str | float) -> str:
    if isinstance(value, str | int):
        return str(value)
    return "" if np.isnan(value) else f"{value:.6g}"
