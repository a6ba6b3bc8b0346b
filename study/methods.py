"""Scale factors as an analysis measures them: from data without flavours, and simulation with them.

The methods are the ideas of CMS BTV-16-002 (JINST 13 (2018) P05011, arXiv:1712.07158) and BTV-20-001 (JINST 17 (2022)
P03014, arXiv:2111.03027), in one bin of pt and without their systematic uncertainties. In all of them simulation gets
the pt spectrum and the number of jets of the data, and every array has the axes [selections, replicas].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from study.counts import Array, Counts, like_data
from study.jets import Bools, Jets

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """Efficiencies of one flavour, [selections, replicas]."""

    data: Array
    mc: Array

    @property
    def scale_factor(self) -> Array:
        """Data over simulation; nan where simulation has none."""
        found: Array = self.data / np.where(self.mc > 0, self.mc, np.nan)
        return found


def subtracted(data: Counts, mc: Counts, flavour: str) -> Measured:
    """Efficiency of one flavour in a sample that is rich in it: what is not of this flavour is taken from simulation.

    Tag-and-probe in e mu ttbar (the probes) and W+c (opposite minus same sign, where the weights have signs).
    """
    expected = like_data(mc, data)
    (total, passed), (other, other_passed) = data.sums(), expected.but(flavour).sums()
    signal = total - other
    efficiency = (passed - other_passed) / np.where(signal > 0, signal, np.nan)
    return Measured(efficiency, expected.of(flavour).efficiency())


def negative_tags(data: Counts, negative_data: Counts, mc: Counts, negative_mc: Counts) -> Measured:
    """Mistag rate of light jets: rate of negative tags in data, times R_light = light mistag / negative rate in MC.

    Args:
        data: multijets, of all flavours
        negative_data: the same jets, passing where the flipped jet passes
        mc: simulation
        negative_mc: simulation, flipped
    """
    light = like_data(mc, data).of("light").efficiency()
    negative = like_data(negative_mc, negative_data).efficiency()
    ratio = light / np.where(negative > 0, negative, np.nan)
    return Measured(negative_data.efficiency() * ratio, light)


def probes(jets: Jets, inside: Bools, tagged: Bools) -> Ints:
    """Rows of the probes: of the two hardest jets inside in each event, those whose partner is tagged.

    Args:
        jets: of all events
        inside: in the region, [jets]
        tagged: passes the tag, [jets]
    """
    rows = np.flatnonzero(inside)
    rows = rows[np.lexsort([-jets.pt[rows], jets.event[rows]])]
    _, first, number = np.unique(jets.event[rows], return_index=True, return_counts=True)
    pairs = rows[first[number >= 2][:, None] + [0, 1]]
    found: Ints = np.sort(np.concatenate([pairs[tagged[pairs[:, 1]], 0], pairs[tagged[pairs[:, 0]], 1]]))
    return found
