"""Columns and histograms of every real file, against a bare uproot and numpy count."""

import json

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from processors.jets import CLASSES
from processors.jobs import make_columns, make_histograms
from tests.conftest import NANO, make_tagger

FILES = sorted(path.name for path in NANO.glob("*.root") if path.name != "missing_luminosityBlock.root")
DATA = ("nano_dimuon.root",)


def bare_count(path):
    """Events, selected jets, their pt, and their truth, without any of our code."""
    with uproot.open(path) as file:
        tree = file["Events"]
        arrays = {name: tree[name].array() for name in ("Jet_pt", "Jet_eta")}
        keep = (arrays["Jet_pt"] >= 20) & (arrays["Jet_pt"] <= 1000) & (abs(arrays["Jet_eta"]) <= 2.5)
        pt = ak.to_numpy(ak.flatten(arrays["Jet_pt"][keep]))
        names = tree.keys(recursive=False)
        hadron = nb = None
        if "Jet_hadronFlavour" in names:
            hadron = ak.to_numpy(ak.flatten(tree["Jet_hadronFlavour"].array()[keep])).astype(int)
        if "Jet_nBHadrons" in names:
            nb = ak.to_numpy(ak.flatten(tree["Jet_nBHadrons"].array()[keep]))
        weights = tree["genWeight"].array() if "genWeight" in names else np.ones(tree.num_entries)
        sums = {"genEventSumw", "genEventSumw_"}.intersection(file["Runs"].keys() if "Runs" in file else ())
        if sums:
            weights = file["Runs"][sums.pop()].array()  # of all events generated, those skimmed away included
        return tree.num_entries, pt, hadron, nb, float(np.sum(weights))


@pytest.fixture
def analysis(write_config, tmp_path):
    def build(name):
        card = "deepcsv" if name.startswith("pfnano") else "nanoaod"
        tagger = tmp_path / "tagger.safetensors"
        make_tagger(card).save(tagger)
        data = name in DATA
        path = write_config(
            name.removesuffix(".root"),
            features=card,
            datasets={"d": {"files": str(NANO / name), "data": data, "cross_section": None if data else 1.0}},
            columns={"datasets": ["d"]},
            attacks={"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
            histograms={"datasets": ["d"], "taggers": {"t": str(tagger)}, "attacks": ["fgsm"]},
            run={"executor": "iterative"},
        )
        return load_analysis(path)

    return build


@pytest.mark.parametrize("name", FILES)
def test_columns_and_histograms_agree_with_a_bare_count(analysis, name):
    events, pt, hadron, nb, sum_weights = bare_count(NANO / name)
    configured = analysis(name)

    folder = make_columns(configured, progress=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    book = manifest["datasets"]["d"]
    assert book["expected_events"] == book["events"] == events
    assert book["jets"] == len(pt)
    assert book["sum_weights"] == pytest.approx(sum_weights)
    parts = [pq.read_table(path) for path in sorted(folder.glob("d/*.parquet"))]
    assert sum(part.num_rows for part in parts) == len(pt)
    if parts:
        table = parts[0]
        np.testing.assert_array_equal(table["jet_pt"].to_numpy(), pt)
        codes = table["flavour"].to_numpy()
        if name in DATA:
            assert set(codes) == {len(CLASSES)}
        else:
            expected = np.select([hadron == 5, hadron == 4], [0, 2], 3)
            if nb is not None:
                expected[(hadron == 5) & (nb > 1)] = 1
            np.testing.assert_array_equal(codes, expected)

    result = read_histograms(make_histograms(configured, progress=False))
    assert (result.datasets["d"].events, result.datasets["d"].jets) == (events, len(pt))
    filled = result.histograms["pt"][{"tagger": "t"}].view(flow=True)
    raw = filled[0, 0, :, 0, 0]
    assert np.isclose(raw["value"].sum(), len(pt) if name in DATA else _jet_weights(NANO / name), rtol=1e-6)
    attacked = filled[0, 0, :, 0, 1]["value"].sum()
    assert np.isclose(attacked, 0 if name in DATA else raw["value"].sum())


def _jet_weights(path):
    with uproot.open(path) as file:
        arrays = file["Events"].arrays(["Jet_pt", "Jet_eta", "genWeight"])
    keep = (arrays["Jet_pt"] >= 20) & (arrays["Jet_pt"] <= 1000) & (abs(arrays["Jet_eta"]) <= 2.5)
    return float(ak.sum(ak.sum(keep, axis=1) * ak.values_astype(arrays["genWeight"], np.float64)))


def test_a_file_without_an_identity_branch_is_refused_by_name(analysis):
    with pytest.raises(AdvtagError, match=r"missing_luminosityBlock\.root: no branch luminosityBlock"):
        make_columns(analysis("missing_luminosityBlock.root"), progress=False)


def test_files_without_b_hadron_counts_say_so(analysis, capsys):
    folder = make_columns(analysis("nano_tt_v15.root"), progress=False)
    assert json.loads((folder / "manifest.json").read_text())["classes"] == ["b", "c", "udsg"]
    assert "no Jet_nBHadrons" in capsys.readouterr().err


def test_both_formats_of_one_file_give_the_same_columns(analysis):
    tables = []
    for name in ("pfnano.root", "pfnano_rntuple.root"):
        (path,) = make_columns(analysis(name), progress=False).glob("d/*.parquet")
        tables.append(pq.read_table(path))
    assert tables[0].equals(tables[1])
