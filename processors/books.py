"""The books: which events of which file were processed, and what was found in them.

A processor counts per dataset and file; coffea adds the counts of chunks up, lists of ranges are joined:

    {"counts": {dataset: {file: {"events": 50000, "jets": 231000, "sum_weights": 49872.0, "ranges": [[0, 50000]]}}}}
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from coffea.processor.executor import FileMeta, WorkItem

from common.errors import AdvtagError
from processors.fileset import File

Counted = dict[str, Any]
Counts = dict[str, dict[str, Counted]]
Range = tuple[int, int]


def joined(ranges: Iterable[Iterable[int]]) -> list[Range]:
    """Ranges [start, stop) in order, neighbours joined.

    Raises:
        AdvtagError: two of them overlap, so that events would count twice
    """
    result: list[Range] = []
    for start, stop in sorted((start, stop) for start, stop in ranges):
        if result and start < result[-1][1]:
            raise AdvtagError(f"events {start} to {min(stop, result[-1][1])} were processed twice")
        if result and start == result[-1][1]:
            result[-1] = (result[-1][0], stop)
        else:
            result.append((start, stop))
    return result


def gaps(events: int, ranges: Iterable[Iterable[int]]) -> list[Range]:
    """What of [0, events) is in none of the ranges."""
    missing, place = [], 0
    for start, stop in joined(ranges):
        if start > place:
            missing.append((place, start))
        place = stop
    return [*missing, (place, events)] if place < events else missing


def chunks_left(file: File, counts: Counts, chunksize: int) -> list[WorkItem]:
    """Chunks of at most about `chunksize` events of what has not been processed, in order."""
    found = counts.get(file.dataset, {}).get(file.path)
    if found is None and not file.events:  # an empty file is opened, and counted, like any other
        return [WorkItem(file.dataset, file.path, file.tree, 0, 0, file.uuid, {}, None)]
    items: list[WorkItem] = []
    for start, stop in gaps(file.events, [] if found is None else found["ranges"]):
        part = FileMeta(file.dataset, file.path, file.tree, {"numentries": stop - start, "uuid": file.uuid})
        for chunk in part.chunks(chunksize, False):
            place = (start + chunk.entrystart, start + chunk.entrystop)
            items.append(WorkItem(file.dataset, file.path, file.tree, *place, file.uuid, {}, None))
    return items


def missing(files: Iterable[File], counts: Counts) -> list[dict[str, Any]]:
    """Ranges of the files that were not processed: entries of `failed.json` without an error.

    Raises:
        AdvtagError: events were counted twice, or the counts of a file contradict each other
    """
    lost: list[dict[str, Any]] = []
    for file in files:
        found = counts.get(file.dataset, {}).get(file.path, {"events": 0, "ranges": []})
        try:
            left = gaps(file.events, found["ranges"])
        except AdvtagError as error:
            raise AdvtagError(f"{file.path}: {error} (dataset {file.dataset!r})") from error
        if found["events"] != file.events - sum(stop - start for start, stop in left):
            raise AdvtagError(
                f"{file.path}: {found['events']} events were counted, but ranges of "
                f"{sum(stop - start for start, stop in found['ranges'])} (dataset {file.dataset!r})"
            )
        lost += [{"dataset": file.dataset, "file": file.path, "start": start, "stop": stop} for start, stop in left]
    return lost


def normalisation(file: File, counted: Counted | None) -> float:
    """Sum of weights that the processed events of a file stand for: that of all events generated for it, and of a file
    processed in part its share.

    Raises:
        AdvtagError: the whole file was processed, and its weights add up to something else than before the job
    """
    if counted is None:
        return 0.0
    before = file.record.sum_weights_events if file.record is not None else None
    if before is None:  # data: weight 1
        return float(counted["sum_weights"])
    if counted["events"] == file.events:
        if not math.isclose(counted["sum_weights"], before, rel_tol=1e-6):
            raise AdvtagError(
                f"{file.path}: genWeight adds up to {counted['sum_weights']:.8g}, and to {before:.8g} when the file "
                "was checked; check it again with `advtag fileset --check`"
            )
        return file.sum_weights
    return file.sum_weights * counted["sum_weights"] / before if before else 0.0


def total(files: Mapping[str, Counted]) -> dict[str, float]:
    """Add up the counts of a dataset's files."""
    return {key: sum(counted[key] for counted in files.values()) for key in ("events", "jets", "sum_weights")}


def pages(name: str, files: Iterable[File], counts: Counts) -> dict[str, Any]:
    """A dataset's page of the manifest: events expected and processed, jets, weights, and the same per file."""
    of_dataset = [file for file in files if file.dataset == name]
    counted = counts.get(name, {})
    return {
        "expected_events": sum(file.events for file in of_dataset),
        **total(counted),
        "sum_weights": sum(normalisation(file, counted.get(file.path)) for file in of_dataset),
        "files": {
            file.path: {
                "expected_events": file.events,
                **(
                    {**found, "ranges": joined(found["ranges"])} if (found := counted.get(file.path)) else {"events": 0}
                ),
            }
            for file in of_dataset
        },
    }
