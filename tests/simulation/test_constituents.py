"""PFNano's collections: references by plain loops, the types of a real file, and reading with coffea."""

from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoEventsFactory, PFNanoAODSchema

from simulation.block import Collection
from simulation.detector import jets as jet_measurement
from simulation.detector import tracks as tracking
from simulation.detector.association import associate
from simulation.detector.constituents import constituents
from simulation.detector.impact import TrackVariables, track_variables
from simulation.detector.jets import Jets
from simulation.detector.material import interact
from simulation.detector.tracks import Tracks
from simulation.detector.vertexing import Vertices, find_vertices
from simulation.generation.events import GeneratedEvents, VisibleParticles, take
from simulation.generation.files import generated_block
from simulation.kinematics import electric_charge
from simulation.knobs import Detector, Generator
from simulation.processes import PROCESSES

EVENTS = 100
REAL_FILE = Path(__file__).parents[1] / "data" / "pfnano.root"
ONLY_IN_SOME_VERSIONS = {"JetPFCands_btagSip2dVal", "JetPFCands_btagSip2dSig"}
PION_MASS = 0.13957


@dataclass(frozen=True)
class Sample:
    generated: GeneratedEvents
    jets: Jets
    tracks: Tracks
    variables: TrackVariables
    vertices: tuple[Vertices, Vertices]
    destroyed: np.ndarray

    def make(self, seed: int = 5, destroyed: np.ndarray | None = None) -> dict[str, Collection]:
        """The collections."""
        destroyed = self.destroyed if destroyed is None else destroyed
        rng = np.random.default_rng(seed)
        particles = self.generated.particles
        return constituents(
            self.jets, self.tracks, self.variables, self.vertices, particles, destroyed, len(self.generated), rng
        )


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Real generated ttbar events, through all of the detector that constituents depend on."""
    folder = tmp_path_factory.mktemp("generated")
    generated = generated_block(folder, PROCESSES["ttbar"], Generator(), 1, 0, EVENTS)
    detector, rng = Detector(), np.random.default_rng(1)
    jets = jet_measurement.measure(generated.jets, detector, rng)
    primary = tracking.reconstruct_vertices(generated.n_charged, detector, rng)
    secondaries, emitted, destroyed = interact(generated.particles, 1.0, rng)
    is_charged = electric_charge(generated.particles.pdg_id) != 0
    tracks = tracking.concatenate(
        tracking.reconstruct(take(generated.particles, is_charged), ~destroyed[is_charged], primary, detector, rng),
        tracking.reconstruct(secondaries, emitted, primary, detector, rng),
        tracking.pileup_tracks(jets, len(generated.jets.event), np.full(EVENTS, 35), detector, rng),
    )
    variables = track_variables(jets, associate(jets, tracks, EVENTS), primary)
    return Sample(generated, jets, tracks, variables, find_vertices(jets, variables, primary), destroyed)


@pytest.fixture(scope="module")
def events(sample: Sample) -> ak.Array:
    """The collections as one awkward array per event, with the jets."""
    jets, counts = sample.jets, np.bincount(sample.jets.event, minlength=EVENTS)
    columns = {name: getattr(jets, name) for name in ("pt", "eta", "phi", "mass")}
    collections = sample.make() | {"Jet": Collection(counts, columns)}
    return ak.Array({name: jagged(collection) for name, collection in collections.items()})


def jagged(collection: Collection) -> ak.Array:
    return ak.zip({name: ak.unflatten(values, collection.counts) for name, values in collection.columns.items()})


def distance(eta_1: float, phi_1: float, eta_2: float, phi_2: float) -> float:
    turn = abs(phi_1 - phi_2)
    return float(np.hypot(eta_1 - eta_2, min(turn, 2 * np.pi - turn)))


def vector(pt: float, eta: float, phi: float) -> np.ndarray:
    pt, eta, phi = float(pt), float(eta), float(phi)  # columns are float32
    return pt * np.array([np.cos(phi), np.sin(phi), np.sinh(eta)])


def rows_in_event(sample: Sample, event: int) -> np.ndarray:
    return np.flatnonzero(sample.jets.event == event)


def test_types_are_those_of_a_real_file(sample: Sample, tmp_path: Path) -> None:
    made = {}
    for name, collection in sample.make().items():
        made |= {f"{name}_{column}": values.dtype for column, values in collection.columns.items()}
    with uproot.open(REAL_FILE) as file:
        real = {
            name: branch.interpretation.content.to_dtype
            for name, branch in file["Events"].items()
            if "_" in name and name.split("_")[0] in ("PFCands", "JetPFCands", "SV", "JetSVs")
        }
    assert set(made) - set(real) == ONLY_IN_SOME_VERSIONS
    for name, dtype in made.items():
        expected = np.dtype(np.float32) if name in ONLY_IN_SOME_VERSIONS else real[name].newbyteorder("=")
        assert dtype == expected, name
    missing = {"trkChi2", "vtxChi2", "trkQuality", "lostInnerHits", "pvAssocQuality", "puppiWeight", "puppiWeightNoLep"}
    assert set(real) - set(made) == {f"PFCands_{name}" for name in missing}


def test_everything_is_finite(sample: Sample) -> None:
    for collection in sample.make().values():
        for values in collection.columns.values():
            assert np.isfinite(values).all()
            assert len(values) == collection.counts.sum()
        assert len(collection.counts) == EVENTS


def test_indices_and_order(events: ak.Array) -> None:
    links = events.JetPFCands
    assert ak.all(events.PFCands.pt[links.pFCandsIdx] == links.pt)
    assert ak.all(links.jetIdx < ak.num(events.Jet))
    assert ak.all(events.PFCands.pt[:, 1:] <= events.PFCands.pt[:, :-1])
    for event in links:
        pairs = list(zip(event.jetIdx.to_list(), (-event.pt).to_list(), strict=True))
        assert pairs == sorted(pairs)
        assert len({(link.jetIdx, link.pFCandsIdx) for link in event}) == len(event)
    # no candidate without a jet
    assert [len(set(indices)) for indices in links.pFCandsIdx.to_list()] == ak.num(events.PFCands).to_list()


def test_charged_candidates_are_the_tracks_in_the_cone(sample: Sample, events: ak.Array) -> None:
    tracks, jets = sample.tracks, sample.jets
    for event in range(20):
        expected = []
        for number, jet in enumerate(rows_in_event(sample, event)):
            for track in np.flatnonzero(tracks.event == event):
                if distance(tracks.eta[track], tracks.phi[track], jets.eta[jet], jets.phi[jet]) < 0.4:
                    values = (tracks.pdg_id[track], tracks.d0[track], tracks.sigma_dz[track], tracks.eta[track])
                    expected.append((number, *np.float32(values).tolist()))
        links = events.JetPFCands[event]
        candidates = events.PFCands[event][links.pFCandsIdx]
        charged = candidates.charge != 0
        columns = [links.jetIdx, *(candidates[name] for name in ("pdgId", "d0", "dzErr", "eta"))]
        assert sorted(expected) == sorted(zip(*(column[charged].to_list() for column in columns), strict=True))
    masses = {11: 0.000511, 13: 0.10566, 211: PION_MASS}
    for candidate in ak.flatten(events.PFCands[events.PFCands.charge != 0]):
        sign = 1 if candidate.pdgId > 0 else -1
        assert candidate.charge == (sign if abs(candidate.pdgId) == 211 else -sign)
        assert candidate.mass == pytest.approx(masses[abs(candidate.pdgId)], rel=1e-5)


def test_neutral_candidates_are_those_clustered(sample: Sample, events: ak.Array) -> None:
    """Every neutral candidate lies near a neutral particle of its jet, and hard particles are all there."""
    particles, jets = sample.generated.particles, sample.jets
    for event in range(20):
        links = events.JetPFCands[event]
        candidates = events.PFCands[event][links.pFCandsIdx]
        for number, jet in enumerate(rows_in_event(sample, event)):
            inside = (particles.jet == jets.generated[jet]) & (electric_charge(particles.pdg_id) == 0)
            for pdg_id, is_kind, reach in (
                (22, particles.pdg_id == 22, 0.03),
                (130, particles.pdg_id != 22, 0.15),
            ):
                alive = np.flatnonzero(inside & is_kind & ~sample.destroyed)
                chosen = candidates[(links.jetIdx == number) & (candidates.pdgId == pdg_id)]
                assert len(chosen) <= len(alive)
                if pdg_id == 22:
                    assert len(chosen) >= (particles.pt[alive] > 1.5).sum()
                for candidate in chosen:
                    near = [
                        distance(candidate.eta, candidate.phi, particles.eta[index], particles.phi[index])
                        for index in alive
                    ]
                    assert min(near) < reach
    neutral = events.PFCands[events.PFCands.charge == 0]
    for name in ("d0", "d0Err", "dz", "dzErr"):
        assert ak.all(neutral[name] == -1)
    assert ak.all(neutral.mass == 0)
    assert set(ak.flatten(neutral.pdgId).to_list()) == {22, 130}


def test_track_variables_follow_from_candidate_and_jet(events: ak.Array) -> None:
    """TrackInfoBuilder's definitions with vectors, of all links of some events."""
    for event in range(10):
        for link in events.JetPFCands[event]:
            candidate, jet = events.PFCands[event][link.pFCandsIdx], events.Jet[event][link.jetIdx]
            if candidate.charge == 0:
                assert all(link[name] == 0 for name in link.fields if name.startswith("btag"))
                continue
            p, axis = vector(candidate.pt, candidate.eta, candidate.phi), vector(1, jet.eta, jet.phi)
            axis /= np.linalg.norm(axis)
            size, along = np.linalg.norm(p), p @ axis
            energy = np.sqrt(size**2 + PION_MASS**2)
            assert link.btagPParRatio == pytest.approx(along / size, abs=1e-6)
            assert link.btagPtRatio == pytest.approx(np.linalg.norm(np.cross(p, axis)) / size, abs=1e-5)
            assert link.btagEtaRel == pytest.approx(0.5 * np.log((energy + along) / (energy - along)), rel=1e-4)
            assert abs(link.btagSip2dVal) == pytest.approx(abs(candidate.d0), rel=1e-5)
            across = np.hypot(candidate.d0, candidate.dz / np.cosh(candidate.eta))
            assert abs(link.btagSip3dVal) == pytest.approx(across, rel=1e-4, abs=1e-7)
            assert abs(link.btagSip2dSig) < abs(candidate.d0) / candidate.d0Err * 1.0001
            assert link.btagSip3dSig * link.btagSip3dVal >= 0
            start = candidate.d0 * np.array([-np.sin(candidate.phi), np.cos(candidate.phi), 0])
            start[2] = candidate.dz
            normal = np.cross(p / size, axis)
            gap = abs(start @ normal) / np.linalg.norm(normal)  # of two skew lines
            assert link.btagJetDistVal == pytest.approx(-gap, rel=1e-3, abs=1e-5)


