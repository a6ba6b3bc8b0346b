"""Every file is opened once, many at a time, and what cannot be read is reported all at once."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import AdvtagError
from common.files import whole_file
from common.progress import progress_bar
from configs.schema import Run
from processors.records import Record, WrongTreeError, finite, from_json, read_record, to_json
from processors.remote import is_remote, is_silent, patiently, server

CACHE = "preflight.json"
"""Name of the cache in an output folder."""
THREADS = 8
MANY = 200
"""Files that are worth the start of a cluster."""
BATCH = 25
"""Files opened by one task on a cluster."""
FORMAT = 1


@dataclass(frozen=True)
class Found:
    """A file that a dataset lists, not opened yet."""

    dataset: str
    places: tuple[str, ...]
    """Path or URL, then its replicas."""
    tree: str
    known: Record | None = None
    """From a fileset."""


@dataclass(frozen=True)
class Look:
    """What came of opening a file."""

    place: str
    """Where it was read."""
    record: Record | None = None
    problem: str = ""
    """One line, if it could not be read at any place."""


@dataclass
class Silent:
    """Servers that did not answer, so that thousands of files behind one do not each wait for it."""

    servers: set[str] = field(default_factory=set)


def inspect(
    found: Sequence[Found], run: Run | None = None, *, cache: Path | None, check: bool, progress: bool
) -> list[Look]:
    """Look into every file, in order.

    Args:
        found: files
        run: with `executor: dask` many files are opened by the cluster's workers; else by threads of this process
        cache: JSON of what earlier calls saw, brought up to date; None: nothing is kept
        check: open files that are known and look unchanged, too
        progress: show a progress bar
    """
    cached = {} if cache is None else _read_cache(cache)
    looks: dict[int, Look] = {}
    for index, file in enumerate(() if check else found):
        for place in file.places:
            known = (file.known, cached.get((file.tree, place)))
            current = next((record for record in known if record is not None and record.is_current(place)), None)
            if current is not None:
                looks[index] = Look(place, current)
                break
    todo = [index for index in range(len(found)) if index not in looks]
    if todo:
        with progress_bar("files", show=progress) as bar:
            task = bar.add_task("opening", total=len(todo))
            by_cluster = run is not None and run.executor == "dask" and len(todo) >= MANY
            opened = _on_cluster(run) if by_cluster and run is not None else _in_threads
            for position, look in opened([found[index] for index in todo]):
                looks[todo[position]] = look
                bar.advance(task)
        if cache is not None:
            _write_cache(cache, cached, [(found[index].tree, looks[index]) for index in todo])
    return [looks[index] for index in range(len(found))]


Opened = Iterator[tuple[int, Look]]


def _in_threads(found: Sequence[Found]) -> Opened:
    silent = Silent()
    with ThreadPoolExecutor(THREADS) as pool:
        yield from enumerate(pool.map(lambda file: look_at(file, silent), found))


def _on_cluster(run: Run) -> Callable[[Sequence[Found]], Opened]:
    def opened(found: Sequence[Found]) -> Opened:
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        from processors.clusters import dask_client

        batches = [(start, found[start : start + BATCH]) for start in range(0, len(found), BATCH)]
        with dask_client(run) as client:
            for future in as_completed(client.map(look_at_batch, batches, pure=False)):
                try:
                    start, looks = future.result()
                except KilledWorker as error:
                    raise AdvtagError(
                        "workers died while they opened files; out of memory? Nothing was started"
                    ) from error
                yield from enumerate(looks, start)

    return opened


def look_at_batch(batch: tuple[int, Sequence[Found]]) -> tuple[int, list[Look]]:
    """What a worker does: look into some files, and say where they begin in the list."""
    silent = Silent()
    return batch[0], [look_at(file, silent) for file in batch[1]]


def look_at(file: Found, silent: Silent) -> Look:
    """Open a file at its first place that can be read; a problem is told, never raised."""
    problems = []
    for place in file.places:
        try:
            return Look(place, _attempt(place, file.tree, silent))
        except Exception as error:  # uproot raises many types for damaged files, OSError to struct.error
            problems.append(f"{place}: {_reason(place, file, error)}")
    return Look(file.places[0], None, "; ".join(problems))


class SilentServerError(OSError):
    """The server has failed three times, and is not asked again."""


def _attempt(place: str, tree: str, silent: Silent) -> Record:
    if not is_remote(place):
        return read_record(place, tree)
    if server(place) in silent.servers:
        raise SilentServerError("no answer to earlier files")
    try:
        return patiently(lambda: read_record(place, tree))
    except OSError as error:
        if is_silent(error):
            silent.servers.add(server(place))
        raise


def _reason(place: str, file: Found, error: Exception) -> str:
    """Why a file cannot be read, and what to do."""
    text = " ".join(str(error).split())
    if is_silent(error) or (is_remote(place) and isinstance(error, FileNotFoundError | SilentServerError)):
        return _said(place, file, text)
    text = text[:150]
    if isinstance(error, WrongTreeError):
        return f"{text}; so not NanoAOD (dataset {file.dataset!r}, key `tree`)"
    if isinstance(error, ImportError):
        return f"needs `pip install advtag[xrootd]` to be read ({file.dataset!r}: {error})"
    if isinstance(error, (FileNotFoundError, IsADirectoryError)):
        return f"no such file, or a folder (dataset {file.dataset!r})"
    if isinstance(error, PermissionError):
        return f"may not be read by this user (dataset {file.dataset!r}); ask its owner, or drop it"
    return (
        f"cannot be read as a ROOT file (dataset {file.dataset!r}; {type(error).__name__}: {text}); "
        "it may be truncated: copy it again"
    )


def _said(place: str, file: Found, text: str) -> str:
    """Why a server does not give a file; `text` is uproot's, with what the xrootd client says in it."""
    said = re.search(r"\[(?:ERROR|FATAL)\] (?:Server responded with an error: )?(.*?) *(?:\)|in file|$)", text)
    reason = f"dataset {file.dataset!r}: {said[1] if said else text[:150]}"
    if "Invalid address" in text:
        return f"no host of that name ({reason})"
    if "Auth failed" in text:
        return f"{server(place)} does not know you ({reason}); get a proxy: voms-proxy-init -voms cms"
    if "Server responded" in text:
        return f"no such file, or the server does not give it ({reason})"
    return f"{server(place)} does not answer ({reason}); name a replica, or try later"


