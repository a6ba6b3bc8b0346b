"""Stage A: a block of generated events, without anything that depends on the detector."""

import awkward as ak
import numpy as np

from simulation.generation.clustering import Clustering, cluster
from simulation.generation.events import (
    MAX_ETA,
    MIN_PT,
    GeneratedEvents,
    GeneratedLeptons,
    HeavyHadrons,
    VisibleParticles,
    join,
)
from simulation.generation.particles import ParticleClasses, Particles, ancestor, classify, flatten
from simulation.generation.pythia import EventGenerator, block_seed
from simulation.kinematics import Array, delta_r2, electric_charge, pairs_in_event
from simulation.knobs import Generator
from simulation.processes import Process

BATCH_EVENTS = 250  # a generator record of ttbar takes 180 kB per event
ONE_LEPTON_BATCH_EVENTS = 50  # the charge of the lepton alternates: small samples shall have both
_AROUND = 0.5  # distance from a jet within which a charged particle is kept: a cone of 0.4 and the jet's smearing
_MIN_LEPTON_PT = 1.0  # GeV
_MIN_ISOLATION_PT = 0.5  # GeV, of the particles that are summed
_FOOTPRINT = 0.05  # cone around a lepton that holds its own radiation


def generate(process: Process, generator: Generator, seed: int, first_event: int, events: int) -> GeneratedEvents:
    """Generate a block of events.

    Args:
        process: what is generated.
        generator: how.
        seed: of the sample.
        first_event: its number in the sample, from 0; it makes the random numbers of the block.
        events: how many.

    Returns:
        The events. They depend on these arguments only.
    """
    pythia = EventGenerator(process, generator, block_seed(process, generator, seed, first_event))
    size = ONE_LEPTON_BATCH_EVENTS if process.one_lepton else BATCH_EVENTS
    batches = [slim(pythia.next_batch(min(size, events - start))) for start in range(0, events, size)]
    return join(batches, *pythia.cross_section())


def slim(record: ak.Array) -> GeneratedEvents:
    """Keep of a batch of Pythia's events what a b-tagging detector may see; the cross section is left at 0."""
    particles = flatten(record)
    classes = classify(particles)
    clustering = cluster(particles, classes)
    charged = classes.visible & (electric_charge(particles.pdg_id) != 0)
    hadron_index = np.flatnonzero(classes.b_hadron | classes.c_hadron)
    index = _visible_near_jets(particles, classes, charged, clustering)
    may_leave_track = charged & (particles.pt > MIN_PT) & (np.abs(particles.eta) < MAX_ETA)
    return GeneratedEvents(
        weight=ak.to_numpy(record.info.weights[:, 0]).astype(float),
        n_charged=np.bincount(particles.event[may_leave_track], minlength=particles.n_events),
        jets=clustering.jets,
        particles=_particles(particles, clustering, index, hadron_index),
        hadrons=_hadrons(particles, clustering, hadron_index, np.flatnonzero(charged)),
        leptons=_leptons(particles, classes),
        cross_section=0.0,
        cross_section_error=0.0,
    )


def _visible_near_jets(particles: Particles, classes: ParticleClasses, charged: Array, clustering: Clustering) -> Array:
    """Constituents of the jets, and charged particles that a cone around a jet may hold."""
    hard = classes.visible & (particles.pt > MIN_PT)
    kept = hard & (clustering.jet_of_particle >= 0)
    others = np.flatnonzero(hard & charged & ~classes.not_in_jets & ~kept & (np.abs(particles.eta) < MAX_ETA))
    jets = clustering.jets
    jet, other = pairs_in_event(jets.event, particles.event[others], particles.n_events)
    candidate = others[other]
    distance2 = delta_r2(particles.eta[candidate], particles.phi[candidate], jets.eta[jet], jets.phi[jet])
    kept[candidate[distance2 < _AROUND**2]] = True
    return np.flatnonzero(kept)


def _particles(particles: Particles, clustering: Clustering, index: Array, hadron_index: Array) -> VisibleParticles:
    return VisibleParticles(
        event=particles.event[index],
        jet=clustering.jet_of_particle[index],
        hadron=ancestor(particles, index, hadron_index),
        pdg_id=particles.pdg_id[index],
        **{name: getattr(particles, name)[index] for name in ("pt", "eta", "phi", "x", "y", "z")},
    )


def _hadrons(particles: Particles, clustering: Clustering, index: Array, charged: Array) -> HeavyHadrons:
    decay = particles.daughter[index]
    parent = ancestor(particles, charged, index)
    momentum2 = particles.px[index] ** 2 + particles.py[index] ** 2 + particles.pz[index] ** 2
    direct = np.bincount(parent[parent >= 0], minlength=len(index))
    # the charm hadrons of a b hadron are hadrons of their own, and their particles are its descendants, too
    grandparent = ancestor(particles, particles.mother[index], index)
    from_hadron = grandparent >= 0
    n_charged = direct + np.bincount(grandparent[from_hadron], weights=direct[from_hadron], minlength=len(index))
    return HeavyHadrons(
        event=particles.event[index],
        jet=clustering.jet_of_particle[index],
        pdg_id=particles.pdg_id[index],
        mass=np.sqrt(np.maximum(particles.energy[index] ** 2 - momentum2, 0.0)),
        **{name: getattr(particles, name)[index] for name in ("pt", "eta", "phi", "x", "y", "z")},
        **{f"decay_{axis}": getattr(particles, axis)[decay] for axis in ("x", "y", "z")},
        n_charged=n_charged.astype(int),
    )


def _leptons(particles: Particles, classes: ParticleClasses) -> GeneratedLeptons:
    """Leptons from W, Z, tau and heavy hadrons with what surrounds them."""
    signal = classes.signal_lepton & (particles.pt > _MIN_LEPTON_PT) & (np.abs(particles.eta) < MAX_ETA)
    index = np.flatnonzero(signal)
    near = np.flatnonzero(classes.visible & (particles.pt > _MIN_ISOLATION_PT) & (np.abs(particles.eta) < 3))
    lepton, other = pairs_in_event(particles.event[index], particles.event[near], particles.n_events)
    me, it = index[lepton], near[other]
    distance2 = delta_r2(particles.eta[me], particles.phi[me], particles.eta[it], particles.phi[it])
    own_photon = (distance2 < _FOOTPRINT**2) & (particles.pdg_id[it] == 22)

    def summed_pt(chosen: Array) -> Array:
        return np.bincount(lepton[chosen], weights=particles.pt[it[chosen]], minlength=len(index))

    return GeneratedLeptons(
        event=particles.event[index],
        pdg_id=particles.pdg_id[index],
        **{name: getattr(particles, name)[index] for name in ("pt", "eta", "phi")},
        around_03=summed_pt((distance2 < 0.3**2) & ~own_photon & (me != it)),
        around_04=summed_pt((distance2 < 0.4**2) & ~own_photon & (me != it)),
        radiated=summed_pt(own_photon),
    )
