"""Files of a sample: a ROOT file and what lies beside it, either all complete or none there.

Everything is written aside and renamed at the end, the ROOT file last, so a ROOT file that is there is complete.
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

from common.errors import AdvtagError
from common.files import cannot_write, whole_file
from simulation.block import Block, Collection
from simulation.detector.reconstruct import MC_RUN
from simulation.kinematics import Array, position_in_group
from simulation.variants import Variant

# NanoAOD has LZMA(9); level 1 writes nine times faster and files of ttbar are 6 % larger (130 bytes a jet, not 123)
_COMPRESSION = uproot.LZMA(1)


class SampleFile:
    """One file of a sample, to be used in a `with` statement; an exception inside leaves nothing behind.

    Simulation has its truth in the ROOT file, a tree `Runs` with the sum of weights, and the cross section in pb in
    `<stem>.json`. What is hidden, as data always is, has its truth in `truth/<stem>.parquet`, one row per jet, and the
    variant's numbers and the cross section in `truth/<stem>.json`. Both have process, variant, seed and number of
    events in `<stem>.json`.

    Args:
        path: of the ROOT file.
        process: name of the process.
        variant: of the sample.
        seed: of the sample.
        hidden: write simulation as if it were data.
    """

    def __init__(self, path: Path, process: str, variant: Variant, seed: int, *, hidden: bool = False) -> None:
        self.path = path
        self._hidden = hidden or variant.is_data
        self._process, self._variant, self._seed = process, variant, seed
        self._outputs = output_paths(path, hidden=self._hidden)
        self._aside: dict[Path, Path] = {}
        self._stack = ExitStack()
        self._blocks: list[tuple[int, float, float]] = []  # events, cross section and error of each part
        self._sum_weights = np.zeros(2)
        self._root: Any = None
        self._tree: Any = None
        self._truth: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """Refuse to overwrite, and create the file.

        Raises:
            AdvtagError: one of the files exists, or the folder cannot be written.
        """
        refuse_existing(self._outputs)
        with ExitStack() as stack:
            # the last to enter is the first to be renamed
            self._aside = {final: stack.enter_context(whole_file(final)) for final in reversed(self._outputs)}
            with _naming(self.path):
                self._root = uproot.recreate(self._aside[self.path], compression=_COMPRESSION)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Complete the files, or remove what was written."""
        try:
            if kind is None:
                with _naming(self.path):
                    self._finish()
        except BaseException as problem:
            kind, error, traceback = type(problem), problem, problem.__traceback__
            raise
        finally:
            self._close()
            if kind is not None:
                self._stack.__exit__(kind, error, traceback)
        if kind is None:
            self._rename()

    def _close(self) -> None:
        for writer in (self._truth, self._root):
            if writer is not None:
                with suppress(OSError):  # a full disk: the error that was there first is the one to tell
                    writer.close()

    def _rename(self) -> None:
        """Give all files their names; if that fails half-way, take them away again."""
        try:
            self._stack.close()
        except AdvtagError:
            for final in self._outputs:
                final.unlink(missing_ok=True)
            raise

    def add(self, block: Block) -> None:
        """Append events.

        Raises:
            AdvtagError: they cannot be written.
        """
        with _naming(self.path):
            self._add(block)

    def _add(self, block: Block) -> None:
        collections = dict(block.collections)
        if not self._hidden:
            jets = collections["Jet"]
            collections["Jet"] = Collection(jets.counts, jets.columns | block.truth.columns)
        scalars: dict[str, Array] = block.events if self._hidden else block.events | block.weights
        jagged = {name: _jagged(collection) for name, collection in collections.items()}
        if self._tree is None:
            types: dict[str, Any] = {name: values.dtype for name, values in scalars.items()}
            types |= {name: values.type for name, values in jagged.items()}
            self._tree = self._root.mktree("Events", types)
        self._tree.extend({**scalars, **jagged})
        self._blocks.append((len(block), block.cross_section, block.cross_section_error))
        weights = block.weights["genWeight"].astype(float)
        self._sum_weights += weights.sum(), (weights**2).sum()
        if self._hidden:
            self._add_truth(block)

    def _add_truth(self, block: Block) -> None:
        table = pa.table(truth_columns(block))
        if self._truth is None:
            self._truth = pq.ParquetWriter(self._aside[truth_path(self.path, ".parquet")], table.schema)
        self._truth.write_table(table)

    def _finish(self) -> None:
        """Write the small files, and make sure that all are still wanted."""
        n_events = sum(events for events, _, _ in self._blocks)
        sample = {"process": self._process, "variant": self._variant.name, "seed": self._seed, "events": n_events}
        cross_section, error = combine_cross_sections(self._blocks)
        rate = {"cross_section_pb": cross_section, "cross_section_error_pb": error}
        if self._truth is not None:
            self._truth.close()
            self._describe(
                truth_path(self.path, ".json"), sample | rate | {"numbers": dataclasses.asdict(self._variant)}
            )
            self._describe(self.path.with_suffix(".json"), sample)
        else:
            self._write_runs(n_events)
            self._describe(self.path.with_suffix(".json"), sample | rate)
        self._root.close()
        refuse_existing(self._outputs)  # once more: it may have taken hours

    def _describe(self, path: Path, content: dict[str, Any]) -> None:
        self._aside[path].write_text(json.dumps(content, indent=2) + "\n")

    def _write_runs(self, n_events: int) -> None:
        runs: dict[str, Array] = {
            "run": np.array([MC_RUN], dtype=np.uint32),
            "genEventCount": np.array([n_events], dtype=np.int64),
            "genEventSumw": self._sum_weights[:1],
            "genEventSumw2": self._sum_weights[1:],
        }
        self._root.mktree("Runs", {name: values.dtype for name, values in runs.items()}).extend(runs)


def truth_path(path: Path, suffix: str) -> Path:
    """Where the truth of a data file lies."""
    return path.parent / "truth" / f"{path.stem}{suffix}"


def output_paths(path: Path, *, hidden: bool) -> list[Path]:
    """All files that come with a ROOT file, itself last."""
    truth = [truth_path(path, suffix) for suffix in (".parquet", ".json")] if hidden else []
    return [*truth, path.with_suffix(".json"), path]


def refuse_existing(paths: list[Path]) -> None:
    """Never overwrite.

    Raises:
        AdvtagError: a file is there.
    """
    for path in paths:
        if path.exists():
            raise AdvtagError(f"{path} exists: remove it, or choose another folder or seed")


def truth_columns(block: Block) -> dict[str, Array]:
    """Truth of the jets, one row per jet, with the event identifiers and the jet's index in `Jet`."""
    counts = block.truth.counts
    identifiers = {name: np.repeat(block.events[name], counts) for name in ("run", "luminosityBlock", "event")}
    return identifiers | {"jet_index": position_in_group(counts).astype(np.int32)} | block.truth.columns


def combine_cross_sections(blocks: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Mean of independent estimates, weighted with their numbers of events, and its error.

    Args:
        blocks: events, cross section and error of each.
    """
    events, values, errors = (np.array(column, dtype=float) for column in zip(*blocks, strict=True))
    fraction = events / events.sum()
    return float((fraction * values).sum()), float(np.sqrt(((fraction * errors) ** 2).sum()))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one that names the file."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _jagged(collection: Collection) -> ak.Array:
    columns = {name: ak.unflatten(values, collection.counts) for name, values in collection.columns.items()}
    return ak.zip(columns)
