"""Electrons and muons: identification, resolution, isolation."""

from dataclasses import dataclass

import numpy as np

from simulation.generation.events import GeneratedLeptons
from simulation.kinematics import Array
from simulation.knobs import Detector


@dataclass(frozen=True)
class LeptonKind:
    """Acceptance of one lepton flavour."""

    pdg_id: int
    mass: float  # GeV
    min_pt: float  # GeV
    max_eta: float


ELECTRON = LeptonKind(pdg_id=11, mass=0.000511, min_pt=5.0, max_eta=2.5)
MUON = LeptonKind(pdg_id=13, mass=0.10566, min_pt=3.0, max_eta=2.4)


@dataclass(frozen=True)
class Leptons:
    """Leptons of one flavour, one entry each, ordered by event and then by falling pt.

    Attributes:
        isolation: summed pt of the visible particles in the cone (0.4 for muons, 0.3 for electrons), over its pt.
    """

    event: Array
    pt: Array
    eta: Array
    phi: Array
    charge: Array
    isolation: Array


def find_leptons(
    generated: GeneratedLeptons, kind: LeptonKind, detector: Detector, rng: np.random.Generator
) -> Leptons:
    """Reconstruct leptons from W, Z, tau and heavy hadrons."""
    is_muon = kind.pdg_id == MUON.pdg_id
    efficiency = detector.muon_efficiency if is_muon else detector.electron_efficiency
    resolution = detector.muon_resolution if is_muon else detector.electron_resolution
    # a calorimeter cluster holds the collinear photons; a muon track does not
    true_pt = generated.pt + (0.0 if is_muon else generated.radiated)
    n = len(true_pt)
    pt = true_pt * (1 + resolution * rng.normal(size=n))
    found = rng.random(n) < efficiency
    found &= (np.abs(generated.pdg_id) == kind.pdg_id) & (pt > kind.min_pt) & (np.abs(generated.eta) < kind.max_eta)
    index = np.flatnonzero(found)
    index = index[np.lexsort((-pt[index], generated.event[index]))]
    around = generated.around_04 if is_muon else generated.around_03
    return Leptons(
        event=generated.event[index],
        pt=pt[index],
        eta=generated.eta[index],
        phi=generated.phi[index],
        charge=-np.sign(generated.pdg_id[index]),
        isolation=around[index] / pt[index],
    )