def test_candidates_lie_in_their_jet(events: ak.Array) -> None:
    links = events.JetPFCands
    candidates, jets = events.PFCands[links.pFCandsIdx], events.Jet[links.jetIdx]
    turn = (candidates.phi - jets.phi + np.pi) % (2 * np.pi) - np.pi
    far = ak.flatten(np.hypot(candidates.eta - jets.eta, turn)).to_numpy()
    assert np.quantile(far, 0.998) < 0.5
    assert far.max() < 0.9  # a constituent may be further than 0.4 from the axis that all together make


def test_candidates_make_up_the_jet(sample: Sample, events: ak.Array) -> None:
    total = np.zeros(len(sample.jets))
    for event in range(EVENTS):
        rows = rows_in_event(sample, event)
        for link in events.JetPFCands[event]:
            total[rows[link.jetIdx]] += link.pt
    ratio = total / sample.jets.pt
    assert 0.8 < np.median(ratio) < 1.0
    assert np.mean((ratio > 0.5) & (ratio < 1.5)) > 0.9


def test_each_vertex_once_with_the_right_numbers(sample: Sample, events: ak.Array) -> None:
    jets, variables = sample.jets, sample.variables
    total = 0
    for event in range(EVENTS):
        vertices, links = events.SV[event], events.JetSVs[event]
        assert sorted(links.sVIdx.to_list()) == list(range(len(vertices)))
        assert [(link.jetIdx, -link.dxysig) for link in links] == sorted((link.jetIdx, -link.dxysig) for link in links)
        seen = 0
        for number, jet in enumerate(rows_in_event(sample, event)):
            of_jet = links[links.jetIdx == number]
            found = [one for one in sample.vertices if one.found[jet]]
            assert len(of_jet) == len(found)
            for one in found:
                link = of_jet[np.argmin(np.abs(of_jet.d3d - abs(one.distance_3d[jet])))]
                check_vertex(one, variables, jet, vertices[link.sVIdx])
                check_link(link, vertices[link.sVIdx], jets, jet)
                seen += 1
        assert seen == len(vertices)
        total += seen
    assert total == sum(one.found.sum() for one in sample.vertices)
    assert total > EVENTS


