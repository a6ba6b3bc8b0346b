"""Training and validation jets in plain arrays on disk, shuffled once and for all.

Parquet is small but slow; here are the same jets as `.npy` files, one folder per split, in the order of a hash of their
keys. So any part of them is a random part, of all datasets, and the order is a function of the jets alone, not of how
the columns were chunked. The cache of `output/columns` is `output/cache/DIGEST`.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import AdvtagError
from common.files import cannot_write, whole_folder
from configs.training import Fold
from models.features import FeatureSet
from models.inputs import Inputs
from training.columns import Sample
from training.disk_array import Blocks, DiskArray
from training.parquet import (
    SPLITS,
    TYPES,
    ParquetColumns,
    Rows,
    Survey,
    batches,
    find_columns,
    hashed,
    leading,
    rows_of,
)

CHUNK = 1 << 14
"""Jets that are read at once where it does not matter how many; larger arrays cost more, for memory that is new."""
BUCKET = 1 << 16
"""Jets that are sorted at once, or few more."""
OWNER = "columns.txt"
"""Names the folder of the columns, which need not be the only one there."""


class Stored:
    """The jets of one split on disk.

    Raises:
        OSError, ValueError: missing or damaged files
    """

    def __init__(self, folder: Path) -> None:
        self.arrays = {name: DiskArray(folder / f"{name}.npy") for name in TYPES}
        if any(array.shape[0] != len(self) or array.dtype != TYPES[name] for name, array in self.arrays.items()):
            raise ValueError(f"{folder}: arrays that do not belong together")

    def __len__(self) -> int:
        return int(self.arrays["key"].shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes on disk; in memory they are the same to a few per cent."""
        return sum(array.nbytes for array in self.arrays.values())

    def read(self, start: int, stop: int) -> Sample:
        """The jets of a slice, in fresh memory."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return self.gather([(start, max(start, stop))])

    def chunks(self, size: int = CHUNK) -> Iterator[Sample]:
        """All jets, `size` at once."""
        for start in range(0, len(self), size):
            yield self.read(start, start + size)

    def gather(self, blocks: Blocks) -> Sample:
        """The jets of several slices, one after another, in fresh memory.

        Raises:
            AdvtagError: the files are no longer there
        """
        try:
            rows = {name: torch.from_numpy(array.read(blocks)) for name, array in self.arrays.items()}
        except OSError as error:
            folder = self.arrays["key"].path.parent
            raise AdvtagError(
                f"{folder}: cannot read the cached jets ({error}); were the columns made again? Then start again"
            ) from error
        inputs = Inputs(rows["values"], rows["present"], rows["key"], rows["weight"])
        return Sample(inputs, rows["target"].long(), rows["pt"], rows["eta"])


@dataclass(frozen=True)
class Cache:
    """The splits that a tagger is trained on."""

    train: Stored
    validation: Stored
    classes: tuple[str, ...]
    features: FeatureSet
    digest: str
    """of columns and feature card"""


def open_cache(columns: Path, fold: Fold | None = None) -> Cache:
    """Open the cache of a folder of columns; where there is none, or a damaged one, build it first.

    Each fold has a cache of its own.

    Raises:
        AdvtagError: no columns, bad ones (see `build`), or nowhere to write
    """
    parquet = find_columns(columns, fold)
    folder = columns.parent / "cache" / parquet.digest
    cache = _open(folder, parquet)
    if cache is None:
        with _alone(folder.parent):
            cache = _open(folder, parquet)  # somebody else may have built it meanwhile
            if cache is None:
                build(parquet, folder)
                _remove_others(folder, owner(parquet))
                cache = _open(folder, parquet)
    if cache is None:
        raise AdvtagError(f"{folder}: damaged as soon as it was written; look at the disk")
    return cache


def _open(folder: Path, parquet: ParquetColumns) -> Cache | None:
    """The cache, or None where it is missing or damaged."""
    try:
        train, validation = (Stored(folder / split) for split in SPLITS)
    except (OSError, ValueError):
        return None
    return Cache(train, validation, parquet.classes, parquet.features, parquet.digest)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time builds here; others wait."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise cannot_write(folder, error) from error
    with file:
        with suppress(OSError):  # on a disk without locks, two may do the same work twice
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def owner(parquet: ParquetColumns) -> str:
    """What the cache is of: the name of the columns, and the fold."""
    fold = parquet.fold
    return parquet.folder.name if fold is None else f"{parquet.folder.name}, fold {fold.number} of {fold.of}"


def _remove_others(folder: Path, columns: str) -> None:
    """Remove the caches of what `columns` was before."""
    for file in folder.parent.glob(f"*/{OWNER}"):
        if file.parent.name != folder.name and file.read_text(encoding="utf-8") == columns:
            shutil.rmtree(file.parent, ignore_errors=True)


def build(parquet: ParquetColumns, folder: Path) -> None:
    """Build a cache: distribute the jets into buckets by the leading bits of their hash, then sort each bucket.

    Raises:
        AdvtagError: an unreadable file, a missing column, another card's columns, an entry that is no number though
            present, an empty split, a class without training jets, or nowhere to write
    """
    survey = Survey(parquet)
    with whole_folder(folder) as aside:
        writers = {split: Writer(aside / split, survey.jets[split], len(parquet.features)) for split in SPLITS}
        for name, files in parquet.files.items():
            for path in files:
                for batch in batches(path, parquet, inputs=True):
                    rows, split_of = rows_of(batch, parquet, survey.mean_weight[name], path), parquet.splits_of(batch)
                    for split, writer in writers.items():
                        writer.add(rows, np.flatnonzero(split_of == parquet.splits[split]))
        for writer in writers.values():
            writer.sort()
        (aside / OWNER).write_text(owner(parquet), encoding="utf-8")


class Writer:
    """Writes the arrays of one split: `add` puts jets into the buckets where they belong, `sort` sorts each.

    Args:
        folder: where; it is made
        jets: int64 [2^HASH_BITS], how many there will be by the leading bits of their hash
        features: number of inputs
    """

    def __init__(self, folder: Path, jets: NDArray[np.int64], features: int) -> None:
        folder.mkdir()
        shapes = {"values": (int(jets.sum()), features), "present": (int(jets.sum()), features)}
        self.arrays = {
            name: DiskArray.create(folder / f"{name}.npy", dtype, shapes.get(name, (int(jets.sum()),)))
            for name, dtype in TYPES.items()
        }
        _, self.bucket_of = np.unique((np.cumsum(jets) - jets) // BUCKET, return_inverse=True)
        sizes = np.bincount(self.bucket_of, jets).astype(np.int64)
        self.edges = [0, *np.cumsum(sizes).tolist()]
        self.free = np.cumsum(sizes) - sizes

    def add(self, rows: Rows, chosen: NDArray[np.intp]) -> None:
        """Put the chosen rows into the free places of their buckets."""
        bucket = self.bucket_of[leading(hashed(rows["key"][chosen]))]
        number = np.bincount(bucket, minlength=len(self.free))
        chosen = chosen[np.argsort(bucket, kind="stable")]
        filled = np.flatnonzero(number)
        blocks = list(zip(self.free[filled].tolist(), (self.free + number)[filled].tolist(), strict=True))
        for name, array in self.arrays.items():
            array.write(blocks, rows[name].take(chosen, axis=0))
        self.free += number

    def sort(self) -> None:
        """Sort each bucket, and see everything onto the disk."""
        for start, stop in pairwise(self.edges):
            rows = {name: array.read([(start, stop)]) for name, array in self.arrays.items()}
            scrambled = hashed(rows["key"])
            order = np.argsort(scrambled, kind="stable")
            if (np.diff(scrambled[order]) == 0).any():  # samples may number their events alike
                order = np.lexsort((rows["weight"], rows["eta"], rows["pt"], scrambled))
            for name, array in self.arrays.items():
                array.write([(start, stop)], rows[name].take(order, axis=0))
        for array in self.arrays.values():
            with array.path.open("rb") as file:
                os.fsync(file.fileno())
