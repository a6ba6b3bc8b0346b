"""Speed of attacks against their own minimum, against torchattacks, and of CONSERVAttack against the published form.

python benchmarks/attacks.py [--jets 50000]

Toy jets on the DeepCSV card: 67 correlated inputs inside their plot ranges, a fifth of the entries absent, and a tagger
of the usual size trained on them. One thread. torchattacks knows the unit box alone: there both attack the same
network on the same numbers, all present.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).parents[1])  # else `attacks` would be this script

import argparse
import json
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.stats import norm
from torch.nn.functional import cross_entropy

from attacks import APGD, FGSM, PGD, Budget, Conserv, ConservReference
from models.features import FeatureSet, Input, load_features
from models.inputs import Inputs
from models.tagger import Tagger

CLASSES = ("b", "bb", "c", "udsg")
BATCH = 4096


def toy(number: int, *, seed: int = 1, absent: float = 0.2) -> tuple[Tagger, Inputs, torch.Tensor]:
    """A trained tagger, and jets."""
    features = load_features("deepcsv")
    rng = np.random.default_rng(seed)
    target = rng.choice(len(CLASSES), number, p=[0.3, 0.01, 0.15, 0.54])
    mixing = rng.normal(size=(67, 67)) / math.sqrt(67) + np.eye(67)
    towards = 0.35 * rng.normal(size=(len(CLASSES), 67))
    latent = (rng.normal(size=(number, 67)) + towards[target]) @ mixing.T
    values = np.empty_like(latent)
    for k, feature in enumerate(features.inputs):
        bins, low, high = feature.bins
        share = norm.cdf(latent[:, k] / np.std(latent[:, k]))
        values[:, k] = np.floor(low + bins * share) if feature.integer else low + (high - low) * share
    present = rng.random(values.shape) > absent
    values[~present] = 0
    inputs = Inputs(torch.from_numpy(values).float(), torch.from_numpy(present), torch.arange(number))
    truth = torch.from_numpy(target)
    return trained(features, inputs, truth, inputs.values.mean(0), inputs.values.std(0)), inputs, truth


def trained(
    features: FeatureSet, inputs: Inputs, target: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> Tagger:
    torch.manual_seed(0)
    tagger = Tagger(features, CLASSES, mean, std)
    optimiser = torch.optim.Adam(tagger.parameters(), 2e-3)
    for step in range(300):
        jets = slice((step * 1024) % (len(inputs) - 1024), (step * 1024) % (len(inputs) - 1024) + 1024)
        loss = cross_entropy(tagger(inputs.values[jets], inputs.present[jets]), target[jets])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return tagger.eval().requires_grad_(False)


def best_of(rounds: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """Best time of each job, the jobs in turn."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}


def best_by_batch(rounds: int, number: int, **attacks: Callable[[slice], object]) -> dict[str, float]:
    """Sum over batches of the best time of each batch: a neighbour on the machine seldom leaves a whole pass alone."""
    total = dict.fromkeys(attacks, 0.0)
    for start in range(0, number - BATCH + 1, BATCH):
        jets = slice(start, start + BATCH)
        best = best_of(rounds, **{name: partial(attack, jets) for name, attack in attacks.items()})
        for name, seconds in best.items():
            total[name] += seconds
    return total


def gradient_attacks(number: int) -> dict[str, float]:
    tagger, inputs, target = toy(number)
    budget = Budget(epsilon=0.05)
    fgsm = FGSM(budget)

    def minimum(jets: slice) -> None:
        values = inputs.values[jets].detach().requires_grad_()
        loss = cross_entropy(tagger(values, inputs.present[jets]), target[jets], reduction="sum")
        torch.autograd.grad(loss, values)

    times = best_by_batch(20, number, minimum=minimum, fgsm=lambda jets: fgsm(tagger, inputs[jets], target[jets]))
    return {"fgsm_over_minimum": times["fgsm"] / times["minimum"]} | against_torchattacks(number)