def check_vertex(one: Vertices, variables: TrackVariables, jet: int, vertex: ak.Record) -> None:
    position = abs(one.distance_3d[jet]) * one.direction[jet]
    p, energy, chi2, n_tracks = np.zeros(3), 0.0, 0.0, 0
    for slot in np.flatnonzero(one.tracks[jet]):
        p = p + variables.momentum[jet, slot]
        energy += np.sqrt(variables.momentum[jet, slot] @ variables.momentum[jet, slot] + PION_MASS**2)
        for normal, sigma in ((variables.normal_1, variables.sigma_1), (variables.normal_2, variables.sigma_2)):
            chi2 += ((position - variables.point[jet, slot]) @ normal[jet, slot] / sigma[jet, slot]) ** 2
        n_tracks += 1
    size = np.linalg.norm(p)
    assert vertex.ntracks == n_tracks
    assert vertex.ndof == 2 * n_tracks - 3
    assert vertex.chi2 * vertex.ndof == pytest.approx(chi2, rel=1e-4)
    assert vertex.mass == pytest.approx(np.sqrt(energy**2 - size**2), rel=1e-4)
    assert vector(vertex.pt, vertex.eta, vertex.phi) == pytest.approx(p, rel=1e-5, abs=1e-4)
    assert [vertex.x, vertex.y, vertex.z] == pytest.approx(position, rel=1e-5, abs=1e-6)
    assert vertex.dlen == pytest.approx(np.linalg.norm(position), rel=1e-5)
    assert vertex.dxy == pytest.approx(np.hypot(*position[:2]), rel=1e-5)
    assert vertex.dlen / vertex.dlenSig == pytest.approx(one.error_3d[jet], rel=1e-4)
    assert vertex.dxySig > 2  # a cut of the finder
    assert np.cos(vertex.pAngle) == pytest.approx(-(p @ position) / size / np.linalg.norm(position), abs=1e-5)


