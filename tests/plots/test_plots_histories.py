"""Reading histories of trainings, and refusing what is not one."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import AdvtagError
from plots.histories import attacks_of, column, read_histories, with_epochs


def write(path: Path, epochs: list) -> None:
    path.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def test_reading(tmp_path: Path, histories) -> None:
    for name, epochs in histories.items():
        write(tmp_path / f"{name}.history.jsonl", epochs)
        (tmp_path / f"{name}.history.json").write_text("[]")  # left by an earlier version: the new one counts
    (tmp_path / "other.history.jsonl").write_text("not asked for")
    read = read_histories(tmp_path, ["nominal", "untrained", "adversarial"])
    assert read == histories
    assert list(read) == ["nominal", "adversarial"]
    assert read_histories(tmp_path / "nowhere", ["nominal"]) == {}


def test_a_line_that_ends_without_a_newline(tmp_path: Path, histories) -> None:
    path = tmp_path / "x.history.jsonl"
    write(path, histories["nominal"])
    path.write_text(path.read_text().removesuffix("\n"))
    assert read_histories(tmp_path, ["x"])["x"] == histories["nominal"]


def test_areas_and_losses_may_be_null(tmp_path: Path, histories) -> None:
    epoch = copy.deepcopy(histories["nominal"][0])
    epoch["auc"]["fgsm"]["CvsL"] = epoch["validation_loss"]["fgsm"] = epoch["loss"] = None
    write(tmp_path / "x.history.jsonl", [epoch])
    assert read_histories(tmp_path, ["x"]) == {"x": [epoch]}


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ((), 1, "not an object"),
        (("epoch",), "delete", "no 'epoch'"),
        (("loss",), "delete", "no 'loss'"),
        (("validation_loss",), "delete", "no 'validation_loss'"),
        (("auc",), "delete", "no 'auc'"),
        (("epoch",), "1", "'epoch' is '1'"),
        (("loss",), "0.1", "'loss' is '0.1'"),
        (("validation_loss",), 0.5, "'validation_loss' is 0.5"),
        (("validation_loss", "raw"), [1], "validation_loss: 'raw' is"),
        (("validation_loss", "noise"), "delete", "'validation_loss' is of raw, fgsm, not of raw, fgsm, noise"),
        (("auc", "noise"), "delete", "'auc' is of raw, fgsm, not of"),
        (("auc", "fgsm"), 0.9, "auc of fgsm: no 'BvsL'"),
        (("auc", "raw", "CvsB"), "delete", "auc of raw: no 'CvsB'"),
        (("auc", "fgsm", "BvsC"), "high", "auc of fgsm: 'BvsC' is 'high'"),
        (("epoch",), 6, "epoch 6 after epoch 6"),
    ],
)
def test_a_wrong_epoch_is_named(tmp_path: Path, histories, keys: tuple[str, ...], value: object, reason: str) -> None:
    epochs = copy.deepcopy(histories["nominal"])
    if not keys:
        epochs[6] = value
    else:
        table = epochs[6]
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value
        if value == "delete":
            del table[keys[-1]]
    write(tmp_path / "x.history.jsonl", epochs)
    with pytest.raises(AdvtagError) as error:
        read_histories(tmp_path, ["x"])
    assert str(error.value).startswith(f"{tmp_path / 'x.history.jsonl'}, line 7: not an epoch of a training ({reason}")
    assert str(error.value).endswith("; train this tagger again")


def test_without_raw(tmp_path: Path, histories) -> None:
    epoch = copy.deepcopy(histories["nominal"][0])
    del epoch["auc"]["raw"], epoch["validation_loss"]["raw"]
    write(tmp_path / "x.history.jsonl", [epoch])
    with pytest.raises(AdvtagError, match=r"line 1: .*'auc' is of fgsm, noise"):
        read_histories(tmp_path, ["x"])


@pytest.mark.parametrize(("cut", "line"), [(-3, 12), (-1, None), (40, 1)])
def test_a_file_that_is_cut(tmp_path: Path, histories, cut: int, line: int | None) -> None:
    path = tmp_path / "x.history.jsonl"
    write(path, histories["nominal"])
    path.write_text(path.read_text()[:cut])
    if line is None:  # only the last newline is gone
        assert read_histories(tmp_path, ["x"])["x"] == histories["nominal"]
        return
    with pytest.raises(AdvtagError, match=rf"x\.history\.jsonl, line {line}: .*train this tagger again"):
        read_histories(tmp_path, ["x"])


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b'[{"epoch": 1, "auc_raw": 0.9}]', b"[\n {\n"])
def test_not_a_history(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.history.jsonl").write_bytes(content)
    with pytest.raises(AdvtagError, match=r"x\.history\.jsonl, line 1: .*train this tagger again"):
        read_histories(tmp_path, ["x"])


def test_a_history_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "x.history.json").write_text('[{"epoch": 1, "auc_raw": 0.9, "auc_attacked": 0.8}]')
    with pytest.raises(AdvtagError, match=r"x\.history\.json, line 1: .*earlier version; train this tagger again"):
        read_histories(tmp_path, ["x"])
    assert read_histories(tmp_path, ["y"]) == {}


def test_column() -> None:
    rows = [{"a": {"b": 1}}, {"a": {"b": None}}, {"a": {"b": 0.5}}]
    np.testing.assert_array_equal(column(rows, "a", "b"), [1.0, np.nan, 0.5])
    assert column([], "a").shape == (0,)


def test_attacks_of_all_taggers() -> None:
    histories = {"a": [{"auc": {"pgd": {}, "raw": {}}}], "b": [{"auc": {"raw": {}, "fgsm": {}, "pgd": {}}}], "c": []}
    assert attacks_of(histories) == ["pgd", "fgsm"]
    assert list(with_epochs(histories)) == ["a", "b"]
    with pytest.raises(AdvtagError, match="no epochs"):
        with_epochs({"c": []})
