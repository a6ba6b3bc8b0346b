"""Worker processes of this machine, each with a pipe of its own and one chunk at a time.

Python's ProcessPoolExecutor gives up all its processes when one dies, without a word on which chunk it had; it can hang
when one is killed while it sends, and when it is interrupted; and its processes wait for ever for a parent that was
killed. With a pipe for each, a dead worker is an end of file for the parent, and a dead parent one for the worker.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from coffea.processor.executor import WorkItem

from common.interrupts import children_without_interrupts
from processors.work import failure

SPAWN = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads can hang


class Worker:
    """A process that does its work on one chunk after another; it leaves when this process does."""

    def __init__(self) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs,), daemon=True)
        with children_without_interrupts():
            self.process.start()
        theirs.close()
        self.chunk: WorkItem | None = None

    def send(self, message: Any) -> None:
        """Send the work, or a chunk; if the process is dead, `take` will tell."""
        with suppress(OSError):
            self.pipe.send(message)

    def give(self, chunk: WorkItem) -> None:
        """Start with a chunk."""
        self.chunk = chunk
        self.send(chunk)

    def take(self) -> Any:
        """The output of the chunk.

        Raises:
            EOFError, OSError: the process is dead
        """
        output = self.pipe.recv()
        self.chunk = None
        return output


@contextmanager
def worker_processes(number: int, work: Callable[[WorkItem], Any]) -> Iterator[list[Worker]]:
    """Processes that know the work; they are killed at the end, whatever they are doing."""
    workers: list[Worker] = []
    try:
        for _ in range(number):
            workers.append(Worker())
        for worker in workers:  # only now: each reads it after a second of imports
            worker.send(work)
        yield list(workers)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _serve(pipe: Connection) -> None:
    """Answer until nobody asks any more."""
    with suppress(EOFError, ConnectionError):
        work = pipe.recv()
        while True:
            chunk = pipe.recv()
            output = _output(work, chunk)
            pipe.send_bytes(output)


def _output(work: Callable[[WorkItem], Any], chunk: WorkItem) -> bytes:
    """What a connection sends: the work returns its failures, but its output may be impossible to send."""
    try:
        return bytes(ForkingPickler.dumps(work(chunk)))
    except Exception as error:
        return bytes(ForkingPickler.dumps({"failed": [failure(chunk, error, 1)]}))