def against_torchattacks(number: int) -> dict[str, float]:
    import torchattacks.attacks.apgd as their_apgd
    import torchattacks.attacks.fgsm as their_fgsm
    import torchattacks.attacks.pgd as their_pgd

    card = FeatureSet(
        name="box",
        inputs=tuple(Input(name=f"x{k}", branch=f"x{k}", label="x", bins=(10, 0, 1), bounds=(0, 1)) for k in range(67)),
    )
    rng = np.random.default_rng(2)
    target = torch.from_numpy(rng.integers(0, 4, number))
    values = torch.from_numpy(rng.random((number, 67))).float() * 0.6 + 0.1 * target[:, None]
    inputs = Inputs(values, torch.ones_like(values, dtype=torch.bool), torch.arange(number))
    tagger = trained(card, inputs, target, torch.zeros(67), torch.ones(67))
    right = (tagger(inputs.values, inputs.present).argmax(1) == target).float().mean()
    print(f"unit box: {right:.1%} right; torchattacks' APGD attacks these alone", file=sys.stderr)

    class Unmasked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tagger = tagger

        def forward(self, found: torch.Tensor) -> torch.Tensor:
            jets = found.reshape(len(found), -1)  # their APGD wants images
            return self.tagger(jets, torch.ones_like(jets, dtype=torch.bool))

    network, eps = Unmasked().eval(), 0.03
    images = values[:, None, None, :]
    budget = Budget(epsilon=eps)
    theirs = {
        "fgsm": their_fgsm.FGSM(network, eps=eps),
        "pgd": their_pgd.PGD(network, eps=eps, alpha=eps / 4, steps=10, random_start=False),
        "apgd": their_apgd.APGD(network, eps=eps, steps=20, loss="ce"),
    }
    ours = {
        "fgsm": FGSM(budget),
        "pgd": PGD(budget, steps=10, random_start=False),
        "apgd": APGD(budget, steps=20),
    }
    jobs = {}
    for name in ours:
        jobs[f"our_{name}"] = lambda jets, attack=ours[name]: attack(tagger, inputs[jets], target[jets])
        jobs[f"their_{name}"] = lambda jets, attack=theirs[name]: attack(images[jets], target[jets])
    times = best_by_batch(10, number, **jobs)
    keys = {"fgsm": "fgsm_vs_torchattacks", "pgd": "pgd10_vs_torchattacks", "apgd": "apgd20_vs_torchattacks"}
    return {key: times[f"their_{name}"] / times[f"our_{name}"] for name, key in keys.items()}


def conserv_alone(number: int, results: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Seconds, and peak memory of a process that does nothing else (GB)."""
    torch.set_num_threads(1)
    tagger, inputs, target = toy(number)
    attack = Conserv(Budget(epsilon=math.inf, capped=False), iterations=10)
    attack(tagger, inputs[:100], target[:100])  # compiles
    start = time.perf_counter()
    attack(tagger, inputs, target)
    seconds = time.perf_counter() - start
    results.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2))


def conserv(number: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    sizes = [number // 10, number // 3, number]
    seconds, memory = [], 0.0
    for size in sizes:
        results = context.Queue()
        process = context.Process(target=conserv_alone, args=(size, results))
        process.start()
        taken, memory = results.get()
        process.join()
        seconds.append(taken)
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    return {
        "conserv_seconds_50k": seconds[-1] * 50_000 / number,
        "conserv_rss_gb": memory,
        "conserv_scaling_exponent": float(exponent),
        "conserv_vs_reference": against_reference(),
    }


def against_reference(number: int = 1000, iterations: int = 2) -> float:
    """The published form knows no absent entries and is slow: few jets, all present."""
    tagger, inputs, target = toy(number + 2000, absent=0.0)
    inputs, target = inputs[:number], target[:number]
    budget = Budget(epsilon=math.inf, capped=False)
    ours, theirs = Conserv(budget, iterations=iterations), ConservReference(budget, iterations=iterations)
    times = best_of(2, ours=lambda: ours(tagger, inputs, target), theirs=lambda: theirs(tagger, inputs, target))
    return times["theirs"] / times["ours"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jets", type=int, default=50_000)
    number = parser.parse_args().jets
    torch.set_num_threads(1)
    figures = gradient_attacks(number) | conserv(number)
    print(json.dumps({"name": "attacks", "figures": {key: round(value, 3) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
