"""What is filled, against a slow reference: jets that are attacked, scored and counted one at a time."""

import numpy as np
import pytest
import torch
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory

from attacks import FGSM, Attack, Budget, GaussianNoise
from attacks.build import build_attack
from attacks.rdsa import RDSA
from configs.attacks import attack_config
from configs.schema import Region, Selection
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
        {
            name: build_attack(attack_config({"kind": name, "epsilon": 0.2, "seed": seed}))
            for name, seed in (("fgsm", 0), ("noise", 5))
        },
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


class Roll(Attack):
    """Gives each jet the inputs of its neighbour: what comes out depends on which jets come in together."""

    per_jet = False

    def __init__(self) -> None:
        super().__init__(Budget(epsilon=1e30, capped=False))
        self.seen: list[Inputs] = []

    def perturb(self, tagger, inputs, target, interval):
        self.seen.append(inputs)
        return inputs.values.roll(1, 0)


class RollAlone(Roll):
    per_jet = True


def some_inputs(number: int) -> Inputs:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand((number, 67), generator=generator)
    present = torch.rand((number, 67), generator=generator) < 0.8
    return Inputs(values * present, present, torch.arange(number) * 7919, torch.rand(number, generator=generator))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [Roll, lambda: RDSA(Budget(epsilon=1.0), seed=2)], ids=["roll", "rdsa"])
def test_attack_that_looks_at_all_jets_gets_the_whole_chunk(monkeypatch, make, precision):
    monkeypatch.setattr("processors.histograms.BATCH", 7)
    tagger, inputs, target = make_tagger().to(precision), some_inputs(31), torch.arange(31) % 4
    attack = make()
    moved, scores = evaluate(tagger, attack, inputs, target, precision)
    if isinstance(attack, Roll):
        (seen,) = attack.seen
        assert torch.equal(seen.key, inputs.key)
        assert torch.equal(seen.weight, inputs.weight)
        assert seen.values.dtype == precision
    whole = make()(tagger, inputs.to(dtype=precision), target)
    assert np.array_equal(moved, whole.values.T.numpy())
    assert (moved != inputs.values.T.numpy()).any()
    for jet in range(31):
        for name, score in slow_scores(tagger, whole.values[jet], inputs.present[jet], tagger.classes).items():
            assert scores[name][jet] == pytest.approx(score, rel=1e-4)


def test_attack_on_single_jets_gets_batches(monkeypatch):
    monkeypatch.setattr("processors.histograms.BATCH", 7)
    attack = RollAlone()
    moved, _ = evaluate(make_tagger(), attack, some_inputs(31), torch.arange(31) % 4, torch.float32)
    assert [len(seen) for seen in attack.seen] == [7, 7, 7, 7, 3]
    assert torch.cat([seen.key for seen in attack.seen]).equal(some_inputs(31).key)
    parts = [
        RollAlone()(make_tagger(), some_inputs(31)[i : i + 7], torch.arange(31)[i : i + 7] % 4) for i in range(0, 31, 7)
    ]
    assert np.array_equal(moved, torch.cat([part.values for part in parts]).T.numpy())


def test_raw_and_attacked_hold_the_same_jets(events, taggers, monkeypatch):
    """Whatever an attack does, whole or batch by batch: the same jets with the same weights, over- and underflow in."""
    monkeypatch.setattr("processors.histograms.BATCH", 50)
    roll = Roll()
    kinds = {kind: build_attack(attack_config({"kind": kind, "epsilon": 2.0})) for kind in ("pgd", "rdsa", "conserv")}
    content = {name: path.read_bytes() for name, path in taggers.items()}
    regions = {"all": Region(), "hard": Region(jet_pt=60)}
    features = load_features("deepcsv")
    job = HistogramProcessor(
        features, Selection(), {"ttbar": False}, regions, content, {"roll": roll, **kinds}, "float32"
    )
    filled = job.process(events)["histograms"]
    jets = read_jets(events, features, Selection(), data=False)
    for seen in roll.seen:  # all jets of the chunk, in no region, too; once for each tagger
        assert np.array_equal(seen.key.numpy(), jet_keys(jets.run, jets.lumi, jets.event, jets.index).numpy())
        assert np.allclose(seen.weight.numpy(), jets.weight)
    assert len(roll.seen) == 2
    for name, histogram in filled.items():
        for region in regions:
            for tagger in taggers:
                where = {"dataset": "ttbar", "region": region, "variation": "nominal", "tagger": tagger}
                raw = histogram[{**where, "attack": "raw"}].view(flow=True)
                for attack in ("roll", *kinds):
                    attacked = histogram[{**where, "attack": attack}].view(flow=True)
                    for part in ("value", "variance"):
                        np.testing.assert_allclose(attacked[part].sum(1), raw[part].sum(1), rtol=1e-12)
                    if region == "all" and (name, attack) in (("pt", "roll"), ("BvsL", "rdsa"), ("BvsL", "pgd")):
                        assert (attacked["value"] != raw["value"]).any(), (name, attack)


def test_data_is_not_attacked_whole_either(simulated, taggers):
    (path,) = simulated.glob("ttbar_data_*.root")
    factory = NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "run", "filename": str(path)},
    )
    roll, content = Roll(), {"nominal": taggers["nominal"].read_bytes()}
    job = HistogramProcessor(
        load_features("deepcsv"), Selection(), {"run": True}, {"all": Region()}, content, {"roll": roll}, "float32"
    )
    filled = job.process(factory.events())["histograms"]
    assert not roll.seen
    assert filled["pt"][{"attack": "roll"}].sum(flow=True).value == 0
    assert filled["pt"][{"attack": "raw"}].sum(flow=True).value > 100
