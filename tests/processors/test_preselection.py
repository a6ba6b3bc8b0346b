"""Golden JSON, filters and triggers of real files, against loops over events."""

import json
from functools import cache

import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from pydantic import ValidationError

from common.errors import AdvtagError
from configs.load import load_analysis
from configs.regions import Region, eras
from configs.schema import Dataset, Selection
from models.features import load_features
from processors.jets import read_jets
from processors.preselection import preselection, read_golden
from processors.regions import select
from tests.conftest import NANO

DATA = NANO / "nano_dimuon.root"
BLOCKS = NANO / "nanov5_sample.root"
FLAGS = ("Flag_goodVertices", "Flag_HBHENoiseFilter", "Flag_CSCTightHaloTrkMuUnvetoFilter")


READ = ["run", "luminosityBlock", "event", "genWeight", "nJet", "Jet_*", "PV_*", "*Rho*", "HLT_*", "Flag_*", "MET_pt"]


@cache
def open_events(path):
    return NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "d", "filename": str(path)},
        iteritems_options={"filter_name": READ},
    ).events()


def cutflow(path, region, **keys):
    dataset = Dataset(files=(str(path),), **keys)
    events = open_events(path)
    jets = read_jets(events, load_features("nanoaod"), Selection(), data=dataset.data)
    return select(events, jets, region, preselection("d", dataset)).cutflow


def arrays(path, *names):
    return {name: np.asarray(tree(path)[name].array()) for name in names}


@cache
def tree(path):
    return uproot.open(path)["Events"]


@pytest.fixture
def golden(tmp_path):
    """Certified: some of the luminosity blocks of a file with eleven, and runs that it has not."""
    found = arrays(BLOCKS, "run", "luminosityBlock")
    lumis = np.unique(found["luminosityBlock"]).tolist()
    content = {"7": [[1, 5]], "1": [[lumis[0], lumis[0]], [lumis[2], lumis[5] - 1], [lumis[8] + 1, lumis[-1] + 3]]}
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(content))
    return path, content, found


def test_golden_json_comes_first_and_agrees_with_loops(golden):
    path, content, found = golden
    flow = cutflow(BLOCKS, Region(met_filters=True), data=True, golden=path, met_filters=FLAGS)
    good = [
        any(first <= lumi <= last for first, last in content.get(str(run), []))
        for run, lumi in zip(found["run"], found["luminosityBlock"], strict=True)
    ]
    filters = arrays(BLOCKS, *FLAGS)
    clean = [all(row) for row in zip(good, *filters.values(), strict=True)]
    assert list(flow.items()) == [
        ("all", (1000, 1000.0)), ("golden JSON", (sum(good), sum(good))), ("MET filters", (sum(clean), sum(clean)))
    ]  # fmt: skip
    assert 0 < sum(clean) < sum(good) < 1000


def test_golden_json_agrees_with_coffea(golden, tmp_path):
    from coffea.lumi_tools import LumiMask

    rng = np.random.default_rng(5)
    content = {}
    for run in (1, 273158, 315267, 2**31):
        edges = np.unique(rng.integers(1, 60, 12))
        content[str(run)] = edges[: len(edges) // 2 * 2].reshape(-1, 2).tolist()
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    run = rng.choice([1, 2, 273158, 315266, 315267, 2**31, 2**31 + 1], 5000).astype(np.uint32)
    lumi = rng.integers(1, 64, 5000).astype(np.uint32)
    expected = LumiMask(str(path))(run, lumi)
    np.testing.assert_array_equal(read_golden("d", path).certifies(run, lumi), expected)
    assert 0 < expected.sum() < 5000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read the golden JSON of dataset 'd'"),
        ("{1:", "not JSON"),
        ("[1, 2]", "found list"),
        ("{}", "expected"),
        ('{"320000": [[5, 3]]}', "run '320000': expected rising ranges"),
        ('{"320000": [[1, 3], [2, 7]]}', "rising ranges"),
        ('{"320000": [1, 3]}', "rising ranges"),
        ('{"B": [[1, 3]]}', "run 'B'"),
    ],
)
def test_golden_json_that_is_none(tmp_path, text, words):
    path = tmp_path / "golden.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AdvtagError, match=words) as told:
        preselection("d", Dataset(files=("x.root",), data=True, golden=path))
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("name", "era", "groups"),
    [
        ("nano_dy.root", "2018", ("single_muon",)),
        ("nano_dy.root", "2018", ("electron_muon", "single_electron")),
        ("nano_tree.root", "2016postVFP", ("electron_muon", "single_muon")),
        ("nano_tt_v15.root", "2023", ("single_electron", "electron_muon")),
        ("nanov5_sample.root", "2017", ("jet40", "single_muon")),
    ],
)
def test_any_path_of_any_group_fires(name, era, groups):
    flow = cutflow(NANO / name, Region(trigger=groups), era=era)
    paths = [path for group in groups for path in eras()[era].triggers[group]]
    found = arrays(NANO / name, *paths, "genWeight")
    fired = np.any([found[path] for path in paths], axis=0)
    assert flow["trigger"][0] == fired.sum()
    assert flow["trigger"][1] == pytest.approx(found["genWeight"][fired].astype(float).sum())


