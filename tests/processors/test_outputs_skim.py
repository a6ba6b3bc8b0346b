"""Skims: each branch against the input, and histograms of a skim against those of the original."""

import json
import re
import shutil

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from processors.jobs import make_histograms
from processors.skim import make_skim
from tests.conftest import NANO
from tests.processors.small_card import write_card

EMU = {"jet_pt": 30, "electrons": 1, "muons": 1, "lepton_pt": 10}
HARD = {"leading_jet_pt": 90}
DATASETS = ("ttbar", "qcd", "data")


@pytest.fixture(scope="module")
def sections(simulated, tmp_path_factory):
    """A configuration with histograms of three regions, of which a skim takes two; and its folder."""
    base = tmp_path_factory.mktemp("skim")
    card, taggers = write_card(base)
    return base, {
        "name": "skim",
        "output": "out",
        **card,
        "datasets": {
            "ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0},
            "qcd": {"files": str(simulated / "qcd_mc_12_*.root"), "cross_section": 1e6},
            "data": {"files": str(simulated / "ttbar_data_13_*.root"), "data": True},
        },
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
        "histograms": {
            "datasets": [*DATASETS],
            "taggers": {"t": taggers["nominal"]},
            "attacks": ["fgsm"],
            "regions": {"emu": EMU, "hard": HARD, "all": {}},
            "precision": "float64",
        },
        "skim": {"datasets": [*DATASETS], "regions": ["emu", "hard"]},
        "run": {"executor": "iterative", "chunksize": 60, "backoff": 0.01},
    }


def load(sections, *overrides, name="skim"):
    base, written = sections
    (base / f"{name}.yaml").write_text(yaml.safe_dump(written))
    return load_analysis(base / f"{name}.yaml", overrides)


@pytest.fixture(scope="module")
def skim(sections):
    return make_skim(load(sections), progress=False)


def passes(event):
    """Whether an event is in one of the two regions, one event at a time; leptons far from jets are not jets."""
    jets = [
        (pt, eta, phi)
        for pt, eta, phi in zip(event["Jet_pt"], event["Jet_eta"], event["Jet_phi"], strict=True)
        if 20 <= pt <= 1000 and abs(eta) <= 2.5
    ]
    count = {
        kind: sum(pt > 10 and abs(eta) < 2.4 for pt, eta in zip(event[f"{kind}_pt"], event[f"{kind}_eta"], strict=True))
        for kind in ("Electron", "Muon")
    }
    return count == {"Electron": 1, "Muon": 1} or any(pt >= 90 for pt, _, _ in jets)


@pytest.mark.parametrize("dataset", DATASETS)
def test_all_branches_of_the_events_that_pass(skim, sections, dataset):
    (pattern,) = [load(sections).datasets[dataset].files[0]]
    with uproot.open(sorted((skim / dataset).glob("*.root"))[0]) as file:
        assert file["Events"].classname == "TTree"
    events, skimmed = (uproot.concatenate(f"{files}:Events") for files in (pattern, skim / dataset / "*.root"))
    chosen = events[[passes(event) for event in events.to_list()]]
    assert 0 < len(chosen) < len(events)
    assert set(skimmed.fields) == set(events.fields)
    order, expected = (np.argsort(ak.to_numpy(array["event"])) for array in (skimmed, chosen))
    for name in events.fields:
        assert skimmed[name][order].to_list() == chosen[name][expected].to_list(), name
        kinds = [str(ak.type(array[name]).content) for array in (skimmed, events)]
        assert kinds[0] == kinds[1] or (name.startswith("n") and kinds == ["int32", "uint32"])


def test_the_weights_of_all_generated_events_stay(skim, sections):
    for dataset in ("ttbar", "qcd"):
        sums, numbers = [], []
        for path in (skim / dataset).glob("*.root"):
            with uproot.open(path) as file:
                sums.append(file["Runs"]["genEventSumw"].array(library="np").sum())
                numbers.append(file["Runs"]["genEventCount"].array(library="np").sum())
        (pattern,) = load(sections).datasets[dataset].files
        runs = uproot.concatenate(f"{pattern}:Runs")
        assert np.isclose(sum(sums), ak.sum(runs["genEventSumw"]), rtol=1e-12)
        assert sum(numbers) == ak.sum(runs["genEventCount"])
        assert len(sums) >= 3


