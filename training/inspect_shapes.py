"""What attacks do to the shapes of a sample: distances and correlations of the inputs, absent entries, wrong classes.

Every function returns a table for JSON; undefined numbers are nan. A jet counts with |w|, as in `attacks.distances`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from attacks.distances import correlations, js_distances, js_null
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from training.columns import Sample

Array = NDArray[np.float64]


def distance_table(features: FeatureSet, clean: Inputs, moved: Inputs) -> list[float]:
    """Jensen-Shannon distance, clean against moved, of each input; see `attacks.distances.js_distances`."""
    found: list[float] = js_distances(features, clean, moved).tolist()
    return found


def null_table(features: FeatureSet, clean: Inputs, seed: int = 0) -> list[float]:
    """What 95 % of the distances between two independent samples of this size stay below, of each input."""
    found: list[float] = js_null(features, clean, seed=seed)[1].tolist()
    return found


def triangle(matrix: NDArray[Any]) -> list[float]:
    """What is above the diagonal of a symmetric matrix [n, n], row by row."""
    found: list[float] = matrix[np.triu_indices(len(matrix), 1)].tolist()
    return found


def correlation_table(inputs: Inputs) -> list[float]:
    """Pearson correlation of each pair of inputs over the jets that have both, above the diagonal."""
    return triangle(correlations(inputs))


def pair_table(inputs: Inputs) -> list[float]:
    """Number of jets that have both inputs of each pair, above the diagonal."""
    present = inputs.present.cpu().numpy().astype(np.float32)  # exact up to 2^24 jets
    return triangle((present.T @ present).astype(np.int64))


def confusion_table(logits: Tensor, target: Tensor, weight: Tensor, classes: int) -> dict[str, Any]:
    """Jets of each true class (rows) by their most probable class (columns): their number, and the part of |w|.

    Args:
        logits: float [jets, classes]
        target: int64 [jets], true classes
        weight: float [jets]
        classes: number of them

    Returns:
        `jets`, int [true][highest], and `fraction`, likewise; each row adds up to 1, or is nan without jets
    """
    place = (target * classes + logits.argmax(1)).cpu().numpy()
    w = np.abs(weight.cpu().numpy().astype(np.float64))
    jets, sums = (np.bincount(place, x, classes**2).reshape(classes, classes) for x in (None, w))
    total = sums.sum(1, keepdims=True)
    fraction = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
    return {"jets": jets.tolist(), "fraction": fraction.tolist()}


def absence_table(sample: Sample, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Absent entries by flavour, and of all jets: number of jets, and the part of |w| in which each input is absent."""
    target, absent = sample.target.cpu().numpy(), ~sample.inputs.present.cpu().numpy()
    weight = np.abs(sample.weight.cpu().numpy().astype(np.float64))
    masks = {name: target == code for code, name in enumerate(classes)}
    return {
        name: {"jets": int(mask.sum()), "absent": _part(weight[mask], absent[mask]).tolist()}
        for name, mask in {**masks, "all": np.ones(len(target), bool)}.items()
    }


def _part(weight: Array, which: NDArray[np.bool_]) -> Array:
    """Part of the weights [jets] in each column of which [jets, columns]."""
    total = weight.sum()
    part: Array = weight @ which / total if total > 0 else np.full(which.shape[1], np.nan)
    return part


def absence_of_data(files: Sequence[Path], features: FeatureSet) -> dict[str, Any] | None:
    """The same of collision data, all splits, from the Parquet files of their columns; None without jets.

    Raises:
        AdvtagError: a file that cannot be read
    """
    jets, absent = 0, np.zeros(len(features))
    for path in files:
        try:
            table = pq.read_table(path, columns=[f"input_{name}" for name in features.names])
        except (pa.ArrowException, OSError) as error:
            raise AdvtagError(f"{path}: cannot read the columns ({' '.join(str(error).split())[:200]})") from error
        jets += table.num_rows
        absent += [table[f"input_{name}"].null_count for name in features.names]
    return {"jets": jets, "absent": (absent / jets).tolist()} if jets else None
