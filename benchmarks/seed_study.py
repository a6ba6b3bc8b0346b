"""Areas of two taggers over their epochs, raw and attacked, with bootstrap errors; the tables of docs/seed_study.md.

python benchmarks/seed_study.py CONFIG [--epochs 1 10 100] [--replicas 100]

CONFIG has trainings that `advtag train` has done, `nominal` and `adversarial` among them; the test split of their
columns is used. Attacks are crafted on each tagger itself, and FGSM once on another: on the last `nominal`, for that
one on the last `adversarial`. A training with fewer epochs is shown at those that it has, and at its last.
Errors come from a Poisson bootstrap over jets, the same replicas everywhere, so that those of differences are smaller.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import argparse
import json

import numpy as np
import torch

from attacks import FGSM, PGD, Attack, Budget, GaussianNoise
from configs.load import load_analysis
from models.discriminators import discriminators
from models.tagger import Tagger, load_tagger
from training.columns import Sample, read_splits
from training.metrics import RocHistogram

PUBLISHED = (0.01, 0.02, 0.05)
EPSILONS = (0.005, *PUBLISHED, 0.1, *(4 * epsilon for epsilon in PUBLISHED))
CHUNK = 8192


def attacks(sample: Sample, names: tuple[str, ...]) -> dict[str, Attack | None]:
    """Raw, and the attacks of the study: uncapped, in units of the standard deviation, and in wider ones."""
    found: dict[str, Attack | None] = {"raw": None}
    wide = unit_with_defaults(sample, names)
    budgets = {f"{epsilon:g}": Budget(epsilon=epsilon, capped=False) for epsilon in EPSILONS} | {
        f"{epsilon:g}, defaults in the unit": Budget(epsilon=epsilon, capped=False, scale=wide) for epsilon in PUBLISHED
    }
    for title, budget in budgets.items():
        found[f"FGSM {title}"] = FGSM(budget)
        found[f"noise {title}"] = GaussianNoise(budget)
    found["PGD 0.02, 10 steps"] = PGD(budgets["0.02"], steps=10)
    return found


def unit_with_defaults(sample: Sample, names: tuple[str, ...]) -> dict[str, float]:
    """Standard deviation of each input with absent entries where the published study puts them, at its lowest value
    less 0.001: its code fits scalers in groups of inputs, and leaves out those of the first group in all of them.
    """
    values, present = sample.inputs.values.double(), sample.inputs.present
    lowest = torch.where(present, values, torch.inf).amin(0) - 0.001
    return dict(zip(names, torch.where(present, values, lowest).std(0, correction=0).tolist(), strict=True))


def scores(tagger: Tagger, attack: Attack | None, maker: Tagger, sample: Sample) -> torch.Tensor:
    """BvsL of jets, float [jets], after an attack crafted on `maker`."""
    parts = []
    for start in range(0, len(sample), CHUNK):
        jets = slice(start, start + CHUNK)
        inputs, target = sample.inputs[jets], sample.target[jets]
        if attack is not None:
            inputs = attack(maker, inputs, target)
        with torch.no_grad():
            logits = tagger(inputs.values, inputs.present)
        parts.append(discriminators(logits.softmax(1), tagger.classes)["BvsL"])
    return torch.cat(parts)


def areas(score: torch.Tensor, sample: Sample, classes: tuple[str, ...], replicas: int) -> np.ndarray:
    """AUC of BvsL, [1 + replicas]: of the jets, then of each bootstrap replica."""
    found = []
    for replica in range(replicas + 1):
        drawn = torch.ones(len(sample))
        if replica:
            drawn = torch.from_numpy(np.random.default_rng(replica).poisson(1.0, len(sample))).float()
        found.append(RocHistogram.fill(score, sample.target, classes, "BvsL", drawn * sample.weight).auc())
    return np.array(found)


def study(
    folder: Path, lengths: dict[str, int], sample: Sample, epochs: list[int], replicas: int
) -> dict[str, dict[str, np.ndarray]]:
    """Areas by `TAGGER EPOCH`, then by attack; `lengths` are the epochs of the trainings."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def at(name: str, epoch: int) -> Tagger:
        return load_tagger(folder / f"checkpoints/{name}/epoch_{epoch:04d}.safetensors")

    for name, length in lengths.items():
        other = "adversarial" if name == "nominal" else "nominal"
        maker = at(other, min(epochs[-1], lengths[other]))
        for epoch in sorted({min(epoch, length) for epoch in epochs}):
            tagger = at(name, epoch)
            rows = {}
            tried = attacks(sample, tagger.features.names)
            for title, attack in tried.items():
                rows[title] = areas(scores(tagger, attack, tagger, sample), sample, tagger.classes, replicas)
            crafted = scores(tagger, tried["FGSM 0.01"], maker, sample)
            rows["FGSM 0.01, crafted on the other"] = areas(crafted, sample, tagger.classes, replicas)
            found[f"{name} {epoch}"] = rows
            print(f"{name}, epoch {epoch}", file=sys.stderr)
    return found


def quoted(values: np.ndarray) -> str:
    """Value and bootstrap error."""
    return f"{values[0]:.4f} ± {values[1:].std():.4f}"


def table(found: dict[str, dict[str, np.ndarray]], *, lost: bool) -> str:
    """Markdown: one row per attack, one column per tagger and epoch; areas, or what of the raw one is lost."""
    columns = list(found)
    lines = ["| BvsL | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for title in next(iter(found.values())):
        cells = [rows["raw"] - rows[title] if lost else rows[title] for rows in found.values()]
        if not (lost and title == "raw"):
            lines.append(f"| {title} | " + " | ".join(map(quoted, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 10, 30, 60])
    parser.add_argument("--replicas", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    analysis = load_analysis(arguments.config)
    samples, _, _ = read_splits(analysis.output / "columns", ("test",))
    lengths = {name: settings.epochs for name, settings in analysis.training.items()}
    found = study(analysis.output / "taggers", lengths, samples["test"], arguments.epochs, arguments.replicas)
    print(f"{len(samples['test'])} test jets\n", table(found, lost=False), table(found, lost=True), sep="\n\n")
    figures = {}
    for name, length in lengths.items():
        rows = found[f"{name} {min(arguments.epochs[-1], length)}"]
        figures[f"raw_{name}"] = rows["raw"][0]
        figures[f"lost_{name}"] = (rows["raw"] - rows["FGSM 0.01"])[0]
    print(
        json.dumps({"name": "seed_study", "figures": {key: round(float(value), 5) for key, value in figures.items()}})
    )


if __name__ == "__main__":
    main()
