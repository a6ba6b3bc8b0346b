"""No absent value, NaN or infinity reaches a column, a network or a histogram."""

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uproot

from common.histograms import read_histograms
from configs.load import load_analysis
from models.features import load_features
from processors.jobs import make_columns, make_histograms
from tests.conftest import NANO

GARBAGE = np.array([np.nan, np.inf, -np.inf, 7e31, -1.5e25, 0.126, 3.4e38], np.float32)


def slow_presence(arrays, name):
    """The rules of PFNano written out once more: which entries of one branch exist, [jets]."""
    value = arrays[name]
    field = name.removeprefix("Jet_DeepCSV_")
    if field[-2:-1] == "_" and field[-1].isdigit():
        counter = "jetNTracksEtaRel" if field.startswith("trackEtaRel") else "jetNSelectedTracks"
        return (arrays[f"Jet_DeepCSV_{counter}"] > int(field[-1])) & (value != -999)
    if field.startswith("flightDistance"):
        return arrays["Jet_DeepCSV_vertexCategory"] == 0
    if field in ("vertexMass", "vertexEnergyRatio", "vertexJetDeltaR"):
        return np.isin(arrays["Jet_DeepCSV_vertexCategory"], (0, 1))
    if field.endswith("AboveCharm"):
        return (value != -999) & (value != -1)
    if field == "trackJetPt":
        return arrays["Jet_DeepCSV_jetNSelectedTracks"] > 0
    if field.startswith("trackSumJet"):
        return arrays["Jet_DeepCSV_trackSumJetEtRatio"] > 0
    return np.isfinite(value) & (value != -999)


@pytest.fixture(scope="module")
def poisoned(simulated, tmp_path_factory):
    """The same simulated file twice: as written, and with the memory of PFNano in the slots that do not exist."""
    folder = tmp_path_factory.mktemp("poisoned")
    (source,) = simulated.glob("ttbar_mc_11_000.root")
    with uproot.open(source) as file:
        tree = file["Events"]
        names = tree.keys(filter_name="/[^n].*/")
        events = {name: tree[name].array() for name in names}
    counts = ak.num(events["Jet_pt"])
    flat = {name: ak.to_numpy(ak.flatten(a)) for name, a in events.items() if name.startswith("Jet_")}
    rng = np.random.default_rng(3)
    dirty = dict(flat)
    for name, value in flat.items():
        if "_track" in name and name[-1].isdigit() and value.dtype == np.float32:
            absent = ~slow_presence(flat, name)
            dirty[name] = np.where(absent, rng.choice(GARBAGE, len(value)), value)
    paths = []
    for stem, jets in (("clean", flat), ("dirty", dirty)):
        path = folder / f"{stem}.root"
        chunk = {name: array for name, array in events.items() if array.ndim == 1}
        chunk["Jet"] = ak.zip({name[4:]: ak.unflatten(value, counts) for name, value in jets.items()})
        with uproot.recreate(path) as file:
            out = file.mktree("Events", {name: array.type.content for name, array in chunk.items()})
            out.extend(chunk)
        paths.append(path)
    return paths


@pytest.fixture
def jobs(write_config, taggers):
    def build(path, stem):
        config = write_config(
            stem,
            features="deepcsv",
            datasets={"d": {"files": str(path), "cross_section": 1.0}},
            columns={"datasets": ["d"]},
            attacks={"fgsm": {"kind": "fgsm", "epsilon": 0.1}, "noise": {"kind": "noise", "epsilon": 0.1}},
            histograms={
                "datasets": ["d"],
                "taggers": {name: str(path) for name, path in taggers.items()},
                "attacks": ["fgsm", "noise"],
            },
            run={"executor": "iterative"},
        )
        return load_analysis(config)

    return build


def columns(analysis):
    (path,) = make_columns(analysis, progress=False).glob("d/*.parquet")
    return pq.read_table(path)


def test_garbage_in_absent_slots_changes_nothing(poisoned, jobs):
    clean, dirty = (jobs(path, path.stem) for path in poisoned)
    with uproot.open(poisoned[1]) as file:
        raw = ak.to_numpy(ak.flatten(file["Events"]["Jet_DeepCSV_trackSip2dSig_5"].array()))
    assert np.isnan(raw).any()
    assert np.isinf(raw).any()
    assert columns(clean).drop(["run"]).equals(columns(dirty).drop(["run"]))
    ours, theirs = (read_histograms(make_histograms(job, progress=False)).histograms for job in (clean, dirty))
    for name, histogram in ours.items():
        assert np.isfinite(histogram.view(flow=True)["value"]).all()
        assert histogram == theirs[name], name


def test_columns_hold_finite_numbers_and_nulls(jobs):
    table = columns(jobs(NANO / "pfnano.root", "pfnano"))
    with uproot.open(NANO / "pfnano.root") as file:
        tree = file["Events"]
        pt = tree["Jet_pt"].array()
        keep = (pt >= 20) & (pt <= 1000) & (abs(tree["Jet_eta"].array()) <= 2.5)
        arrays = {
            name: ak.to_numpy(ak.flatten(tree[name].array()[keep])) for name in tree.keys(filter_name="Jet_DeepCSV_*")
        }
    for feature in load_features("deepcsv").inputs:
        column = table[f"input_{feature.name}"]
        assert np.isfinite(column.drop_null().to_numpy()).all()
        if feature.branch[0] in arrays:
            there = slow_presence(arrays, feature.branch[0])
            np.testing.assert_array_equal(column.is_valid().to_numpy(), there, err_msg=feature.name)
            expected = arrays[feature.branch[0]][there].astype(np.float32)
            np.testing.assert_array_equal(column.drop_null().to_numpy(), expected, err_msg=feature.name)


def test_the_network_never_sees_an_absent_value(taggers):
    from models.tagger import load_tagger

    tagger = load_tagger(taggers["nominal"])
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(50, 67)).astype(np.float32))
    present = torch.from_numpy(rng.random((50, 67)) < 0.5)
    other = torch.where(present, values, 1e6)
    assert torch.equal(tagger(values, present), tagger(other, present))
