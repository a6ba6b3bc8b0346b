"""Scores of every jet: histograms filled again from the Parquet are those of the job, bin by bin."""

import json
import shutil

import hist
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
import yaml

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from models.classes import TAGGER_SCORES
from processors.jets import FLAVOURS
from processors.jobs import make_histograms
from processors.scores import score_column
from tests.processors.small_card import write_card

CHARM = {"muons": 1, "lepton_pt": 15, "soft_muon": {"pt": [1, 25], "isolation": None, "id": None}, "os_minus_ss": True}
ATTACKS = ("fgsm", "noise")


@pytest.fixture(scope="module")
def config(simulated, tmp_path_factory):
    base = tmp_path_factory.mktemp("scores")
    card, taggers = write_card(base)
    sections = {
        "name": "scores",
        "output": "out",
        **card,
        "datasets": {
            "ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0},
            "qcd": {"files": str(simulated / "qcd_mc_12_*.root"), "cross_section": 1e6},
            "data": {"files": str(simulated / "ttbar_data_13_*.root"), "data": True},
        },
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.5}, "noise": {"kind": "noise", "epsilon": 0.5}},
        "histograms": {
            "datasets": ["ttbar", "qcd", "data"],
            "taggers": taggers,
            "attacks": [*ATTACKS],
            "transfer": ["nominal"],
            "regions": {"all": {}, "hard": {"jet_pt": 50}, "charm": CHARM},
            "scores": True,
        },
        "run": {"executor": "iterative", "chunksize": 60, "backoff": 0.01},
    }
    (base / "scores.yaml").write_text(yaml.safe_dump(sections))
    return base / "scores.yaml"


@pytest.fixture(scope="module")
def made(config):
    """Histograms, the folder of scores, and its tables by dataset."""
    histograms = make_histograms(load_analysis(config), progress=False)
    folder = histograms.parent / "scores"
    tables = {name: pq.read_table(folder / name) for name in ("ttbar", "qcd", "data")}
    return read_histograms(histograms), folder, tables


@pytest.mark.parametrize("dataset", ["ttbar", "qcd", "data"])
def test_histograms_filled_again(made, dataset):
    file, _, tables = made
    table = tables[dataset]
    flavour = np.array(FLAVOURS)[table["flavour"].to_numpy()]
    filled = 0
    for name in TAGGER_SCORES:
        expected = file.histograms[name]
        axes = [hist.axis.StrCategory(FLAVOURS, name="flavour"), expected.axes[-1]]
        for region in expected.axes["region"]:
            inside = table[f"region__{region}"].to_numpy()
            weight = table[f"weight__{region}"].to_numpy()
            assert (weight[~inside] == 0).all()
            for tagger in expected.axes["tagger"]:
                for attack in expected.axes["attack"]:
                    again = hist.Hist(*axes, storage=hist.storage.Weight())
                    column = score_column(tagger, attack, name)
                    if column in table.column_names:
                        values = table[column].to_numpy()
                        assert values.dtype == np.float32
                        again.fill(flavour=flavour[inside], weight=weight[inside], **{name: values[inside]})
                        filled += 1
                    where = {"dataset": dataset, "region": region, "variation": "nominal"}
                    view = expected[{**where, "tagger": tagger, "attack": attack}].view(flow=True)
                    np.testing.assert_allclose(again.view(flow=True)["value"], view["value"], rtol=1e-12, atol=1e-9)
                    np.testing.assert_allclose(again.view(flow=True)["variance"], view["variance"], rtol=1e-12)
    # raw, and for simulation the own attacks of both taggers, and those on `nominal` shown to the other
    assert filled == len(TAGGER_SCORES) * 3 * (2 if dataset == "data" else 2 + 2 * 2 + 2)
    if dataset == "ttbar":
        signs = np.sign(table["weight__charm"].to_numpy())
        assert {-1, 1} <= set(signs[table["region__charm"].to_numpy()])


def test_rows_are_the_selected_jets_of_the_files(made, simulated):
    _, folder, tables = made
    rows = []
    for path in sorted(simulated.glob("ttbar_mc_11_*.root")):
        with uproot.open(path) as file:
            names = ["run", "luminosityBlock", "event", "Jet_pt", "Jet_eta", "genWeight"]
            for event in file["Events"].arrays(names).to_list():
                for i, (pt, eta) in enumerate(zip(event["Jet_pt"], event["Jet_eta"], strict=True)):
                    if 20 <= pt <= 1000 and abs(eta) <= 2.5:
                        identity = (event["run"], event["luminosityBlock"], event["event"], i)
                        rows.append((*identity, pt, eta, event["genWeight"]))
    names = ("run", "luminosityBlock", "event", "jet_index", "jet_pt", "jet_eta", "weight")
    found = zip(*(tables["ttbar"][name].to_pylist() for name in names), strict=True)
    assert sorted(found) == sorted(rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["datasets"]["ttbar"]["jets"] == len(rows)
    assert len(list((folder / "ttbar").glob("*.parquet"))) > 2  # a file for each chunk


def test_without_the_key_there_are_none(config):
    folder = make_histograms(load_analysis(config, ["output=none", "histograms.scores=false"]), progress=False)
    assert not (folder.parent / "scores").exists()


def test_a_failed_job_leaves_none_and_a_resumed_one_all(config, made, simulated, tmp_path):
    """A basket of one file is rubbish, and then it is not."""
    for path in simulated.glob("ttbar_mc_11_*"):
        shutil.copy(path, tmp_path)
    victim = max(tmp_path.glob("*.root"))
    with uproot.open(victim) as file:
        seek = int(file["Events"]["Jet_eta"].member("fBasketSeek")[0])
    whole = victim.read_bytes()
    victim.write_bytes(whole[: seek + 60] + b"\xff" * 100 + whole[seek + 160 :])
    overrides = [f"output={tmp_path / 'again'}", f"datasets.ttbar.files={tmp_path / 'ttbar_mc_11_*.root'}"]
    with pytest.raises(AdvtagError, match=f"{victim.name}.*150 of 600 events are missing"):
        make_histograms(load_analysis(config, overrides), progress=False)
    assert not (tmp_path / "again" / "scores").exists()
    assert not (tmp_path / "again" / "histograms").exists()
    victim.write_bytes(whole)
    make_histograms(load_analysis(config, [*overrides, "run.resume=true", "run.chunksize=35"]), progress=False)
    keys = [(name, "ascending") for name in ("run", "luminosityBlock", "event", "jet_index")]
    for name, table in made[2].items():
        assert pq.read_table(tmp_path / "again" / "scores" / name).sort_by(keys).equals(table.sort_by(keys))
