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
from processors.evaluate import BATCH, evaluate, targets
from processors.histograms import HistogramProcessor
from processors.jets import NO_TRUTH, read_jets
from tests.conftest import make_tagger


@pytest.fixture(scope="module")
def events(simulated):
    (path,) = simulated.glob("ttbar_mc_11_000.root")
    factory = NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        entry_stop=30,
        metadata={**whole_metadata("ttbar", path), "entrystop": 30},
    )
    return factory.events()


def whole_metadata(dataset, path):
    """What the work function tells a processor about a chunk that is a whole file."""
    with uproot.open(path) as file:
        number = file["Events"].num_entries
    return {"dataset": dataset, "filename": str(path), "entrystart": 0, "entrystop": number}


def filled_by(job, events):
    """Histograms of one chunk."""
    dataset = events.metadata["dataset"]
    return job.histograms(dataset, job.process(events)["blocks"][dataset])


def evaluated(tagger, attack, inputs, flavour):
    """What `evaluate` gives for one tagger and one attack: moved inputs and scores."""
    found = {one.attack: one for one in evaluate({"t": tagger}, {"a": attack}, frozenset(), inputs, flavour)}
    return found["a"].moved, found["a"].scores["t"]


def slow_scores(tagger, values, present, classes):
    """Discriminators and node outputs of one jet, with numpy and the definitions written out."""
    logits = tagger(values[None], present[None])[0].detach().numpy().astype(np.float64)
    p = dict(zip(classes, np.exp(logits) / np.exp(logits).sum(), strict=True))
    b = p["b"] + p.get("bb", 0)
    return {
        "BvsL": b / (b + p["udsg"]),
        "BvsC": b / (b + p["c"]),
        "CvsL": p["c"] / (p["c"] + p["udsg"]),
        "CvsB": p["c"] / (p["c"] + b),
        "prob_b": b,
        "prob_bb": p.get("bb", -1.0),
        "prob_c": p["c"],
        "prob_udsg": p["udsg"],
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
    filled = filled_by(job, events)
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
        metadata=whole_metadata("qcd", path),
    )
    features = load_features("deepcsv")
    content = {"nominal": taggers["nominal"].read_bytes()}
    job = HistogramProcessor(features, Selection(), {"qcd": False}, {"all": Region()}, content, {}, "float32")
    output = job.process(factory.events())
    jets = read_jets(factory.events(), features, Selection(), data=False)
    with uproot.open(path) as file:
        weights = file["Events"]["genWeight"].array(library="np").astype(np.float64)
    assert len(np.unique(weights)) > 50
    total = job.histograms("qcd", output["blocks"]["qcd"])["pt"].view(flow=True)
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
    moved, scores = evaluated(make_tagger(), FGSM(Budget(epsilon=0.1)), none, np.zeros(0, np.int8))
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
    monkeypatch.setitem(BATCH, "cpu", 7)
    tagger, inputs, target = make_tagger().to(precision), some_inputs(31), torch.arange(31) % 4
    attack = make()
    moved, scores = evaluated(tagger, attack, inputs, target.numpy().astype(np.int8))
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
    monkeypatch.setitem(BATCH, "cpu", 7)
    attack = RollAlone()
    moved, _ = evaluated(make_tagger(), attack, some_inputs(31), np.arange(31, dtype=np.int8) % 4)
    assert [len(seen) for seen in attack.seen] == [7, 7, 7, 7, 3]
    assert torch.cat([seen.key for seen in attack.seen]).equal(some_inputs(31).key)
    parts = [
        RollAlone()(make_tagger(), some_inputs(31)[i : i + 7], torch.arange(31)[i : i + 7] % 4) for i in range(0, 31, 7)
    ]
    assert np.array_equal(moved, torch.cat([part.values for part in parts]).T.numpy())


def test_raw_and_attacked_hold_the_same_jets(events, taggers, monkeypatch):
    """Whatever an attack does, whole or batch by batch: the same jets with the same weights, over- and underflow in."""
    monkeypatch.setitem(BATCH, "cpu", 50)
    roll = Roll()
    kinds = {kind: build_attack(attack_config({"kind": kind, "epsilon": 2.0})) for kind in ("pgd", "rdsa", "conserv")}
    content = {name: path.read_bytes() for name, path in taggers.items()}
    regions = {"all": Region(), "hard": Region(jet_pt=60)}
    features = load_features("deepcsv")
    job = HistogramProcessor(
        features, Selection(), {"ttbar": False}, regions, content, {"roll": roll, **kinds}, "float32"
    )
    filled = filled_by(job, events)
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
        metadata=whole_metadata("run", path),
    )
    roll, content = Roll(), {"nominal": taggers["nominal"].read_bytes()}
    job = HistogramProcessor(
        load_features("deepcsv"), Selection(), {"run": True}, {"all": Region()}, content, {"roll": roll}, "float32"
    )
    filled = filled_by(job, factory.events())
    assert not roll.seen
    assert filled["pt"][{"attack": "roll"}].sum(flow=True).value == 0
    assert filled["pt"][{"attack": "raw"}].sum(flow=True).value > 100


