"""What the files hold."""

import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

SLOT_NAMES = (
    "trackDecayLenVal",
    "trackDeltaR",
    "trackJetDistVal",
    "trackPtRatio",
    "trackPtRel",
    "trackSip2dSig",
    "trackSip3dSig",
)
VERTEX_NAMES = ("vertexMass", "vertexEnergyRatio", "vertexJetDeltaR")
FLIGHT_NAMES = ("flightDistance2dVal", "flightDistance2dSig", "flightDistance3dVal", "flightDistance3dSig")
COUNTERS = ("jetNSecondaryVertices", "jetNSelectedTracks", "jetNTracksEtaRel", "vertexNTracks")
JET_NAMES = ("trackJetPt", "trackSumJetDeltaR", "trackSumJetEtRatio", "vertexCategory")
ABOVE_CHARM = tuple(f"trackSip{d}d{kind}AboveCharm" for d in (2, 3) for kind in ("Sig", "Val"))
TRUTH = (
    *("Jet_hadronFlavour", "Jet_nBHadrons", "Jet_nCHadrons", "Jet_genPt"),
    *("genWeight", "Pileup_nPU", "Pileup_nTrueInt"),
)


def read(path: Path) -> Any:
    with uproot.open(path) as file:
        return file["Events"].arrays()


def jet_column(events: Any, name: str) -> np.ndarray:
    return ak.to_numpy(ak.flatten(events[f"Jet_{name}"]))


def deepcsv(events: Any, name: str) -> np.ndarray:
    return jet_column(events, f"DeepCSV_{name}")


@pytest.fixture(scope="module")
def mc(mc_file: Path) -> Any:
    return read(mc_file)


@pytest.fixture(scope="module")
def data(data_file: Path) -> Any:
    return read(data_file)


def test_the_65_deepcsv_branches_and_their_types(mc_file: Path) -> None:
    slots = {f"{name}_{slot}" for name in SLOT_NAMES for slot in range(6)}
    slots |= {f"trackEtaRel_{slot}" for slot in range(4)}
    floats = {*slots, *VERTEX_NAMES, *FLIGHT_NAMES, *JET_NAMES, *ABOVE_CHARM}
    expected = {f"Jet_DeepCSV_{name}": "float[]" for name in floats}
    expected |= {f"Jet_DeepCSV_{name}": "int32_t[]" for name in COUNTERS}
    assert len(expected) == 65
    with uproot.open(mc_file) as file:
        found = {name: branch.typename for name, branch in file["Events"].items() if "DeepCSV" in name}
    assert found == expected


@pytest.mark.parametrize(
    ("branch", "typename"),
    [
        ("run", "uint32_t"),
        ("luminosityBlock", "uint32_t"),
        ("event", "uint64_t"),
        ("genWeight", "float"),
        ("Pileup_nTrueInt", "float"),
        ("PV_npvs", "int32_t"),
        ("HLT_IsoMu24", "bool"),
        ("Jet_pt", "float[]"),
        ("Jet_hadronFlavour", "int32_t[]"),
        ("Muon_charge", "int32_t[]"),
        ("Muon_pfRelIso04_all", "float[]"),
        ("Electron_mass", "float[]"),
        ("Electron_pfRelIso03_all", "float[]"),
    ],
)
def test_types_of_other_branches(mc_file: Path, branch: str, typename: str) -> None:
    with uproot.open(mc_file) as file:
        assert file["Events"][branch].typename == typename


def test_events_are_numbered_without_gap(mc: Any, data: Any) -> None:
    for events, run, n in ((mc, 1, 300), (data, 300_000, 100)):
        assert ak.all(events.run == run)
        assert np.array_equal(np.diff(ak.to_numpy(events.event).astype(np.int64)), np.ones(n - 1))
        assert ak.all(events.luminosityBlock == 1)
    assert not set(mc.event.to_list()) & set(data.event.to_list())


def test_only_simulation_has_truth(mc: Any, data: Any) -> None:
    assert set(TRUTH) <= set(mc.fields)
    assert set(mc.fields) - set(data.fields) == set(TRUTH)


def test_truth_of_data_lies_beside(data: Any, data_file: Path) -> None:
    truth = pq.read_table(data_file.parent / "truth" / f"{data_file.stem}.parquet").to_pydict()
    assert len(truth["event"]) == ak.sum(data.nJet) > 0
    assert truth["event"] == ak.flatten(ak.broadcast_arrays(data.event, data.Jet_pt)[0]).to_list()
    assert truth["jet_index"] == ak.flatten(ak.local_index(data.Jet_pt)).to_list()
    assert set(truth) == {
        *("run", "luminosityBlock", "event", "jet_index", "hadronFlavour", "nBHadrons", "nCHadrons", "genPt")
    }
    ratio = jet_column(data, "pt") / np.array(truth["genPt"])
    assert abs(np.median(ratio) - 0.985) < 0.05  # the energy scale of this variant, and a selection bias
    numbers = json.loads((data_file.parent / "truth" / f"{data_file.stem}.json").read_text())["numbers"]
    assert numbers["detector"]["jet_energy_scale"] == 0.985
    assert numbers["generator"]["lifetime_scale"]["511"] == 1.03


