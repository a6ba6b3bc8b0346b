"""Speed of the training step, with and without what feeds it; and memory of training from disk.

python benchmarks/training.py [--jets 400000] [--stream-jets 12000000]

Random jets on the DeepCSV card in the format of the cache, the recipe `deepcsv_nominal`, batches of 1,024, one thread.
Times are the best of several passes in turn, for training of each piece of a pass. weaver-core's loader is compared
where it is installed.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).parents[1])  # else `training` would be this script

import argparse
import importlib.util
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from torch.utils.data import DataLoader, TensorDataset

from attacks.build import build_attack
from attacks.checks import unchecked
from configs.training import Training, recipes
from models.features import load_features
from models.inputs import Inputs
from models.tagger import Tagger
from training.batches import POOL, Batch, Resident, Stream
from training.cache import TYPES, Stored
from training.columns import Sample
from training.optimise import build_optimiser
from training.schemes import build_scheme
from training.standardise import scales, standardisation
from training.weights import PtEtaFlavourWeights

CLASSES = ("b", "bb", "c", "udsg")
CPU = torch.device("cpu")
BATCH = 1024
PART = 1 << 18


def write(folder: Path, jets: int) -> Stored:
    """A cache of random jets, written in parts."""
    folder.mkdir()
    features = len(load_features("deepcsv"))
    files = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", dtype, (jets, features) if name in ("values", "present") else (jets,)
        )
        for name, dtype in TYPES.items()
    }
    rng = np.random.default_rng(1)
    for start in range(0, jets, PART):
        rows = slice(start, min(start + PART, jets))
        number = rows.stop - start
        present = rng.random((number, features), np.float32) > 0.2
        files["present"][rows] = present
        files["values"][rows] = rng.standard_normal((number, features), np.float32) * present
        files["key"][rows] = np.arange(start, rows.stop)
        files["weight"][rows] = 1
        files["target"][rows] = rng.choice(4, number, p=[0.3, 0.05, 0.15, 0.5])
        files["pt"][rows] = rng.uniform(20, 300, number)
        files["eta"][rows] = rng.uniform(-2.5, 2.5, number)
    for file in files.values():
        file.flush()
    return Stored(folder)


class Trainer:
    """A tagger in training, and its step."""

    def __init__(self, recipe: str) -> None:
        settings = Training.model_validate({k: v for k, v in recipes()[recipe].items() if k != "source"})
        attack = None if settings.attack is None else build_attack(settings.attack)
        features = load_features("deepcsv")
        torch.manual_seed(1)
        self.tagger = Tagger(features, CLASSES, torch.zeros(len(features)), torch.ones(len(features))).train()
        self.scheme = build_scheme(settings, attack)
        self.optimiser = build_optimiser(settings, self.tagger.network.parameters())

    def update(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def train(self, batches: Iterable[Batch]) -> None:
        for step, batch in enumerate(batches):
            with unchecked():  # as the loop does
                self.scheme(self.tagger, batch, 1, step, self.update)


def microseconds(jets: int, rounds: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """Best time per jet of each job, the jobs in turn."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            best[name] = min(best[name], (time.perf_counter() - start) / jets * 1e6)
    return best


