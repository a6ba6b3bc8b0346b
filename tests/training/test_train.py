"""Training on separable toy jets: what it reaches, what it writes, and what must not leak into it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.build import build_attack
from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import Tagger, load_tagger
from training.batches import batches_of
from training.cache import Cache, open_cache
from training.columns import Sample
from training.distributed import World
from training.records import Records
from training.standardise import standardisation
from training.stopping import Stopping
from training.train import train, train_all
from training.weights import PtEtaFlavourWeights

CPU = torch.device("cpu")
TRAINING = {
    "nominal": {"learning_rate": 3e-3},
    "adversarial": {"attack": "fgsm", "learning_rate": 3e-3},
    "noisy": {"attack": "noise", "learning_rate": 3e-3, "epochs": 1, "evaluate_with": ["fgsm", "noise"]},
}

PGD = {"kind": "pgd", "epsilon": 0.1, "steps": 2}
SCHEMES = [
    {},
    {"attack": "noise"},
    {"attack": "fgsm"},
    {"attack": PGD},
    {"attack": {"kind": "conserv", "epsilon": 0.1, "iterations": 1}},
    {"attack": "fgsm", "scheme": {"kind": "replace", "every": 2, "kl": 1.0}},
    {"attack": "fgsm", "scheme": {"kind": "free", "replays": 2}},
    {"attack": PGD, "scheme": {"kind": "trades"}},
]


class Waits(TorchDispatchMode):
    """Counts how often Python asks for a number of a tensor, for which it would wait on a GPU."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def trained(shared_workplace):
    """Analysis, cache, and the folder of what `train_all` wrote."""
    threads = torch.get_num_threads()
    analysis = shared_workplace.analysis(TRAINING)
    paths = train_all(analysis, progress=False)
    torch.set_num_threads(threads)
    return analysis, open_cache(shared_workplace.columns), paths


