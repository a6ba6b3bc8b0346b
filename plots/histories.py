"""Histories of trainings: NAME.history.jsonl, one JSON object per epoch and line.

    {"epoch": 1, "loss": 0.81, "validation_loss": {"raw": 0.78, "fgsm": 0.95},
     "auc": {"raw": {"BvsL": 0.94, "BvsC": 0.86, "CvsL": 0.71, "CvsB": 0.86}, "fgsm": {...}},
     "mistag": {"raw": {"BvsL": {"0.05": 0.00012, ..., "0.95": 0.31}, ...}, "fgsm": {...}}, ...}

`loss` is that of the training, on attacked jets where the training is adversarial. Beside `raw` are the attacks that
the tagger was evaluated with. An AUC is null where a class had no jets. `mistag`, the rate by signal efficiency, is not
in older histories.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import AdvtagError
from common.histograms import RAW
from models.classes import DISCRIMINATORS
from plots.style import Array

ENDING, EARLIER = ".history.jsonl", ".history.json"

Epoch = Mapping[str, Any]
Histories = Mapping[str, Sequence[Epoch]]
"""Epochs in order, by tagger."""


def read_histories(folder: Path, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Read the histories of those taggers that have one.

    Args:
        folder: of the tagger files.
        names: of the taggers.

    Raises:
        AdvtagError: a line is not a record of an epoch, or a history has the format of an earlier version.
    """
    histories = {}
    for name in names:
        path, earlier = folder / f"{name}{ENDING}", folder / f"{name}{EARLIER}"
        if path.is_file():
            histories[name] = read_history(path)
        elif earlier.is_file():
            raise AdvtagError(f"{earlier}, line 1: a history of an earlier version; train this tagger again")
    return histories


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read one history.

    Raises:
        AdvtagError: there is no epoch in it, or a line is not a record of an epoch.
    """
    epochs: list[dict[str, Any]] = []
    number = 1
    try:
        lines = path.read_text(encoding="utf-8").splitlines() or [""]
        for number, line in enumerate(lines, 1):  # noqa: B007  the number is for the error
            epochs.append(checked(json.loads(line), epochs))
    except (OSError, ValueError) as error:
        raise AdvtagError(
            f"{path}, line {number}: not an epoch of a training ({error}); train this tagger again"
        ) from error
    return epochs


def checked(epoch: Any, before: Sequence[Epoch]) -> dict[str, Any]:
    """The epoch itself.

    Raises:
        ValueError: something that is drawn is missing or of another kind, or the epoch does not follow those before.
    """
    if not isinstance(epoch, dict):
        raise ValueError("not an object")
    kinds: dict[str, Any] = {"epoch": int, "loss": float | int | None, "validation_loss": dict, "auc": dict}
    for key, kind in kinds.items():
        if key not in epoch:
            raise ValueError(f"no {key!r}")
        if not isinstance(epoch[key], kind):
            raise ValueError(f"{key!r} is {epoch[key]!r}")
    attacks = list((before[0] if before else epoch)["auc"])
    for key in ("auc", "validation_loss"):
        if RAW not in epoch[key] or set(epoch[key]) != set(attacks):
            raise ValueError(f"{key!r} is of {', '.join(epoch[key]) or 'nothing'}, not of {', '.join(attacks)}")
    for attack, areas in epoch["auc"].items():
        check_numbers(areas, DISCRIMINATORS, f"auc of {attack}")
    check_numbers(epoch["validation_loss"], attacks, "validation_loss")
    if before and epoch["epoch"] <= before[-1]["epoch"]:
        raise ValueError(f"epoch {epoch['epoch']} after epoch {before[-1]['epoch']}")
    return epoch


def check_numbers(table: Any, keys: Iterable[str], name: str) -> None:
    """Refuse a table that lacks one of the keys, or holds something that is neither a number nor null.

    Raises:
        ValueError: with the reason.
    """
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            raise ValueError(f"{name}: no {key!r}")
        if not isinstance(table[key], float | int | None):
            raise ValueError(f"{name}: {key!r} is {table[key]!r}")


def column(rows: Iterable[Mapping[str, Any]], *keys: str) -> Array:
    """The number under these keys in each row, float64 [rows]; null is NaN, a gap in a line."""
    values = [reduce(lambda table, key: table[key], keys, row) for row in rows]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def attacks_of(histories: Histories) -> list[str]:
    """Names of the attacks of any of the taggers, in order, without `raw`."""
    names = dict.fromkeys(name for epochs in histories.values() for epoch in epochs for name in epoch["auc"])
    return [name for name in names if name != RAW]


def with_epochs(histories: Histories) -> dict[str, Sequence[Epoch]]:
    """The taggers that have an epoch.

    Raises:
        AdvtagError: there is none.
    """
    found = {name: epochs for name, epochs in histories.items() if epochs}
    if not found:
        raise AdvtagError("no epochs in the training histories: there is nothing to plot; train a tagger first")
    return found
