"""What stage A hands to stage B: generated events, independent of any detector.

Columns are flat, one entry per object, ordered by event; lengths in mm, momenta in GeV.
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from simulation.kinematics import Array

MIN_PT = 0.7  # GeV; b tagging starts at 1 GeV, below that only the jet's track count would change
MAX_ETA = 2.5  # of the tracker


@dataclass(frozen=True)
class GeneratedJets:
    """Jets of stable particles without neutrinos, prompt leptons and their photons: anti-kT 0.4, by falling pt.

    Attributes:
        event: event number in the block, int64, ascending from 0.
        pt, eta, phi, mass: of the clustered particles, GeV.
        n_b_hadrons, n_c_hadrons: weakly decaying hadrons inside the jet, by ghost association.
        n_constituents: clustered particles, without ghosts.
    """

    event: Array
    pt: Array
    eta: Array
    phi: Array
    mass: Array
    n_b_hadrons: Array
    n_c_hadrons: Array
    n_constituents: Array


@dataclass(frozen=True)
class VisibleParticles:
    """Final particles of `MIN_PT` and more that a detector may see: those in jets, and charged ones around them.

    Attributes:
        event: event number in the block, int64, ascending from 0.
        jet: index into the block's `GeneratedJets` of the jet that it was clustered into; -1 if none.
        hadron: index into the block's `HeavyHadrons` of the last one among its ancestors; -1 if none.
        pdg_id: PDG number.
        pt, eta, phi: GeV.
        x, y, z: production point, mm; the collision is at the origin.
    """

    event: Array
    jet: Array
    hadron: Array
    pdg_id: Array
    pt: Array
    eta: Array
    phi: Array
    x: Array
    y: Array
    z: Array

    def __len__(self) -> int:
        """Number of particles."""
        return len(self.event)


@dataclass(frozen=True)
class HeavyHadrons:
    """Weakly decaying hadrons with a b or c quark.

    Attributes:
        event: event number in the block, int64, ascending from 0.
        jet: index into the block's `GeneratedJets` of the jet whose ghost it is; -1 if none.
        pdg_id: PDG number.
        pt, eta, phi, mass: GeV.
        x, y, z: production point, mm.
        decay_x, decay_y, decay_z: decay point, mm.
        n_charged: charged final particles among its descendants, those of K0S and Lambda included.
    """

    event: Array
    jet: Array
    pdg_id: Array
    pt: Array
    eta: Array
    phi: Array
    mass: Array
    x: Array
    y: Array
    z: Array
    decay_x: Array
    decay_y: Array
    decay_z: Array
    n_charged: Array


@dataclass(frozen=True)
class GeneratedLeptons:
    """Electrons and muons from W, Z, tau and heavy hadrons.

    Attributes:
        event: event number in the block, int64, ascending from 0.
        pdg_id: 11 or 13 with the sign of the PDG number.
        pt, eta, phi: GeV.
        around_03, around_04: summed pt of visible particles within 0.3 and 0.4, without its own photons.
        radiated: summed pt of the photons around it, which a calorimeter cluster holds.
    """

    event: Array
    pdg_id: Array
    pt: Array
    eta: Array
    phi: Array
    around_03: Array
    around_04: Array
    radiated: Array


@dataclass(frozen=True)
class GeneratedEvents:
    """A block of events.

    Attributes:
        weight: generator weight of each event.
        n_charged: charged particles of each event that may leave a track.
        cross_section, cross_section_error: pb, from all events that the generator made for this block.
    """

    weight: Array
    n_charged: Array
    jets: GeneratedJets
    particles: VisibleParticles
    hadrons: HeavyHadrons
    leptons: GeneratedLeptons
    cross_section: float
    cross_section_error: float

    def __len__(self) -> int:
        """Number of events."""
        return len(self.weight)


Columns = TypeVar("Columns", GeneratedJets, VisibleParticles, HeavyHadrons, GeneratedLeptons)


def take(columns: Columns, index: Array) -> Columns:
    """Entries at these positions, or where a mask is true."""
    return type(columns)(**{column.name: getattr(columns, column.name)[index] for column in fields(columns)})


def join(batches: list[GeneratedEvents], cross_section: float, error: float) -> GeneratedEvents:
    """Lay batches end to end: event numbers and indices go on from one to the next."""
    event = np.cumsum([0, *(len(batch) for batch in batches[:-1])])
    jet = np.cumsum([0, *(len(batch.jets.event) for batch in batches[:-1])])
    hadron = np.cumsum([0, *(len(batch.hadrons.event) for batch in batches[:-1])])

    def lay(collections: list[Columns], **offsets: Array) -> Columns:
        names = [column.name for column in fields(collections[0])]
        parts = {name: [getattr(collection, name) for collection in collections] for name in names}
        for name, starts in {"event": event, **offsets}.items():
            parts[name] = [
                np.where(part < 0, part, part + start) for part, start in zip(parts[name], starts, strict=True)
            ]
        return type(collections[0])(**{name: np.concatenate(part) for name, part in parts.items()})

    return GeneratedEvents(
        weight=np.concatenate([batch.weight for batch in batches]),
        n_charged=np.concatenate([batch.n_charged for batch in batches]),
        jets=lay([batch.jets for batch in batches]),
        particles=lay([batch.particles for batch in batches], jet=jet, hadron=hadron),
        hadrons=lay([batch.hadrons for batch in batches], jet=jet),
        leptons=lay([batch.leptons for batch in batches]),
        cross_section=cross_section,
        cross_section_error=error,
    )