def test_run_3_filters_are_in_run_3_files():
    flags = eras()["2022"].met_filters
    flow = cutflow(NANO / "nano_tt_v15.root", Region(met_filters=True), era="2022")
    assert flow["MET filters"][0] == np.all(list(arrays(NANO / "nano_tt_v15.root", *flags).values()), axis=0).sum()


@pytest.mark.parametrize(
    ("region", "keys", "name"),
    [
        (Region(trigger=("mine",)), {"triggers": {"mine": ("HLT_IsoMu24", "HLT_IsoTkMu24")}}, "HLT_IsoTkMu24"),
        (Region(met_filters=True), {"era": "2018"}, "Flag_BadPFMuonDzFilter"),
    ],
)
def test_a_path_or_filter_that_the_file_lacks_is_an_error(region, keys, name):
    with pytest.raises(AdvtagError, match=f"nano_dy.root: no branch {name}"):
        cutflow(NANO / "nano_dy.root", region, **keys)


def test_events_of_another_primary_dataset_are_left_out():
    """An event that fired both counts once: in the dataset without the veto."""
    both = Region(trigger=("single_muon", "single_electron"))
    keys = {"data": True, "era": "2018"}
    fired = arrays(DATA, "HLT_IsoMu24", "HLT_Ele32_WPTight_Gsf")
    muon, electron = fired["HLT_IsoMu24"], fired["HLT_Ele32_WPTight_Gsf"]
    flow = cutflow(DATA, both, veto_triggers=("single_muon",), **keys)
    assert flow["trigger"][0] == (muon | electron).sum()
    assert flow["veto triggers"][0] == (electron & ~muon).sum()
    assert cutflow(DATA, Region(), veto_triggers=("single_muon",), **keys)["veto triggers"][0] == (~muon).sum()
    # nothing of the vetoed trigger can count twice in a region that does not ask for it
    assert "veto triggers" not in cutflow(
        DATA, Region(trigger=("single_electron",)), veto_triggers=("single_muon",), **keys
    )
    assert muon.sum() > 0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"era": "2019"}, "no era '2019'; known: 2016preVFP"),
        ({"golden": "x.json"}, "golden is of data alone"),
        ({"data": True, "veto_triggers": ("single_muon",)}, "no group 'single_muon'; known: none, name an `era`"),
        ({"triggers": {"mine": ("IsoMu24",)}}, "triggers"),
    ],
)
def test_datasets_that_make_no_sense(keys, words):
    with pytest.raises(ValidationError, match=words):
        Dataset(files=("x.root",), **keys)


def test_years_are_eras():
    assert Dataset(files=("x.root",), era=2018).era == "2018"


@pytest.mark.parametrize(
    ("region", "era", "words"),
    [
        ({"preset": "ttbar_emu"}, None, "region 'r' asks for trigger 'electron_muon'; known: none, name an `era`"),
        ({"preset": "multijet", "trigger": []}, None, "region 'r' applies met_filters; name an `era`"),
        ({"trigger": ["photon"]}, 2017, "trigger 'photon'; known: single_muon"),
        ({"preset": "ttbar_emmu"}, 2017, "no region 'ttbar_emmu'; known: multijet, ttbar_emu"),
        ({"preset": "wc", "jet_ptt": 3}, 2017, "histograms.regions.r.jet_ptt: unknown key; did you mean 'jet_pt'"),
    ],
)
def test_what_regions_need_is_known_before_files_are_opened(write_config, region, era, words):
    dataset = {"files": "x.root", "cross_section": 1.0, **({"era": era} if era else {})}
    path = write_config(
        features="nanoaod",
        datasets={"d": dataset},
        histograms={"datasets": ["d"], "taggers": {"t": "t"}, "regions": {"r": region}},
    )
    with pytest.raises(AdvtagError, match=words):
        load_analysis(path)


def test_keys_beside_a_preset_win(write_config):
    path = write_config(
        features="nanoaod",
        datasets={"d": {"files": "x.root", "cross_section": 1.0, "era": 2018}},
        histograms={
            "datasets": ["d"],
            "taggers": {"t": "t"},
            "regions": {"emu": {"preset": "ttbar_emu", "jet_pt": 35}},
        },
    )
    region = load_analysis(path).histograms.regions["emu"]
    assert (region.jet_pt, region.min_jets, region.muon_id) == (35.0, 2, "tight")