def test_summary_holds_the_cross_section(mc_file: Path, data_file: Path) -> None:
    summary = json.loads(mc_file.with_suffix(".json").read_text())
    # leading order at 13 TeV, 16 % of it in two leptons (tau included)
    assert summary.pop("cross_section_pb") == pytest.approx(520, rel=0.15)
    assert 0 < summary.pop("cross_section_error_pb") < 40
    assert summary == {"process": "ttbar", "variant": "mc", "seed": 1, "events": 300}
    dilepton = json.loads(data_file.with_suffix(".json").read_text())
    assert dilepton == {"process": "ttbar-dilepton", "variant": "data", "seed": 1, "events": 100}
    hidden = json.loads((data_file.parent / "truth" / f"{data_file.stem}.json").read_text())
    assert hidden["cross_section_pb"] == pytest.approx(520 * 0.105, rel=0.35)


def test_runs_tree_sums_the_weights(mc: Any, mc_file: Path, data_file: Path) -> None:
    with uproot.open(mc_file) as file:
        runs = file["Runs"].arrays()
    assert runs.run.to_list() == [1]
    assert runs.genEventCount.to_list() == [300]
    assert runs.genEventSumw.to_list() == pytest.approx([float(ak.sum(mc.genWeight))])
    with uproot.open(data_file) as file:
        assert file.keys(cycle=False) == ["Events"]


def test_acceptance_and_order(mc: Any) -> None:
    assert ak.all(mc.Jet_pt >= 20)
    assert ak.all(abs(mc.Jet_eta) <= 2.5)
    assert ak.all(abs(mc.Jet_phi) <= np.float32(np.pi))
    for name, min_pt, max_eta in (("Muon", 3, 2.4), ("Electron", 5, 2.5)):
        assert ak.sum(mc[f"n{name}"]) > 30
        assert ak.all(mc[f"{name}_pt"] >= min_pt)
        assert ak.all(abs(mc[f"{name}_eta"]) <= max_eta)
        assert set(np.unique(ak.flatten(mc[f"{name}_charge"]))) == {-1, 1}
    for pt in (mc.Jet_pt, mc.Muon_pt, mc.Electron_pt):
        assert ak.all(pt[:, :-1] >= pt[:, 1:])


def test_flavour_follows_the_hadrons(mc: Any) -> None:
    flavour, b, c = (jet_column(mc, name) for name in ("hadronFlavour", "nBHadrons", "nCHadrons"))
    assert np.array_equal(flavour, np.where(b > 0, 5, np.where(c > 0, 4, 0)))
    assert 1.2 < np.count_nonzero(flavour == 5) / len(mc) < 2.0  # two b quarks, within acceptance
    assert np.count_nonzero(flavour == 4) > 50


def test_track_slots_are_ordered_and_absent_beyond_the_count(mc: Any) -> None:
    count = deepcsv(mc, "jetNSelectedTracks")
    assert len(np.unique(count)) > 5
    for name in SLOT_NAMES:
        for slot in range(6):
            assert np.array_equal(deepcsv(mc, f"{name}_{slot}") == -999, count <= slot)
    for slot in range(4):
        absent = deepcsv(mc, f"trackEtaRel_{slot}") == -999
        assert np.array_equal(absent, deepcsv(mc, "jetNTracksEtaRel") <= slot)
    for slot in range(5):
        assert np.all(deepcsv(mc, f"trackSip2dSig_{slot}") >= deepcsv(mc, f"trackSip2dSig_{slot + 1}"))


def test_vertex_variables_follow_the_category(mc: Any) -> None:
    category = deepcsv(mc, "vertexCategory")
    assert set(np.unique(category)) == {-999, 0, 1, 2}
    for name in VERTEX_NAMES:
        assert np.array_equal(deepcsv(mc, name) == -999, (category != 0) & (category != 1))
    for name in FLIGHT_NAMES:
        assert np.array_equal(deepcsv(mc, name) == -999, category != 0)
    assert np.array_equal(deepcsv(mc, "jetNSecondaryVertices") > 0, category == 0)
    assert np.array_equal(deepcsv(mc, "vertexNTracks") >= 2, (category == 0) | (category == 1))


def test_jets_without_tracks_have_nothing(mc: Any) -> None:
    empty = deepcsv(mc, "vertexCategory") == -999
    assert empty.any()
    for name in (*ABOVE_CHARM, *JET_NAMES):
        assert np.all(deepcsv(mc, name)[empty] == -999)
        assert not np.any(deepcsv(mc, name)[~empty] == -999)
    for name in COUNTERS:
        assert np.all(deepcsv(mc, name)[empty] == 0)


def test_b_jets_are_displaced(mc: Any) -> None:
    flavour, leading = jet_column(mc, "hadronFlavour"), deepcsv(mc, "trackSip2dSig_0")
    known = leading != -999
    b, c, light = (np.median(leading[known & (flavour == number)]) for number in (5, 4, 0))
    assert b > 2 * c
    assert c > 1.2 * light
    vertex = deepcsv(mc, "vertexCategory") == 0
    assert 0.6 < vertex[flavour == 5].mean() < 0.85
    assert vertex[flavour == 0].mean() < 0.15


def test_an_electron_muon_region_exists(data: Any) -> None:
    muon = (data.Muon_pt > 20) & (data.Muon_pfRelIso04_all < 0.15)
    electron = (data.Electron_pt > 20) & (data.Electron_pfRelIso03_all < 0.15)
    one_each = (ak.sum(muon, axis=1) == 1) & (ak.sum(electron, axis=1) == 1)
    opposite = ak.sum(data.Muon_charge[muon], axis=1) * ak.sum(data.Electron_charge[electron], axis=1) == -1
    assert ak.sum(one_each & opposite) >= 4  # 11 expected
    assert ak.all(opposite[one_each])
    assert 0.05 < ak.mean(data.HLT_IsoMu24) < 0.8