@pytest.fixture(scope="module")
def both(skim, sections):
    """Histograms of the original, and of its skim."""
    base, written = sections
    datasets = {name: {**written["datasets"][name], "files": str(skim / name)} for name in DATASETS}
    again = (base, {**written, "datasets": datasets, "output": "again"})
    return [
        read_histograms(make_histograms(load(chosen, name=name), progress=False))
        for chosen, name in ((sections, "skim"), (again, "again"))
    ]


@pytest.mark.parametrize("region", ["emu", "hard"])
def test_histograms_of_a_skim_are_those_of_the_original(both, region):
    original, again = both
    for dataset in DATASETS:
        one, other = (file.datasets[dataset] for file in both)
        assert np.isclose(one.scale(3.0), other.scale(3.0), rtol=1e-12)
        assert other.events < one.events
        last = [list(page.cutflow[region].values())[-1] for page in (one, other)]
        np.testing.assert_allclose(last[0], last[1], rtol=1e-12)
        for name, histogram in original.histograms.items():
            where = {"dataset": dataset, "region": region}
            a, b = (h[where].view(flow=True) for h in (histogram, again.histograms[name]))
            np.testing.assert_allclose(a["value"], b["value"], rtol=1e-12, atol=1e-9, err_msg=name)
            np.testing.assert_allclose(a["variance"], b["variance"], rtol=1e-12, atol=1e-9, err_msg=name)
            assert b["value"].sum() > 0 or (dataset, region) == ("qcd", "emu")


def test_a_region_that_was_not_asked_for_is_not_complete(both):
    original, again = (
        file.histograms["pt"][{"dataset": "ttbar", "region": "all"}].sum(flow=True).value for file in both
    )
    assert again < original


def test_a_skim_of_a_skim(skim, sections):
    """The second has fewer events, and stands for as many."""
    base, written = sections
    datasets = {"qcd": {**written["datasets"]["qcd"], "files": str(skim / "qcd")}}
    config = {**written, "datasets": datasets, "output": "twice", "histograms": None}
    config["skim"] = {"datasets": ["qcd"], "regions": {"harder": {"leading_jet_pt": 150}}, "keep": ["Jet_*", "nMuon"]}
    folder = make_skim(load((base, config), name="twice"), progress=False)
    runs = uproot.concatenate(f"{folder / 'qcd' / '*.root'}:Runs")
    (pattern,) = load(sections).datasets["qcd"].files
    original = uproot.concatenate(f"{pattern}:Runs")
    assert np.isclose(ak.sum(runs["genEventSumw"]), ak.sum(original["genEventSumw"]), rtol=1e-12)
    assert ak.sum(runs["genEventCount"]) == ak.sum(original["genEventCount"])
    events = uproot.concatenate(f"{folder / 'qcd' / '*.root'}:Events")
    assert len(events) == json.loads((folder / "manifest.json").read_text())["datasets"]["qcd"]["kept_events"]
    assert ak.all(ak.max(events["Jet_pt"], axis=1) >= 150)
    others = {name for name in events.fields if not name.startswith("Jet_")}
    assert others == {"nJet", "nMuon", "run", "luminosityBlock", "event", "genWeight"}


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("nanov5_sample.root", ["*"]),
        ("nano_tt_v15.root", ["Jet_*", "PSWeight", "HLT_*"]),
        ("nano_dy_empty.root", ["Jet_*", "MET_*"]),
    ],
)
def test_branches_of_real_files(write_config, name, keep):
    path = write_config(
        features="nanoaod",
        datasets={"d": {"files": str(NANO / name), "cross_section": 1.0}},
        skim={"datasets": ["d"], "regions": {"some": {"min_jets": 2}}, "keep": keep, "drop": ["HLT_*", "L1_*"]},
        run={"executor": "iterative"},
    )
    (made,) = (make_skim(load_analysis(path), progress=False) / "d").glob("*.root")
    with uproot.open(NANO / name) as original, uproot.open(made) as skimmed:
        held = set(original["Events"].keys(recursive=False))
        names = {key for key in held if any(re.fullmatch(pattern.replace("*", ".*"), key) for pattern in keep)}
        names = {key for key in names if not key.startswith(("HLT_", "L1_"))}
        counters = {f"n{part}" for key in names for part in (key, key.partition("_")[0])} & held  # v15 has both
        assert set(skimmed["Events"].keys()) == names | counters | {"run", "luminosityBlock", "event", "genWeight"}
        pt = original["Events"]["Jet_pt"].array()
        eta = original["Events"]["Jet_eta"].array()
        chosen = ak.sum((pt >= 20) & (pt <= 1000) & (abs(eta) <= 2.5), axis=1) >= 2
        assert skimmed["Events"].num_entries == ak.sum(chosen)
        for key in sorted(names)[:: 1 if len(pt) < 300 else 9]:
            expected, found = (ak.Array(file["Events"][key].array()) for file in (original, skimmed))
            assert ak.array_equal(expected[chosen], found, equal_nan=True, dtype_exact=not key.startswith("n")), key
        weights = np.sum(original["Events"]["genWeight"].array(library="np"), dtype=float)
        expected = original["Runs"]["genEventSumw"].array(library="np").sum() if "Runs" in original else weights
        assert np.isclose(skimmed["Runs"]["genEventSumw"].array(library="np").sum(), expected)


