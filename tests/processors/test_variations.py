"""Variations from a configuration to the histogram file, against reweighting by hand; real events, and cutflows."""

import json

import correctionlib.schemav2 as schema
import numpy as np
import pytest
import uproot

from common.histograms import read_histograms
from configs.load import load_analysis
from processors.jobs import make_histograms
from tests.conftest import NANO, make_tagger

PATH = NANO / "nanov5_sample.root"
SHIFT = 0.1


def corrections(folder):
    """A weight by the number of interactions, and an uncertainty of 10 % of jet energies."""
    texts = {"nominal": "1+x/100", "up": "1+x/50", "down": "1-x/200"}
    inputs = [schema.Variable(name="NumTrueInteractions", type="real"), schema.Variable(name="weights", type="string")]
    factor = schema.Category(
        nodetype="category",
        input="weights",
        content=[
            schema.CategoryItem(
                key=key,
                value=schema.Formula(
                    nodetype="formula", expression=text, parser="TFormula", variables=["NumTrueInteractions"]
                ),
            )
            for key, text in texts.items()
        ],
    )
    output = schema.Variable(name="weight", type="real")
    energy = [schema.Variable(name=name, type="real") for name in ("JetEta", "JetPt")]
    found = [
        schema.Correction(name="pileup", version=1, inputs=inputs, output=output, data=factor),
        schema.Correction(name="Total", version=1, inputs=energy, output=output, data=SHIFT),
    ]
    path = folder / "corrections.json"
    path.write_text(schema.CorrectionSet(schema_version=2, corrections=found).model_dump_json(exclude_unset=True))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Histograms of two MC datasets, one of them without a jet energy uncertainty, and of data."""
    folder = tmp_path_factory.mktemp("variations")
    make_tagger("nanoaod").save(folder / "t.safetensors")
    file = corrections(folder)
    sections = {
        "name": "variations",
        "output": "out",
        "features": "nanoaod",
        "datasets": {
            "mc": {"files": str(PATH), "cross_section": 1.0},
            "other": {"files": str(NANO / "nano_tt_v12.root"), "cross_section": 1.0},
            "run": {"files": str(NANO / "nano_dimuon.root"), "data": True},
        },
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
        "corrections": {
            "pileup": {
                "kind": "event", "file": file, "key": "pileup", "systematic": "weights", "datasets": ["mc"],
                "inputs": {"NumTrueInteractions": "Pileup_nTrueInt"},
                "sources": {"total": {"up": "up", "down": "down"}},
            },
            "energy": {"kind": "jets", "file": file, "uncertainties": {"total": "Total"}, "datasets": ["mc"]},
        },
        "histograms": {
            "datasets": ["mc", "other", "run"],
            "taggers": {"t": str(folder / "t.safetensors")},
            "attacks": ["fgsm"],
            "regions": {"all": {}, "hard": {"jet_pt": 60, "min_jets": 2}},
        },
        "run": {"executor": "iterative", "chunksize": 300},
    }  # fmt: skip
    path = folder / "variations.yaml"
    path.write_text(json.dumps(sections))  # JSON is YAML
    return read_histograms(make_histograms(load_analysis(path), progress=False))


@pytest.fixture(scope="module")
def events():
    with uproot.open(PATH) as file:
        names = ["Jet_pt", "Jet_eta", "genWeight", "Pileup_nTrueInt"]
        return [
            dict(zip(names, row, strict=True))
            for row in zip(*file["Events"].arrays(names, library="np").values(), strict=True)
        ]


def by_hand(events, axis, region, variation):
    """Sums of weights of pt, one event and one jet at a time."""
    scale = {"jes_up": 1 + SHIFT, "jes_down": 1 - SHIFT}.get(variation, 1.0)
    sums = np.zeros(axis.extent)
    for event in events:
        pts = [np.float32(pt) * np.float32(scale) for pt in event["Jet_pt"]]
        jets = [pt for pt, eta in zip(pts, event["Jet_eta"], strict=True) if 20 <= pt <= 1000 and abs(eta) <= 2.5]
        jets = [pt for pt in jets if region == "all" or pt >= 60]
        if region == "hard" and len(jets) < 2:
            continue
        n = event["Pileup_nTrueInt"]
        factor = {"pileup_up": 1 + n / 50, "pileup_down": 1 - n / 200}.get(variation, 1 + n / 100)
        for pt in jets:
            sums[axis.index(float(pt)) + 1] += event["genWeight"] * factor
    return sums


@pytest.mark.parametrize("region", ["all", "hard"])
@pytest.mark.parametrize("variation", ["nominal", "pileup_up", "pileup_down", "jes_up", "jes_down"])
def test_every_variation_against_a_loop(made, events, variation, region):
    histogram = made.histograms["pt"]["mc", region, :, variation, "t", "raw", :].project("pt")
    expected = by_hand(events, histogram.axes[0], region, variation)
    # float32 pt at an edge may fall on either side of it
    moved = np.abs(histogram.values(flow=True) - expected).sum() / expected.sum()
    assert moved < 2e-3, moved
    assert histogram.sum(flow=True).value == pytest.approx(expected.sum(), rel=1e-3)


def test_variations_differ(made):
    sums = {
        name: made.histograms["pt"]["mc", "hard", :, name, "t", "raw", :].sum(flow=True).value
        for name in made.histograms["pt"].axes["variation"]
    }
    assert list(sums) == ["nominal", "pileup_up", "pileup_down", "jes_up", "jes_down"]
    assert len({round(value, 3) for value in sums.values()}) == 5
    assert sums["jes_down"] < sums["nominal"] < sums["jes_up"]


def test_a_dataset_without_the_correction_has_the_nominal_in_its_place(made):
    for name in ("pt", "BvsL"):
        view = made.histograms[name]["other", "all", :, :, "t", "raw", :].view(flow=True)
        assert view["value"].sum() > 0
        nominal = view[:, :1]
        for variation in range(1, 5):
            assert np.array_equal(view[:, variation : variation + 1], nominal)


def test_data_and_attacked_jets_have_no_variations(made):
    for dataset, attack in (("run", "raw"), ("mc", "fgsm")):
        for name in ("pt", "BvsL"):
            sums = made.histograms[name][dataset, "all", :, :, "t", attack, :].project("variation").values()
            assert sums[0] > 0
            assert not sums[1:].any()


def test_scores_of_shifted_jets_are_evaluated_again(made):
    nominal, up = (
        made.histograms["BvsL"]["mc", "hard", :, name, "t", "raw", :].project("BvsL").view(flow=True)["value"]
        for name in ("nominal", "jes_up")
    )
    pt_up = made.histograms["pt"]["mc", "hard", :, "jes_up", "t", "raw", :].sum(flow=True).value
    assert up.sum() == pytest.approx(pt_up)
    assert np.abs(up / up.sum() - nominal / nominal.sum()).sum() > 1e-3


def test_cutflow_is_in_the_file(made, events):
    flow = made.datasets["mc"].cutflow["hard"]
    assert list(flow) == ["all", "jets"]
    assert flow["all"][0] == 1000
    assert flow["all"][1] == pytest.approx(sum(event["genWeight"] for event in events))
    passed = [
        event
        for event in events
        if sum(60 <= pt <= 1000 and abs(eta) <= 2.5 for pt, eta in zip(event["Jet_pt"], event["Jet_eta"], strict=True))
        > 1
    ]
    assert flow["jets"][0] == len(passed)
