"""Stage B: generated events through a detector, to finished NanoAOD columns."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import poisson

from simulation.block import Block, Collection
from simulation.detector import jets as jet_measurement
from simulation.detector import tracks as tracking
from simulation.detector.association import associate
from simulation.detector.constituents import constituents
from simulation.detector.deepcsv import COUNTERS, deepcsv_variables
from simulation.detector.impact import track_variables
from simulation.detector.jets import Jets
from simulation.detector.leptons import ELECTRON, MUON, LeptonKind, Leptons, find_leptons
from simulation.detector.material import interact
from simulation.detector.memory import leave_undefined
from simulation.detector.tracks import PrimaryVertices, Tracks
from simulation.detector.trigger import trigger_decisions
from simulation.detector.vertexing import find_vertices
from simulation.generation.events import GeneratedEvents, VisibleParticles, take
from simulation.kinematics import Array, electric_charge
from simulation.knobs import Detector
from simulation.processes import Process
from simulation.rounding import round_mantissa
from simulation.variants import Variant

EVENTS_PER_LUMINOSITY_BLOCK = 1000
MC_RUN, DATA_RUN = 1, 300_000
MAX_SEED = 100_000
MAX_EVENTS = 100_000_000
# `precision` of most variables in NanoAOD and PFNano; pt as it is, but in the tables of PFNano itself
_MANTISSA_BITS = {"eta": 12, "phi": 12}
_OTHER_MANTISSA_BITS = 10
_ROUNDED_PT = ("JetPFCands", "JetSVs")


@dataclass(frozen=True)
class Content:
    """What the files hold beyond jets, leptons and triggers.

    Attributes:
        constituents: PFNano's candidates and secondary vertices, for taggers that start from them.
        undefined_memory: leave undefined memory in absent track slots, as real PFNano files do, instead of -999.
    """

    constituents: bool = False
    undefined_memory: bool = False


@dataclass(frozen=True)
class _Random:
    """Random numbers for each step, so that a change in one step leaves those of the others as they are."""

    jets: np.random.Generator
    vertices: np.random.Generator
    tracks: np.random.Generator
    material: np.random.Generator
    secondaries: np.random.Generator
    pileup: np.random.Generator
    pileup_tracks: np.random.Generator
    muons: np.random.Generator
    electrons: np.random.Generator
    trigger: np.random.Generator
    candidates: np.random.Generator
    memory: np.random.Generator

    @classmethod
    def from_seed(cls, *numbers: int) -> Self:
        """Independent streams from these numbers."""
        names = cls.__dataclass_fields__
        children = np.random.SeedSequence(list(numbers)).spawn(len(names))
        return cls(**{name: np.random.default_rng(child) for name, child in zip(names, children, strict=True)})


def reconstruct(
    generated: GeneratedEvents, process: Process, variant: Variant, seed: int, first_event: int, content: Content
) -> Block:
    """Everything after the generator, for one block.

    Args:
        generated: the events.
        process: that they are of.
        variant: its detector is used.
        seed: of the sample; together with process and first event it makes all random numbers.
        first_event: number of the first event in the sample.
        content: what is made.

    Returns:
        Finished columns, one entry per generated event.
    """
    detector, n_events = variant.detector, len(generated)
    random = _Random.from_seed(seed, process.number, first_event, int(variant.is_data))
    pileup = poisson.ppf(random.pileup.random(n_events), detector.pileup)  # grows with the mean, event by event
    jets = jet_measurement.measure(generated.jets, detector, random.jets)
    primary = tracking.reconstruct_vertices(generated.n_charged, detector, random.vertices)
    tracks, destroyed = _tracks(generated.particles, primary, detector, random)
    of_pileup = tracking.pileup_tracks(jets, len(generated.jets.event), pileup, detector, random.pileup_tracks)
    tracks = tracking.concatenate(tracks, of_pileup)
    variables = track_variables(jets, associate(jets, tracks, n_events), primary)
    vertices = find_vertices(jets, variables, primary)
    deepcsv = deepcsv_variables(jets, variables, *vertices)
    if content.undefined_memory:
        deepcsv = leave_undefined(deepcsv, random.memory)
    muons = find_leptons(generated.leptons, MUON, detector, random.muons)
    electrons = find_leptons(generated.leptons, ELECTRON, detector, random.electrons)

    jet_counts = np.bincount(jets.event, minlength=n_events)
    collections = {
        "Jet": Collection(jet_counts, _jet_columns(jets, deepcsv)),
        "Muon": _lepton_collection(muons, MUON, "pfRelIso04_all", n_events),
        "Electron": _lepton_collection(electrons, ELECTRON, "pfRelIso03_all", n_events),
    }
    if content.constituents:
        collections |= constituents(
            jets, tracks, variables, vertices, generated.particles, destroyed, n_events, random.candidates
        )
    return Block(
        events=identify(process, variant, seed, first_event, n_events)
        | {"PV_npvs": (poisson.ppf(random.pileup.random(n_events), 0.7 * pileup) + 1).astype(np.int32)}
        | trigger_decisions(jets, muons, n_events, detector, random.trigger),
        collections={
            name: Collection(collection.counts, _rounded(collection.columns, pt=name in _ROUNDED_PT))
            for name, collection in collections.items()
        },
        truth=Collection(jet_counts, _truth_columns(jets)),
        weights={
            "genWeight": generated.weight.astype(np.float32),
            "Pileup_nPU": pileup.astype(np.int32),
            "Pileup_nTrueInt": np.full(n_events, detector.pileup, dtype=np.float32),
        },
        cross_section=generated.cross_section,
        cross_section_error=generated.cross_section_error,
    )


def _tracks(
    particles: VisibleParticles, primary: PrimaryVertices, detector: Detector, random: _Random
) -> tuple[Tracks, Array]:
    """All tracks of the collision, and a mask of the particles that do not come through the pixel detector."""
    secondaries, emitted, destroyed = interact(particles, detector.material, random.material)
    is_charged = electric_charge(particles.pdg_id) != 0
    charged, intact = take(particles, is_charged), ~destroyed[is_charged]
    tracks = tracking.concatenate(
        tracking.reconstruct(charged, intact, primary, detector, random.tracks),
        tracking.reconstruct(secondaries, emitted, primary, detector, random.secondaries),
    )
    return tracks, destroyed


def identify(process: Process, variant: Variant, seed: int, first_event: int, n_events: int) -> dict[str, Array]:
    """Run, luminosity block and event number of each event."""
    number = first_event + np.arange(n_events)
    return {
        "run": np.full(n_events, DATA_RUN if variant.is_data else MC_RUN, dtype=np.uint32),
        "luminosityBlock": (number // EVENTS_PER_LUMINOSITY_BLOCK + 1).astype(np.uint32),
        "event": (event_offset(process, variant, seed) + number).astype(np.uint64),
    }


def event_offset(process: Process, variant: Variant, seed: int) -> int:
    """Start of the event numbers of a sample.

    Variants of the detector have the numbers of the events that they share; no two samples of different process,
    generator or seed have one in common.
    """
    sample = (process.number * 10 + variant.generator.number) * MAX_SEED + seed  # below 2^53: exact as a double, too
    return sample * MAX_EVENTS


def _rounded(columns: dict[str, Array], *, pt: bool) -> dict[str, Array]:
    """NanoAOD's precision for floats, `pt` only if asked for; integers as they are."""

    def bits(name: str) -> int:
        return _MANTISSA_BITS.get(name, _OTHER_MANTISSA_BITS)

    return {
        name: round_mantissa(values, bits(name)) if values.dtype.kind == "f" and (pt or name != "pt") else values
        for name, values in columns.items()
    }


def _jet_columns(jets: Jets, deepcsv: dict[str, Array]) -> dict[str, Array]:
    columns = {name: getattr(jets, name).astype(np.float32) for name in ("pt", "eta", "phi", "mass")}
    for name, values in deepcsv.items():
        columns[f"DeepCSV_{name}"] = values.astype(np.int32 if name in COUNTERS else np.float32)
    return columns


def _truth_columns(jets: Jets) -> dict[str, Array]:
    return {
        "hadronFlavour": jets.hadron_flavour.astype(np.int32),
        "nBHadrons": jets.n_b_hadrons.astype(np.int32),
        "nCHadrons": jets.n_c_hadrons.astype(np.int32),
        "genPt": jets.gen_pt.astype(np.float32),
    }


def _lepton_collection(leptons: Leptons, kind: LeptonKind, isolation: str, n_events: int) -> Collection:
    columns = {name: getattr(leptons, name).astype(np.float32) for name in ("pt", "eta", "phi")}
    columns["mass"] = np.full(len(leptons.pt), kind.mass, dtype=np.float32)
    columns["charge"] = leptons.charge.astype(np.int32)
    columns[isolation] = leptons.isolation.astype(np.float32)
    return Collection(np.bincount(leptons.event, minlength=n_events), columns)
