"""Scores of every jet, raw and attacked, as Parquet: what the histograms were filled from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from common.files import whole_file
from processors.blocks import Fill
from processors.jets import Jets

SCORES = "scores"
"""Folder of the files, DATASET/*.parquet, in an output folder."""

Scores = Mapping[tuple[str, str], Mapping[str, NDArray[np.floating[Any]]]]
"""(tagger, attack) -> discriminator -> [jets]"""


def score_column(tagger: str, attack: str, discriminator: str) -> str:
    """Name of a column: `nominal__fgsm__BvsL`."""
    return f"{tagger}__{attack}__{discriminator}"


def scores_table(jets: Jets, fills: Sequence[Fill], nominal: str, scores: Scores) -> pa.Table:
    """Columns of a chunk's jets: who they are, in which regions, with which weights, and their scores as float32.

    Args:
        jets: nominal ones
        fills: regions, with weights
        nominal: name of the weight in `fills`
        scores: -1 where a discriminator is undefined
    """
    columns: dict[str, Any] = {
        "run": jets.run.astype(np.uint32),
        "luminosityBlock": jets.lumi.astype(np.uint32),
        "event": jets.event.astype(np.uint64),
        "jet_index": jets.index.astype(np.uint16),
        "jet_pt": jets.pt.astype(np.float32),
        "jet_eta": jets.eta.astype(np.float32),
        "flavour": jets.flavour,
        "weight": jets.weight,
    }
    for fill in fills:
        inside, weight = np.zeros(len(jets), np.bool_), np.zeros(len(jets))
        inside[fill.rows], weight[fill.rows] = True, fill.weights[nominal]
        columns |= {f"region__{fill.region}": inside, f"weight__{fill.region}": weight}
    for (tagger, attack), by_name in scores.items():
        for name, score in by_name.items():
            columns[score_column(tagger, attack, name)] = score.astype(np.float32)
    return pa.table(columns)


def write_scores(folder: Path, chunk: Mapping[str, Any], table: pa.Table) -> list[str]:
    """Write a chunk's table; return the name of its file, none if the chunk has no jets.

    The name is a function of the chunk, and the file is renamed into place: a chunk tried twice counts once.
    """
    if not len(table):
        return []
    name = f"{chunk['dataset']}/{chunk['fileuuid']}-{chunk['entrystart']}.parquet"
    with whole_file(folder / name, make_folder=False) as aside:
        pq.write_table(table, aside, compression="zstd")
    return [name]
