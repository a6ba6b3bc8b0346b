"""Parquet columns of MC, batch by batch: what is in them, and their jets as arrays."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import DTypeLike, NDArray

from common.errors import AdvtagError
from configs.training import Fold
from models.classes import CLASSES
from models.features import FeatureSet
from models.keys import jet_keys, mix, reseed

SPLITS = ("train", "validation")
"""Those that a tagger is trained on; the test split is not looked at."""
BATCH = 1 << 15
"""Rows that are read at once."""
HASH_BITS = 12
"""Jets are counted by so many leading bits of their hash."""
IDENTITY = ("run", "luminosityBlock", "event", "jet_index")
FOLDING = 0xF01D
"""Folds and other random choices are independent."""
INTEGERS = (*IDENTITY, "flavour", "split")
FLOATS = ("weight", "jet_pt", "jet_eta")
TYPES: dict[str, DTypeLike] = {
    "values": np.float32,
    "present": np.bool_,
    "key": np.int64,
    "weight": np.float32,
    "target": np.int8,
    "pt": np.float32,
    "eta": np.float32,
}
Rows = dict[str, NDArray[Any]]
"""The arrays of `TYPES` of some jets: values and presence [jets, features], the others [jets]."""


@dataclass(frozen=True)
class ParquetColumns:
    """Columns as `advtag columns` left them."""

    folder: Path
    files: dict[str, list[Path]]
    """of each MC dataset"""
    features: FeatureSet
    classes: tuple[str, ...]
    splits: dict[str, int]
    """codes"""
    digest: str
    """of manifest, feature card, and names and sizes of the files"""
    per_weight: dict[str, float] | None = None
    """pb per unit of generator weight of each dataset, if datasets are mixed by their cross-sections"""
    fold: Fold | None = None

    def splits_of(self, batch: Any) -> NDArray[np.int8]:
        """Codes of the splits, int8 [jets]; with a fold, training and validation jets are divided anew, by events."""
        split: NDArray[np.int8] = batch["split"].to_numpy()
        if self.fold is None:
            return split
        run, lumi, event = (batch[name].to_numpy() for name in IDENTITY[:-1])
        key = jet_keys(run, lumi, event, np.zeros(len(split), np.int8))
        inside = (reseed(key, FOLDING) % self.fold.of == self.fold.number).numpy()  # torch: never negative
        train, validation = (self.splits[name] for name in SPLITS)
        divided = np.where(inside, validation, train).astype(np.int8)
        return np.where(np.isin(split, (train, validation)), divided, split)


def find_columns(folder: Path, fold: Fold | None = None) -> ParquetColumns:
    """Look at the manifest and at the names of the files.

    Raises:
        AdvtagError: no columns there
    """
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        manifest = json.loads(text)
        features = FeatureSet.model_validate(manifest["features"])
        mc = [name for name, dataset in manifest["config"]["datasets"].items() if not dataset["data"]]
        files = {name: sorted((folder / name).glob("*.parquet")) for name in manifest["datasets"] if name in mc}
        splits = {split: manifest["splits"].index(split) for split in SPLITS}
        classes = tuple(manifest["classes"])
        per_weight = None
        if (manifest["config"].get("columns") or {}).get("mix") == "cross_section":
            known = manifest["config"]["datasets"]
            per_weight = {
                name: known[name]["cross_section"] / manifest["datasets"][name]["sum_weights"] for name in files
            }
        sizes = [f"{path.relative_to(folder)} {path.stat().st_size}" for paths in files.values() for path in paths]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise AdvtagError(f"{folder}: no columns there; make them with `advtag columns CONFIG`") from error
    divided = [] if fold is None else [fold.model_dump_json()]
    digest = hashlib.sha256("\n".join([text, features.digest, *sizes, *divided]).encode()).hexdigest()[:16]
    return ParquetColumns(folder, files, features, classes, splits, digest, per_weight, fold)


class Survey:
    """What must be known of columns before their jets are distributed.

    Raises:
        AdvtagError: an unreadable file, a missing column, another card's columns, an empty split, a class without
            training jets, or weights that are none
    """

    jets: dict[str, NDArray[np.int64]]
    """[2^HASH_BITS] jets of each split by the leading bits of their hash"""
    mean_weight: dict[str, float]
    """|w| in each dataset that becomes weight 1: the average of its training and validation jets; or, if datasets are
    mixed by their cross-sections, what makes all jets together have an average of 1"""

    def __init__(self, parquet: ParquetColumns) -> None:
        self.parquet = parquet
        self.jets = {split: np.zeros(1 << HASH_BITS, np.int64) for split in SPLITS}
        self.classes = np.zeros(len(parquet.classes), np.int64)
        self.mean_weight, cross_sections = {}, {}
        for name, files in parquet.files.items():
            before = self._number()
            # an exact sum, which does not know how the columns were chunked
            total = math.fsum(chain.from_iterable(self._weights(files)))
            number = self._number() - before
            if number and not 0 < total < math.inf:
                raise AdvtagError(f"{parquet.folder / name}: the generator weights |w| add up to {total}")
            self.mean_weight[name] = total / max(number, 1)
            if parquet.per_weight is not None:
                cross_sections[name] = parquet.per_weight[name] * total
        self._insist_on_jets()
        if parquet.per_weight is not None:
            average = math.fsum(cross_sections.values()) / self._number()
            self.mean_weight = {name: average / parquet.per_weight[name] for name in cross_sections}

    def _number(self) -> int:
        return sum(int(jets.sum()) for jets in self.jets.values())

    def _weights(self, files: list[Path]) -> Iterator[list[float]]:
        """|w| of training and validation jets, which are counted on the way."""
        codes = self.parquet.splits
        for path in files:
            for batch in batches(path, self.parquet, inputs=False):
                split_of, target = self.parquet.splits_of(batch), _target(batch, self.parquet, path)
                place = leading(hashed(_key(batch)))
                for split, jets in self.jets.items():
                    jets += np.bincount(place[split_of == codes[split]], minlength=len(jets))
                self.classes += np.bincount(target[split_of == codes["train"]], minlength=len(self.classes))
                yield np.abs(batch["weight"].to_numpy()[np.isin(split_of, list(codes.values()))]).tolist()

    def _insist_on_jets(self) -> None:
        folder = self.parquet.folder
        if not self._number():
            raise AdvtagError(f"{folder}: no MC jets of the splits {', '.join(SPLITS)}")
        for split, jets in self.jets.items():
            if not jets.any():
                raise AdvtagError(f"{folder}: the {split} split holds no jet; simulate or select more events")
        lacking = [name for name, jets in zip(self.parquet.classes, self.classes, strict=True) if not jets]
        if lacking:
            raise AdvtagError(
                f"{folder}: the train split holds no jet of class {', '.join(lacking)}; simulate or select more events"
            )


def batches(path: Path, parquet: ParquetColumns, *, inputs: bool) -> Iterator[Any]:
    """Record batches of a file, with the inputs of the tagger or without.

    Raises:
        AdvtagError: an unreadable file, a missing column, one of another type, or another card's columns
    """
    needed = [*INTEGERS, *FLOATS, *(f"input_{name}" for name in parquet.features.names)]
    try:
        with pq.ParquetFile(path) as file:
            _insist_on_schema(path, file.schema_arrow, needed, parquet.features)
            for batch in file.iter_batches(BATCH, columns=needed if inputs else [*INTEGERS, "weight"]):
                empty = [name for name in (*INTEGERS, "weight") if batch[name].null_count]
                if empty:
                    raise AdvtagError(f"{path}: column {empty[0]!r} has empty entries")
                yield batch
    except (pa.ArrowException, OSError) as error:
        raise AdvtagError(f"{path}: cannot read the columns ({' '.join(str(error).split())[:200]})") from error


def _insist_on_schema(path: Path, schema: Any, needed: list[str], features: FeatureSet) -> None:
    digest = (schema.metadata or {}).get(b"features_digest", b"none").decode()
    if digest != features.digest:
        raise AdvtagError(
            f"{path}: columns of another feature card ({digest}) than {features.name!r} ({features.digest}) of the "
            "manifest; run `advtag columns` again"
        )
    for name in needed:
        if name not in schema.names:
            raise AdvtagError(f"{path}: no column {name!r}; run `advtag columns` again")
        kind, is_kind = ("integer", pa.types.is_integer) if name in INTEGERS else ("floating", pa.types.is_floating)
        if not is_kind(schema.field(name).type):
            raise AdvtagError(f"{path}: column {name!r} is of type {schema.field(name).type}, not {kind}")


def rows_of(batch: Any, parquet: ParquetColumns, mean_weight: float, path: Path) -> Rows:
    """The jets of a record batch; `mean_weight` becomes weight 1.

    Raises:
        AdvtagError: a number that is none
    """
    names = [f"input_{name}" for name in parquet.features.names]
    columns = np.empty((len(names), batch.num_rows), np.float32)
    for column, name in zip(columns, names, strict=True):
        column[:] = batch[name].to_numpy(zero_copy_only=False)  # absent ones become NaN
    values = torch.from_numpy(columns).t().contiguous().numpy()  # torch turns in blocks, numpy line by line
    present = np.isfinite(values)
    absent = ~present
    known = {name: batch[name].to_numpy(zero_copy_only=False).astype(np.float32) for name in FLOATS}
    bad = [name for name, column in known.items() if not np.isfinite(column).all()]
    if np.count_nonzero(absent) != sum(batch[name].null_count for name in names):
        bad += [name for name, column in zip(names, absent.T, strict=True) if column.sum() != batch[name].null_count]
    if bad:
        raise AdvtagError(
            f"{path}: {', '.join(bad)}: not finite although present; an entry without a value must be null"
        )
    values[absent] = 0
    return {
        "values": values,
        "present": present,
        "key": _key(batch),
        "weight": known["weight"] / np.float32(mean_weight),
        "target": _target(batch, parquet, path),
        "pt": known["jet_pt"],
        "eta": known["jet_eta"],
    }


def _target(batch: Any, parquet: ParquetColumns, path: Path) -> NDArray[np.int8]:
    """Index into the classes, int8 [jets]; without bb among them, bb is b and the rest moves up."""
    code = batch["flavour"].to_numpy()
    if len(code) and not (code.min() >= 0 and code.max() < len(CLASSES)):
        raise AdvtagError(
            f"{path}: flavour codes {code.min()} to {code.max()}, those of MC are 0 to {len(CLASSES) - 1}"
        )
    target: NDArray[np.int8] = code.astype(np.int8)
    if "bb" not in parquet.classes:
        target[target > 0] -= 1
    return target


def _key(batch: Any) -> NDArray[np.int64]:
    key: NDArray[np.int64] = jet_keys(*(batch[name].to_numpy() for name in IDENTITY)).numpy()
    return key


def hashed(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """What jets are sorted by, int64 [jets]; `training.columns.some_jets` has the same order."""
    scrambled: NDArray[np.int64] = mix(torch.from_numpy(key)).numpy()
    return scrambled


def leading(scrambled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leading bits of hashes, counted from 0 for the lowest hashes."""
    return (scrambled >> (64 - HASH_BITS)) + (1 << (HASH_BITS - 1))