def history_of(analysis, name: str) -> list[dict]:
    lines = (analysis.output / "taggers" / f"{name}.history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def run(cache: Cache, analysis, name: str, folder: Path, **options) -> Tagger:
    """Train one tagger, with its files below `folder`."""
    records = Records(folder, name)
    return train(cache, analysis.training[name], analysis, records, World(CPU), Stopping(), **options)


def validation_jets(cache: Cache) -> Sample:
    return cache.validation.read(0, len(cache.validation))


def b_against_light(tagger: Tagger, inputs: Inputs, target: torch.Tensor, weight: torch.Tensor) -> float:
    p = torch.softmax(tagger(inputs.values, inputs.present), 1).numpy()
    chosen = np.isin(target, [0, 1, 3])
    score = (p[:, 0] + p[:, 1]) / (p[:, 0] + p[:, 1] + p[:, 3])
    return roc_auc_score(target.numpy()[chosen] != 3, score[chosen], sample_weight=weight.numpy()[chosen])


def test_writes_what_it_says(trained, shared_workplace) -> None:
    analysis, _, paths = trained
    folder = analysis.output / "taggers"
    assert paths == [folder / f"{name}.safetensors" for name in TRAINING]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {path for path in found if path.startswith("tensorboard/")}
    expected = set()
    for name, epochs in (("nominal", 3), ("adversarial", 3), ("noisy", 1)):
        expected |= {f"{name}.safetensors", f"{name}.history.jsonl"}
        expected |= {f"checkpoints/{name}/{which}.safetensors" for which in ("last", "best")}
        expected |= {f"checkpoints/{name}/epoch_{epoch:04d}.safetensors" for epoch in range(1, epochs + 1)}
        assert any(path.startswith(f"tensorboard/{name}/") for path in events)
    assert found - events == expected
    for path in folder.rglob("*.safetensors"):
        if path.stem != "last":
            tagger = load_tagger(path, shared_workplace.features)
            assert tagger.classes == ("b", "bb", "c", "udsg")


@pytest.mark.parametrize("name", ["nominal", "adversarial"])
def test_it_learns(trained, name) -> None:
    history = history_of(trained[0], name)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    for number, epoch in enumerate(history):
        assert set(epoch) == {"epoch", "loss", "learning_rate", "seconds", "validation_loss", "auc", "mistag"}
        assert set(epoch["auc"]) == set(epoch["validation_loss"]) == {"raw", "fgsm"}
        assert set(epoch["auc"]["raw"]) == {"BvsL", "BvsC", "CvsL", "CvsB"}
        assert epoch["learning_rate"] == pytest.approx(3e-3 / (1 + number / 30))
        assert epoch["auc"]["fgsm"]["BvsL"] < epoch["auc"]["raw"]["BvsL"]
        curve = epoch["mistag"]["raw"]["BvsL"]
        efficiency, mistag = np.array([0.0, *map(float, curve), 1.0]), np.array([0.0, *curve.values(), 1.0])
        assert np.trapezoid(efficiency, mistag) == pytest.approx(epoch["auc"]["raw"]["BvsL"], abs=0.03)
        assert epoch["validation_loss"]["fgsm"] > epoch["validation_loss"]["raw"]
        assert math.isfinite(epoch["loss"])
    losses = [epoch["loss"] for epoch in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]
    assert history[-1]["auc"]["raw"]["BvsL"] > 0.9


def test_last_epoch_is_the_tagger_and_the_best_has_the_lowest_loss(trained) -> None:
    analysis, _, paths = trained
    for name, judge, path in (("nominal", "raw", paths[0]), ("adversarial", "fgsm", paths[1])):
        folder = analysis.output / "taggers" / "checkpoints" / name
        assert (folder / "epoch_0003.safetensors").read_bytes() == path.read_bytes()
        assert (folder / "epoch_0001.safetensors").read_bytes() != path.read_bytes()
        losses = [epoch["validation_loss"][judge] for epoch in history_of(analysis, name)]
        best = folder / f"epoch_{losses.index(min(losses)) + 1:04d}.safetensors"
        assert (folder / "best.safetensors").read_bytes() == best.read_bytes()


@pytest.mark.parametrize("name", ["nominal", "adversarial"])
@pytest.mark.parametrize("attacked", [False, True])
def test_auc_is_that_of_sklearn_on_the_saved_tagger(trained, name, attacked) -> None:
    analysis, cache, _ = trained
    jets = validation_jets(cache)
    for epoch, written in enumerate(history_of(analysis, name), 1):
        tagger = load_tagger(analysis.output / f"taggers/checkpoints/{name}/epoch_{epoch:04d}.safetensors")
        inputs = jets.inputs
        if attacked:
            inputs = build_attack(analysis.attacks["fgsm"])(tagger, inputs, jets.target)
        expected = b_against_light(tagger, inputs, jets.target, jets.weight)
        # bins of log-odds, few of which are filled after one epoch of so few jets
        assert written["auc"]["fgsm" if attacked else "raw"]["BvsL"] == pytest.approx(expected, abs=3e-4)


def test_validation_loss_carries_the_training_weights(trained) -> None:
    analysis, cache, paths = trained
    tagger, jets = load_tagger(paths[0]), validation_jets(cache)
    losses = cross_entropy(tagger(jets.inputs.values, jets.inputs.present), jets.target, reduction="none").numpy()
    weights = PtEtaFlavourWeights.fit(cache.train, 4, "balanced")
    expected = np.average(losses, weights=weights.of(jets).numpy())
    assert history_of(analysis, "nominal")[-1]["validation_loss"]["raw"] == pytest.approx(expected, rel=1e-5)


def test_tagger_knows_its_training(trained) -> None:
    _, _, paths = trained
    provenance = load_tagger(paths[1]).provenance
    assert provenance["name"] == "adversarial"
    assert provenance["epochs"] == 3
    expected = {"kind": "fgsm", "epsilon": 0.1, "scale": "std", "capped": True, "seed": 0}
    assert provenance["attack_parameters"] == expected
    assert "numpy" in provenance["versions"]
    assert "attack_parameters" not in load_tagger(paths[0]).provenance


def test_standardised_with_the_present_training_jets_of_mc(trained, toys) -> None:
    """The data of this sample are a million away, and so would be every mean that had seen them."""
    tagger = load_tagger(trained[2][0])
    parts = [toys(2000, 1), toys(1000, 2)]
    for k, name in enumerate(tagger.features.names):
        kept = [jets["values"][name][(jets["split"] == 0) & ~jets["absent"][name]].astype(np.float32) for jets in parts]
        values = np.concatenate(kept).astype(np.float64)
        np.testing.assert_allclose(float(tagger.mean[k]), values.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(float(tagger.std[k]), values.std(), rtol=1e-5)
        low, high = np.quantile(values, [0.01, 0.99])
        np.testing.assert_allclose(float(tagger.scale("quantile")[k]), (high - low) / 2, rtol=1e-5)
        low, high = np.quantile(values, [0.2, 0.8])
        core = values[(low <= values) & (values <= high)]
        np.testing.assert_allclose(float(tagger.scale("core")[k]), core.std(), rtol=1e-5)


def test_test_split_does_not_reach_the_tagger(workplace, toys) -> None:
    """Absurd test jets, and the very same tagger."""
    states = []
    for absurd in (False, True):
        jets = toys(600, 1)
        test = jets["split"] == 2
        if absurd:
            for name, values in jets["values"].items():
                values[test] = 1e9
                jets["absent"][name][test] = False
            jets["jet_pt"][test] = 900
            jets["flavour"][test] = 0
        workplace.write({"tt": [jets]})
        (path,) = train_all(workplace.analysis({"nominal": {"epochs": 1}}), restart=True, progress=False)
        states.append(load_tagger(path).state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])


@pytest.mark.parametrize("attack", [None, "fgsm", "noise"])
def test_same_seed_same_bytes(shared_workplace, tmp_path, attack) -> None:
    cache = open_cache(shared_workplace.columns)

    def bytes_of(seed: int, place: str) -> bytes:
        torch.rand(17)  # whatever was drawn before
        analysis = shared_workplace.analysis({"t": {"attack": attack, "epochs": 2, "seed": seed}})
        tagger = run(cache, analysis, "t", tmp_path / place)
        tagger.provenance = {}
        return tagger.to_bytes()

    first = bytes_of(3, "first")
    assert bytes_of(3, "second") == first
    assert bytes_of(4, "third") != first


def test_taggers_do_not_depend_on_what_was_trained_before(trained, shared_workplace, tmp_path) -> None:
    """`adversarial` alone is the `adversarial` that was trained after `nominal`."""
    analysis = shared_workplace.analysis(TRAINING)
    tagger = run(trained[1], analysis, "adversarial", tmp_path)
    assert tagger.to_bytes() == load_tagger(trained[2][1]).to_bytes()


class Reference:
    """Adversarial training as two explicit steps: attack a copy of the weights, then one plain step."""

    def __init__(self, cache: Cache, analysis, name: str, *, leak: bool = False) -> None:
        settings = analysis.training[name]
        weights = PtEtaFlavourWeights.fit(cache.train, len(cache.classes), "balanced")
        torch.manual_seed(settings.seed)
        self.tagger = Tagger(cache.features, cache.classes, *standardisation(cache.train))
        optimiser = torch.optim.Adam(self.tagger.parameters(), lr=settings.learning_rate)
        self.tagger.train()
        batches = batches_of(cache.train, weights, batch=settings.batch, seed=settings.seed, device=CPU, data="memory")
        for inputs, target, weight in batches.epoch(1):
            optimiser.zero_grad()
            values = self.attacked(inputs, target, analysis.attacks["fgsm"].epsilon)
            if leak:
                self.tagger.eval()
                cross_entropy(self.tagger(inputs.values, inputs.present), target).backward()
                self.tagger.train()
            losses = cross_entropy(self.tagger(values, inputs.present), target, reduction="none")
            ((losses * weight).sum() / weight.abs().sum()).backward()
            self.gradients = {key: p.grad.clone() for key, p in self.tagger.named_parameters()}
            optimiser.step()

    def attacked(self, inputs: Inputs, target: torch.Tensor, epsilon: float) -> torch.Tensor:
        """FGSM on a copy of the tagger, so that nothing it fills or switches can matter."""
        copy = Tagger(self.tagger.features, self.tagger.classes, self.tagger.mean, self.tagger.std)
        copy.load_state_dict(self.tagger.state_dict())
        copy.eval()
        x = inputs.values.clone().requires_grad_()
        cross_entropy(copy(x, inputs.present), target, reduction="sum").backward()
        move = epsilon * copy.std * x.grad.sign()
        x0 = inputs.values
        for k, feature in enumerate(copy.features.inputs):
            if feature.integer:
                move[:, k] = 0
            elif feature.cap is not None:
                move[:, k] = torch.minimum(move[:, k].abs(), feature.cap * x0[:, k].abs()) * move[:, k].sign()
        moved = torch.where(inputs.present, x0 + move, x0)
        low = torch.from_numpy(copy.features.bounds[:, 0]).float()
        return torch.maximum(moved, torch.minimum(low, x0)).detach()


@pytest.fixture
def exact_generator(monkeypatch):
    """A network drawn while the reference copies itself would shift the dropout masks: draw copies aside."""
    make = Tagger.__init__

    def aside(self, *args, **options) -> None:
        if aside.calls:
            with torch.random.fork_rng(devices=[]):
                make(self, *args, **options)
        else:
            make(self, *args, **options)
        aside.calls += 1

    def start() -> None:
        aside.calls = 0

    start()
    monkeypatch.setattr(Tagger, "__init__", aside)
    return start


@pytest.mark.parametrize("batch", [100_000, 500])
def test_no_clean_gradient_leaks_into_adversarial_training(shared_workplace, exact_generator, tmp_path, batch) -> None:
    """The parameter gradients of the last step, and the weights after it, are those of the two-step reference."""
    cache = open_cache(shared_workplace.columns)
    analysis = shared_workplace.analysis({"t": {"attack": "fgsm", "epochs": 1, "batch": batch}})
    reference = Reference(cache, analysis, "t")
    exact_generator()
    leaking = Reference(cache, analysis, "t", leak=True)
    exact_generator()
    tagger = run(cache, analysis, "t", tmp_path)
    gradients = {key: p.grad.clone() for key, p in tagger.named_parameters()}
    assert set(gradients) == set(reference.gradients)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference.gradients[key], rtol=1e-3, atol=1e-6)
        assert (gradient - leaking.gradients[key]).norm() > 0.2 * gradient.norm()
    for key, tensor in reference.tagger.state_dict().items():
        torch.testing.assert_close(tagger.state_dict()[key], tensor, rtol=1e-3, atol=1e-5)


