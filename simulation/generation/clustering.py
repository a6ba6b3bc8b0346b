"""Jets of generated particles: anti-kT clustering, with heavy hadrons as ghosts."""

from dataclasses import dataclass

import awkward as ak
import numpy as np

from simulation.generation.events import GeneratedJets, take
from simulation.generation.particles import ParticleClasses, Particles
from simulation.generation.pythia import load_libraries
from simulation.kinematics import Array

RADIUS = 0.4
MIN_PT = 12.0  # GeV: low enough that smearing to 20 GeV from below is negligible
MAX_ETA = 2.6  # a jet measured within 2.5 comes from there
_INPUT_MAX_ETA = 4.0  # particles further away cannot be in such a jet, nor pull one of its particles out
_GHOST_SCALE = 1e-18  # heavy hadrons take part in the clustering without changing it
_VISIBLE, _B_HADRON, _C_HADRON = 0, 5, 4


@dataclass(frozen=True)
class Clustering:
    """Jets, and which jet each particle is in.

    Attributes:
        jets: ordered by event and then by falling pt.
        jet_of_particle: index into the jets for each of the generator's particles, -1 for none; for heavy hadrons the
            jet that they are a ghost of.
    """

    jets: GeneratedJets
    jet_of_particle: Array


def cluster(particles: Particles, classes: ParticleClasses) -> Clustering:
    """Cluster the visible particles except prompt leptons and their photons; heavy hadrons join as ghosts.

    Ghosts with the direction of a hadron and next to no momentum end up in the jet that they point to (Cacciari,
    Salam, arXiv:0707.1378); CMS assigns `hadronFlavour` in this way (JetFlavourClustering of CMSSW).
    """
    _, fastjet = load_libraries()
    central = np.abs(particles.eta) < _INPUT_MAX_ETA
    groups = (classes.visible & ~classes.not_in_jets & central, classes.b_hadron, classes.c_hadron)
    members = [np.flatnonzero(group) for group in groups]
    index = np.concatenate(members)
    kind = np.repeat([_VISIBLE, _B_HADRON, _C_HADRON], [len(member) for member in members])
    by_event = np.argsort(particles.event[index], kind="stable")
    index, kind = index[by_event], kind[by_event]
    counts = np.bincount(particles.event[index], minlength=particles.n_events)
    scale = np.where(kind == _VISIBLE, 1.0, _GHOST_SCALE)
    names = {"px": particles.px, "py": particles.py, "pz": particles.pz, "E": particles.energy}
    inputs = ak.unflatten(ak.zip({name: values[index] * scale for name, values in names.items()}), counts)

    sequence = fastjet.ClusterSequence(inputs, fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS))
    found = sequence.inclusive_jets(min_pt=MIN_PT)
    constituents = sequence.constituent_index(min_pt=MIN_PT)  # [event][jet][constituent], within the event
    starts = np.cumsum(counts) - counts
    member = ak.to_numpy(ak.flatten(constituents + starts, axis=None)).astype(np.int64)
    n_members = ak.to_numpy(ak.flatten(ak.num(constituents, axis=2))).astype(np.int64)
    jet_of_member = np.repeat(np.arange(len(n_members)), n_members)

    def count(wanted: int) -> Array:
        return np.bincount(jet_of_member[kind[member] == wanted], minlength=len(n_members))

    px, py, pz, energy = (ak.to_numpy(ak.flatten(found[axis])).astype(float) for axis in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    jets = GeneratedJets(
        event=np.repeat(np.arange(particles.n_events), ak.to_numpy(ak.num(found))),
        pt=pt,
        eta=np.arcsinh(pz / pt),
        phi=np.arctan2(py, px),
        mass=np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0)),
        n_b_hadrons=count(_B_HADRON),
        n_c_hadrons=count(_C_HADRON),
        n_constituents=count(_VISIBLE),
    )
    jet_of_particle = np.full(len(particles.event), -1)
    jet_of_particle[index[member]] = jet_of_member
    return _keep(jets, jet_of_particle)


def _keep(jets: GeneratedJets, jet_of_particle: Array) -> Clustering:
    """Order the jets by falling pt, and drop forward ones and single particles, which are no jets."""
    order = np.lexsort((-jets.pt, jets.event))
    order = order[(np.abs(jets.eta[order]) < MAX_ETA) & (jets.n_constituents[order] > 1)]
    new_index = np.full(len(jets.pt) + 1, -1)  # the last entry is for particles in no jet: index -1
    new_index[order] = np.arange(len(order))
    return Clustering(take(jets, order), new_index[jet_of_particle])
