"""Finished columns of a block of events, as they are written."""

from dataclasses import dataclass

import numpy as np

from simulation.kinematics import Array


@dataclass(frozen=True)
class Collection:
    """Objects of several events.

    Attributes:
        counts: number of objects of each event.
        columns: values of all objects, one after the other.
    """

    counts: Array
    columns: dict[str, Array]

    def part(self, start: int, stop: int) -> "Collection":
        """The objects of events `start` to `stop`."""
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        objects = slice(ends[start], ends[stop])
        return Collection(self.counts[start:stop], {name: values[objects] for name, values in self.columns.items()})


@dataclass(frozen=True)
class Block:
    """Finished events.

    Attributes:
        events: one value per event.
        collections: NanoAOD's collections by name, their columns without prefix.
        truth: what only simulation knows about the jets.
        weights: what only simulation knows about the events.
        cross_section, cross_section_error: pb, from all events that the generator made for this block.
    """

    events: dict[str, Array]
    collections: dict[str, Collection]
    truth: Collection
    weights: dict[str, Array]
    cross_section: float
    cross_section_error: float

    def __len__(self) -> int:
        """Number of events."""
        return len(self.events["event"])

    def part(self, start: int, stop: int) -> "Block":
        """Events `start` to `stop` of this block."""
        return Block(
            events={name: values[start:stop] for name, values in self.events.items()},
            collections={name: collection.part(start, stop) for name, collection in self.collections.items()},
            truth=self.truth.part(start, stop),
            weights={name: values[start:stop] for name, values in self.weights.items()},
            cross_section=self.cross_section,
            cross_section_error=self.cross_section_error,
        )
