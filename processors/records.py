"""What opening a file tells, kept in JSON so that it is opened once."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from processors.remote import is_remote, open_root

SUM_OF_WEIGHTS = ("genEventSumw", "genEventSumw_")
COUNT = ("genEventCount", "genEventCount_")
"""Branches of `Runs`; those with the underscore are of NanoAOD before v7."""


class WrongTreeError(Exception):
    """The file has no tree of that name."""


@dataclass(frozen=True)
class Record:
    """One opened file."""

    events: int
    uuid: str
    branches: frozenset[str]
    bytes: int
    modified: int | None
    """Time of modification in ns, None behind a server."""
    sum_weights_events: float | None
    """Sum of genWeight over the events of this file; None without genWeight."""
    sum_weights_runs: float | None
    """Sum of genEventSumw over the tree `Runs`; None where there is none."""
    generated: int | None
    """Sum of genEventCount over `Runs`: events before any skim."""

    @property
    def sum_weights(self) -> float | None:
        """What normalises simulation: `Runs` counts the events that a skim dropped, genWeight does not (NanoAOD
        documentation, table Runs). None for data.
        """
        return self.sum_weights_events if self.sum_weights_runs is None else self.sum_weights_runs

    def is_current(self, path: str) -> bool:
        """Whether the file has the size and time of then; behind a server nobody asks."""
        if is_remote(path):
            return True
        try:
            now = Path(path).stat()
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.bytes, self.modified)


def read_record(path: str, tree: str) -> Record:
    """Open a file and look.

    Raises:
        WrongTreeError: no such tree
        ImportError: no bindings of xrootd
        Exception: whatever uproot raises for files that are missing, damaged or behind a silent server
    """
    with open_root(path) as file:
        size, expected = file.file.source.num_bytes, file.file.fEND
        if size < expected:
            raise EOFError(f"{size} bytes of {expected}")
        trees = {key.partition(";")[0] for key in file.keys(recursive=False)}
        if tree not in trees:
            raise WrongTreeError(f"no tree {tree!r}; there are: {', '.join(sorted(trees)) or 'none'}")
        events: Any = file[tree]
        branches = frozenset(events.keys(recursive=False))  # recursion into an RNTuple takes uproot 5.7 seconds
        weights = None
        if "genWeight" in branches:
            weights = float(np.sum(events["genWeight"].array(library="np"), dtype=np.float64))
        runs = file["Runs"] if "Runs" in trees else None
        return Record(
            events=events.num_entries,
            uuid=str(file.file.uuid),
            branches=branches,
            bytes=size,
            modified=None if is_remote(path) else Path(path).stat().st_mtime_ns,
            sum_weights_events=weights,
            sum_weights_runs=_total(runs, SUM_OF_WEIGHTS),
            generated=None if (count := _total(runs, COUNT)) is None else int(count),
        )


def _total(runs: Any, names: tuple[str, ...]) -> float | None:
    """Sum over the first of the branches that is there."""
    held = set() if runs is None else set(runs.keys(recursive=False))
    for name in names:
        if name in held:
            values: Any = runs[name].array(library="np")
            return float(values.sum()) if len(values) else None
    return None


def finite(record: Record) -> bool:
    """Whether the sums of weights are numbers."""
    sums = (record.sum_weights_events, record.sum_weights_runs)
    return all(value is None or math.isfinite(value) for value in sums)


def digest(branches: Iterable[str]) -> str:
    """Stands for a set of names in JSON: files of one dataset hold the same thousand."""
    return hashlib.sha256("\n".join(sorted(branches)).encode()).hexdigest()[:16]


def to_json(record: Record, branches: dict[str, list[str]]) -> dict[str, Any]:
    """A record as an entry of a fileset; its branches are added to `branches` under their digest."""
    key = _digests.get(record.branches)
    if key is None:
        key = _digests[record.branches] = digest(record.branches)
    if key not in branches:
        branches[key] = sorted(record.branches)
    return {
        "num_entries": record.events,
        "uuid": record.uuid,
        "branches": key,
        "bytes": record.bytes,
        "modified": record.modified,
        "sum_weights_events": record.sum_weights_events,
        "sum_weights_runs": record.sum_weights_runs,
        "generated": record.generated,
    }


_digests: dict[frozenset[str], str] = {}
"""A frozenset remembers its hash, and equal ones are shared: a look-up, not a thousand names."""


def from_json(entry: dict[str, Any], branches: dict[str, frozenset[str]]) -> Record:
    """A record of an entry; raises KeyError where it is not one of `to_json`."""
    return Record(
        entry["num_entries"],
        entry["uuid"],
        branches[entry["branches"]],
        entry["bytes"],
        entry["modified"],
        entry["sum_weights_events"],
        entry["sum_weights_runs"],
        entry["generated"],
    )