def check_link(link: ak.Record, vertex: ak.Record, jets: Jets, jet: int) -> None:
    for name, same in {
        "dxy": "dxy",
        "dxysig": "dxySig",
        "d3d": "dlen",
        "d3dsig": "dlenSig",
        "normchi2": "chi2",
    }.items():
        assert link[name] == vertex[same]
    assert [link.mass, link.pt, link.ntracks] == [vertex.mass, vertex.pt, vertex.ntracks]
    assert link.chi2 == pytest.approx(vertex.chi2 * vertex.ndof, rel=1e-5)
    assert link.costhetasvpv == pytest.approx(-np.cos(vertex.pAngle), abs=1e-6)
    far = distance(vertex.eta, vertex.phi, jets.eta[jet], jets.phi[jet])
    assert link.deltaR == pytest.approx(far - 0.5, abs=1e-5)
    assert abs(link.phirel) == pytest.approx(distance(0, vertex.phi, 0, jets.phi[jet]), abs=1e-5)
    energy = np.sqrt((vertex.pt * np.cosh(vertex.eta)) ** 2 + vertex.mass**2)
    jet_energy = np.sqrt((jets.pt[jet] * np.cosh(jets.eta[jet])) ** 2 + jets.mass[jet] ** 2)
    assert link.enration == pytest.approx(energy / jet_energy, rel=1e-4)
    assert link.ptrel == pytest.approx(vertex.pt / jets.pt[jet], rel=1e-5)


def test_another_detector_leaves_the_other_candidates(sample: Sample) -> None:
    """Neutral candidates that two variants share are the same, whichever others interact."""
    nothing = np.zeros_like(sample.destroyed)
    kinds = ("pt", "eta", "phi")
    sets = []
    for destroyed in (nothing, sample.destroyed):
        columns = sample.make(destroyed=destroyed)["PFCands"].columns
        neutral = columns["charge"] == 0
        sets.append(set(zip(*(columns[name][neutral].tolist() for name in kinds), strict=True)))
    assert sets[1] < sets[0]


