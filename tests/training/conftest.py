"""Parquet columns as `advtag columns` writes them, of separable toy jets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from configs.load import load_analysis
from configs.schema import Analysis
from models.features import FeatureSet, load_features

CLASSES = ("b", "bb", "c", "udsg")
CARD = {
    "name": "toy",
    "absent_at": -0.5,
    "inputs": [
        {"name": "lifetime", "branch": "Jet_lifetime", "label": "lifetime", "bins": [10, -5, 5], "cap": 0.2},
        {"name": "mass", "branch": "Jet_mass", "label": "mass", "bins": [10, 0, 5], "bounds": [0, None]},
        {"name": "tracks", "branch": "Jet_tracks", "label": "tracks", "bins": [10, 0, 10], "integer": True},
        {"name": "noise", "branch": "Jet_noise", "label": "noise", "bins": [10, -3, 3]},
    ],
}
ATTACKS = {"fgsm": {"kind": "fgsm", "epsilon": 0.1}, "noise": {"kind": "noise", "epsilon": 0.1}}


def toy_jets(number: int, seed: int, *, data: bool = False) -> dict[str, Any]:
    """Flavours differ in lifetime and mass; jets of five per event; splits 60/20/20."""
    rng = np.random.default_rng(seed)
    flavour = rng.choice(4, number, p=[0.3, 0.1, 0.2, 0.4]).astype(np.int8)
    shift = np.array([2.0, 2.5, 1.0, 0.0])[flavour]
    index = np.arange(number)
    values = {
        "lifetime": rng.normal(shift, 0.7),
        "mass": rng.exponential(0.5 + shift),
        "tracks": rng.poisson(3 + shift),
        "noise": rng.normal(0, 1, number),
    }
    absent = {name: rng.random(number) < 0.15 for name in values}
    return {
        "run": np.full(number, 1, np.uint32),
        "luminosityBlock": np.full(number, seed, np.uint32),
        "event": (index // 5).astype(np.uint64),
        "jet_index": (index % 5).astype(np.uint16),
        "jet_pt": rng.uniform(20, 300, number).astype(np.float32),
        "jet_eta": rng.uniform(-2.5, 2.5, number).astype(np.float32),
        "jet_phi": rng.uniform(-3.1, 3.1, number).astype(np.float32),
        "flavour": np.full(number, 4, np.int8) if data else flavour,
        "weight": np.ones(number) if data else rng.choice([1.5, 2.5], number),
        "split": rng.choice(3, number, p=[0.6, 0.2, 0.2]).astype(np.int8),
        "values": values,
        "absent": absent,
    }


def write_jets(path: Path, jets: dict[str, Any], features: FeatureSet) -> None:
    columns = {name: array for name, array in jets.items() if name not in ("values", "absent")}
    for name in features.names:
        columns[f"input_{name}"] = pa.array(jets["values"][name].astype(np.float32), mask=jets["absent"][name])
    table = pa.table(columns).replace_schema_metadata({"features": features.name, "features_digest": features.digest})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


class Workplace:
    """A folder with a feature card, a configuration, and the columns of `tt` (MC) and `run` (data)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.columns = folder / "out" / "columns"
        (folder / "card.yaml").write_text(yaml.safe_dump(CARD))
        self.features = load_features(str(folder / "card.yaml"))

    def write(self, jets: dict[str, list[dict[str, Any]]], classes=CLASSES, data=("run",), **manifest) -> None:
        for dataset, files in jets.items():
            for number, content in enumerate(files):
                write_jets(self.columns / dataset / f"{number:032x}-{0:010d}.parquet", content, self.features)
        page = {
            "config": {"datasets": {name: {"files": ["x.root"], "data": name in data} for name in jets}},
            "provenance": {},
            "features": json.loads(self.features.model_dump_json()),
            "classes": classes,
            "splits": ["train", "validation", "test"],
            "datasets": {name: {} for name in jets},
            **manifest,
        }
        self.columns.mkdir(parents=True, exist_ok=True)
        (self.columns / "manifest.json").write_text(json.dumps(page))

    def analysis(self, training: dict[str, Any], **sections) -> Analysis:
        written = {
            "name": "toy",
            "output": "out",
            "features": "card.yaml",
            "datasets": {"tt": {"files": "x.root"}, "run": {"files": "y.root", "data": True}},
            "attacks": ATTACKS,
            "training": {
                name: {"epochs": 3, "batch": 200, "evaluate_with": "fgsm", **settings}
                for name, settings in training.items()
            },
            **sections,
        }
        path = self.folder / "analysis.yaml"
        path.write_text(yaml.safe_dump(written, sort_keys=False))
        return load_analysis(path)


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture(scope="module")
def shared_workplace(tmp_path_factory) -> Workplace:
    """3,000 jets of tt in two files, and data whose inputs would ruin every mean."""
    place = Workplace(tmp_path_factory.mktemp("training"))
    data = toy_jets(500, 9, data=True)
    data["values"] = {name: array + 1e6 for name, array in data["values"].items()}
    place.write({"tt": [toy_jets(2000, 1), toy_jets(1000, 2)], "run": [data]})
    return place


@pytest.fixture(scope="session")
def toys() -> Callable[..., dict[str, Any]]:
    return toy_jets
