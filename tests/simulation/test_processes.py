"""Each hard process makes the events that its name promises."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import awkward as ak
import numpy as np
import pytest

from simulation.block import Block
from simulation.detector.reconstruct import Content
from simulation.generation.generate import generate
from simulation.generation.pythia import EventGenerator
from simulation.kinematics import Array
from simulation.knobs import Generator
from simulation.processes import PROCESSES, Process
from simulation.run import make_block

N_EVENTS = 60
HARD_QCD = ("HardQCD:all = on", "PhaseSpace:pTHatMin = 30.", "PhaseSpace:pTHatMax = 300.")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Block]:
    folder = tmp_path_factory.mktemp("processes")

    @cache
    def make(process: str) -> Block:
        return make_block(folder, process, "mc", 1, Content(), 0, N_EVENTS)

    return make


def jagged(block: Block, collection: str, column: str) -> ak.Array:
    if collection == "truth":
        return ak.unflatten(block.truth.columns[column], block.truth.counts)
    return ak.unflatten(block.collections[collection].columns[column], block.collections[collection].counts)


def isolated(block: Block) -> Array:
    """Isolated electrons and muons above 20 GeV in each event."""
    found = np.zeros(len(block))
    for name, isolation in (("Muon", "pfRelIso04_all"), ("Electron", "pfRelIso03_all")):
        good = (jagged(block, name, "pt") > 20) & (jagged(block, name, isolation) < 0.15)
        found += ak.to_numpy(ak.sum(good, axis=1))
    return found


@pytest.mark.parametrize("process", PROCESSES)
def test_events_are_sane(blocks: Callable[[str], Block], process: str) -> None:
    block = blocks(process)
    assert len(block) == N_EVENTS
    jets = block.collections["Jet"]
    assert 0.5 * N_EVENTS < jets.counts.sum() < 8 * N_EVENTS
    # jets without tracks are at the edge of the tracker, or of photons
    assert np.mean(jets.columns["DeepCSV_jetNSelectedTracks"] > 0) > 0.8
    assert all(np.isfinite(values).all() for values in jets.columns.values())
    assert 0 < block.cross_section_error < 0.5 * block.cross_section
    weights = block.weights["genWeight"]
    assert np.all(weights > 0)
    assert (len(np.unique(weights)) > 0.9 * N_EVENTS) == process.startswith("qcd")
    assert process.startswith("qcd") or np.all(weights == 1)


@pytest.mark.parametrize("process", ["qcd", "qcd-bb"])
def test_data_are_unweighted(process: str) -> None:
    """And softer, since the bias towards high pT is off."""
    mc, data = (generate(PROCESSES[process], Generator(is_data=is_data), 1, 0, 40) for is_data in (False, True))
    assert len(np.unique(mc.weight)) > 30
    assert np.all(data.weight == 1)
    assert data.jets.pt.max() < mc.jets.pt.max()
    assert np.mean(data.jets.pt) < np.mean(mc.jets.pt)


def test_weights_undo_the_bias() -> None:
    """Weight times (pTHat / 60 GeV)^4 is the same for all events."""
    generator = EventGenerator(PROCESSES["qcd"], Generator(settings=("PartonLevel:all = off",)), 3)
    weights, scale = np.empty(200), np.empty(200)
    for event in range(200):
        assert generator._pythia.next()
        info = generator._pythia.infoPython()
        weights[event], scale[event] = info.weight(), info.pTHat()
    assert weights.max() > 50 * weights.min()
    assert weights * (scale / 60) ** 4 == pytest.approx(np.full(200, 1.0), rel=0.03)  # pTHat knows the masses
    assert scale.min() >= 30
    assert scale.max() <= 300


def test_flavour_of_the_jets(blocks: Callable[[str], Block]) -> None:
    """Fraction of events with a b or c jet; the wanted quarks are within acceptance in most of them."""
    flavour = {name: jagged(blocks(name), "truth", "hadronFlavour") for name in PROCESSES}
    with_b, with_c = (
        {name: ak.mean(ak.any(jets == number, axis=1)) for name, jets in flavour.items()} for number in (5, 4)
    )
    assert with_b["qcd-bb"] > 0.8
    assert with_c["wc"] > 0.5
    assert with_b["wc"] < 0.2
    for name in ("ttbar", "ttbar-dilepton", "ttbar-semilepton"):
        assert with_b[name] > 0.8  # 0.96 expected, with an error of 0.025
    for name in ("qcd", "z-jets"):
        assert with_b[name] < 0.3


def test_w_and_charm_have_opposite_charges() -> None:
    """g s -> W- c: the leading charm hadron holds a quark of the W's opposite sign; W+ comes with anti-charm."""
    events = generate(PROCESSES["wc"], Generator(settings=("PartonLevel:MPI = off",)), 2, 0, 150)
    hadrons, leptons = events.hadrons, events.leptons
    signs = []
    for event in range(len(events)):
        hard = np.flatnonzero((leptons.event == event) & (leptons.pt > 20) & (leptons.around_04 < 0.1 * leptons.pt))
        charm = np.flatnonzero((hadrons.event == event) & np.isin(np.abs(hadrons.pdg_id), [411, 421, 431, 4122]))
        if len(hard) == 1 and len(charm):
            leading = charm[hadrons.pt[charm].argmax()]
            signs.append(np.sign(leptons.pdg_id[hard[0]]) * np.sign(hadrons.pdg_id[leading]))
    assert len(signs) > 40
    assert np.mean(np.array(signs) > 0) > 0.85  # PDG numbers: the lepton's and the quark's are both positive