def test_adversarial_training_resists_more(trained) -> None:
    analysis, cache, paths = trained
    jets = validation_jets(cache)
    attack = build_attack(analysis.attacks["fgsm"])
    lost = []
    for path in paths[:2]:
        tagger = load_tagger(path)
        attacked = attack(tagger, jets.inputs, jets.target)
        raw, after = (b_against_light(tagger, inputs, jets.target, jets.weight) for inputs in (jets.inputs, attacked))
        lost.append(raw - after)
    assert lost[1] < lost[0]


def test_a_training_with_an_attack_of_its_own(workplace, toys, tmp_path) -> None:
    """An attack written in the training is the one that is named elsewhere."""
    workplace.write({"tt": [toys(400, 1)]})
    cache = open_cache(workplace.columns)
    written = {"named": {"attack": "fgsm"}, "own": {"attack": {"kind": "fgsm", "epsilon": 0.1}}}
    analysis = workplace.analysis(written)
    states = [run(cache, analysis, name, tmp_path).state_dict() for name in written]
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key])


@pytest.mark.parametrize(
    "settings",
    [
        {"autocast": True, "attack": "fgsm"},
        {"clip": 0.1},
        {"optimiser": "radam", "schedule": "cosine"},
        {"weights": "none", "loss": {"gamma": 2}},
        {"data": "stream"},
    ],
    ids=["autocast", "clip", "radam", "focal", "stream"],
)
def test_every_setting_trains_another_tagger(trained, tmp_path, shared_workplace, settings) -> None:
    analysis = shared_workplace.analysis({"t": {"epochs": 2, "learning_rate": 3e-3, **settings}})
    tagger = run(trained[1], analysis, "t", tmp_path)
    plain = load_tagger(trained[0].output / "taggers/checkpoints/nominal/epoch_0002.safetensors")
    assert not torch.equal(tagger.network.layers[0].weight, plain.network.layers[0].weight)
    jets = validation_jets(trained[1])
    assert b_against_light(tagger.requires_grad_(False), jets.inputs, jets.target, jets.weight) > 0.85


