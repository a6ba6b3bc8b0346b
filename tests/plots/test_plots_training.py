"""AUC against epoch."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import AdvtagError
from plots.training import auc_against_epoch, read_histories


def test_lines_are_the_histories(histories) -> None:
    top, bottom = auc_against_epoch(histories).axes
    for i, epochs in enumerate(histories.values()):
        raw, attacked = top.lines[2 * i], top.lines[2 * i + 1]
        assert raw.get_ydata().tolist() == [epoch["auc_raw"] for epoch in epochs]
        assert attacked.get_ydata().tolist() == [epoch["auc_attacked"] for epoch in epochs]
        assert (raw.get_linestyle(), attacked.get_linestyle()) == ("-", "--")
        assert raw.get_color() == attacked.get_color() == bottom.lines[i].get_color()
        expected = [epoch["auc_attacked"] / epoch["auc_raw"] for epoch in epochs]
        np.testing.assert_allclose(bottom.lines[i].get_ydata(), expected)
    names = [text.get_text() for text in top.get_legend().get_texts()]
    assert names == ["nominal", "adversarial", "raw", "attacked: fgsm"]


def test_one_epoch_and_a_missing_auc() -> None:
    epoch = {"epoch": 3, "auc_raw": 0.9, "auc_attacked": None, "attack": "pgd"}
    top, bottom = auc_against_epoch({"t": [epoch]}).axes
    assert np.isnan(top.lines[1].get_ydata()).all()
    assert bottom.get_xlim() == (2.5, 3.5)


def test_nothing_to_plot() -> None:
    with pytest.raises(AdvtagError, match="no epochs"):
        auc_against_epoch({"nominal": []})


def test_the_missing_key_is_named() -> None:
    with pytest.raises(AdvtagError, match="history of nominal: entry 0 has no 'auc_attacked'"):
        auc_against_epoch({"nominal": [{"epoch": 0, "auc_raw": 0.9}]})


def test_reading(tmp_path: Path, histories) -> None:
    for name, epochs in histories.items():
        (tmp_path / f"{name}.history.json").write_text(json.dumps(epochs))
    assert read_histories(tmp_path) == dict(sorted(histories.items()))


@pytest.mark.parametrize("text", ["{", '{"epoch": 1}', "[1]"])
def test_not_a_history(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.history.json").write_text(text)
    with pytest.raises(AdvtagError, match=r"x\.history\.json: .*train this tagger again"):
        read_histories(tmp_path)
