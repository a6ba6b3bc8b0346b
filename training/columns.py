"""Columns into memory: contiguous tensors, one row per jet."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import jet_keys

BOOKKEEPING = ("run", "luminosityBlock", "event", "jet_index", "jet_pt", "jet_eta", "flavour", "weight", "split")


@dataclass(frozen=True)
class Sample:
    """Jets of one split, tensors [jets]."""

    inputs: Inputs
    target: Tensor
    """int64, index into the classes"""
    pt: Tensor
    """GeV"""
    eta: Tensor
    weight: Tensor
    """float32, generator weight, scaled so that each dataset's average of |w| is 1"""

    def __len__(self) -> int:
        return len(self.target)

    def to(self, device: torch.device) -> "Sample":
        """The sample on another device."""
        moved = (tensor.to(device) for tensor in (self.target, self.pt, self.eta, self.weight))
        return Sample(self.inputs.to(device), *moved)


@dataclass(frozen=True)
class Columns:
    """The splits of the columns that a tagger is trained on."""

    train: Sample
    validation: Sample
    classes: tuple[str, ...]
    features: FeatureSet


def read_columns(folder: Path) -> Columns:
    """Read the train and validation jets of all MC datasets; the test split stays on disk.

    Raises:
        AdvtagError: no columns there, a file without the manifest's columns, or a split without jets
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        features = FeatureSet.model_validate(manifest["features"])
        mc = [name for name, dataset in manifest["config"]["datasets"].items() if not dataset["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdvtagError(f"{folder}: no columns to train on; make them with `advtag columns CONFIG`") from error
    tables = {name: _read(folder / name, features) for name in manifest["datasets"] if name in mc}
    if not any(table.num_rows for table in tables.values()):
        raise AdvtagError(f"{folder}: no MC jets to train on")
    samples = {}
    for code, split in enumerate(manifest["splits"][:2]):
        parts = [_sample(table, code, features, manifest["classes"]) for table in tables.values() if table.num_rows]
        samples[split] = _joined(parts)
        if not len(samples[split]):
            raise AdvtagError(f"{folder}: the {split} split holds no jet; simulate or select more events")
    return Columns(samples["train"], samples["validation"], tuple(manifest["classes"]), features)


def _read(folder: Path, features: FeatureSet) -> pa.Table:
    wanted = [*BOOKKEEPING, *(f"input_{name}" for name in features.names)]
    files = sorted(folder.glob("*.parquet"))
    try:
        parts = [pq.read_table(path, columns=wanted, filters=pa.compute.field("split") < 2) for path in files]
        return pa.concat_tables(parts) if parts else pa.table({})
    except (pa.ArrowException, OSError) as error:
        raise AdvtagError(f"{folder}: cannot read the columns ({' '.join(str(error).split())[:200]})") from error


def _sample(table: pa.Table, split: int, features: FeatureSet, classes: list[str]) -> Sample:
    mean_weight = np.abs(table["weight"].to_numpy()).mean()
    table = table.filter(pa.compute.equal(table["split"], split))
    values = torch.zeros((table.num_rows, len(features)))
    present = torch.zeros((table.num_rows, len(features)), dtype=torch.bool)
    for column, name in enumerate(features.names):
        found = table[f"input_{name}"]
        values[:, column] = torch.from_numpy(found.fill_null(0).to_numpy().copy())
        present[:, column] = torch.from_numpy(found.is_valid().to_numpy().copy())
    identity = [table[name].to_numpy() for name in ("run", "luminosityBlock", "event", "jet_index")]
    # codes are indices into (b, bb, c, udsg); without bb in the classes, bb (1) is b (0) and the rest moves up
    code = torch.from_numpy(table["flavour"].to_numpy().astype(np.int64))
    target = code if "bb" in classes else (code - 1).clamp(min=0)

    def column_of(name: str) -> Any:
        return torch.from_numpy(table[name].to_numpy().astype(np.float32))

    weight = column_of("weight") / float(mean_weight)
    return Sample(
        Inputs(values, present, jet_keys(*identity)), target, column_of("jet_pt"), column_of("jet_eta"), weight
    )


def _joined(parts: list[Sample]) -> Sample:
    def cat(*tensors: Tensor) -> Tensor:
        return torch.cat(tensors)

    inputs = Inputs(
        cat(*(part.inputs.values for part in parts)),
        cat(*(part.inputs.present for part in parts)),
        cat(*(part.inputs.key for part in parts)),
    )
    rest = (cat(*(getattr(part, name) for part in parts)) for name in ("target", "pt", "eta", "weight"))
    return Sample(inputs, *rest)
