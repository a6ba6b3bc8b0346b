"""Where chunks run: in this process, in worker processes, or on a Dask cluster. A killed worker costs no chunk."""

import multiprocessing
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any

from coffea.processor.accumulator import accumulate
from coffea.processor.executor import WorkItem

from common.errors import AdvtagError
from common.interrupts import children_without_interrupts
from configs.schema import Run
from processors.work import failure

IN_FLIGHT = 4
"""Chunks submitted per worker: enough to keep it busy, few enough that finished outputs do not pile up."""
MERGED = 8
"""Outputs of chunks that Dask workers add up before one comes here: they may be large, and this process is alone."""

Work = Callable[[WorkItem], Any]
Results = Callable[[Iterable[WorkItem], Work], Iterator[Any]]
"""Applies the work to chunks; yields outputs, of one chunk or of several added up, in any order."""


@contextmanager
def executor(run: Run) -> Iterator[Results]:
    """The configured executor; workers that were started here are stopped again."""
    if run.executor == "iterative":
        yield lambda items, work: map(work, items)
    elif run.executor == "futures":
        yield lambda items, work: in_processes(items, work, run.workers)
    else:
        from processors.clusters import dask_client

        with dask_client(run) as client:
            yield lambda items, work: on_dask(client, items, work)


def killed(item: WorkItem) -> dict[str, Any]:
    """The failure of a chunk whose worker died, twice: the second time it was alone."""
    return failure(
        item, AdvtagError("its worker was killed while it ran alone; out of memory? Try a smaller chunksize"), 2
    )


def in_processes(items: Iterable[WorkItem], work: Work, workers: int) -> Iterator[Any]:
    """Yield the outputs of chunks from worker processes.

    When a process dies, Python gives up the whole pool: the chunks that were under way run again in a new one, one at
    a time, so that the one that kills its worker is known.
    """
    left = iter(items)
    while suspects := (yield from _until_killed(left, work, workers, IN_FLIGHT * workers)):
        alone = iter(suspects)
        while killers := (yield from _until_killed(alone, work, 1, 1)):
            yield {"failed": [killed(item) for item in killers]}


def _until_killed(
    items: Iterator[WorkItem], work: Work, workers: int, limit: int
) -> Generator[Any, None, list[WorkItem]]:
    """Yield outputs from one pool until the items are done; return those under way if a process of it died."""
    # spawn: a fork of a process that has used torch's threads can hang
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    pending: dict[Future[Any], WorkItem] = {}
    try:
        while True:
            with children_without_interrupts():
                for item in islice(items, limit - len(pending)):
                    pending[pool.submit(work, item)] = item
            if not pending:
                return []
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    return list(pending.values())
                item = pending.pop(future)
                yield _output(future, item)
    except BrokenProcessPool:  # it broke before the last ones could be submitted
        return list(pending.values())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def on_dask(client: Any, items: Iterable[WorkItem], work: Work) -> Iterator[Any]:
    """Yield the outputs of chunks from a Dask cluster, several added up by its workers.

    A chunk whose worker dies runs again elsewhere; after three deaths Dask gives up on all that the worker held, and
    those run once more, one at a time.

    Raises:
        AdvtagError: the scheduler is gone
    """
    from distributed import CancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    # the work holds the taggers: sent once, and not by `scatter`, which an adaptive cluster loses (coffea#465)
    held = client.submit(_itself, work, pure=False)
    try:
        suspects = yield from _added_up(client, held, iter(items))
        for item in suspects:
            try:
                yield client.submit(_call, held, item, pure=False).result()
            except KilledWorker:
                yield {"failed": [killed(item)]}
    except (CancelledError, CommClosedError) as error:
        raise AdvtagError("the Dask scheduler is gone") from error


def _added_up(client: Any, held: Any, items: Iterator[WorkItem]) -> Generator[Any, None, list[WorkItem]]:
    """Yield outputs, each of up to MERGED chunks; return the chunks whose workers died too often."""
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
            for item in islice(items, max(0, limit - len(chunks))):
                chunks[client.submit(_call, held, item, pure=False)] = item
                queue.add(next(reversed(chunks)))
            if len(ready) >= MERGED or (ready and not chunks):
                future = client.submit(_sum, list(ready), pure=False)
                sums[future], ready = list(ready.values()), {}
                queue.add(future)
            if not chunks and not sums:
                return suspects
            future = next(queue)
            if future.status == "finished" and future in chunks:
                ready[future] = chunks.pop(future)
            elif future.status == "error" and type(future.exception()).__name__ == "KilledWorker":
                suspects += sums.pop(future) if future in sums else [chunks.pop(future)]
            elif future in chunks:
                yield _output(future, chunks.pop(future))
            else:
                del sums[future]
                yield future.result()
    finally:
        client.cancel([*chunks, *ready, *sums], force=True)


def _output(future: Any, item: WorkItem) -> Any:
    """What came of a chunk: the work returns its failures, but its output may be impossible to send."""
    error = future.exception()
    return future.result() if error is None else {"failed": [failure(item, error, 1)]}


def _itself(work: Work) -> Work:
    return work


def _call(work: Work, item: WorkItem) -> Any:
    return work(item)


def _sum(outputs: list[Any]) -> Any:
    return accumulate(outputs)
