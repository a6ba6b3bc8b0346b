"""Jets of a sample, as an analysis has them: regions, weights, scores. Flavours are those of simulation alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from common.errors import AdvtagError
from models.classes import CLASSES
from models.features import load_features
from processors.jets import NO_TRUTH
from processors.scores import SCORES
from study.samples import REGIONS

FLAVOURS = ("b", "c", "light")
"""In the order of their codes."""
CODES = {"b": 0, "bb": 0, "c": 1, "udsg": 2}
"""Code of each class of the taggers."""
IDENTITY = ("event", "jet_index")
VERTEX_MASS = "vertexMass"
"""Input whose templates are fitted."""

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints8 = NDArray[np.int8]


@dataclass(frozen=True)
class Jets:
    """Jets of one process in one sample, in the order of events; arrays [jets]."""

    event: NDArray[np.int64]
    index: NDArray[np.int64]
    """Of the jet in its event."""
    pt: Floats
    """GeV"""
    flavour: Ints8 | None
    """Index into FLAVOURS; None for data."""
    weights: dict[str, Floats]
    """Weight by region, with the sign of OS - SS; 0 outside."""
    scores: dict[tuple[str, str], Floats]
    """Discriminator by tagger and attack; -1 where it is undefined."""
    vertex_mass: Floats
    """GeV; -1 without a vertex."""
    inputs: tuple[Floats, Bools] | None = field(default=None, repr=False)
    """Values and presence, [jets, features], where they were asked for."""

    def __len__(self) -> int:
        return len(self.event)

    def inside(self, regions: tuple[str, ...]) -> Floats:
        """Weights in any of these regions, which do not overlap."""
        total: Floats = np.sum([self.weights[region] for region in regions], axis=0)
        return total


def read_jets(folder: Path, process: str, discriminator: str, features: str, *, inputs: bool = False) -> Jets:
    """Read the columns and scores of a process from the folder of an evaluated sample.

    Args:
        folder: `output` of the analysis that evaluated it
        process: name of the dataset
        discriminator: which of the scores
        features: card of the columns, with VERTEX_MASS
        inputs: keep the inputs of the taggers, too

    Raises:
        AdvtagError: columns and scores are of different jets, or there are none
    """
    scores = _sorted(pq.read_table(folder / SCORES / process))
    columns = _sorted(pq.read_table(folder / "columns" / process))
    if any(not np.array_equal(scores[name], columns[name]) for name in IDENTITY):
        raise AdvtagError(f"{folder}: columns and scores of {process} have different jets; delete the folder")
    names = load_features(features).names
    if not len(scores["event"]):
        raise AdvtagError(
            f"{folder}: no jets of {process} in this sample; simulate more events of it (the keys `mc.events` and "
            "`data.events`)"
        )
    mass = columns[f"input_{VERTEX_MASS}"]
    code, end = scores["flavour"], f"__{discriminator}"
    kept = None
    if inputs:
        values = np.stack([columns[f"input_{name}"] for name in names], axis=1)
        kept = np.nan_to_num(values), np.isfinite(values)
    return Jets(
        event=scores["event"].astype(np.int64),
        index=scores["jet_index"].astype(np.int64),
        pt=scores["jet_pt"],
        flavour=None if (code == NO_TRUTH).all() else np.array([CODES[name] for name in CLASSES], np.int8)[code],
        weights={region: scores[f"weight__{region}"] for region in REGIONS},
        scores={
            (name.split("__")[0], name.split("__")[1]): column for name, column in scores.items() if name.endswith(end)
        },
        vertex_mass=np.where(np.isfinite(mass), mass, -1.0),
        inputs=kept,
    )


def _sorted(table: Any) -> dict[str, NDArray[Any]]:
    """Columns as arrays, absent entries as nan, sorted by event and jet."""
    order = np.lexsort([table[name].to_numpy() for name in reversed(IDENTITY)])
    return {name: table[name].to_numpy()[order] for name in table.schema.names}
