"""Generated events on disk: one Parquet file per block, one row per event.

Every detector variant reads the same files, which is what makes comparisons between them paired. Columns are
`weight`, `n_charged`, and lists `Jet_*`, `Particle_*`, `Hadron_*` and `Lepton_*` as described in
`simulation.generation.events`; `jet` and `hadron` are indices within the event. A file's metadata `advtag` holds the
recipe (everything that determines its events) and the cross section, as JSON.
"""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import AdvtagError
from common.files import whole_file
from simulation.generation.events import (
    GeneratedEvents,
    GeneratedJets,
    GeneratedLeptons,
    HeavyHadrons,
    VisibleParticles,
)
from simulation.generation.generate import generate
from simulation.generation.pythia import commands
from simulation.kinematics import Array
from simulation.knobs import Generator
from simulation.processes import Process
from simulation.rounding import round_mantissa

FORMAT = 1  # to be raised when stage A keeps something else, too: other cuts, other jets
_METADATA = b"advtag"
_COLLECTIONS: dict[str, Any] = {  # what an index points to comes first
    "jets": ("Jet", GeneratedJets),
    "hadrons": ("Hadron", HeavyHadrons),
    "particles": ("Particle", VisibleParticles),
    "leptons": ("Lepton", GeneratedLeptons),
}
_INDICES = {"jet": "jets", "hadron": "hadrons"}
_MANTISSA_BITS = 18  # 0.02 um for a vertex at 1 cm, 6 urad: a thirtieth of the best resolutions, and better


def generated_block(
    folder: Path, process: Process, generator: Generator, seed: int, first_event: int, events: int
) -> GeneratedEvents:
    """Read a block of events; generate and write it first where it is not there yet.

    Args:
        folder: of all generated events.
        process: what is generated.
        generator: how.
        seed: of the sample.
        first_event: its number in the sample.
        events: how many.

    Raises:
        AdvtagError: the file cannot be written or read, or was made by another recipe.
    """
    path = block_path(folder, process, generator, seed, first_event, events)
    recipe = {
        "format": FORMAT,
        "process": process.name,
        "pythia_commands": list(commands(process, generator)),
        "one_lepton": process.one_lepton,
        "outgoing_quark": process.outgoing_quark,
        "generator": generator.name,
        "lifetime_scale": {str(pdg_id): scale for pdg_id, scale in generator.lifetime_scale.items()},
        "seed": seed,
        "first_event": first_event,
        "events": events,
        "pythia": version("pythia8mc"),
        "fastjet": version("fastjet"),
    }
    if not path.exists():
        write(path, generate(process, generator, seed, first_event, events), recipe)
    return read(path, recipe)


def block_path(folder: Path, process: Process, generator: Generator, seed: int, first_event: int, events: int) -> Path:
    """Where a block of generated events lies."""
    return folder / f"{process.name}_{generator.name}_{seed}" / f"{first_event:08d}_{events}.parquet"


def write(path: Path, events: GeneratedEvents, recipe: dict[str, Any]) -> None:
    """Write a block, whole or not at all.

    Raises:
        AdvtagError: the folder cannot be written, or the disk is full.
    """
    columns: dict[str, Any] = {
        "weight": pa.array(events.weight, pa.float64()),
        "n_charged": pa.array(events.n_charged, pa.int32()),
    }
    starts: dict[str, Array] = {}  # of each event's objects
    for name, (prefix, _) in _COLLECTIONS.items():
        collection = getattr(events, name)
        counts = np.bincount(collection.event, minlength=len(events))
        starts[name] = np.cumsum(counts) - counts
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        for column in fields(collection):
            if column.name == "event":
                continue
            values = getattr(collection, column.name)
            if column.name in _INDICES:
                values = np.where(values < 0, -1, values - starts[_INDICES[column.name]][collection.event])
            columns[f"{prefix}_{column.name}"] = pa.ListArray.from_arrays(offsets, _compact(values))
    description = {**recipe, "cross_section_pb": events.cross_section, "error_pb": events.cross_section_error}
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(description).encode()})
    with _uninterrupted(), whole_file(path) as aside:
        pq.write_table(table, aside, compression="zstd", use_dictionary=False)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: it kills a worker on the spot, who would leave half a file."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _compact(values: Array) -> pa.Array:
    if values.dtype.kind == "f":
        return pa.array(round_mantissa(values, _MANTISSA_BITS))
    return pa.array(values, pa.int32() if np.abs(values).max(initial=0) > np.iinfo(np.int16).max else pa.int16())


def read(path: Path, recipe: dict[str, Any]) -> GeneratedEvents:
    """Read a block.

    Raises:
        AdvtagError: the file is damaged, or was made by another recipe.
    """
    try:
        table = pq.read_table(path)
        found = json.loads(table.schema.metadata[_METADATA])
        cross_section, error = found.pop("cross_section_pb"), found.pop("error_pb")
        changed = [key for key in {**found, **recipe} if found.get(key) != recipe.get(key)]
        if changed:
            raise AdvtagError(
                f"{path}: generated with another {', '.join(changed)}; delete the folder {path.parent}, or choose "
                "another output folder"
            )
        if table.num_rows != recipe["events"]:
            raise ValueError(f"{table.num_rows} events instead of {recipe['events']}")
        return _events(table, cross_section, error)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as problem:
        raise AdvtagError(f"{path}: not a file of generated events ({problem}); delete it and run again") from problem


def _events(table: pa.Table, cross_section: float, error: float) -> GeneratedEvents:
    collections: dict[str, Any] = {}
    starts: dict[str, Array] = {}
    for name, (prefix, kind) in _COLLECTIONS.items():
        names = [column.name for column in fields(kind) if column.name != "event"]
        lists = {column: table[f"{prefix}_{column}"].combine_chunks() for column in names}
        counts = np.diff(next(iter(lists.values())).offsets.to_numpy())
        starts[name] = np.cumsum(counts) - counts
        event = np.repeat(np.arange(len(counts)), counts)
        flat: dict[str, Array] = {column: values.flatten().to_numpy() for column, values in lists.items()}
        for column, values in flat.items():
            if values.dtype.kind == "f":
                flat[column] = values.astype(float)
            elif column in _INDICES:
                flat[column] = np.where(values < 0, -1, values + starts[_INDICES[column]][event])
        collections[name] = kind(event=event, **flat)
    return GeneratedEvents(
        weight=table["weight"].to_numpy(),
        n_charged=table["n_charged"].to_numpy(),
        cross_section=cross_section,
        cross_section_error=error,
        **collections,
    )