def test_patience(workplace, toys, tmp_path) -> None:
    """Nothing is learned with a learning rate of almost 0 but noise: the training stops early."""
    workplace.write({"tt": [toys(400, 1)]})
    cache = open_cache(workplace.columns)
    analysis = workplace.analysis({"t": {"epochs": 50, "patience": 2, "learning_rate": 0.05}})
    run(cache, analysis, "t", tmp_path)
    lines = (tmp_path / "t.history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["validation_loss"]["raw"] for line in lines]
    assert len(losses) < 50
    assert losses.index(min(losses)) == len(losses) - 3


def test_without_bb(workplace, toys) -> None:
    workplace.write({"tt": [toys(1500, 1)]}, classes=("b", "c", "udsg"))
    analysis = workplace.analysis({"t": {"batch": 100, "learning_rate": 3e-3}})
    (path,) = train_all(analysis, progress=False)
    tagger = load_tagger(path)
    assert tagger.classes == ("b", "c", "udsg")
    jets = validation_jets(open_cache(workplace.columns))
    p = torch.softmax(tagger(jets.inputs.values, jets.inputs.present), 1).numpy()
    chosen = jets.target.numpy() != 1
    score = (p[:, 0] / (p[:, 0] + p[:, 2]))[chosen]
    weight = jets.weight.numpy()[chosen]
    expected = roc_auc_score(jets.target.numpy()[chosen] == 0, score, sample_weight=weight)
    found = history_of(analysis, "t")[-1]["auc"]["raw"]["BvsL"]
    assert found == pytest.approx(expected, abs=3e-4)
    assert found > 0.9


def test_a_class_without_validation_jets_gives_no_auc(workplace, toys) -> None:
    jets = toys(400, 1)
    jets["split"][(jets["flavour"] == 2) & (jets["split"] == 1)] = 2
    workplace.write({"tt": [jets]})
    analysis = workplace.analysis({"t": {"epochs": 1}})
    train_all(analysis, progress=False)
    (epoch,) = history_of(analysis, "t")
    for areas in epoch["auc"].values():
        assert areas["CvsL"] is None
        assert areas["BvsL"] > 0.5


def test_a_lone_negative_jet_does_not_explode(workplace, toys, tmp_path) -> None:
    """Generator weights may be negative: a last batch of one such jet has a negative sum of weights."""
    jets = toys(1000, 1)
    train_rows = np.flatnonzero(jets["split"] == 0)
    size = (len(train_rows) - 1) // 4
    jets["split"][train_rows[4 * size + 1 :]] = 2
    train_rows = np.flatnonzero(jets["split"] == 0)
    assert len(train_rows) == 4 * size + 1
    # company of the same flavour, so that their bin is not empty
    jets["jet_pt"][train_rows], jets["jet_eta"][train_rows] = 50, 0.1

    def last_jet() -> tuple[Cache, float, float]:
        workplace.write({"tt": [jets]})
        cache = open_cache(workplace.columns)
        weights = PtEtaFlavourWeights.fit(cache.train, 4, "balanced")
        batches = batches_of(cache.train, weights, batch=size, seed=1, device=CPU, data="memory")
        inputs, target, weight = list(batches.epoch(1))[-1]
        assert len(target) == 1
        return cache, float(inputs.values[0, 0]), float(weight)

    _, lifetime, _ = last_jet()
    row = train_rows[np.abs(jets["values"]["lifetime"][train_rows].astype(np.float32) - lifetime).argmin()]
    jets["weight"][row] *= -1
    cache, again, weight = last_jet()
    assert again == lifetime
    assert weight < 0
    analysis = workplace.analysis({"t": {"epochs": 1, "batch": size, "seed": 1}})
    tagger = run(cache, analysis, "t", tmp_path)
    assert max(float(p.grad.abs().max()) for p in tagger.network.parameters()) < 100
    (line,) = (tmp_path / "t.history.jsonl").read_text().splitlines()
    assert abs(json.loads(line)["loss"]) < 10


def test_learns_in_spite_of_negative_weights(workplace, toys) -> None:
    """A fifth of the jets negative: one in twenty batches of five has no positive sum of weights."""
    jets = toys(2000, 1)
    jets["weight"] *= np.where(np.random.default_rng(5).random(2000) < 0.2, -1, 1)
    workplace.write({"tt": [jets]})
    analysis = workplace.analysis({"t": {"batch": 5, "epochs": 2}})
    train_all(analysis, progress=False)
    last = history_of(analysis, "t")[-1]
    assert abs(last["loss"]) < 5
    assert last["auc"]["raw"]["BvsL"] > 0.85


def refused(analysis) -> str:
    with pytest.raises(AdvtagError) as error:
        train_all(analysis, progress=False)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_no_columns(workplace) -> None:
    text = refused(workplace.analysis({"t": {}}))
    assert str(workplace.columns) in text
    assert "advtag columns" in text


def test_nothing_to_train(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    assert "key `training`" in refused(workplace.analysis({}))


def test_columns_of_another_card(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    text = refused(workplace.analysis({"t": {}}, features="nanoaod"))
    for word in ("'toy'", "'nanoaod'", "advtag columns", workplace.features.digest):
        assert word in text


def test_nowhere_to_write(workplace, toys) -> None:
    workplace.write({"tt": [toys(200, 1)]})
    (workplace.folder / "out" / "taggers").write_text("a file")
    assert "cannot write" in refused(workplace.analysis({"t": {"epochs": 1}}))


def test_unknown_network_is_named(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    with pytest.raises(AdvtagError, match=r"network|deepcvs"):
        train_all(workplace.analysis({"t": {"network": "deepcvs"}}), progress=False)


@pytest.mark.parametrize("settings", SCHEMES, ids=str)
def test_steps_wait_for_no_number(workplace, toys, settings) -> None:
    workplace.write({"tt": [toys(400, 1)]})
    waits = []
    for batch in (400, 40):
        analysis = workplace.analysis({"t": {"epochs": 1, "evaluate_with": [], "batch": batch, **settings}})
        with Waits() as count:
            train_all(analysis, restart=True, progress=False)
        waits.append(count.number)
    assert waits[0] == waits[1] > 0


@pytest.mark.parametrize("settings", SCHEMES, ids=str)
def test_diverged_training_saves_nothing(workplace, toys, settings) -> None:
    workplace.write({"tt": [toys(400, 1)]})
    analysis = workplace.analysis({"t": {"epochs": 3, "learning_rate": 1e30, **settings}})
    assert "training.t: the loss is" in refused(analysis)
    assert not (analysis.output / "taggers" / "t.safetensors").exists()


def test_checkpoints_of_an_earlier_training_are_removed(workplace, toys) -> None:
    workplace.write({"tt": [toys(400, 1)]})
    train_all(workplace.analysis({"t": {"epochs": 3}}), progress=False)
    analysis = workplace.analysis({"t": {"epochs": 1}})
    train_all(analysis, restart=True, progress=False)
    assert len(list((analysis.output / "taggers" / "checkpoints" / "t").glob("epoch_*"))) == 1
