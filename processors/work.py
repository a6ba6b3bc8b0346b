"""What happens to one chunk of events, wherever it runs: open, read, process, try again. A failure is an output."""

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from coffea.processor import ProcessorABC
from coffea.processor.executor import WorkItem

from common.errors import AdvtagError
from processors.monitor import performance
from processors.remote import open_root

HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of the system that waiting does not cure: no space, no right."""

_opened = threading.local()


@dataclass(frozen=True)
class Work:
    """Processes chunks; picklable, callable on any worker.

    coffea's Runner opens the file anew for every chunk, which costs as much as reading 50,000 events of it where the
    file has a thousand branches. Here a worker keeps the file of its last chunk open (docs/decisions.md).

    Args:
        job: the processor; its output is a dictionary that coffea can accumulate
        read: names of the branches to build, by dataset
        replicas: other places of a file, by its path
        retries: how often a chunk is tried again after an error of the system or of a server
        backoff: seconds before the first retry; each further one waits twice as long
    """

    job: ProcessorABC
    read: Mapping[str, frozenset[str]]
    replicas: Mapping[str, tuple[str, ...]]
    retries: int
    backoff: float

    def __call__(self, item: WorkItem) -> dict[str, Any]:
        """The job's output, with `bytes` read and `performance`; or `{"failed": [what, where, why]}` and nothing else.

        An error that waiting does not cure, a damaged file or a bug, is the end if every place of the file has it.
        """
        places = (item.filename, *self.replicas.get(item.filename, ()))
        start, tries = time.perf_counter(), 0
        while True:
            place, tries = places[tries % len(places)], tries + 1
            try:
                output, size = self._process(item, place)
                return {**output, "bytes": size, "performance": performance(item, start, size, tries)}
            except Exception as error:  # whatever it is, it is this chunk's: the others go on
                _forget()
                waiting = transient(error)
                if tries > self.retries or not (waiting or tries < len(places)):
                    return {"failed": [failure(item, error, tries)]}
            if waiting:
                time.sleep(self.backoff * 2 ** (tries - 1))

    def _process(self, item: WorkItem, place: str) -> tuple[dict[str, Any], int]:
        """The job's output, and the bytes read."""
        file = _open(place, item)
        before = file.file.source.num_requested_bytes
        names = self.read[item.dataset]
        events = NanoEventsFactory.from_root(
            file,
            treepath=item.treename,
            # branches by their names in the file. NanoAODSchema's vectors refuse collections of which only some
            # branches are built, and building all of them costs more than the job (docs/decisions.md)
            schemaclass=BaseSchema,
            mode="virtual",
            entry_start=item.entrystart,
            entry_stop=item.entrystop,
            iteritems_options={"filter_name": lambda name: name in names},
            # all at once: over the network each branch alone would cost a round trip. coffea cannot for RNTuple
            preload=names if isinstance(file[item.treename], uproot.behaviors.TTree.TTree) else None,
            metadata={
                "dataset": item.dataset,
                "filename": item.filename,
                "fileuuid": item.fileuuid.hex(),
                "entrystart": item.entrystart,
                "entrystop": item.entrystop,
            },
        ).events()
        output: dict[str, Any] = self.job.process(events)
        return output, file.file.source.num_requested_bytes - before


def _open(path: str, item: WorkItem) -> Any:
    """The open file, the one of the last chunk if it is the same.

    Raises:
        AdvtagError: it is not the file that was checked before the job
    """
    known = getattr(_opened, "path", None) == path and _opened.file.file.uuid.bytes == item.fileuuid
    if not known:  # or another file of that name, of a job before
        _forget()
        _opened.file, _opened.path = open_root(path), path
    if _opened.file.file.uuid.bytes != item.fileuuid:
        raise AdvtagError(
            f"{path}: the file has changed since it was checked; check again with `advtag fileset --check`"
        )
    return _opened.file


def _forget() -> None:
    file, _opened.file, _opened.path = getattr(_opened, "file", None), None, None
    if file is not None:
        file.close()


def transient(error: BaseException) -> bool:
    """Whether it is worth trying again: errors of disks and servers, but neither a full disk nor a broken file."""
    return any(isinstance(cause, OSError) and cause.errno not in HOPELESS for cause in causes(error)) and not any(
        isinstance(cause, AdvtagError) for cause in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def failure(item: WorkItem, error: BaseException, tries: int) -> dict[str, Any]:
    """An entry of `failed.json`."""
    text = " ".join(str(error).split())[:400]
    return {
        "dataset": item.dataset,
        "file": item.filename,
        "start": item.entrystart,
        "stop": item.entrystop,
        "error": text if isinstance(error, AdvtagError) else f"{type(error).__name__}: {text}",
        "tries": tries,
    }