class Counting(torch.nn.Module):
    """A network that counts how often it is asked."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.passes = 0

    def forward(self, standardised, present):
        self.passes += 1
        return self.network(standardised, present)


def test_sizes_of_an_attack_share_one_pass():
    """Raw scores and FGSM of three sizes: one clean pass, and one of each size; the numbers are those of each alone."""
    inputs, flavour = some_inputs(40), np.arange(40, dtype=np.int8) % 4
    attacks = {str(size): FGSM(Budget(epsilon=size)) for size in (0.01, 0.1, 1.0)}
    tagger = make_tagger().eval().requires_grad_(False)
    apart = {name: attack(tagger, inputs, torch.from_numpy(flavour).long()) for name, attack in attacks.items()}
    tagger.network = Counting(tagger.network)
    found = {one.attack: one for one in evaluate({"t": tagger}, attacks, frozenset(), inputs, flavour)}
    assert tagger.network.passes == 4
    for name, moved in apart.items():
        assert np.array_equal(found[name].moved, moved.values.T.numpy())
    assert found["raw"].moved is None
    for jet in (0, 17, 39):
        slow = slow_scores(tagger, inputs.values[jet], inputs.present[jet], tagger.classes)
        assert {name: scores[jet] for name, scores in found["raw"].scores["t"].items()} == pytest.approx(slow, rel=1e-4)


def test_transfer_shows_the_examples_of_one_to_the_others(events, taggers):
    features, attack = load_features("deepcsv"), FGSM(Budget(epsilon=0.3))
    content = {name: path.read_bytes() for name, path in taggers.items()}
    arguments = (features, Selection(), {"ttbar": False}, {"all": Region()}, content, {"fgsm": attack}, "float64")
    filled = filled_by(HistogramProcessor(*arguments, transfer=["nominal"]), events)
    jets = read_jets(events, features, Selection(), data=False)
    one, other = (load_tagger(taggers[name]).double() for name in ("nominal", "adversarial"))
    keys = jet_keys(jets.run, jets.lumi, jets.event, jets.index)
    clean = Inputs(torch.from_numpy(jets.values).double(), torch.from_numpy(jets.present), keys)
    moved = attack(one, clean, targets(one, jets.flavour))
    scores = [slow_scores(other, moved.values[i], moved.present[i], other.classes)["CvsL"] for i in range(len(jets))]
    shown = filled["CvsL"]["ttbar", "all", :, "nominal", "adversarial", "fgsm@nominal", :].project("CvsL")
    expected = np.bincount([shown.axes[0].index(score) + 1 for score in scores], minlength=shown.axes[0].extent)
    np.testing.assert_array_equal(shown.values(flow=True), expected)
    assert filled["pt"]["ttbar", "all", :, "nominal", "nominal", "fgsm@nominal", :].sum(flow=True).value == 0
    own = filled["pt"]["ttbar", "all", :, "nominal", "nominal", "fgsm", :].view(flow=True)
    assert np.array_equal(
        own, filled["pt"]["ttbar", "all", :, "nominal", "adversarial", "fgsm@nominal", :].view(flow=True)
    )


def test_no_attack_of_the_suite_is_changed_by_sharing():
    """Every kind of attack, with and without the shared clean pass: the same to the last bit."""
    inputs, flavour = some_inputs(30), np.arange(30, dtype=np.int8) % 4
    tagger = make_tagger().eval().requires_grad_(False)
    target = targets(tagger, flavour)
    assert NO_TRUTH not in flavour
    for kind in ("noise", "systematic", "fgsm", "ngm", "pgd", "apgd", "pip", "pip-pgd", "minifool", "square"):
        attack = build_attack(attack_config({"kind": kind, "epsilon": 0.1}))
        moved, _ = evaluated(tagger, attack, inputs, flavour)
        assert np.array_equal(moved, attack(tagger, inputs, target).values.T.numpy()), kind
