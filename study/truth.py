"""The truth of the data: the one room that opens the folder `truth/`. Nothing that measures imports it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import AdvtagError
from simulation.writer import truth_path
from study.counts import Array, Counts, like_data
from study.jets import Ints8, Jets
from study.methods import Measured


def true_flavours(files: Iterable[Path], jets: Jets) -> Ints8:
    """Flavour of each jet of hidden files, int8 [jets], an index into FLAVOURS.

    Raises:
        AdvtagError: a file of truth is missing, or does not know a jet
    """
    paths = [truth_path(path, ".parquet") for path in files]
    for path in paths:
        if not path.is_file():
            raise AdvtagError(f"{path}: no truth of the data here; delete the files of this sample to make it anew")
    table = pa.concat_tables([pq.read_table(path, columns=["event", "jet_index", "hadronFlavour"]) for path in paths])
    event, index, hadron = (table[name].to_numpy().astype(np.int64) for name in table.schema.names)
    if not len(event):
        raise AdvtagError(f"{paths[0]}: no jets in this sample; simulate more of it (the key `data.events`)")
    first = int(event.min())  # event numbers are long; those of one sample lie together
    key, wanted = ((number - first) << 16 | place for number, place in ((event, index), (jets.event, jets.index)))
    order = np.argsort(key)
    place = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
    if not np.array_equal(key[place], wanted):
        raise AdvtagError(f"{paths[0]}: does not know all jets of its data; delete the files of this sample")
    flavour: Ints8 = np.select([hadron[place] == 5, hadron[place] == 4], [0, 1], 2).astype(np.int8)
    return flavour


def true_efficiencies(data: Counts, mc: Counts, flavour: str) -> Measured:
    """Efficiencies of one flavour in data and in simulation with the pt spectrum of these jets of the data.

    Args:
        data: with the true flavours
        mc: simulation; the same generated events as the data, if there are such, which makes the error much smaller
        flavour: one of FLAVOURS
    """
    return Measured(data.of(flavour).efficiency(), like_data(mc.of(flavour), data.of(flavour)).efficiency())


def true_shift(data: Counts, mc: Counts, attacked: Counts, flavour: str) -> Array:
    """Efficiency of one flavour in data minus that in simulation, both with the pt spectrum of the attacked jets.

    Multijets of most variants have the bias to high pt of the generator; the jets whose efficiency an attack moves have
    the natural spectrum. Within the pt bins of the study the spectra stay as they are.

    Args:
        data: with the true flavours
        mc: simulation, as in `true_efficiencies`
        attacked: the simulation that is attacked, in the region of the attack
        flavour: one of FLAVOURS

    Returns:
        [selections, replicas]; nan where one of the three has no jet
    """
    spectrum = attacked.of(flavour)
    shift: Array = like_data(data.of(flavour), spectrum).efficiency() - like_data(mc.of(flavour), spectrum).efficiency()
    return shift
