"""What is filled, against a slow reference: jets that are attacked, scored and counted one at a time."""

import numpy as np
import pytest
import torch
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory

from attacks import FGSM, Budget, GaussianNoise
from configs.schema import Attack, Region, Selection
from models.features import load_features
from models.inputs import Inputs
from models.keys import jet_keys
from models.tagger import Tagger, load_tagger, worker_tagger
from processors.histograms import HistogramProcessor, evaluate, targets
from processors.jets import read_jets
from tests.conftest import make_tagger


@pytest.fixture(scope="module")
def events(simulated):
    (path,) = simulated.glob("ttbar_mc_11_000.root")
    factory = NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        entry_stop=30,
        metadata={"dataset": "ttbar", "filename": str(path)},
    )
    return factory.events()


def slow_scores(tagger, values, present, classes):
    """Discriminators of one jet, with numpy and the definitions written out."""
    logits = tagger(values[None], present[None])[0].detach().numpy().astype(np.float64)
    p = dict(zip(classes, np.exp(logits) / np.exp(logits).sum(), strict=True))
    b = p["b"] + p.get("bb", 0)
    return {
        "BvsL": b / (b + p["udsg"]),
        "BvsC": b / (b + p["c"]),
        "CvsL": p["c"] / (p["c"] + p["udsg"]),
        "CvsB": p["c"] / (p["c"] + b),
    }


def test_histograms_against_one_jet_at_a_time(events, taggers):
    features = load_features("deepcsv")
    job = HistogramProcessor(
        features,
        Selection(),
        {"ttbar": False},
        {"all": Region(), "hard": Region(jet_pt=60)},
        {"nominal": taggers["nominal"].read_bytes()},
        {"fgsm": Attack(kind="fgsm", epsilon=0.2), "noise": Attack(kind="noise", epsilon=0.2, seed=5)},
        "float64",
    )
    filled = job.process(events)["histograms"]
    jets = read_jets(events, features, Selection(), data=False)
    assert len(jets) > 100
    tagger = load_tagger(taggers["nominal"]).double()
    keys = jet_keys(jets.run, jets.lumi, jets.event, jets.index)
    attacks = {
        "raw": None,
        "fgsm": FGSM(Budget(epsilon=0.2)),
        "noise": GaussianNoise(Budget(epsilon=0.2), seed=5),
    }
    seen = {name: {attack: [] for attack in attacks} for name in filled}
    for i in range(len(jets)):
        one = Inputs(
            torch.from_numpy(jets.values[[i]].astype(np.float64)), torch.from_numpy(jets.present[[i]]), keys[[i]]
        )
        for attack_name, attack in attacks.items():
            moved = one if attack is None else attack(tagger, one, torch.tensor([int(jets.flavour[i])]))
            for name, score in slow_scores(tagger, moved.values[0], one.present[0], tagger.classes).items():
                seen[name][attack_name].append((i, score))
            for row, name in enumerate(features.names):
                if jets.present[i, row]:
                    seen[name][attack_name].append((i, float(moved.values[0, row])))
    for name, by_attack in seen.items():
        for attack_name, entries in by_attack.items():
            for region, keep in (("all", jets.pt >= 0), ("hard", jets.pt >= 60)):
                for code, flavour in enumerate(("b", "bb", "c", "udsg", "data")):
                    chosen = [value for i, value in entries if keep[i] and jets.flavour[i] == code]
                    where = {"dataset": "ttbar", "region": region, "flavour": flavour, "variation": "nominal"}
                    histogram = filled[name][{**where, "tagger": "nominal", "attack": attack_name}]
                    # the axis finds the bin: 10-bit values times 1.2 lie on edges, where numpy rounds otherwise
                    bins = [histogram.axes[0].index(value) + 1 for value in chosen]
                    expected = np.bincount(bins, minlength=histogram.axes[0].extent)
                    np.testing.assert_array_equal(
                        histogram.values(flow=True), expected, err_msg=f"{name} {attack_name}"
                    )


def test_weights_enter_squared_in_the_variance(simulated, taggers):
    (path,) = simulated.glob("qcd_mc_12_*.root")
    factory = NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "qcd", "filename": str(path)},
    )
    features = load_features("deepcsv")
    content = {"nominal": taggers["nominal"].read_bytes()}
    job = HistogramProcessor(features, Selection(), {"qcd": False}, {"all": Region()}, content, {}, "float32")
    output = job.process(factory.events())
    jets = read_jets(factory.events(), features, Selection(), data=False)
    with uproot.open(path) as file:
        weights = file["Events"]["genWeight"].array(library="np").astype(np.float64)
    assert len(np.unique(weights)) > 50
    total = output["histograms"]["pt"].view(flow=True)
    assert np.isclose(total["value"].sum(), weights[jets.owner].sum())
    assert np.isclose(total["variance"].sum(), (weights[jets.owner] ** 2).sum())
    assert np.isclose(output["counts"]["qcd"][str(path)]["sum_weights"], weights.sum())


def test_bb_is_b_to_a_tagger_without_bb():
    features = load_features("deepcsv")
    three = Tagger(features, ("b", "c", "udsg"), torch.zeros(67), torch.ones(67))
    assert targets(three, np.array([0, 1, 2, 3, 4], np.int8)).tolist() == [0, 0, 1, 2, 0]
    four = make_tagger()
    assert targets(four, np.array([0, 1, 2, 3, 4], np.int8)).tolist() == [0, 1, 2, 3, 0]


def test_evaluation_of_no_jets():
    none = Inputs(torch.zeros(0, 67), torch.zeros(0, 67, dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    moved, scores = evaluate(
        make_tagger(), FGSM(Budget(epsilon=0.1)), none, torch.zeros(0, dtype=torch.int64), torch.float32
    )
    assert moved.shape == (67, 0)
    assert all(len(score) == 0 for score in scores.values())


def test_the_worker_keeps_one_tagger_per_content(taggers):
    content = taggers["nominal"].read_bytes()
    first = worker_tagger(content, "a", torch.float32)
    assert worker_tagger(bytes(bytearray(content)), "a", torch.float32) is first
    assert worker_tagger(taggers["adversarial"].read_bytes(), "a", torch.float32) is not first
    assert not any(parameter.requires_grad for parameter in first.parameters())
