"""Histograms in the making: one block of numbers for each category, filled by compiled loops.

A block is float64 [flavours, bins of all variables, 2]: sums of weights and of squared weights, underflow and overflow
included, the variables one after another. Blocks are plain arrays, so that chunks add up quickly and only categories
that were filled cost memory; `as_histograms` makes hist histograms of them, once, at the end. The place of an entry
is found once for all regions and variations. The sums are those of `hist.fill` to the last bit: the tests compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import hist
import numba
import numpy as np
from numpy.typing import NDArray

from processors.jets import FLAVOURS

Block = NDArray[np.float64]
ABSENT = -1
"""Place of an entry that is not there."""


@numba.njit(nogil=True, cache=True)
def _regular(values: Any, there: Any, bins: int, low: float, high: float, places: Any) -> None:
    """Place of each value in a regular axis; like boost-histogram, NaN is overflow."""
    for jet in range(len(values)):
        if not there[jet]:
            places[jet] = ABSENT
            continue
        z = (np.float64(values[jet]) - low) / (high - low)
        if z < 1:
            places[jet] = int(z * bins) + 1 if z >= 0 else 0
        else:
            places[jet] = bins + 1


@numba.njit(nogil=True, cache=True)
def _integer(values: Any, there: Any, low: int, high: int, places: Any) -> None:
    """Place of each value in an integer axis; values are cut to whole numbers."""
    for jet in range(len(values)):
        if there[jet]:
            places[jet] = min(max(int(values[jet]), low - 1), high) - low + 1
        else:
            places[jet] = ABSENT


@numba.njit(nogil=True, cache=True)
def _add(places: Any, rows: Any, flavour: Any, weight: Any, offset: int, block: Any) -> None:
    """Add the rows' weights to a block; `weight` is that of the rows."""
    for k in range(len(rows)):
        jet = rows[k]
        place = places[jet]
        if place != ABSENT:
            w = weight[k]
            block[flavour[jet], offset + place, 0] += w
            block[flavour[jet], offset + place, 1] += w * w


@dataclass(frozen=True)
class Layout:
    """Where each variable lies in a block."""

    axes: tuple[hist.axis.AxesMixin, ...]
    """One of each variable: Regular or Integer, with underflow and overflow"""

    @property
    def offsets(self) -> list[int]:
        """First place of each variable, and the end of the last."""
        return [0, *accumulate(axis.extent for axis in self.axes)]

    def empty(self) -> Block:
        """A block of zeros."""
        return np.zeros((len(FLAVOURS), self.offsets[-1], 2))

    def places(self, variable: int, values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Place of each value [jets] in the variable's part of a block; ABSENT where it is not there."""
        axis, found = self.axes[variable], np.empty(len(values), np.int32)
        if isinstance(axis, hist.axis.Integer):
            _integer(values, there, round(axis.edges[0]), round(axis.edges[-1]), found)
        else:
            _regular(values, there, axis.size, float(axis.edges[0]), float(axis.edges[-1]), found)
        return found


@dataclass(frozen=True)
class Fill:
    """The jets of a region, and their weights under every variation."""

    region: str
    rows: NDArray[np.int64]
    """[rows], which jets"""
    weights: Mapping[str, NDArray[np.float64]]
    """variation -> [rows]"""


class Filler:
    """Fills a chunk's jets into blocks.

    Args:
        layout: of the variables
        flavour: int8 [jets], index into FLAVOURS
        fills: regions, of which a jet may be in several
    """

    def __init__(self, layout: Layout, flavour: NDArray[np.int8], fills: Sequence[Fill]) -> None:
        self.layout = layout
        self.flavour = flavour
        self.fills = fills
        self.blocks: dict[str, Block] = {}

    def fill(
        self,
        tagger: str,
        attack: str,
        values: Sequence[NDArray[Any]] | NDArray[Any],
        there: Sequence[NDArray[np.bool_]] | NDArray[np.bool_],
        variations: Sequence[str],
    ) -> None:
        """Add values [variables, jets], where they are there, to the blocks of a tagger and an attack."""
        offsets = self.layout.offsets
        keys = {
            (place, variation): "|".join((fill.region, variation, tagger, attack))
            for place, fill in enumerate(self.fills)
            for variation in variations
            if variation in fill.weights
        }
        # variations with the same array of weights are filled once
        distinct = {(place, id(self.fills[place].weights[name])): (place, name) for place, name in keys}
        blocks = {of: self.layout.empty() for of in distinct.values()}
        for variable in range(len(self.layout.axes)):
            places = self.layout.places(variable, values[variable], there[variable])
            for (place, name), block in blocks.items():
                fill = self.fills[place]
                _add(places, fill.rows, self.flavour, fill.weights[name], offsets[variable], block)
        for (place, name), key in keys.items():
            of = distinct[place, id(self.fills[place].weights[name])]
            self.blocks[key] = blocks[of] if of == (place, name) else blocks[of].copy()


def as_histograms(
    layout: Layout, blocks: Mapping[str, Block], categories: Sequence[hist.axis.StrCategory], dataset: str, taggers: str
) -> dict[str, hist.Hist]:
    """Histograms of a dataset, one for each variable.

    Args:
        layout: of the blocks
        blocks: by `region|variation|tagger|attack`
        categories: the axes region, flavour, variation, tagger, attack
        dataset: name of the only category of the axis dataset
        taggers: the tagger of blocks that hold for all taggers
    """
    histograms: dict[str, hist.Hist] = {}
    first = hist.axis.StrCategory([dataset], name="dataset", growth=True)
    for axis, start, stop in zip(layout.axes, layout.offsets[:-1], layout.offsets[1:], strict=True):
        histogram = hist.Hist(first, *categories, axis, storage=hist.storage.Weight())
        view = histogram.view(flow=True)
        for key, block in blocks.items():
            region, variation, tagger, attack = key.split("|")
            region_axis, flavours, variation_axis, tagger_axis, attack_axis = categories
            for name in tagger_axis if tagger == taggers else [tagger]:
                place = (
                    0,
                    region_axis.index(region),
                    slice(0, len(flavours)),
                    variation_axis.index(variation),
                    tagger_axis.index(name),
                    attack_axis.index(attack),
                )
                view[place]["value"] += block[:, start:stop, 0]
                view[place]["variance"] += block[:, start:stop, 1]
        histograms[axis.name] = histogram
    return histograms
