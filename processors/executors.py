"""Where chunks run: in this process, in worker processes, or on a Dask cluster. A killed worker costs no chunk."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from coffea.processor.accumulator import accumulate
from coffea.processor.executor import WorkItem

from common.errors import AdvtagError
from configs.schema import Run
from processors.monitor import watched
from processors.pool import worker_processes
from processors.work import failure

IN_FLIGHT = 4
"""Chunks submitted per worker: enough to keep it busy, few enough that finished outputs do not pile up."""
MERGED = 8
"""Outputs of chunks that Dask workers add up before one comes here: they may be large, and this process is alone."""
SUSPECTS = 10
"""Chunks whose Dask workers died, at which no further ones are begun before it is known which of them did it."""

Work = Callable[[WorkItem], Any]
Results = Callable[[Iterable[WorkItem], Work], Iterator[Any]]
"""Applies the work to chunks; yields outputs, of one chunk or of several added up, in any order."""


@contextmanager
def executor(run: Run, *, report: Path | None = None, progress: bool = False) -> Iterator[Results]:
    """The configured executor; workers that were started here are stopped again.

    Args:
        run: which
        report: where Dask's performance report goes, if it is Dask
        progress: say where Dask's dashboard is
    """
    if run.executor == "iterative":
        yield lambda items, work: map(work, items)
    elif run.executor == "futures":
        yield lambda items, work: in_processes(items, work, run.workers)
    else:
        from processors.clusters import dask_client

        with dask_client(run) as client, watched(client, report, progress=progress):
            yield lambda items, work: on_dask(client, items, work)


def killed(item: WorkItem) -> dict[str, Any]:
    """The failure of a chunk whose worker died, twice: the second time it was alone."""
    return failure(
        item, AdvtagError("its worker was killed while it ran alone; out of memory? Try a smaller chunksize"), 2
    )


def in_processes(items: Iterable[WorkItem], work: Work, workers: int) -> Iterator[Any]:
    """Yield the outputs of chunks from worker processes.

    When a process dies, the others finish what they have, and its chunk runs again, alone on this machine.
    """
    left = iter(items)
    while suspects := (yield from _until_killed(left, work, workers)):
        alone = iter(suspects)
        while killers := (yield from _until_killed(alone, work, 1)):
            yield {"failed": [killed(item) for item in killers]}


def _until_killed(items: Iterator[WorkItem], work: Work, workers: int) -> Generator[Any, None, list[WorkItem]]:
    """Yield outputs until the items are done; if a process dies, return its chunk, and leave the items not begun."""
    dead: list[WorkItem] = []
    first = list(islice(items, workers))  # no more processes than chunks
    with worker_processes(len(first), work) as pool:
        for worker, item in zip(pool, first, strict=True):
            worker.give(item)
        while True:
            idle = [worker for worker in pool if worker.chunk is None]
            for worker, item in zip(idle, () if dead else islice(items, len(idle)), strict=False):
                worker.give(item)
            busy = [worker for worker in pool if worker.chunk is not None]
            if not busy:
                return dead
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                try:
                    output = worker.take()
                except (EOFError, OSError):
                    dead.append(worker.chunk)
                    pool.remove(worker)
                else:
                    yield output


def on_dask(client: Any, items: Iterable[WorkItem], work: Work) -> Iterator[Any]:
    """Yield the outputs of chunks from a Dask cluster, several added up by its workers.

    A chunk whose worker dies runs again elsewhere; after three deaths Dask gives up on all that the worker held, and
    those run once more, one at a time.

    Raises:
        AdvtagError: the scheduler is gone
    """
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    # the work holds the taggers: sent once, and not by `scatter`, which an adaptive cluster loses (coffea#465)
    held = client.submit(_itself, work, pure=False)
    left = iter(items)
    try:
        while suspects := (yield from _added_up(client, held, left)):
            for item in suspects:
                yield _output(client.submit(_call, item, held, pure=False), item)
    except (CancelledError, CommClosedError) as error:
        raise AdvtagError("the Dask scheduler is gone") from error


def _added_up(client: Any, held: Any, items: Iterator[WorkItem]) -> Generator[Any, None, list[WorkItem]]:
    """Yield outputs, each of up to MERGED chunks, until the items are done or there are SUSPECTS; return those: chunks
    that must run again, because their workers died too often, or their outputs cannot be added up there.
    """
    from distributed import as_completed

    queue, limit, counted = as_completed(), IN_FLIGHT, -5.0
    chunks: dict[Any, WorkItem] = {}
    ready: dict[Any, WorkItem] = {}
    sums: dict[Any, list[WorkItem]] = {}
    suspects: list[WorkItem] = []
    try:
        while True:
            if time.monotonic() > counted + 5:  # a batch system starts its first worker long before the last
                limit, counted = IN_FLIGHT * max(1, sum(client.ncores().values())), time.monotonic()
            wanted = limit - len(chunks) if len(suspects) < SUSPECTS else 0
            if wanted >= limit // 2 and (more := list(islice(items, wanted))):
                futures = client.map(_call, more, work=held, pure=False)  # one graph for many costs the scheduler less
                chunks.update(zip(futures, more, strict=True))
                queue.update(futures)
            if len(ready) >= MERGED or (ready and not chunks):
                future = client.submit(_sum, list(ready), pure=False)
                sums[future], ready = list(ready.values()), {}
                queue.add(future)
            if not chunks and not sums:
                return suspects
            future = next(queue)
            if future.status == "finished" and future in chunks:
                ready[future] = chunks.pop(future)
            elif future.status == "error" and future in sums:
                suspects += sums.pop(future)
            elif future.status == "error" and _was_killed(future.exception()):
                suspects.append(chunks.pop(future))
            elif future in chunks:
                yield _output(future, chunks.pop(future))
            else:
                del sums[future]
                yield future.result()
    finally:
        client.cancel([*chunks, *ready, *sums], force=True)


def _output(future: Any, item: WorkItem) -> Any:
    """What came of a chunk: the work returns its failures, but its output may be impossible to send.

    Raises:
        CancelledError: the scheduler is gone
    """
    error = future.exception()
    if error is None:
        return future.result()
    return {"failed": [killed(item) if _was_killed(error) else failure(item, error, 1)]}


def _was_killed(error: BaseException) -> bool:
    return type(error).__name__ == "KilledWorker"


def _itself(work: Work) -> Work:
    return work


def _call(item: WorkItem, work: Work) -> Any:
    return work(item)


def _sum(outputs: list[Any]) -> Any:
    return accumulate(outputs)
