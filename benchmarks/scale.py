"""Many files: how planning, running and memory grow with their number.

Filesets of 1,000, 3,000 and 10,000 files of 10 chunks, that exist on paper only, with hardly any work in a chunk, go
through two Dask workers as a job's do: planned, run, added up, checked and put into the manifest. Each size has a
process of its own, in which the client and the scheduler run. Printed last: one line of JSON.

Example: python benchmarks/scale.py
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from coffea.processor.executor import WorkItem

from configs.schema import Run
from processors.books import chunks_left, missing, pages
from processors.fileset import File
from processors.run import _accumulate, _begin
from processors.store import Store

CHUNKS, CHUNKSIZE, DATASETS = 10, 50_000, 20


class Tiny:
    """What a processor returns of a chunk, without the chunk."""

    def __call__(self, item: WorkItem) -> dict[str, object]:
        events, block = len(item), np.full((5, 100, 2), 0.5)
        book = {
            "events": events,
            "jets": 3 * events,
            "sum_weights": float(events),
            "ranges": [[item.entrystart, item.entrystop]],
        }
        return {
            "counts": {item.dataset: {item.filename: book}},
            "cutflow": {item.dataset: {"inclusive": {"all": np.array([events, events], np.float64)}}},
            "blocks": {item.dataset: {"scores": {"inclusive|nominal|tagger|raw": block}}},
            "bytes": 1000,
        }


def fileset(number: int) -> list[File]:
    return [
        File(
            f"dataset{k % DATASETS}",
            f"root://server.example//store/mc/era/dataset{k % DATASETS}/nanoaodsim/campaign-v1/0000/{k:08d}-nano.root",
            "Events",
            CHUNKS * CHUNKSIZE,
            k.to_bytes(16, "little"),
            True,
            sum_weights=float(CHUNKS * CHUNKSIZE),
        )
        for k in range(number)
    ]


def memory(key: str) -> float:
    """MB of this process: VmRSS now, VmHWM at most."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def job(number: int, results: "multiprocessing.Queue[dict[str, float]]") -> None:
    """One job, alone in its process."""
    files, run = fileset(number), Run(executor="dask", workers=2, chunksize=CHUNKSIZE)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "histograms", "scale")
        output = _begin(store, files, run)
        clock = [time.perf_counter()]
        chunks = [chunk for file in files for chunk in chunks_left(file, output["counts"], CHUNKSIZE)]
        clock.append(time.perf_counter())
        before = memory("VmRSS")
        _accumulate(chunks, Tiny(), output, run, store, False)
        clock.append(time.perf_counter())
        lost = missing(files, output["counts"])
        book = [pages(f"dataset{k}", files, output["counts"]) for k in range(DATASETS)]
        text = json.dumps(book, indent=1)
        clock.append(time.perf_counter())
        store.save(output)
        clock.append(time.perf_counter())
    if lost or output["failed"] or sum(page["events"] for page in book) != number * CHUNKS * CHUNKSIZE:
        raise RuntimeError("events were lost")
    if sum(blocks["scores"]["inclusive|nominal|tagger|raw"].sum() for blocks in output["blocks"].values()) != (
        number * CHUNKS * 500
    ):
        raise RuntimeError("blocks were lost, or counted twice")
    plan, running, closing, saving = np.diff(clock)
    results.put(
        {
            "plan_s": plan,
            "run_s": running,
            "close_s": closing,
            "save_s": saving,
            "manifest_mb": len(text) / 1e6,
            "planned_mb": before,
            "peak_mb": memory("VmHWM"),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    most = parser.parse_args().files
    sizes, found = [most // 10, most * 3 // 10, most], []
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        results = context.Queue()
        process = context.Process(target=job, args=(size, results))
        process.start()
        found.append(results.get(timeout=1800))
        process.join()
        print(f"{size} files:", {key: round(value, 3) for key, value in found[-1].items()}, file=sys.stderr)
    figures = {
        **{f"{key}_exponent": slope(sizes, [one[f"{key}_s"] for one in found]) for key in ("plan", "run", "close")},
        "plan_s": found[-1]["plan_s"],
        "close_s": found[-1]["close_s"],
        "save_s": found[-1]["save_s"],
        "chunks_per_s": CHUNKS * most / found[-1]["run_s"],
        "peak_mb": found[-1]["peak_mb"],
        "kb_per_file": 1000 * (found[-1]["peak_mb"] - found[0]["peak_mb"]) / (sizes[-1] - sizes[0]),
    }
    print(json.dumps({"name": "scale", "figures": {key: round(value, 3) for key, value in figures.items()}}))


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Exponent of the time against the number of files: 1 where it is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
