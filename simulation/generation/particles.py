"""The generator record as flat columns, and what each particle is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import awkward as ak
import numpy as np

from simulation.kinematics import Array

_LONGEST_CHAIN = 100  # copies between a lepton and its origin


@dataclass(frozen=True)
class Particles:
    """All particles of a batch of events, one entry each.

    Attributes:
        n_events: number of events.
        event: event of the particle, ascending from 0.
        mother, daughter: index (into these columns) of its first mother and daughter; the event's first entry where
            it has none.
        px, py, pz, energy: GeV.
        x, y, z: production point, mm; the collision is at the origin.
    """

    n_events: int
    event: Array
    pdg_id: Array
    status: Array
    mother: Array
    daughter: Array
    px: Array
    py: Array
    pz: Array
    energy: Array
    x: Array
    y: Array
    z: Array

    @cached_property
    def pt(self) -> Array:
        """Transverse momentum, GeV."""
        return np.hypot(self.px, self.py)

    @cached_property
    def eta(self) -> Array:
        """Pseudorapidity."""
        return np.arcsinh(self.pz / np.maximum(self.pt, 1e-6))

    @cached_property
    def phi(self) -> Array:
        """Azimuth."""
        return np.arctan2(self.py, self.px)


@dataclass(frozen=True)
class ParticleClasses:
    """Masks over `Particles`.

    Attributes:
        visible: final and not a neutrino.
        signal_lepton: final electron or muon that is prompt (from a W or Z boson, or from a tau of theirs) or from a
            heavy hadron.
        not_in_jets: prompt leptons and the photons that they radiate, which belong to the lepton.
        b_hadron, c_hadron: last hadron with this quark in its decay chain.
    """

    visible: Array
    signal_lepton: Array
    not_in_jets: Array
    b_hadron: Array
    c_hadron: Array


def flatten(record: Any) -> Particles:
    """Turn the awkward record of `EventGenerator.next_batch` into flat columns."""
    particles = record.prt
    counts = ak.to_numpy(ak.num(particles.id))
    starts = np.cumsum(counts) - counts
    event = np.repeat(np.arange(len(counts)), counts)

    def column(values: Any) -> Array:
        flat: Array = ak.to_numpy(ak.flatten(values))
        return flat

    def position(axis: str) -> Array:
        return column(ak.fill_none(particles.vProd[axis], 0.0))  # none: produced in the collision

    return Particles(
        n_events=len(counts),
        event=event,
        pdg_id=column(particles.id),
        status=column(particles.status),
        mother=starts[event] + np.maximum(column(particles.mother1), 0),
        daughter=starts[event] + np.maximum(column(particles.daughter1), 0),
        px=column(particles.p.px),
        py=column(particles.p.py),
        pz=column(particles.p.pz),
        energy=column(particles.p.e),
        x=position("px"),
        y=position("py"),
        z=position("pz"),
    )


def is_parton(pdg_id: Array) -> Array:
    """True for quarks, gluons, diquarks, and the numbers above 80 of Pythia's bookkeeping."""
    number = np.abs(pdg_id)
    diquark = (number > 1000) & (number < 10_000) & ((number // 10) % 10 == 0)
    parton: Array = (number < 10) | (number == 21) | ((number > 80) & (number < 101)) | diquark
    return parton


def contains_quark(pdg_id: Array, quark: int) -> Array:
    """True for hadrons whose heaviest quark this is, by the digits of the PDG number; excited states included."""
    number = np.abs(pdg_id)
    is_hadron = (number > 100) & (number < 9_900_000) & (number % 10 > 0)
    contains: Array = is_hadron & (((number // 100) % 10 == quark) | ((number // 1000) % 10 == quark))
    return contains


def classify(particles: Particles) -> ParticleClasses:
    """Find the visible particles, the leptons by origin, and the weakly decaying heavy hadrons."""
    number = np.abs(particles.pdg_id)
    final = particles.status > 0
    neutrino = (number == 12) | (number == 14) | (number == 16)
    with_b = contains_quark(particles.pdg_id, 5)
    with_c = contains_quark(particles.pdg_id, 4) & ~with_b

    lepton = np.flatnonzero(final & ((number == 11) | (number == 13)))
    origin = _lepton_origin(particles, lepton)
    from_boson = (number[origin] == 23) | (number[origin] == 24)
    prompt = np.zeros(len(number), dtype=bool)
    prompt[lepton[from_boson]] = True
    photon = np.flatnonzero(final & (number == 22))
    radiated = photon[(number[particles.mother[photon]] == 11) | (number[particles.mother[photon]] == 13)]
    emitter = _lepton_origin(particles, radiated)
    not_in_jets = prompt.copy()
    not_in_jets[radiated[(number[emitter] == 23) | (number[emitter] == 24)]] = True
    signal = prompt.copy()
    signal[lepton[with_b[origin] | with_c[origin]]] = True
    return ParticleClasses(
        visible=final & ~neutrino,
        signal_lepton=signal,
        not_in_jets=not_in_jets,
        b_hadron=_last_of_chain(particles, with_b),
        c_hadron=_last_of_chain(particles, with_c),
    )


def _last_of_chain(particles: Particles, with_quark: Array) -> Array:
    """Hadrons of this flavour that are not the mother of another one (excited states, oscillations)."""
    is_mother = np.zeros(len(with_quark), dtype=bool)
    is_mother[particles.mother[with_quark]] = True
    last: Array = with_quark & ~is_mother
    return last


def _lepton_origin(particles: Particles, lepton: Array) -> Array:
    """First ancestor, of a lepton or its photon, that is not itself a lepton: copies and taus are passed over.

    The walk must not go on to the beams, which are hadrons too.
    """
    number = np.abs(particles.pdg_id)
    origin = particles.mother[lepton]
    for _ in range(_LONGEST_CHAIN):
        still_lepton = (number[origin] >= 11) & (number[origin] <= 16)
        if not still_lepton.any():
            break
        origin = np.where(still_lepton, particles.mother[origin], origin)
    return origin


def ancestor(particles: Particles, index: Array, candidates: Array) -> Array:
    """Nearest ancestor of each particle among some candidates.

    Args:
        particles: the generator's record.
        index: whose ancestor is wanted; a particle that is a candidate is its own.
        candidates: indices of the particles that count.

    Returns:
        Position in `candidates`, -1 where there is none.
    """
    position = np.full(len(particles.event), -1)
    position[candidates] = np.arange(len(candidates))
    found = np.full(len(index), -1)
    searching, current = np.arange(len(index)), index
    while len(searching):
        found[searching] = position[current]
        # above a parton there are no hadrons but the beams: the walk ends where hadronisation began
        go_on = (found[searching] < 0) & ~is_parton(particles.pdg_id[current])
        searching, current = searching[go_on], particles.mother[current[go_on]]
    return found