@pytest.mark.parametrize(
    ("pdg_id", "resolution", "cell"),
    [
        (22, np.sqrt(0.028**2 / 50 + (0.12 / 50) ** 2 + 0.003**2), 0.0174),
        (-2112, np.sqrt(1.1**2 / 50 + 0.09**2), 0.087),
    ],
)
def test_resolution_of_neutral_particles(sample: Sample, pdg_id: int, resolution: float, cell: float) -> None:
    """Particles of 50 GeV in a jet of their own each; those outside of jets are no candidates."""
    n = 20_000
    rows, zero = np.arange(n), np.zeros(n)
    pt, eta, phi = np.full(n, 50 / np.cosh(0.5)), np.full(n, 0.5), np.full(n, 3.1)
    number = np.zeros(n, dtype=int)
    jets = Jets(rows, rows, pt, eta, phi, zero, pt, number, number)
    jet = np.where(rows < n // 2, rows, -1)
    particles = VisibleParticles(rows, jet, number - 1, number + pdg_id, pt, eta, phi, zero, zero, zero)
    variables, vertices = without_tracks(sample, jets)
    made = constituents(jets, sample.tracks, variables, vertices, particles, zero > 0, n, np.random.default_rng(2))
    columns = made["PFCands"].columns
    assert made["PFCands"].counts.tolist() == (rows < n // 2).tolist()
    ratio = columns["pt"] / pt[0]
    assert ratio.mean() == pytest.approx(1, abs=4 * resolution / np.sqrt(n / 2))
    assert ratio.std() == pytest.approx(resolution, rel=0.03)
    assert columns["eta"].std() == pytest.approx(cell / np.sqrt(12), rel=0.03)
    assert np.abs(columns["phi"]).max() <= np.float32(np.pi)
    turn = (columns["phi"] - 3.1 + np.pi) % (2 * np.pi) - np.pi
    assert turn.std() == pytest.approx(cell / np.sqrt(12), rel=0.03)
    assert set(columns["pdgId"].tolist()) == {22 if pdg_id == 22 else 130}


def without_tracks(sample: Sample, jets: Jets) -> tuple[TrackVariables, tuple[Vertices, Vertices]]:
    """No track in any jet."""
    n_events = int(jets.event.max(initial=-1)) + 1
    primary = tracking.PrimaryVertices(np.zeros((n_events, 3)), np.full(n_events, 1e-3), np.full(n_events, 1e-3))
    tracks = sample.tracks.take(np.zeros(0, dtype=int))
    variables = track_variables(jets, associate(jets, tracks, n_events), primary)
    return variables, find_vertices(jets, variables, primary)


def test_events_without_jets(sample: Sample) -> None:
    jets = sample.jets.take(np.zeros(0, dtype=int))
    variables, vertices = without_tracks(sample, jets)
    particles, rng = sample.generated.particles, np.random.default_rng(1)
    made = constituents(jets, sample.tracks, variables, vertices, particles, sample.destroyed, EVENTS, rng)
    for name, collection in sample.make().items():
        assert made[name].counts.tolist() == [0] * EVENTS
        assert {key: values.dtype for key, values in made[name].columns.items()} == {
            key: values.dtype for key, values in collection.columns.items()
        }


@pytest.mark.filterwarnings("ignore:Missing cross-reference:RuntimeWarning")  # of collections that are not written
def test_coffea_follows_the_references(events: ak.Array, tmp_path: Path) -> None:
    path = tmp_path / "events.root"
    numbers = np.arange(EVENTS)
    scalars = {
        "run": np.ones(EVENTS, dtype=np.uint32),
        "luminosityBlock": np.ones(EVENTS, dtype=np.uint32),
        "event": numbers.astype(np.uint64),
    }
    collections = {name: events[name] for name in events.fields}
    with uproot.recreate(path) as file:
        types = {name: values.dtype for name, values in scalars.items()}
        types |= {name: values.type for name, values in collections.items()}
        file.mktree("Events", types).extend({**scalars, **collections})

    read = NanoEventsFactory.from_root({str(path): "Events"}, schemaclass=PFNanoAODSchema, mode="eager").events()
    assert ak.num(read.JetPFCands).to_list() == ak.num(events.JetPFCands).to_list()
    assert ak.all(read.JetPFCands.pf.pt == read.JetPFCands.pt)
    assert ak.all(read.JetPFCands.pf.delta_r(read.JetPFCands.jet) < 0.9)
    assert ak.all(read.JetPFCands.jet.pt == events.Jet.pt[events.JetPFCands.jetIdx])
    assert ak.all(read.JetSVs.sv.mass == read.JetSVs.mass)
    assert ak.all(abs(read.JetSVs.sv.pt / read.JetSVs.jet.pt / read.JetSVs.ptrel - 1) < 1e-5)
    energy = np.sqrt((events.SV.pt * np.cosh(events.SV.eta)) ** 2 + events.SV.mass**2)
    assert ak.all(abs(read.SV.p4.energy / energy - 1) < 1e-4)
    assert ak.all(abs(read.SV.p4.p - events.SV.pt * np.cosh(events.SV.eta)) < 1e-3 * energy)