def refuse(problems: Sequence[str], files: int) -> None:
    """Tell all problems on stderr and stop, if there are any.

    Raises:
        AdvtagError: there are; a single problem is the error's text
    """
    if not problems:
        return
    if len(problems) == 1:
        raise AdvtagError(problems[0])
    for problem in problems:
        print(f"pre-flight: {problem}", file=sys.stderr)
    raise AdvtagError(
        f"{len(problems)} problems in {files} files, all listed above; nothing was started. The first: {problems[0]}"
    )


def _read_cache(path: Path) -> dict[tuple[str, str], Record]:
    """Records by tree and place; none where there is no cache of this format, which costs time and no more."""
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
        if page["format"] != FORMAT:
            return {}
        branches = {key: frozenset(names) for key, names in page["branches"].items()}
        return {
            (tree, place): from_json(entry, branches)
            for tree, files in page["trees"].items()
            for place, entry in files.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_cache(path: Path, cached: dict[tuple[str, str], Record], looks: Sequence[tuple[str, Look]]) -> None:
    cached = dict(cached)
    for tree, look in looks:
        if look.record is not None and finite(look.record):  # JSON has no NaN
            cached[tree, look.place] = look.record
    trees: dict[str, dict[str, Any]] = {}
    branches: dict[str, list[str]] = {}
    for (tree, place), record in cached.items():
        trees.setdefault(tree, {})[place] = to_json(record, branches)
    with whole_file(path) as aside:
        aside.write_text(
            json.dumps({"format": FORMAT, "branches": branches, "trees": trees}, allow_nan=False), encoding="utf-8"
        )
