"""A block of events: from the generator to finished columns, reproducible from its numbers alone.

Blocks have a fixed size and seeds of their own, so the events of a sample do not depend on how many processes make
them or on how they are spread over files.
"""

import awkward as ak
import numpy as np

from simulation import jets as jet_finding
from simulation import tracks as tracking
from simulation.association import associate
from simulation.block import Block, Collection, join
from simulation.deepcsv import COUNTERS, deepcsv_variables
from simulation.generator import EventGenerator, Process, derive_seed, get_process
from simulation.impact import track_variables
from simulation.jets import Jets
from simulation.kinematics import Array
from simulation.leptons import ELECTRON, MUON, LeptonKind, Leptons, find_leptons
from simulation.particles import classify, flatten
from simulation.trigger import trigger_decisions
from simulation.variants import Variant, get_variant

BATCH_EVENTS = 250  # a generator record of ttbar takes 180 kB per event
EVENTS_PER_LUMINOSITY_BLOCK = 1000
MC_RUN, DATA_RUN = 1, 300_000
MAX_SEED = 1_000_000
MAX_EVENTS = 100_000_000
_DEEPCSV_MANTISSA_BITS = 10  # as PFNano stores them


def make_block(process_name: str, variant_name: str, seed: int, first_event: int, events: int) -> Block:
    """Simulate a block of events.

    Args:
        process_name: a key of `PROCESSES`.
        variant_name: a key of `VARIANTS`.
        seed: of the sample.
        first_event: its number in the sample, from 0; it makes the random numbers of the block.
        events: how many.

    Returns:
        The events. They depend on these arguments only.
    """
    process, variant = get_process(process_name), get_variant(variant_name)
    # variants that differ in the detector only share the generated events
    same_generator = variant.generator == get_variant("mc").generator and not (variant.is_data and process.weighting)
    generator_number = 0 if same_generator else variant.number
    generator = EventGenerator(
        process,
        variant.generator,
        seed=derive_seed(seed, process.number, first_event, generator_number),
        weighted=not variant.is_data,
    )
    batches = []
    for start in range(0, events, BATCH_EVENTS):
        number = first_event + start
        rng = np.random.default_rng([seed, process.number, number])
        record = generator.next_batch(min(BATCH_EVENTS, events - start))
        batches.append(_reconstruct(record, process, variant, seed, number, rng))
    cross_section, error = generator.cross_section()
    return join(batches, cross_section, error)


def _reconstruct(
    record: ak.Array, process: Process, variant: Variant, seed: int, first_event: int, rng: np.random.Generator
) -> Block:
    """Everything after the generator, for one batch."""
    detector = variant.detector
    particles = flatten(record)
    classes = classify(particles)
    n_events = particles.n_events
    pileup = rng.poisson(detector.pileup, n_events)

    jets = jet_finding.measure(jet_finding.cluster(particles, classes), detector, rng)
    charged = tracking.find_charged(particles, classes, detector, rng)
    primary = tracking.reconstruct_vertices(particles.event[charged], n_events, detector, rng)
    tracks = tracking.concatenate(
        tracking.measure(particles, charged, primary, detector, rng),
        tracking.pileup_tracks(jets, pileup, detector, rng),
    )
    variables = track_variables(jets, associate(jets, tracks, n_events), primary)
    deepcsv = deepcsv_variables(jets, variables, primary)
    muons = find_leptons(particles, classes, MUON, detector, rng)
    electrons = find_leptons(particles, classes, ELECTRON, detector, rng)

    number = first_event + np.arange(n_events)
    events: dict[str, Array] = {
        "run": np.full(n_events, DATA_RUN if variant.is_data else MC_RUN, dtype=np.uint32),
        "luminosityBlock": (number // EVENTS_PER_LUMINOSITY_BLOCK + 1).astype(np.uint32),
        "event": (event_offset(process, variant, seed) + number).astype(np.uint64),
        "PV_npvs": (rng.poisson(0.7 * pileup) + 1).astype(np.int32),
        **trigger_decisions(jets, muons, n_events, detector, rng),
    }
    jet_counts = np.bincount(jets.event, minlength=n_events)
    return Block(
        events=events,
        jets=Collection(jet_counts, _jet_columns(jets, deepcsv)),
        muons=_lepton_collection(muons, MUON, "pfRelIso04_all", n_events),
        electrons=_lepton_collection(electrons, ELECTRON, "pfRelIso03_all", n_events),
        truth=Collection(jet_counts, _truth_columns(jets)),
        weights={
            "genWeight": ak.to_numpy(record.info.weights[:, 0]).astype(np.float32),
            "Pileup_nTrueInt": pileup.astype(np.float32),
        },
        cross_section=0.0,
        cross_section_error=0.0,
    )


def event_offset(process: Process, variant: Variant, seed: int) -> int:
    """Start of the event numbers of a sample: no two samples of different process, variant or seed share one."""
    sample = (process.number * 10 + variant.number) * MAX_SEED + seed  # below 2^53: exact as a double, too
    return sample * MAX_EVENTS


def round_mantissa(values: Array, bits: int) -> Array:
    """float32 values rounded to so many bits after the leading one, which compresses better."""
    pattern = values.astype(np.float32).view(np.uint32)
    dropped = 23 - bits
    half = np.uint32(1 << (dropped - 1))
    mask = np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    return ((pattern + half) & mask).view(np.float32)


def _jet_columns(jets: Jets, deepcsv: dict[str, Array]) -> dict[str, Array]:
    columns = {name: getattr(jets, name).astype(np.float32) for name in ("pt", "eta", "phi", "mass")}
    for name, values in deepcsv.items():
        stored = values.astype(np.int32) if name in COUNTERS else round_mantissa(values, _DEEPCSV_MANTISSA_BITS)
        columns[f"DeepCSV_{name}"] = stored
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
