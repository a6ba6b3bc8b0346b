"""Vulnerability against the number of inputs."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import AdvtagError
from plots.scan import auc_vs_inputs, read_scan

NAMES = ("BvsL", "BvsC", "CvsL", "CvsB")


def areas(start: float) -> dict:
    return {
        "raw": {name: start - 0.05 * i for i, name in enumerate(NAMES)},
        "pgd": {name: start - 0.07 * i - 0.1 for i, name in enumerate(NAMES)},
    }


@pytest.fixture
def scan() -> dict:
    points = [{"inputs": n, "added": ["x"], "auc": areas(0.7 + n / 100)} for n in (20, 5, 10)]
    points[1]["seeds"] = [areas(0.74), areas(0.77), areas(0.73)]
    return {"attack": "pgd", "epochs": 10, "points": points}


def test_lines_are_the_table(scan) -> None:
    figure = auc_vs_inputs(scan)
    top, bottom = figure.axes
    points = sorted(scan["points"], key=lambda point: point["inputs"])
    for i, name in enumerate(NAMES):
        raw, attacked, lost = top.lines[2 * i], top.lines[2 * i + 1], bottom.lines[i]
        assert list(raw.get_xdata()) == list(attacked.get_xdata()) == list(lost.get_xdata()) == [5, 10, 20]
        assert list(raw.get_ydata()) == [point["auc"]["raw"][name] for point in points]
        assert list(attacked.get_ydata()) == [point["auc"]["pgd"][name] for point in points]
        assert list(lost.get_ydata()) == [point["auc"]["raw"][name] - point["auc"]["pgd"][name] for point in points]
        assert raw.get_color() == attacked.get_color() == lost.get_color()
        assert (raw.get_linestyle(), attacked.get_linestyle()) == ("-", "--")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["discriminator", *NAMES, " ", "jets", "raw", "pgd"]


def test_bars_reach_from_the_lowest_to_the_highest_seed(scan) -> None:
    top, bottom = auc_vs_inputs(scan).axes
    bars = [collection.get_segments()[0].tolist() for collection in top.collections]
    expected = []
    for name in NAMES:
        for kind in ("raw", "pgd"):
            values = [seed[kind][name] for seed in scan["points"][1]["seeds"]]
            expected.append([[5, min(values)], [5, max(values)]])
    assert bars == expected
    assert len(bottom.collections) == 4
    lost = [seed["raw"]["CvsL"] - seed["pgd"]["CvsL"] for seed in scan["points"][1]["seeds"]]
    assert bottom.collections[2].get_segments()[0].tolist() == [[5, min(lost)], [5, max(lost)]]


def test_no_change_of_the_table(scan) -> None:
    before = copy.deepcopy(scan)
    auc_vs_inputs(scan)
    assert scan == before


def test_one_point_and_null(scan) -> None:
    null = {kind: dict.fromkeys(NAMES) for kind in ("raw", "pgd")}
    scan["points"] = [{"inputs": 5, "auc": null, "seeds": [null, null]}]
    top, bottom = auc_vs_inputs(scan).axes
    assert all(np.isnan(line.get_ydata()).all() for line in top.lines)
    assert not top.collections
    assert not bottom.collections
    assert [text.get_text() for text in top.texts] == ["undefined: a class has no jets"]


@pytest.mark.parametrize(("numbers", "scale"), [((1, 3, 10, 67), "log"), ((5, 10, 15), "linear"), ((1,), "linear")])
def test_numbers_that_grow_tenfold_are_on_a_logarithmic_axis(numbers: tuple[int, ...], scale: str) -> None:
    figure = auc_vs_inputs({"attack": "pgd", "points": [{"inputs": n, "auc": areas(0.8)} for n in numbers]})
    top, bottom = figure.axes
    assert top.get_xscale() == bottom.get_xscale() == scale
    figure.canvas.draw()
    low, high = bottom.get_xlim()
    ticks = [(x, text.get_text()) for x, text in zip(bottom.get_xticks(), bottom.get_xticklabels(), strict=True)]
    assert all(float(text) == x == int(x) for x, text in ticks if low <= x <= high and text)
    assert any(low <= x <= high for x, _ in ticks)


def test_reading(tmp_path: Path, scan) -> None:
    path = tmp_path / "scan.json"
    assert read_scan(path) is None
    path.write_text(json.dumps(scan))
    assert read_scan(path) == scan


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda scan: scan.pop("attack"), "no 'attack'"),
        (lambda scan: scan.pop("points"), "no 'points'"),
        (lambda scan: scan["points"].clear(), "no 'points'"),
        (lambda scan: scan["points"][2].pop("inputs"), "point 3: no 'inputs'"),
        (lambda scan: scan["points"][0].update(inputs=0), "point 1: no 'inputs'"),
        (lambda scan: scan["points"].append(3), "point 4: no 'inputs'"),
        (lambda scan: scan["points"][0].pop("auc"), "point 1, auc of raw: no 'BvsL'"),
        (lambda scan: scan["points"][0]["auc"].pop("pgd"), "point 1, auc of pgd: no 'BvsL'"),
        (lambda scan: scan["points"][1]["seeds"][2]["raw"].pop("CvsL"), "point 2, auc of raw: no 'CvsL'"),
        (lambda scan: scan["points"][1].update(seeds=3), "point 2: 'seeds' is not a list"),
        (lambda scan: scan["points"][1].update(seeds=[1, 2]), "point 2, auc of raw: no 'BvsL'"),
    ],
)
def test_not_a_scan(tmp_path: Path, scan, change, reason: str) -> None:
    change(scan)
    path = tmp_path / "scan.json"
    path.write_text(json.dumps(scan))
    with pytest.raises(AdvtagError) as error:
        read_scan(path)
    assert str(error.value).startswith(f"{path}: not a scan of inputs ({reason}")
    assert str(error.value).endswith("; run the scan again")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_not_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scan.json"
    path.write_bytes(content)
    with pytest.raises(AdvtagError, match="not a scan of inputs"):
        read_scan(path)