def write_file(path, **more):
    with uproot.recreate(path) as file:
        jets = ak.unflatten(np.arange(20, 40, dtype=np.float32), np.full(10, 2))
        numbers = np.arange(10)
        branches = {
            "run": np.ones(10, np.uint32),
            "luminosityBlock": np.ones(10, np.uint32),
            "event": numbers.astype(np.uint64),
            "genWeight": np.where(numbers % 2, -1, 1).astype(np.float32),
            "Jet_pt": jets,
            "Jet_eta": jets * 0,
            "Jet_phi": jets * 0,
            "Jet_hadronFlavour": ak.values_astype(jets * 0, np.int32),
            **more,
        }
        file.mktree("Events", {name: ak.Array(array).type.content for name, array in branches.items()}).extend(branches)
    return str(path)


def tiny(write_config, tmp_path, skim, **more):
    datasets = {"d": {"files": write_file(tmp_path / "f.root", **more), "cross_section": 1.0}}
    run = {"executor": "iterative", "chunksize": 4}
    return load_analysis(write_config(features="nanoaod", datasets=datasets, skim=skim, run=run))


ALL = {"datasets": ["d"], "regions": {"all": {}}}


def test_weights_that_cancel_share_by_events(write_config, tmp_path):
    folder = make_skim(tiny(write_config, tmp_path, ALL), progress=False)
    paths = sorted((folder / "d").glob("*.root"), key=lambda path: int(path.stem.rpartition("-")[2]))
    counts = [int(uproot.open(path)["Runs"]["genEventCount"].array()[0]) for path in paths]
    assert sum(counts) == 10
    assert sum(uproot.open(path)["Runs"]["genEventSumw"].array()[0] for path in paths) == 0


def test_a_branch_that_cannot_be_written_is_named(write_config, tmp_path):
    pairs = np.arange(20.0).reshape(10, 2)
    with pytest.raises(AdvtagError, match=r"f\.root: branch 'pairs' is of type 2 \* float64.*key `skim\.drop`"):
        make_skim(tiny(write_config, tmp_path, ALL, pairs=pairs), progress=False)
    assert not (tmp_path / "out_analysis" / "skim").exists()
    folder = make_skim(tiny(write_config, tmp_path, {**ALL, "drop": ["pai*"]}, pairs=pairs), progress=False)
    assert len(uproot.concatenate(f"{folder / 'd' / '*.root'}:Events")) == 10


def test_a_pattern_that_fits_nothing(write_config, tmp_path):
    with pytest.raises(AdvtagError, match=r"skim\.keep: no branch of any file fits 'jet_\*'"):
        make_skim(tiny(write_config, tmp_path, {**ALL, "keep": ["jet_*"]}), progress=False)


def test_no_event_passes(write_config, tmp_path):
    """The files hold the weights of the events that are not there."""
    folder = make_skim(
        tiny(write_config, tmp_path, {**ALL, "regions": {"none": {"jet_pt": 500, "min_jets": 1}}}), progress=False
    )
    for path in (folder / "d").glob("*.root"):
        with uproot.open(path) as file:
            assert file["Events"].num_entries == 0
            assert file["Events"]["Jet_pt"].array().tolist() == []
    assert ak.sum(uproot.concatenate(f"{folder / 'd' / '*.root'}:Runs")["genEventCount"]) == 10


