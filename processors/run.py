"""Run a processor over files, keep what is done, and balance the books."""

import copy
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from coffea.processor import ProcessorABC
from coffea.processor.executor import WorkItem
from rich.console import Console
from rich.table import Table

from common.errors import AdvtagError
from common.files import whole_file
from common.interrupts import uninterrupted
from common.progress import progress_bar
from configs.schema import Run
from processors.books import chunks_left, missing, total
from processors.executors import executor
from processors.fileset import File
from processors.monitor import write_performance
from processors.overlap import refuse_overlap
from processors.store import Store
from processors.work import Work

FAILED = "failed.json"
HOPELESS_AFTER = 10
"""Failed chunks after which a job stops, if they are more than the good ones: the fault is not a file's."""

Output = dict[str, Any]


def run_processor(
    job: ProcessorABC, files: list[File], read: dict[str, frozenset[str]], run: Run, store: Store, *, progress: bool
) -> Output:
    """Run the job over all chunks that are not done yet.

    Args:
        job: a processor of this package, whose output has `counts`
        files: checked files
        read: the branches to build, by dataset
        run: executor, workers, chunk size, retries, whether to resume
        store: where the accumulated output is kept until it is complete
        progress: show a progress bar, and a table at the end

    Returns:
        the accumulated output, with `failed` and `missing` (entries of `failed.json`), `seconds`, `bytes`

    Raises:
        AdvtagError: events are missing and `run.allow_missing` is not set, or counted twice. What was processed is
            kept for `--resume`
    """
    output = _begin(store, files, run)
    chunks = [chunk for file in files for chunk in chunks_left(file, output["counts"], run.chunksize)]
    replicas = {file.path: file.replicas for file in files if file.replicas}
    work = Work(job, read, replicas, run.retries, run.backoff)
    before, start = _processed(output), time.perf_counter()
    _accumulate(chunks, work, output, run, store, progress)
    output["seconds"] = time.perf_counter() - start
    output["missing"] = missing(files, output["counts"])
    write_performance(_beside(store, "json"), output.get("performance", {}), output["seconds"])
    try:
        refuse_overlap(output.get("lumis", {}), {file.dataset: file.tree for file in files}, replicas)
    except BaseException:
        store.save(output)
        raise
    _close(output, files, run, store)
    if progress:
        _say(output, files, _processed(output) - before)
    return output


def _beside(store: Store, kind: str) -> Path:
    """Where figures of the job go."""
    return store.output.parent / f"performance-{store.output.name}.{kind}"


def _processed(output: Output) -> int:
    return sum(book["events"] for counted in output["counts"].values() for book in counted.values())


def _begin(store: Store, files: list[File], run: Run) -> Output:
    """The output so far."""
    before = store.load() if run.resume else None
    uuids = {file.path: file.uuid.hex() for file in files}
    if before is None:
        if run.resume:
            print("nothing to resume: no unfinished job of this configuration", file=sys.stderr)
        return {"counts": {}, "failed": [], "bytes": 0, "uuids": uuids}
    listed = {(file.dataset, file.path) for file in files}
    for dataset, counted in before["counts"].items():
        for path in counted:
            if (dataset, path) not in listed or before["uuids"][path] != uuids[path]:
                now = "another file now" if (dataset, path) in listed else "not among the files now"
                raise AdvtagError(
                    f"{path}: processed before, and {now} (dataset {dataset!r}); "
                    "its events cannot be taken out again: run without --resume"
                )
    return before | {"failed": [], "uuids": uuids}


def _accumulate(
    chunks: list[WorkItem], work: Callable[[WorkItem], Output], output: Output, run: Run, store: Store, progress: bool
) -> None:
    """Add up in `output` what the chunks give; it is kept, whatever happens."""
    done, failed, start, before = 0, 0, time.perf_counter(), output["bytes"]
    report = _beside(store, "html")
    with executor(run, report=report, progress=progress) as results, progress_bar("events", show=progress) as bar:
        task = bar.add_task("", total=sum(len(chunk) for chunk in chunks))
        whole = True
        try:
            for part in results(chunks, work):
                with uninterrupted():
                    whole = False
                    add(part, output)
                    whole = True
                done += sum(counted["events"] for of in part.get("counts", {}).values() for counted in of.values())
                failed += _events(part.get("failed", ()))
                rate = (output["bytes"] - before) / 1e6 / (time.perf_counter() - start)
                bar.update(task, completed=done, description=f"{rate:.1f} MB/s")
                if len(output["failed"]) >= HOPELESS_AFTER and failed > done:
                    break
                store.save_now_and_then(output)
        except BaseException:
            if whole and output["counts"]:
                store.save(output)
            raise


def add(part: Output, output: Output) -> None:
    """Add the output of chunks to that of others, in place; `part` is not used again.

    coffea's `accumulate` looks at every key of the sum each time: for many files, that takes longer than the rest.
    """
    for key, value in part.items():
        if key not in output:
            output[key] = copy.deepcopy(value)  # arrays that came over a network cannot be written to
        elif isinstance(value, dict):
            add(value, output[key])
        else:
            output[key] += value


def _events(ranges: Iterable[dict[str, Any]]) -> int:
    return sum(entry["stop"] - entry["start"] for entry in ranges)


def _close(output: Output, files: list[File], run: Run, store: Store) -> None:
    """Write down what is missing, if anything is.

    Raises:
        AdvtagError: events are missing, and that is not allowed
    """
    path = store.output.parent / FAILED
    if not output["missing"]:
        path.unlink(missing_ok=True)
        return
    if output["counts"]:
        store.save(output)
    with whole_file(path) as aside:
        aside.write_text(json.dumps({key: output[key] for key in ("failed", "missing")}, indent=1), encoding="utf-8")
    if not run.allow_missing:
        lost, expected = _events(output["missing"]), sum(file.events for file in files)
        raise AdvtagError(
            f"{_first(output)}; {lost} of {expected} events are missing, see {path}. Nothing was written; "
            "what is done is kept: go on with --resume, or --allow-missing to leave these out"
        )


def _first(output: Output) -> str:
    """Where the first failure was, and why."""
    if not output["failed"]:
        entry = output["missing"][0]
        return f"{entry['file']}: events {entry['start']} to {entry['stop']} were not processed"
    entry = output["failed"][0]
    where = f"{entry['file']}, events {entry['start']} to {entry['stop']}"
    return entry["error"] if entry["error"].startswith(entry["file"]) else f"{where}: {entry['error']}"


def _say(output: Output, files: list[File], events: int) -> None:
    """The summary at the end; `events` were processed in `output["seconds"]`, others perhaps before."""
    table = Table("dataset", "files", "events", "missing", "jets", "sum of weights")
    for name in dict.fromkeys(file.dataset for file in files):
        counted = total(output["counts"].get(name, {}))
        lost = _events([entry for entry in output["missing"] if entry["dataset"] == name])
        number = sum(file.dataset == name for file in files)
        figures = (f"{counted['events']:,.0f}", f"{lost:,}", f"{counted['jets']:,.0f}", f"{counted['sum_weights']:.6g}")
        table.add_row(name, str(number), *figures)
    console = Console(stderr=True)
    console.print(table)
    console.print(f"{output['seconds']:.1f} s, {events / output['seconds']:,.0f} events/s", highlight=False)
    for entry in output["missing"]:
        console.print(f"missing: {entry['file']}, events {entry['start']} to {entry['stop']}", soft_wrap=True)
