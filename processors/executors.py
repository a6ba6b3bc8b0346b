"""Where chunks run: in this process, in worker processes, or on a Dask cluster."""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
from coffea.processor.accumulator import accumulate
from coffea.processor.executor import ExecutorBase, WorkItem

from common.errors import AdvtagError
from common.progress import progress_bar
from configs.schema import Run

IN_FLIGHT = 4
"""Chunks submitted per worker: enough to keep it busy, few enough that finished outputs do not pile up."""
DASK_RETRIES = 2
WORKER_TIMEOUT = 60
"""Seconds to wait for the first worker of a scheduler that the user names."""
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 134217728, "MALLOC_MMAP_THRESHOLD_": 33554432}
"""Dask's own setting makes glibc map and unmap every large array, for up to twice the time (docs/decisions.md)."""

Work = Callable[[WorkItem], Any]


@dataclass
class Executor(ExecutorBase):  # type: ignore[misc]
    """A coffea executor that merges each chunk as it comes, fails at the first failure, and shows events/s.

    coffea's own executors print a traceback and wait for all chunks before they merge.
    """

    results: Callable[[Iterable[WorkItem], Work], Iterator[Any]] = lambda items, work: map(work, items)
    """Applies the work to the chunks, in any order."""

    def __call__(self, items: list[WorkItem], work: Work, accumulator: Any) -> tuple[Any, int]:
        """Run and merge; coffea's Runner calls this."""
        with progress_bar("events", show=self.status) as bar:
            task = bar.add_task(self.function_name or "chunks", total=sum(len(item) for item in items))
            for output in self.results(items, work):
                accumulator = accumulate([output], accumulator)
                bar.advance(task, sum(len(item) for item in output["processed"]))
        return accumulator, 0


@contextmanager
def executor(run: Run, *, progress: bool) -> Iterator[Executor]:
    """The configured executor; workers that were started here are stopped again."""
    if run.executor == "iterative":
        yield Executor(status=progress)
    elif run.executor == "futures":
        # spawn: a fork of a process that has used torch's threads can hang
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(run.workers, mp_context=spawn) as pool:
            try:
                yield Executor(status=progress, results=lambda items, work: _pooled(pool, run.workers, items, work))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    else:
        with dask_client(run) as client:
            yield Executor(status=progress, results=lambda items, work: _on_dask(client, items, work))


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which reaches all processes of a terminal: it is the parent's to handle.

    A worker killed while it sends its output would hang the pool.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _pooled(pool: ProcessPoolExecutor, workers: int, items: Iterable[WorkItem], work: Work) -> Iterator[Any]:
    def submit(item: WorkItem) -> Any:
        with children_without_interrupts():
            return pool.submit(work, item)

    return _bounded(items, submit, wait, IN_FLIGHT * workers)


def _on_dask(client: Any, items: Iterable[WorkItem], work: Work) -> Iterator[Any]:
    from distributed import wait as dask_wait

    # the work holds the taggers: sent once, and not by `scatter`, which an adaptive cluster loses (coffea#465)
    held = client.submit(_itself, work, pure=False)

    def submit(item: WorkItem) -> Any:
        return client.submit(_call, held, item, pure=False, retries=DASK_RETRIES)

    return _bounded(items, submit, dask_wait, IN_FLIGHT * max(1, sum(client.ncores().values())))


def _itself(work: Work) -> Work:
    return work


def _call(work: Work, item: WorkItem) -> Any:
    return work(item)


def _bounded(
    items: Iterable[WorkItem], submit: Callable[[WorkItem], Any], wait_for: Callable[..., Any], limit: int
) -> Iterator[Any]:
    """Yield results as they come, with at most `limit` chunks submitted; take back the others on failure."""
    todo, pending = iter(items), set()
    try:
        for item in todo:
            pending.add(submit(item))
            if len(pending) < limit:
                continue
            done, pending = wait_for(pending, return_when="FIRST_COMPLETED")
            yield from (future.result() for future in done)
        while pending:
            done, pending = wait_for(pending, return_when="FIRST_COMPLETED")
            yield from (future.result() for future in done)
    finally:
        for future in pending:
            future.cancel()


@contextmanager
def dask_client(run: Run) -> Iterator[Any]:
    """A client of the given scheduler, or of a cluster on this machine that listens on loopback only."""
    from distributed import Client, LocalCluster

    if run.scheduler is not None:
        try:
            client = Client(run.scheduler, timeout="20s")
        except (OSError, TimeoutError, ValueError) as error:
            raise AdvtagError(f"run.scheduler: no Dask scheduler answers at {run.scheduler}") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=WORKER_TIMEOUT)
            except TimeoutError as error:
                raise AdvtagError(
                    f"run.scheduler: {run.scheduler} has had no worker for {WORKER_TIMEOUT} s; start some"
                ) from error
            yield client
        return
    environment = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MALLOC.items()}
    with dask.config.set(environment):
        with children_without_interrupts():
            cluster = LocalCluster(
                run.workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,  # a failure is told once, by its error
            )
        with cluster, Client(cluster) as client:
            yield client
