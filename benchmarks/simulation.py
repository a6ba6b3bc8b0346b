"""Cost of both stages of the simulation, as a ratio to Pythia alone in the same run, and memory of a worker.

python benchmarks/simulation.py [--events 1000] [--blocks 6]

For each process the same events are made three times in turn, one CPU core: by Pythia alone (`nextBatch`, the time of
its initialisation not counted), by stage A (initialisation, clustering and writing counted), and from its file by
stage B (reading and writing of the ROOT file counted). Times are CPU times. `rss_mb` is the largest memory that a
worker had over some blocks of the process with the largest events.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).parents[1])  # else `simulation` would be this script

import argparse
import json
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from simulation.detector.reconstruct import Content, reconstruct
from simulation.generation.files import generated_block
from simulation.generation.generate import BATCH_EVENTS
from simulation.generation.pythia import EventGenerator, block_seed
from simulation.knobs import Generator
from simulation.processes import PROCESSES, Process
from simulation.run import BLOCK_EVENTS, make_block
from simulation.variants import get_variant
from simulation.writer import SampleFile

SEED = 1


def bare(process: Process, events: int) -> float:
    """CPU seconds of Pythia alone."""
    pythia = EventGenerator(process, Generator(), block_seed(process, Generator(), SEED, 0))
    start = time.process_time()
    for _ in range(0, events, BATCH_EVENTS):
        pythia.next_batch(BATCH_EVENTS)
    return time.process_time() - start


def stage_a(folder: Path, process: Process, events: int) -> float:
    """CPU seconds from nothing to the file of generated events, and of reading it, which stage B does again."""
    start = time.process_time()
    generated_block(folder, process, Generator(), SEED, 0, events)
    return time.process_time() - start


def stage_b(folder: Path, process: Process, events: int, content: Content) -> tuple[float, int, int]:
    """CPU seconds from the file of generated events to NanoAOD; jets, and bytes of the file."""
    path = folder / f"{process.name}_{content.constituents}.root"
    variant = get_variant("mc")
    start = time.process_time()
    generated = generated_block(folder, process, Generator(), SEED, 0, events)
    block = reconstruct(generated, process, variant, SEED, 0, content)
    with SampleFile(path, process.name, variant, SEED) as file:
        file.add(block)
    spent = time.process_time() - start
    return spent, int(block.collections["Jet"].counts.sum()), path.stat().st_size


def measure(folder: Path, process: Process, events: int) -> dict[str, float]:
    """Figures of one process."""
    generated = [(bare(process, events), stage_a(folder / str(turn), process, events)) for turn in range(2)]
    seconds_pythia, seconds_a = (min(times) for times in zip(*generated, strict=True))
    seconds_b, jets, size = stage_b(folder / "0", process, events, Content())
    seconds_full, _, size_full = stage_b(folder / "0", process, events, Content(constituents=True))
    return {
        "pythia_ms_per_event": 1e3 * seconds_pythia / events,
        "stage_a_over_pythia": seconds_a / seconds_pythia,
        "stage_b_ms_per_event": 1e3 * seconds_b / events,
        "stage_b_constituents_ms_per_event": 1e3 * seconds_full / events,
        "jets_per_event": jets / events,
        "stage_a_jets_per_s": jets / seconds_a,
        "stage_b_jets_per_s": jets / seconds_b,
        "bytes_per_jet": size / jets,
        "bytes_per_jet_constituents": size_full / jets,
    }


def _peak_after(folder: Path, blocks: int) -> float:
    content = Content(constituents=True)
    for number in range(blocks):
        make_block(folder, "ttbar", "data", SEED, content, number * BLOCK_EVENTS, BLOCK_EVENTS)
    status = Path("/proc/self/status").read_text()  # not getrusage: that knows what the parent had, too
    return float(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def worker_memory(folder: Path, blocks: int) -> float:
    """Peak RSS in MB of a worker that makes blocks of ttbar events with all content."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_after, folder, blocks).result()


def main() -> None:
    """Measure all processes, print a table, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage_b(folder / "warm", PROCESSES["ttbar"], 10, Content())  # imports and caches
        table = {process.name: measure(folder, process, arguments.events) for process in PROCESSES.values()}
        few, many = (worker_memory(folder / f"memory{blocks}", blocks) for blocks in (2, arguments.blocks))
    for process, figures in table.items():
        print(f"{process:18s}", " ".join(f"{key}={value:.3g}" for key, value in figures.items()))
    figures = {
        "stage_a_over_pythia": max(row["stage_a_over_pythia"] for row in table.values()),
        "stage_b_ms_per_event": max(row["stage_b_ms_per_event"] for row in table.values()),
        "rss_mb": many,
        "rss_mb_two_blocks": few,
    }
    figures |= {
        f"{process}_{stage}_jets_per_s": row[f"{stage}_jets_per_s"]
        for process, row in table.items()
        for stage in ("stage_a", "stage_b")
    }
    print(json.dumps({"name": "simulation", "figures": {key: round(value, 3) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
