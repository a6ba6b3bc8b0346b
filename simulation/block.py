"""Finished columns of a block of events, as they are written."""

from collections.abc import Iterable
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
        jets, muons, electrons: NanoAOD's columns without prefix.
        truth: what only simulation knows about the jets.
        weights: what only simulation knows about the events.
        cross_section, cross_section_error: pb, from all events that the generator made for this block.
    """

    events: dict[str, Array]
    jets: Collection
    muons: Collection
    electrons: Collection
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
            jets=self.jets.part(start, stop),
            muons=self.muons.part(start, stop),
            electrons=self.electrons.part(start, stop),
            truth=self.truth.part(start, stop),
            weights={name: values[start:stop] for name, values in self.weights.items()},
            cross_section=self.cross_section,
            cross_section_error=self.cross_section_error,
        )


def join(batches: list[Block], cross_section: float, error: float) -> Block:
    """Lay batches end to end."""

    def columns(parts: Iterable[dict[str, Array]]) -> dict[str, Array]:
        parts = list(parts)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def collection(name: str) -> Collection:
        parts: list[Collection] = [getattr(batch, name) for batch in batches]
        return Collection(np.concatenate([part.counts for part in parts]), columns(part.columns for part in parts))

    return Block(
        events=columns(batch.events for batch in batches),
        jets=collection("jets"),
        muons=collection("muons"),
        electrons=collection("electrons"),
        truth=collection("truth"),
        weights=columns(batch.weights for batch in batches),
        cross_section=cross_section,
        cross_section_error=error,
    )
