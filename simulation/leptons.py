"""Electrons and muons: identification, resolution, isolation."""

from dataclasses import dataclass

import numpy as np

from simulation.kinematics import Array, delta_r2, pairs_in_event
from simulation.particles import ParticleClasses, Particles
from simulation.variants import Detector

_MIN_ISOLATION_PT = 0.5  # GeV, of the particles that are summed
_FOOTPRINT = 0.05  # cone around the lepton that holds its own radiation


@dataclass(frozen=True)
class LeptonKind:
    """Acceptance of one lepton flavour."""

    pdg_id: int
    mass: float  # GeV
    min_pt: float  # GeV
    max_eta: float
    isolation_cone: float


ELECTRON = LeptonKind(pdg_id=11, mass=0.000511, min_pt=5.0, max_eta=2.5, isolation_cone=0.3)
MUON = LeptonKind(pdg_id=13, mass=0.10566, min_pt=3.0, max_eta=2.4, isolation_cone=0.4)


@dataclass(frozen=True)
class Leptons:
    """Leptons of one flavour, one entry each, ordered by event and then by falling pt.

    Attributes:
        isolation: summed pt of the visible particles in the cone, over the lepton's pt.
    """

    event: Array
    pt: Array
    eta: Array
    phi: Array
    charge: Array
    isolation: Array


def find_leptons(
    particles: Particles, classes: ParticleClasses, kind: LeptonKind, detector: Detector, rng: np.random.Generator
) -> Leptons:
    """Reconstruct leptons from W, Z, tau and heavy hadrons."""
    is_muon = kind.pdg_id == MUON.pdg_id
    efficiency = detector.muon_efficiency if is_muon else detector.electron_efficiency
    resolution = detector.muon_resolution if is_muon else detector.electron_resolution
    candidate = classes.signal_lepton & (np.abs(particles.pdg_id) == kind.pdg_id)
    index = np.flatnonzero(candidate & (particles.pt > 1.0) & (np.abs(particles.eta) < kind.max_eta))
    index = index[rng.random(len(index)) < efficiency]
    around, radiated = _surroundings(particles, classes, index, kind.isolation_cone)
    # a calorimeter cluster holds the collinear photons; a muon track does not
    true_pt = particles.pt[index] + (0.0 if is_muon else radiated)
    pt = true_pt * (1 + resolution * rng.normal(size=len(index)))
    kept = pt > kind.min_pt
    index, pt, around = index[kept], pt[kept], around[kept]
    order = np.lexsort((-pt, particles.event[index]))
    index, pt, around = index[order], pt[order], around[order]
    return Leptons(
        event=particles.event[index],
        pt=pt,
        eta=particles.eta[index],
        phi=particles.phi[index],
        charge=-np.sign(particles.pdg_id[index]),
        isolation=around / pt,
    )


def _surroundings(particles: Particles, classes: ParticleClasses, index: Array, cone: float) -> tuple[Array, Array]:
    """Summed pt around each lepton, outside its footprint, and of the photons inside the footprint."""
    near = np.flatnonzero(classes.visible & (particles.pt > _MIN_ISOLATION_PT) & (np.abs(particles.eta) < 3))
    lepton, other = pairs_in_event(particles.event[index], particles.event[near], particles.n_events)
    me, it = index[lepton], near[other]
    distance2 = delta_r2(particles.eta[me], particles.phi[me], particles.eta[it], particles.phi[it])
    photon_inside = (distance2 < _FOOTPRINT**2) & (particles.pdg_id[it] == 22)
    around = (distance2 < cone**2) & ~photon_inside & (me != it)
    pt = particles.pt[it]
    n = len(index)
    return (
        np.bincount(lepton[around], weights=pt[around], minlength=n),
        np.bincount(lepton[photon_inside], weights=pt[photon_inside], minlength=n),
    )