def in_turn(jets: int, rounds: int, **sources: tuple[Trainer, Callable[[], Iterable[Batch]]]) -> dict[str, float]:
    """Time per jet of whole passes: the best of each 16 steps, which take turns, so that a neighbour on the machine
    slows all of them or none; and in another order each round, since what comes after another tagger has cold caches.
    """
    pieces = -(-jets // (16 * BATCH))
    best = {name: np.full(pieces, np.inf) for name in sources}
    names = list(sources)
    for turn in range(rounds):
        passes = {name: iter(batches()) for name, (_, batches) in sources.items()}
        for piece in range(pieces):
            first = (turn + piece) % len(names)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                sources[name][0].train(islice(passes[name], 16))
                best[name][piece] = min(best[name][piece], time.perf_counter() - start)
    return {name: float(seconds.sum()) / jets * 1e6 for name, seconds in best.items()}


def speeds(stored: Stored, weights: PtEtaFlavourWeights, folder: Path) -> dict[str, float]:
    """Steps from memory, on one batch again and again, from torch's DataLoader; adversarial steps; and the stream."""
    options = {"batch": BATCH, "seed": 1, "device": CPU}
    resident = Resident(stored, weights, **options)
    stream = Stream(stored, weights, **options, pool=len(stored) // 8)
    nominal, adversarial = Trainer("deepcsv_nominal"), Trainer("deepcsv_adversarial")
    (batch,) = islice(resident.epoch(1), 1)
    parts = iter(range(10**9))  # each pass is another epoch
    best = in_turn(
        len(stored),
        8,
        memory=(nominal, lambda: resident.epoch(next(parts))),
        fixed=(nominal, lambda: (batch for _ in range(resident.steps))),
        stream=(nominal, lambda: stream.epoch(next(parts))),
        adversarial=(adversarial, lambda: resident.epoch(next(parts))),
    )
    few = len(stored) // 10  # it takes long
    loader = default_loader(stored.read(0, few), weights)
    best |= microseconds(few, 2, loader=lambda: nominal.train(map(batch_of, loader)))
    weaver = {}
    if importlib.util.find_spec("weaver"):
        theirs = weaver_loader(stored.read(0, few), folder)
        best |= microseconds(
            few,
            2,
            weaver=lambda: consume(theirs),
            our_loading=lambda: consume(islice(resident.epoch(next(parts)), few // BATCH)),
        )
        weaver = {"loading_vs_weaver": best["weaver"] / best["our_loading"]}
    print({name: f"{time:.2f} us/jet" for name, time in best.items()}, file=sys.stderr)
    return weaver | {
        "nominal_jets_per_s": 1e6 / best["memory"],
        "vs_fixed_batch": best["fixed"] / best["memory"],
        "vs_default_dataloader": best["loader"] / best["memory"],
        "adversarial_over_nominal": best["adversarial"] / best["memory"],
        "stream_vs_memory": best["memory"] / best["stream"],
    }


def default_loader(sample: Sample, weights: PtEtaFlavourWeights) -> DataLoader[tuple[torch.Tensor, ...]]:
    """torch's DataLoader as it is usually written."""
    inputs = sample.inputs
    jets = TensorDataset(inputs.values, inputs.present, inputs.key, sample.target, weights.of(sample))
    return DataLoader(jets, batch_size=BATCH, shuffle=True)


def consume(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def batch_of(jets: tuple[torch.Tensor, ...]) -> Batch:
    values, present, key, target, weight = jets
    return Batch(Inputs(values, present, key), target, weight)


def weaver_loader(sample: Sample, folder: Path) -> Iterable[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """weaver-core's loader on the same jets in Parquet, where it is installed; it knows no mask and no key."""
    from weaver.utils.dataset import SimpleIterDataset

    names = [f"x{k}" for k in range(sample.inputs.values.shape[1])]
    columns = dict(zip(names, sample.inputs.values.numpy().T, strict=True))
    labels = {name: sample.target.numpy() == code for code, name in enumerate(CLASSES)}
    pq.write_table(pa.table(columns | labels), folder / "jets.parquet")
    card = {
        "preprocess": {"method": "manual"},
        "inputs": {"jets": {"length": None, "vars": [[name, None] for name in names]}},
        "labels": {"type": "simple", "value": list(CLASSES)},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    files = {"_": [str(folder / "jets.parquet")]}
    dataset = SimpleIterDataset(files, str(folder / "card.yaml"), for_training=True, fetch_step=1)
    return DataLoader(dataset, batch_size=BATCH)


def stream_alone(folder: Path, steps: int, results: "multiprocessing.Queue[float]") -> None:
    """Peak memory (GB) of a process that trains from disk, for so many steps."""
    torch.set_num_threads(1)
    stored = Stored(folder)
    weights = PtEtaFlavourWeights.fit(stored, len(CLASSES))
    standardisation(stored)
    scales(stored)
    stream = Stream(stored, weights, batch=BATCH, seed=1, device=CPU)
    Trainer("deepcsv_nominal").train(islice(stream.epoch(1), steps))
    # not ru_maxrss, which a new process inherits from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    results.put(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024**2)


def stream_memory(folder: Path, jets: int) -> dict[str, float]:
    """Memory of training on a sample that is larger; three pools of it, each of which needs the same."""
    context = multiprocessing.get_context("spawn")
    size = write(folder, jets).nbytes / 1024**3
    results = context.Queue()
    process = context.Process(target=stream_alone, args=(folder, 3 * POOL // BATCH, results))
    process.start()
    peak = results.get()
    process.join()
    return {"stream_rss_gb": peak, "stream_sample_gb": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jets", type=int, default=400_000)
    parser.add_argument("--stream-jets", type=int, default=12_000_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stored = write(Path(folder) / "small", arguments.jets)
        figures = speeds(stored, PtEtaFlavourWeights.fit(stored, len(CLASSES)), Path(folder))
        figures |= stream_memory(Path(folder) / "large", arguments.stream_jets)
    print(json.dumps({"name": "training", "figures": {key: round(value, 3) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
