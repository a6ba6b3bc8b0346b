"""Columns into memory: contiguous tensors, one row per jet."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import jet_keys, mix

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

    @property
    def weight(self) -> Tensor:
        """float32, generator weight, scaled so that each dataset's average of |w| is 1."""
        return torch.ones_like(self.pt) if self.inputs.weight is None else self.inputs.weight

    def __len__(self) -> int:
        return len(self.target)

    def to(self, device: torch.device) -> "Sample":
        """The sample on another device."""
        return Sample(self.inputs.to(device), *(tensor.to(device) for tensor in (self.target, self.pt, self.eta)))


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
        AdvtagError: see `read_splits`
    """
    samples, classes, features = read_splits(folder, ("train", "validation"))
    return Columns(samples["train"], samples["validation"], classes, features)


def read_splits(folder: Path, splits: tuple[str, ...]) -> tuple[dict[str, Sample], tuple[str, ...], FeatureSet]:
    """Read splits (train, validation, test) of all MC datasets; return them, the classes and the feature card.

    Raises:
        AdvtagError: no columns there, a file without the manifest's columns, or a split without jets
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        features = FeatureSet.model_validate(manifest["features"])
        mc = [name for name, dataset in manifest["config"]["datasets"].items() if not dataset["data"]]
        codes = {split: manifest["splits"].index(split) for split in splits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdvtagError(f"{folder}: no columns there; make them with `advtag columns CONFIG`") from error
    wanted = pc.is_in(pc.field("split"), pa.array(list(codes.values()), pa.int8()))
    tables = {name: _read(folder / name, features, wanted) for name in manifest["datasets"] if name in mc}
    if not any(table.num_rows for table in tables.values()):
        raise AdvtagError(f"{folder}: no MC jets of the splits {', '.join(splits)}")
    samples = {}
    for split, code in codes.items():
        parts = [_sample(table, code, features, manifest["classes"]) for table in tables.values() if table.num_rows]
        samples[split] = _joined(parts)
        if not len(samples[split]):
            raise AdvtagError(f"{folder}: the {split} split holds no jet; simulate or select more events")
    return samples, tuple(manifest["classes"]), features


def _read(folder: Path, features: FeatureSet, wanted: Any) -> pa.Table:
    columns = [*BOOKKEEPING, *(f"input_{name}" for name in features.names)]
    files = sorted(folder.glob("*.parquet"))
    try:
        parts = [pq.read_table(path, columns=columns, filters=wanted) for path in files]
        return pa.concat_tables(parts) if parts else pa.table({})
    except (pa.ArrowException, OSError) as error:
        raise AdvtagError(f"{folder}: cannot read the columns ({' '.join(str(error).split())[:200]})") from error


def _sample(table: pa.Table, split: int, features: FeatureSet, classes: list[str]) -> Sample:
    mean_weight = np.abs(table["weight"].to_numpy()).mean()
    table = table.filter(pc.equal(table["split"], split))
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
    inputs = Inputs(values, present, jet_keys(*identity), weight)
    return Sample(inputs, target, column_of("jet_pt"), column_of("jet_eta"))


def _joined(parts: list[Sample]) -> Sample:
    def cat(*tensors: Tensor) -> Tensor:
        return torch.cat(tensors)

    inputs = Inputs(
        cat(*(part.inputs.values for part in parts)),
        cat(*(part.inputs.present for part in parts)),
        cat(*(part.inputs.key for part in parts)),
        cat(*(part.weight for part in parts)),
    )
    rest = (cat(*(getattr(part, name) for part in parts)) for name in ("target", "pt", "eta"))
    return Sample(inputs, *rest)


def some_jets(sample: Sample, number: int | None) -> Sample:
    """The first `number` jets in the order of a hash, so that no dataset comes first; all of them for None."""
    order = mix(sample.inputs.key).argsort()[:number]
    return Sample(sample.inputs[order], sample.target[order], sample.pt[order], sample.eta[order])
