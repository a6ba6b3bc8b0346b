"""Tables of dataclasses as CSV: quoting, digits, what is not defined."""

import csv
from dataclasses import dataclass

import numpy as np
import pytest

from common.errors import AdvtagError
from common.tables import write_table


@dataclass(frozen=True)
class Jets:
    """A row."""

    name: str
    number: int
    rate: float


def test_cells(tmp_path):
    rows = [Jets('a, "b"\nc', 12_345_678, 1 / 3), Jets("", -1, float("nan")), Jets("x", 0, np.float64(1e-9))]
    write_table(tmp_path / "new" / "t.csv", Jets, iter(rows))
    with (tmp_path / "new" / "t.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [
            ["name", "number", "rate"],
            ['a, "b"\nc', "12345678", "0.333333"],
            ["", "-1", ""],
            ["x", "0", "1e-09"],
        ]


def test_no_rows_have_columns(tmp_path):
    write_table(tmp_path / "t.csv", Jets, [])
    assert (tmp_path / "t.csv").read_text().split() == ["name,number,rate"]


def test_an_interrupted_table_leaves_the_earlier_one(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, Jets, [Jets("first", 1, 1.0)])

    def rows():
        yield Jets("second", 2, 2.0)
        raise RuntimeError("no third")

    with pytest.raises(RuntimeError):
        write_table(path, Jets, rows())
    assert "first" in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["t.csv"]
    (tmp_path / "file").touch()
    with pytest.raises(AdvtagError, match="cannot write"):
        write_table(tmp_path / "file" / "t.csv", Jets, [])
