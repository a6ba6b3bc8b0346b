"""Collision events that were recorded once must count once: the same (run, lumi, event) in two places is refused."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from processors.fileset import IDENTITY
from processors.remote import open_root, patiently

Lumis = Mapping[str, Mapping[str, list[int]]]
"""dataset -> file -> luminosity sections, one entry for each chunk that saw it, as `lumi_codes` writes them"""


def lumi_codes(run: NDArray[Any], lumi: NDArray[Any]) -> list[int]:
    """The luminosity sections of a chunk, each once: run * 2**32 + lumi."""
    return [int(code) for code in np.unique((run.astype(np.int64) << 32) + lumi.astype(np.int64))]


def refuse_overlap(lumis: Lumis, trees: Mapping[str, str], replicas: Mapping[str, Sequence[str]]) -> None:
    """Refuse events of data that are in two files, or twice in one.

    A luminosity section that one chunk alone has seen cannot overlap with anything (within a chunk, `refuse_repeated`
    has looked); the events of the others are read again, three branches, and compared.

    Args:
        lumis: of all chunks of data
        trees: name of the tree, by dataset
        replicas: other places of a file, by its path

    Raises:
        AdvtagError: names the event and both files; or a file cannot be read again
    """
    places: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for dataset, files in lumis.items():
        for path, codes in files.items():
            for code in codes:
                places[code].append((dataset, path))
    shared = {code: where for code, where in places.items() if len(where) > 1}
    wanted: dict[tuple[str, str], list[int]] = defaultdict(list)
    for code, where in shared.items():
        for place in set(where):
            wanted[place].append(code)
    with ThreadPoolExecutor(8) as pool:
        everywhere = {path: (path, *replicas.get(path, ())) for _, path in wanted}
        read = pool.map(lambda place: _read(everywhere[place[1]], trees[place[0]], np.array(wanted[place])), wanted)
        found = dict(zip(wanted, read, strict=True))
    if found:
        _compare(found)


def _read(places: Sequence[str], tree: str, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """`_events` of the first place of a file that gives them."""
    for place in places:
        try:
            return patiently(partial(_events, place, tree, codes))
        except Exception as error:  # whatever a damaged file or a server comes up with
            problem = error
    raise AdvtagError(
        f"{places[0]}: cannot be read again, to see whether its events are in other files, too "
        f"({' '.join(str(problem).split())[:200]}); what is done is kept: go on with --resume"
    ) from problem


def _events(path: str, tree: str, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(code, event) of the file's events in the given sections, [events, 2]."""
    with open_root(path) as file:
        run, lumi, event = (np.asarray(file[tree][name].array(library="np")) for name in IDENTITY)
    code = (run.astype(np.int64) << 32) + lumi.astype(np.int64)
    chosen = np.isin(code, codes)
    return np.stack([code[chosen], event[chosen].astype(np.int64)], axis=1)


def _compare(found: Mapping[tuple[str, str], NDArray[np.int64]]) -> None:
    keys = np.concatenate(list(found.values()))
    owner = np.repeat(np.arange(len(found)), [len(events) for events in found.values()])
    order = np.lexsort((owner, keys[:, 1], keys[:, 0]))
    keys, owner = keys[order], owner[order]
    same = np.flatnonzero((keys[1:] == keys[:-1]).all(axis=1))
    if len(same):
        (code, event), files = keys[same[0]], [place[1] for place in found]
        one, other = files[owner[same[0]]], files[owner[same[0] + 1]]
        raise AdvtagError(
            f"{other}: event {event} of run {code >> 32}, lumi {code & 0xFFFFFFFF} is also in {one}, and "
            f"{len(same) - 1} more are in two places; data would count twice. Drop a file, or give one dataset a veto"
        )


def refuse_repeated(run: NDArray[Any], lumi: NDArray[Any], event: NDArray[Any], path: str) -> None:
    """Refuse an event that is twice in a chunk.

    Raises:
        AdvtagError: names the file and the event
    """
    keys = np.stack([run.astype(np.int64), lumi.astype(np.int64), event.astype(np.int64)])
    _, first, times = np.unique(keys, axis=1, return_index=True, return_counts=True)
    if (times > 1).any():
        run_, lumi_, event_ = keys[:, first[times > 1][0]]
        raise AdvtagError(
            f"{path}: event {event_} of run {run_}, lumi {lumi_} is there {times.max()} times; data would count twice"
        )
