"""Scale factors of every variant of the simulation: efficiency in the variant over that in `mc`, by flavour.

python benchmarks/scale_factors.py FOLDER [--train 12000] [--events 8000] [--workers 2] [--variants data ...]

Trains the nominal DeepCSV tagger on `mc` ttbar jets, sets its loose and medium working points (10 % and 1 % of the
light jets in an independent `mc` sample, pt > 30 GeV, BvsL), and counts in all variants. Samples that are in FOLDER
are not made again. Errors are from a jackknife over twenty groups of events; variants of the detector share their
events with `mc`, which makes them smaller. The truth of `data` is read from its sidecar: this is a study of the
simulation, not an analysis.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).parents[1])  # else `simulation` would be this script's neighbour

import argparse
import json
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from configs.load import load_analysis
from models.discriminators import discriminators
from models.inputs import Inputs
from models.keys import jet_keys
from models.tagger import load_tagger
from processors.jobs import make_columns
from simulation.run import simulate
from simulation.variants import VARIANTS
from training.train import train_all

WORKING_POINTS = {"loose": 0.10, "medium": 0.01}
MIN_PT = 30.0
GROUPS = 20
TRAIN_SEED, SEED = 1, 2
FLAVOURS = {"b": 5, "c": 4, "light": 0}


@dataclass(frozen=True)
class Jets:
    """Score, hadron flavour and group of events of each jet."""

    score: np.ndarray
    flavour: np.ndarray
    group: np.ndarray


def sample(folder: Path, variant: str, seed: int, events: int, workers: int) -> str:
    """File of a sample, which is made if it is not there."""
    path = folder / f"ttbar_{variant}_{seed}_000.root"
    if not path.exists():
        simulate("ttbar", events, folder, variant=variant, seed=seed, workers=workers, events_per_file=events)
    found = json.loads(path.with_suffix(".json").read_text())["events"]
    if found != events:
        raise SystemExit(f"{path} has {found} events, not {events}: choose another folder")
    return str(path)


def configuration(folder: Path, datasets: dict[str, dict[str, object]], name: str) -> Path:
    """A configuration of columns, and of a training, in a folder of its own."""
    path = folder / f"{name}.yaml"
    settings = {
        "name": name,
        "output": name,
        "features": "deepcsv",
        "luminosity": 1.0,
        "datasets": datasets,
        "selection": {"pt": [20, 1000], "abs_eta": 2.5},
        "columns": {"datasets": list(datasets), "split": {"train": 0.8, "validation": 0.1}},
        "attacks": {"noise": {"kind": "noise", "epsilon": 0.05}},
        "training": {"nominal": {"epochs": 15, "evaluate_with": "noise"}},
        "run": {"executor": "iterative"},
    }
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def read(columns: Path, variant: str, tagger: torch.nn.Module, truth: Path) -> Jets:
    """Jets above `MIN_PT` of a variant."""
    table = pq.read_table(columns / variant)
    names = [name for name in table.schema.names if name.startswith("input_")]
    values = np.stack([table[name].fill_null(0).to_numpy() for name in names], axis=1)
    present = np.stack([table[name].is_valid().to_numpy() for name in names], axis=1)
    identity = {name: table[name].to_numpy() for name in ("run", "luminosityBlock", "event", "jet_index")}
    inputs = Inputs(torch.from_numpy(values), torch.from_numpy(present), jet_keys(*identity.values()))
    with torch.no_grad():
        scores = discriminators(tagger(inputs.values, inputs.present).softmax(1), tagger.classes)["BvsL"].numpy()
    flavour = np.select([table["flavour"].to_numpy() < 2, table["flavour"].to_numpy() == 2], [5, 4], 0)
    if VARIANTS[variant].is_data:
        known = pq.read_table(truth).to_pydict()
        flavours = dict(zip(zip(known["event"], known["jet_index"], strict=True), known["hadronFlavour"], strict=True))
        pairs = zip(identity["event"].tolist(), identity["jet_index"].tolist(), strict=True)
        flavour = np.array([flavours[pair] for pair in pairs])
    hard = table["jet_pt"].to_numpy() > MIN_PT
    return Jets(scores[hard], flavour[hard], (identity["event"] % GROUPS)[hard])


def scale_factor(jets: Jets, nominal: Jets, flavour: int, cut: float) -> tuple[float, float]:
    """Efficiency ratio and its error."""

    def efficiency(sample: Jets, without: int) -> float:
        chosen = (sample.flavour == flavour) & (sample.group != without)
        return float(np.mean(sample.score[chosen] > cut))

    whole, *parts = [efficiency(jets, group) / efficiency(nominal, group) for group in (-1, *range(GROUPS))]
    return whole, float(np.sqrt((GROUPS - 1) * np.var(parts)))


def main() -> None:
    """Make what is missing, print the table, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=12_000)
    parser.add_argument("--events", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS)[1:], choices=list(VARIANTS)[1:])
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    train_files = sample(folder, "mc", TRAIN_SEED, arguments.train, arguments.workers)
    mc = {"cross_section": 500.0}
    training = load_analysis(configuration(folder, {"ttbar": {"files": train_files, **mc}}, "training"), [])
    if not (training.output / "taggers" / "nominal.safetensors").exists():
        make_columns(training)
        train_all(training)
    datasets: dict[str, dict[str, object]] = {}
    for name in ("mc", *arguments.variants):
        files = sample(folder, name, SEED, arguments.events, arguments.workers)
        datasets[name] = {"files": files, **({"data": True} if VARIANTS[name].is_data else mc)}
    evaluation = load_analysis(configuration(folder, datasets, "evaluation"), [])
    columns = make_columns(evaluation)
    tagger = load_tagger(training.output / "taggers" / "nominal.safetensors")
    tagger.eval()
    truth = folder / "truth" / f"ttbar_data_{SEED}_000.parquet"
    jets = {name: read(columns, name, tagger, truth) for name in datasets}
    light = jets["mc"].score[jets["mc"].flavour == 0]
    cuts = {name: float(np.quantile(light, 1 - fraction)) for name, fraction in WORKING_POINTS.items()}
    figures: dict[str, float] = {}
    for name, cut in cuts.items():
        for label, flavour in FLAVOURS.items():
            figures[f"mc_{name}_{label}_efficiency"] = float(
                np.mean(jets["mc"].score[jets["mc"].flavour == flavour] > cut)
            )
    for variant in arguments.variants:
        row = [variant]
        for name, cut in cuts.items():
            for label, flavour in FLAVOURS.items():
                value, error = scale_factor(jets[variant], jets["mc"], flavour, cut)
                figures[f"{variant}_{name}_{label}"], figures[f"{variant}_{name}_{label}_error"] = value, error
                row.append(f"{value:.3f} ± {error:.3f}")
        print(" | ".join(row))
    print(json.dumps({"name": "scale_factors", "figures": {key: round(value, 4) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
