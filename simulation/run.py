"""The driver of `advtag simulate`: plan the files, make the blocks in processes, write them in order.

Blocks have a fixed size and random numbers of their own, so the events of a sample do not depend on how many processes
make them or on how they are spread over files.
"""

import math
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path

from common.errors import AdvtagError
from common.progress import progress_bar
from simulation.block import Block
from simulation.detector.reconstruct import MAX_EVENTS, MAX_SEED, Content, reconstruct
from simulation.generation.files import generated_block
from simulation.generation.pythia import load_libraries
from simulation.processes import get_process
from simulation.variants import get_variant
from simulation.writer import SampleFile, output_paths, refuse_existing

BLOCK_EVENTS = 1000  # part of the definition of a sample: another number gives other events
GENERATOR_FOLDER = "generator"
_THREADS_VARIABLE = "OMP_NUM_THREADS"


def simulate(
    process: str,
    events: int,
    folder: Path,
    *,
    variant: str = "mc",
    seed: int = 1,
    workers: int = 1,
    events_per_file: int = 10_000,
    content: Content | None = None,
    hidden: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Make a sample of NanoAOD-like ROOT files.

    Stage A writes generated events to `folder/generator`, or finds them there; stage B makes the files of them. So
    another variant of the detector takes a tenth of the time and has the same generated events, and a run that was
    interrupted does not generate them again (ROOT files that were complete must be removed first).

    The events depend on process, variant, seed and number of events only, not on `workers` or `events_per_file`.
    Data are unweighted: for `qcd` in the variant `data`, the bias towards high pT that simulation compensates with
    `genWeight` is off. What the files hold is described in `simulation.writer`.

    Args:
        process: one of `simulation.processes.PROCESSES`.
        events: number of events.
        folder: where the files `{process}_{variant}_{seed}_{i:03d}.root` go; made if needed.
        variant: one of `simulation.variants.VARIANTS`.
        seed: of the sample, 0 to 99 999.
        workers: number of processes. With more than one, a calling script needs `if __name__ == "__main__":`.
        events_per_file: the last file may have fewer.
        content: what the files hold; by default no constituents.
        hidden: write a variant of the simulation as if it were data, its truth in `truth/`, in files
            `{process}_{variant}-hidden_{seed}_{i:03d}.root`. The events are the same, those of `qcd` biased towards
            high pT, without the weights that say so.
        progress: show a progress bar on standard error, if that is a terminal.

    Returns:
        The ROOT files.

    Raises:
        AdvtagError: unknown process or variant, a number out of range, a missing library, a folder that cannot be
            written, a file that exists, or generated events of another recipe. Files that were completed before
            stay, unfinished ones do not.
    """
    get_process(process)
    sample_variant = get_variant(variant)
    _check_range("events", events, 1, MAX_EVENTS)
    _check_range("workers", workers, 1, 1024)
    _check_range("events_per_file", events_per_file, 1, MAX_EVENTS)
    _check_range("seed", seed, 0, MAX_SEED - 1)
    load_libraries()
    n_files = math.ceil(events / events_per_file)
    hidden = hidden or sample_variant.is_data
    kind = "-hidden" if hidden and not sample_variant.is_data else ""
    stem = f"{process}_{variant}{kind}_{seed}"
    paths = [folder / f"{stem}_{number:03d}.root" for number in range(n_files)]
    refuse_existing([output for path in paths for output in output_paths(path, hidden=hidden)])
    _make_folder(folder)

    sample = (folder / GENERATOR_FOLDER, process, variant, seed, content or Content())
    blocks = _make_blocks(sample, events, workers)
    with closing(blocks), progress_bar("events", show=progress) as bar:
        task = bar.add_task(f"{process} {variant}", total=events)
        parts = _split(blocks, events_per_file)
        for number, path in enumerate(paths):
            wanted = min(events_per_file, events - number * events_per_file)
            with SampleFile(path, process, sample_variant, seed, hidden=hidden) as file:
                for written in _fill(file, parts, wanted):
                    bar.advance(task, written)
    return paths


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise AdvtagError(f"{name} is {value}: choose a number from {low} to {high}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdvtagError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AdvtagError(f"cannot write into {folder}: choose another folder or change its permissions")


def _fill(file: SampleFile, parts: Iterator[Block], events: int) -> Iterator[int]:
    """Write this many events; yields how many are written at a time."""
    while events > 0:
        part = next(parts)
        file.add(part)
        events -= len(part)
        yield len(part)


def _split(blocks: Iterator[Block], events_per_file: int) -> Iterator[Block]:
    """Cut blocks where a file ends."""
    room = events_per_file
    for block in blocks:
        start = 0
        while start < len(block):
            stop = min(len(block), start + room)
            yield block.part(start, stop)
            room -= stop - start
            start = stop
            if room == 0:
                room = events_per_file


def make_block(
    folder: Path, process_name: str, variant_name: str, seed: int, content: Content, first_event: int, events: int
) -> Block:
    """Both stages for one block; `folder` holds the generated events of all samples."""
    process, variant = get_process(process_name), get_variant(variant_name)
    generated = generated_block(folder, process, variant.generator, seed, first_event, events)
    return reconstruct(generated, process, variant, seed, first_event, content)


def _make_blocks(
    sample: tuple[Path, str, str, int, Content], events: int, workers: int
) -> Generator[Block, None, None]:
    """Yield the blocks of a sample in order, made in this process or by workers."""
    starts = range(0, events, BLOCK_EVENTS)
    calls = [(*sample, start, min(BLOCK_EVENTS, events - start)) for start in starts]
    if workers == 1 or len(calls) == 1:
        for call in calls:
            yield make_block(*call)
        return
    with _one_thread_each():
        # spawn: forked children would inherit the locks of threads that run in the caller
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_die_on_interrupt)
        in_flight: deque[Future[Block]] = deque()
        try:
            for call in calls:
                in_flight.append(pool.submit(make_block, *call))
                if len(in_flight) == 2 * workers:  # bounds the memory: finished blocks wait for their turn
                    yield in_flight.popleft().result()
            while in_flight:
                yield in_flight.popleft().result()
        except BrokenProcessPool as error:
            raise AdvtagError(
                "a simulation worker died: it ran out of memory or was killed (try fewer workers), or the calling "
                'script lacks `if __name__ == "__main__":`'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _die_on_interrupt() -> None:
    """Let Ctrl-C end a worker at once and silently; the parent cleans up."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep numerical libraries of the workers to one thread each; they read the variable when they are loaded."""
    before = os.environ.get(_THREADS_VARIABLE)
    os.environ[_THREADS_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS_VARIABLE]
        else:
            os.environ[_THREADS_VARIABLE] = before