def test_events_that_pass_with_jets_ten_per_cent_harder_are_kept(sections):
    base, written = sections
    up = {"nodetype": "formula", "expression": "0.1+0*x", "parser": "TFormula", "variables": ["JetPt"]}
    inputs = [{"name": "JetPt", "type": "real"}]
    correction = {"name": "up", "version": 1, "inputs": inputs, "output": {"name": "f", "type": "real"}, "data": up}
    (base / "jes.json").write_text(json.dumps({"schema_version": 2, "corrections": [correction]}))
    jes = {"kind": "jets", "file": "jes.json", "uncertainties": {"total": "up"}}
    skim = {"datasets": ["qcd"], "regions": ["hard"], "keep": ["Jet_pt"]}
    config = {**written, "output": "shifted", "skim": skim, "corrections": {"jets": jes}}
    folder = make_skim(load((base, config), name="shifted"), progress=False)
    pattern = written["datasets"]["qcd"]["files"]
    events = uproot.concatenate(f"{pattern}:Events", ["event", "Jet_pt", "Jet_eta"])
    central = ak.where(abs(events["Jet_eta"]) <= 2.5, events["Jet_pt"], 0)
    hardest = ak.fill_none(ak.max(central, axis=1), 0)
    found = uproot.concatenate(f"{folder / 'qcd' / '*.root'}:Events")
    assert set(found["event"]) == set(events["event"][1.1 * hardest >= 90])
    assert len(found) > ak.sum(hardest >= 90)
    assert set(ak.flatten(found["Jet_pt"])) <= set(ak.flatten(events["Jet_pt"]))  # as they were read


def test_a_failed_skim_is_resumed(sections, skim, simulated, tmp_path):
    """A basket of one file is rubbish, and then it is not."""
    for path in simulated.glob("ttbar_mc_11_*"):
        shutil.copy(path, tmp_path)
    victim = max(tmp_path.glob("*.root"))
    with uproot.open(victim) as file:
        seek = int(file["Events"]["Jet_eta"].member("fBasketSeek")[0])
    whole = victim.read_bytes()
    victim.write_bytes(whole[: seek + 60] + b"\xff" * 100 + whole[seek + 160 :])
    overrides = [f"output={tmp_path / 'again'}", f"datasets.ttbar.files={tmp_path / 'ttbar_mc_11_*.root'}"]
    overrides += ["skim.datasets=[ttbar]", "skim.keep=[Jet_pt]"]
    with pytest.raises(AdvtagError, match=f"{victim.name}.*150 of 300 events are missing"):
        make_skim(load(sections, *overrides), progress=False)
    assert not (tmp_path / "again" / "skim").exists()
    victim.write_bytes(whole)
    folder = make_skim(load(sections, *overrides, "run.resume=true", "run.chunksize=50"), progress=False)
    for tree, name in (("Events", "event"), ("Runs", "genEventSumw")):
        found, expected = (uproot.concatenate(f"{one / 'ttbar' / '*.root'}:{tree}")[name] for one in (folder, skim))
        if tree == "Events":
            assert sorted(found.to_list()) == sorted(expected.to_list())
        else:
            assert np.isclose(ak.sum(found), ak.sum(expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"skim": {"datasets": ["ttbar"], "regions": ["emux"]}},
            "skim.regions: no 'emux' in histograms.regions; known: all, emu, hard",
        ),
        ({"skim": {"datasets": ["tt"]}}, "skim.datasets: no 'tt'; known: data, qcd, ttbar"),
        ({"skim": {"datasets": ["ttbar"], "regions": ["emu"]}, "histograms": None}, "there is no such section"),
        ({"skim": {"datasets": ["ttbar"], "region": ["emu"]}}, "skim.region: unknown key; did you mean 'regions'?"),
        ({"skim": {"datasets": ["ttbar"]}, "histograms": None}, "skim.regions: Field required"),
    ],
)
def test_mistakes_in_the_configuration(sections, changes, words):
    base, written = sections
    with pytest.raises(AdvtagError) as error:
        load((base, {**written, **changes}), name="wrong")
    assert words in str(error.value)


def test_regions_are_those_of_the_histograms_if_none_are_named(sections):
    base, written = sections
    analysis = load((base, {**written, "skim": {"datasets": ["ttbar"]}}), name="unnamed")
    assert analysis.skim.regions == analysis.histograms.regions
