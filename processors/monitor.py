"""How a job runs, for the user who watches it, and on disk for the one who asks later."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from coffea.processor.executor import WorkItem

from common.files import whole_file

PATIENCE = 60
"""Seconds that Dask may take for its report."""
LAST_TASKS = 10_000
"""Tasks in Dask's report; its own 100,000 are 100 MB of the scheduler's memory, and as much HTML."""
LENGTH = "distributed.scheduler.dashboard.tasks.task-stream-length"


def performance(item: WorkItem, start: float, size: int, tries: int) -> dict[str, Any]:
    """What a chunk adds to the figures of its file and of its worker; outputs of chunks are added up.

    Args:
        item: the chunk
        start: `perf_counter` when its file was to be opened, for the first time
        size: bytes read
        tries: 1 if nothing went wrong
    """
    seconds = time.perf_counter() - start
    figures = {"chunks": 1, "seconds": seconds, "events": len(item), "bytes": size, "tries": tries}
    worker = f"{platform.node()}:{os.getpid()}"
    return {"files": {item.dataset: {item.filename: figures}}, "workers": {worker: {**figures}}}


def write_performance(path: Path, figures: Mapping[str, Any], seconds: float) -> None:
    """Write JSON: seconds of the job, and for each worker and each file what `performance` has, and events/s.

    Raises:
        AdvtagError: it cannot be written
    """
    workers = {name: _with_rate(found) for name, found in figures.get("workers", {}).items()}
    files = {
        dataset: {name: _with_rate(found) for name, found in of_dataset.items()}
        for dataset, of_dataset in figures.get("files", {}).items()
    }
    with whole_file(path) as aside:
        aside.write_text(json.dumps({"seconds": seconds, "workers": workers, "files": files}), encoding="utf-8")


def _with_rate(found: Mapping[str, float]) -> dict[str, float]:
    rounded = {**found, "seconds": round(found["seconds"], 3)}
    return {**rounded, "events_per_second": round(found["events"] / max(found["seconds"], 1e-6))}


@contextmanager
def watched(client: Any, report: Path | None, *, progress: bool) -> Iterator[None]:
    """Say where Dask's dashboard is; after the block, write Dask's report of it, HTML, with the last LAST_TASKS tasks.

    A job does not fail for want of a report: a line on stderr says why there is none.
    """
    if progress:
        print(f"Dask dashboard: {client.dashboard_link}", file=sys.stderr)
    start = time.time()
    if report is not None:
        with _or_say(report), dask.config.set({LENGTH: LAST_TASKS}):
            client.get_task_stream(start=0, stop=0)  # the scheduler remembers tasks from now on
    yield
    if report is not None:
        with _or_say(report), whole_file(report) as aside:
            arguments = {"start": start, "last_count": 0, "code": "", "callback_timeout": PATIENCE}
            aside.write_text(client.sync(client.scheduler.performance_report, **arguments), encoding="utf-8")


@contextmanager
def _or_say(report: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        print(f"advtag: no {report.name}: {type(error).__name__}: {error}", file=sys.stderr)
