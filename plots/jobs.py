"""Draw many figures in a few worker processes, each of which gets only what its figure needs."""

import gc
import multiprocessing
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common.errors import AdvtagError
from plots.catalogue import About
from plots.style import save

WORTH = 8
"""Figures from which a worker process is worth its start-up, about two seconds of imports."""
AHEAD = 4
"""Figures that are ready for each worker."""


@dataclass(frozen=True)
class Later:
    """What a figure needs, to be made ready when its turn comes: `make(of)` is the argument and further options."""

    make: Callable[[Any], tuple[Any, dict[str, Any]]]
    of: Any


@dataclass(frozen=True)
class Job:
    """One figure: where it goes, the function that draws it, the little that it needs, and what it shows."""

    path: Path
    draw: Callable[..., Figure]
    what: Any
    options: dict[str, Any] = field(default_factory=dict)
    about: About | None = None

    def ready(self) -> "Job":
        """The same with all that it needs."""
        if not isinstance(self.what, Later):
            return self
        what, options = self.what.make(self.what.of)
        return replace(self, what=what, options={**self.options, **options})

    def run(self) -> Path:
        """Draw and save.

        Raises:
            AdvtagError: the figure cannot be drawn; nothing is left at its path.
        """
        try:
            return save(self.draw(self.what, **self.options), self.path)
        except AdvtagError as error:
            raise AdvtagError(f"figure {self.path.parent.name}/{self.path.name}: {error}") from error
        except Exception as error:
            reason = " ".join(str(error).split())
            raise AdvtagError(
                f"figure {self.path.parent.name}/{self.path.name}: cannot be drawn ({type(error).__name__}: {reason}); "
                "check the label and the binning of this variable in the feature card"
            ) from error


def draw_all(jobs: Sequence[Job], workers: int, step: Callable[[], None]) -> list[Path]:
    """Draw in at most `workers` processes, in this one if there is little to draw; call `step` after each."""
    workers = min(workers, len(jobs) // WORTH)
    if workers > 1:
        return draw_in_pool(jobs, workers, step)
    paths = []
    for job in jobs:
        paths.append(job.ready().run())
        step()
    return paths


def draw_in_pool(jobs: Sequence[Job], workers: int, step: Callable[[], None]) -> list[Path]:
    """Draw in fresh processes, few figures ahead of them; the first failure cancels what has not begun."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=settle) as pool:
        running: set[Future[Path]] = set()
        try:
            for job in jobs:
                running.add(pool.submit(job.ready().run))
                if len(running) >= AHEAD * workers:
                    running = finished(running, step, FIRST_COMPLETED)
            finished(running, step, ALL_COMPLETED)
        except BrokenProcessPool as error:
            raise AdvtagError(
                "a plotting process ended early: out of memory, or called from a script without "
                "`if __name__ == '__main__':`; use one worker"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [job.path for job in jobs]


def finished(running: set[Future[Path]], step: Callable[[], None], which: str) -> set[Future[Path]]:
    """Wait for figures; return those that still run."""
    done, rest = wait(running, return_when=which)
    for future in done:
        future.result()
        step()
    return rest


def settle() -> None:
    """Keep what is imported now out of the garbage collector's rounds, which take a tenth of the time else."""
    gc.collect()
    gc.freeze()


def file_name(name: str) -> str:
    """A region or variable as a name of a file: letters, digits, dot, dash and underscore, no leading dot."""
    return re.sub(r"[^\w.-]|^\.", "_", name)