def test_leptons(blocks: Callable[[str], Block]) -> None:
    counts = {name: isolated(blocks(name)) for name in PROCESSES}
    # 0.43 of the leptons are found, taus included: 11 pairs expected
    assert np.count_nonzero(counts["ttbar-dilepton"] == 2) >= 3
    for name, expected in (("ttbar-dilepton", 0.86), ("ttbar-semilepton", 0.46), ("ttbar", 0.21)):
        assert counts[name].mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / N_EVENTS))
    assert counts["ttbar-semilepton"].max() == counts["wc"].max() == 1
    assert 0.3 < counts["wc"].mean() < 0.8
    for name in ("qcd", "qcd-bb"):
        assert counts[name].mean() < 0.05


def test_muon_pairs_of_z_bosons(blocks: Callable[[str], Block]) -> None:
    block = blocks("z-jets")
    pt, eta, phi, charge = (jagged(block, "Muon", name) for name in ("pt", "eta", "phi", "charge"))
    two = ak.num(pt) >= 2
    assert ak.mean(two) > 0.4  # both within acceptance and found
    (pt_1, pt_2), (eta_1, eta_2), (phi_1, phi_2), (charge_1, charge_2) = (
        (ak.to_numpy(column[two][:, 0]), ak.to_numpy(column[two][:, 1])) for column in (pt, eta, phi, charge)
    )
    mass = np.sqrt(2 * pt_1 * pt_2 * (np.cosh(eta_1 - eta_2) - np.cos(phi_1 - phi_2)))
    opposite = charge_1 * charge_2 < 0
    assert opposite.mean() > 0.9
    assert np.mean((mass > 60) & (mass < 120) & opposite) > 0.8
    assert np.median(mass) == pytest.approx(91.2, abs=2)
    assert ak.mean(ak.num(jagged(block, "Jet", "pt")) > 0) > 0.6


def test_cross_sections(blocks: Callable[[str], Block]) -> None:
    sigma = {name: blocks(name).cross_section for name in PROCESSES}
    assert sigma["qcd"] > 50 * sigma["qcd-bb"] > 50 * sigma["wc"] > 50 * sigma["ttbar"]
    # branching ratios of W: 0.325 to leptons, 0.676 to quarks; 60 events give 9 %, so 4 sigma of a ratio are 50 %
    assert sigma["ttbar-dilepton"] / sigma["ttbar"] == pytest.approx(0.325**2, rel=0.5)
    assert sigma["ttbar-semilepton"] / sigma["ttbar"] == pytest.approx(2 * 0.325 * 0.676, rel=0.5)


def hard_codes(name: str, settings: tuple[str, ...]) -> tuple[dict[int, tuple[float, float]], tuple[float, float]]:
    """Cross section and error of each subprocess and of all, partons only."""
    process = Process(name, 89, "", settings, PROCESSES["qcd"].weighting)
    generator = EventGenerator(process, Generator(settings=("PartonLevel:all = off",)), 5)
    generator.next_batch(10_000)
    info = generator._pythia.infoPython()
    codes = {code: (info.sigmaGen(code) * 1e9, info.sigmaErr(code) * 1e9) for code in info.codesHard()}
    return codes, generator.cross_section()


def test_qcd_and_qcd_bb_add_up_to_all_of_qcd() -> None:
    (every, total), (light, rest), (beauty, bb) = (
        hard_codes(name, settings)
        for name, settings in (
            ("all", HARD_QCD),
            ("qcd", PROCESSES["qcd"].settings),
            ("qcd-bb", PROCESSES["qcd-bb"].settings),
        )
    )
    assert not light.keys() & beauty.keys()
    assert light.keys() | beauty.keys() == every.keys()
    for code, (sigma, error) in {**light, **beauty}.items():
        assert sigma == pytest.approx(every[code][0], abs=4 * np.hypot(error, every[code][1])), code
    assert rest[0] + bb[0] == pytest.approx(total[0], abs=4 * np.sqrt(rest[1] ** 2 + bb[1] ** 2 + total[1] ** 2))


def cross_section(settings: tuple[str, ...], quark: int = 0, events: int = 2000) -> tuple[float, float, float]:
    """Of a process without showers: cross section and error in pb, and the fraction of events with this quark."""
    process = Process("x", 99, "", (*settings, "PartonLevel:all = off"))
    generator = EventGenerator(process, Generator(), 5)
    with_quark = 0
    for _ in range(events):
        assert generator._pythia.next()
        record = generator._pythia.process
        outgoing = (abs(record[index].id()) for index in range(record.size()) if record[index].status() == 23)
        with_quark += quark in outgoing
    return *generator.cross_section(), with_quark / events


def test_cross_section_of_w_and_charm_is_that_of_its_share() -> None:
    """The hook rejects events of W and a jet; counting charm among these must give the same."""
    demanding = EventGenerator(
        replace(PROCESSES["wc"], settings=(*PROCESSES["wc"].settings, "PartonLevel:all = off")), Generator(), 3
    )
    for _ in range(1000):
        assert demanding._pythia.next()
    sigma, error = demanding.cross_section()
    every, every_error, share = cross_section(PROCESSES["wc"].settings, quark=4)
    share_error = np.sqrt(share * (1 - share) / 2000)
    expected_error = np.hypot(every_error * share, every * share_error)
    assert sigma == pytest.approx(every * share, abs=4 * np.hypot(error, expected_error))
    assert np.hypot(error, expected_error) < 0.1 * sigma


def test_bias_leaves_the_cross_section() -> None:
    """The biased generation of multijets against the plain one."""
    qcd = PROCESSES["qcd"]
    plain, biased = (cross_section(settings) for settings in (qcd.settings, (*qcd.settings, *qcd.weighting)))
    error = np.hypot(plain[1], biased[1])
    assert biased[0] == pytest.approx(plain[0], abs=4 * error)
    assert error < 0.05 * plain[0]
