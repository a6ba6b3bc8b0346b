"""A ROOT file of events in the manner of NanoAOD: flat branches, and collections of which each has a counter."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from common.errors import AdvtagError

COMPRESSION = uproot.ZSTD(3)
KINDS = {"bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
Columns = dict[str, Any]


def columns(events: Any, names: frozenset[str], chosen: NDArray[np.bool_]) -> Columns:
    """Branches of the chosen events as uproot writes them: arrays of numbers, [events] or [events, any number], and
    the members of a collection as one array of records, under its name.

    Args:
        events: a chunk
        names: branches
        chosen: [events]

    Raises:
        AdvtagError: a branch is of another type
    """
    flat: Columns = {}
    jagged: dict[str, Any] = {}
    for name in sorted(names):
        array = _numbers(events, name)[chosen]
        if array.ndim == 1:
            flat[name] = ak.to_numpy(array)
        else:
            jagged[name] = ak.to_packed(array)
    collections: dict[str, dict[str, Any]] = {}
    for name, array in jagged.items():
        collections.setdefault(_collection(name, array, flat), {})[name] = array
    for collection, members in collections.items():
        flat.pop(f"n{collection}", None)  # uproot writes it
        if list(members) == [collection]:
            flat[collection] = members[collection]
        else:
            flat[collection] = ak.zip({name.removeprefix(f"{collection}_"): array for name, array in members.items()})
    return flat


def write_events(path: Path, events: Columns, runs: Mapping[str, NDArray[Any]]) -> None:
    """Write the trees `Events` and `Runs`.

    Args:
        path: ROOT file
        events: of `columns`
        runs: arrays of numpy
    """
    with uproot.recreate(path, compression=COMPRESSION) as file:
        # TTree, which all tools read: an assignment would write an RNTuple
        tree = file.mktree("Events", {name: _type(array) for name, array in events.items()})
        if len(next(iter(events.values()))):
            tree.extend(events)
        file.mktree("Runs", {name: array.dtype for name, array in runs.items()}).extend(runs)


def counters(names: Iterable[str]) -> frozenset[str]:
    """Names that the counters of branches may have: nJet of Jet_pt."""
    return frozenset(f"n{beginning}" for name in names for beginning in _beginnings(name))


def _beginnings(name: str) -> list[str]:
    """What may be the collection of a branch, the longest first: A_b_c, A_b, A."""
    words = name.split("_")
    return ["_".join(words[:number]) for number in range(len(words), 0, -1)]


def _type(array: Any) -> Any:
    return array.dtype if isinstance(array, np.ndarray) else array.type.content


def _numbers(events: Any, name: str) -> Any:
    """A branch without the parameters that coffea adds; numbers or lists of numbers."""
    chunk = events.metadata
    if name not in events.fields:
        raise _unwritable(chunk, name, "of a type that cannot be read")
    array = ak.materialize(events[name]) if hasattr(ak, "materialize") else events[name]
    text = array.layout.purelist_parameter("__array__") is not None
    array = ak.without_parameters(array)
    kind = str(array.type.content).removeprefix("var * ")
    if text or kind not in KINDS:
        raise _unwritable(chunk, name, "text" if text else f"of type {array.type.content}")
    return array


def _unwritable(chunk: Mapping[str, Any], name: str, why: str) -> AdvtagError:
    return AdvtagError(
        f"{chunk['filename']}: branch {name!r} is {why}, and cannot be written (dataset {chunk['dataset']!r}); leave "
        "it out by the key `skim.drop`"
    )


def _collection(name: str, array: Any, flat: Columns) -> str:
    """What a branch belongs to: the longest beginning of its name that has a counter, which counts it; or itself."""
    for collection in _beginnings(name):
        counter = flat.get(f"n{collection}")
        if counter is not None and np.array_equal(counter, ak.to_numpy(ak.num(array))):
            return collection
    return name
