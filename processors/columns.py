"""Columns: one Parquet row per selected jet, to train on."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from coffea import processor
from numpy.typing import NDArray

from common.files import whole_file
from configs.schema import Selection, Split
from models.features import FeatureSet
from models.keys import jet_keys, uniform
from processors.jets import Jets, event_weights, numbers, read_jets
from processors.overlap import lumi_codes, refuse_repeated

SPLITS = ("train", "validation", "test")
SPLIT_STREAM = 0x5B117


class ColumnsProcessor(processor.ProcessorABC):  # type: ignore[misc]
    """Writes a chunk's jets to one Parquet file, and returns what was counted.

    The file's name is a function of the chunk, and it is renamed into place: a chunk tried twice
    counts once.

    Args:
        features: feature card
        selection: which jets
        split: fractions of events
        datasets: name to `is it data`
        folder: where the files go, `folder/DATASET/UUID-START.parquet`
    """

    def __init__(
        self, features: FeatureSet, selection: Selection, split: Split, datasets: dict[str, bool], folder: Path
    ) -> None:
        self.features = features
        self.selection = selection
        self.split = split
        self.datasets = datasets
        self.folder = folder

    def process(self, events: Any) -> dict[str, Any]:
        """Write the chunk; return what `count` does, and `{"parts": [name of the file]}`."""
        chunk = events.metadata
        data = self.datasets[chunk["dataset"]]
        jets = read_jets(events, self.features, self.selection, data=data)
        name = f"{chunk['dataset']}/{chunk['fileuuid']}-{chunk['entrystart']:010d}.parquet"
        if len(jets):
            # jobs.make_columns makes the folder, and takes it away at the end: a late chunk must not bring it back
            with whole_file(self.folder / name, make_folder=False) as aside:
                pq.write_table(table(jets, self.features, self.split), aside, compression="zstd")
        return {**count(events, jets, data), "parts": [name] if len(jets) else []}

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing to do."""
        return accumulator


def count(events: Any, jets: Jets, data: bool) -> dict[str, Any]:
    """What a chunk adds to the books (`processors.books`): events in, jets out, sum of generator weights before any
    selection; for data also the luminosity sections, `{"lumis": {dataset: {file: codes}}}`.

    Raises:
        AdvtagError: an event of data is in the chunk twice
    """
    chunk = events.metadata
    counted = {
        "events": len(events),
        "jets": len(jets),
        "sum_weights": float(event_weights(events, data).sum()),
        "ranges": [[chunk["entrystart"], chunk["entrystop"]]] if len(events) else [],
    }
    books: dict[str, Any] = {"counts": {chunk["dataset"]: {chunk["filename"]: counted}}}
    if data:
        run, lumi, event = (numbers(events, name) for name in ("run", "luminosityBlock", "event"))
        refuse_repeated(run, lumi, event, chunk["filename"])
        books["lumis"] = {chunk["dataset"]: {chunk["filename"]: lumi_codes(run, lumi)}}
    return books


def split_of(jets: Jets, split: Split) -> NDArray[np.int8]:
    """Split of each jet, int8 [jets], an index into SPLITS: a hash of (run, lumi, event), so that all jets of an
    event stay together.
    """
    event_key = jet_keys(jets.run, jets.lumi, jets.event, np.zeros_like(jets.index))
    u = uniform(event_key, 1, SPLIT_STREAM)[:, 0].numpy()
    return ((u >= split.train).astype(np.int8) + (u >= split.train + split.validation)).astype(np.int8)


def table(jets: Jets, features: FeatureSet, split: Split) -> pa.Table:
    """Columns of the jets: who they are, then the inputs as nullable float32, absent entries null."""
    columns: dict[str, Any] = {
        "run": jets.run.astype(np.uint32),
        "luminosityBlock": jets.lumi.astype(np.uint32),
        "event": jets.event.astype(np.uint64),
        "jet_index": jets.index.astype(np.uint16),
        "jet_pt": jets.pt.astype(np.float32),
        "jet_eta": jets.eta.astype(np.float32),
        "jet_phi": jets.phi.astype(np.float32),
        "flavour": jets.flavour,
        "weight": jets.weight,
        "split": split_of(jets, split),
    }
    for row, name in enumerate(features.names):
        columns[f"input_{name}"] = pa.array(jets.values[:, row], mask=~jets.present[:, row])
    metadata = {"features": features.name, "features_digest": features.digest}
    return pa.table(columns).replace_schema_metadata(metadata)
