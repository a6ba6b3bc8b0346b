"""Training on separable toy jets: what it reaches, what it writes, and what must not leak into it."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy

from attacks.build import build_attack
from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import Tagger, load_tagger
from training.columns import Columns, read_columns
from training.standardise import standardisation
from training.train import auc, loss_weights, scores, train, train_all

CPU = torch.device("cpu")
TRAINING = {
    "nominal": {"learning_rate": 3e-3},
    "adversarial": {"attack": "fgsm", "learning_rate": 3e-3},
    "noisy": {"attack": "noise", "learning_rate": 3e-3, "epochs": 1},
}


@pytest.fixture(scope="module")
def trained(shared_workplace):
    """Analysis, columns, and the folder of what `train_all` wrote."""
    threads = torch.get_num_threads()
    analysis = shared_workplace.analysis(TRAINING)
    paths = train_all(analysis, progress=False)
    torch.set_num_threads(threads)
    return analysis, read_columns(shared_workplace.columns), paths


def history_of(analysis, name: str) -> list[dict]:
    return json.loads((analysis.output / "taggers" / f"{name}.history.json").read_text())


def test_writes_what_it_says(trained, shared_workplace) -> None:
    analysis, _, paths = trained
    folder = analysis.output / "taggers"
    assert paths == [folder / f"{name}.safetensors" for name in TRAINING]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = set()
    for name, epochs in (("nominal", 3), ("adversarial", 3), ("noisy", 1)):
        expected |= {f"{name}.safetensors", f"{name}.history.json"}
        expected |= {f"checkpoints/{name}/epoch_{epoch:04d}.safetensors" for epoch in range(1, epochs + 1)}
    assert found == expected
    for path in folder.rglob("*.safetensors"):
        tagger = load_tagger(path, shared_workplace.features)
        assert tagger.classes == ("b", "bb", "c", "udsg")


@pytest.mark.parametrize("name", ["nominal", "adversarial"])
def test_it_learns(trained, name) -> None:
    history = history_of(trained[0], name)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    for epoch in history:
        assert set(epoch) == {"epoch", "loss", "validation_loss", "auc_raw", "auc_attacked", "attack"}
        assert epoch["attack"] == "fgsm"
        assert epoch["auc_attacked"] < epoch["auc_raw"]
        assert all(math.isfinite(epoch[key]) for key in ("loss", "validation_loss"))
    for key in ("loss", "validation_loss"):
        losses = [epoch[key] for epoch in history]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 0.95 * losses[0]
    assert history[-1]["auc_raw"] > 0.9


def test_last_checkpoint_is_the_tagger(trained) -> None:
    analysis, _, paths = trained
    last = load_tagger(analysis.output / "taggers/checkpoints/nominal/epoch_0003.safetensors")
    first = load_tagger(analysis.output / "taggers/checkpoints/nominal/epoch_0001.safetensors")
    final = load_tagger(paths[0])
    assert last.to_bytes() == final.to_bytes()
    assert not torch.equal(first.network.layers[0].weight, final.network.layers[0].weight)


@pytest.mark.parametrize("name", ["nominal", "adversarial"])
@pytest.mark.parametrize("attacked", [False, True])
def test_auc_is_that_of_sklearn_on_the_saved_tagger(trained, name, attacked) -> None:
    analysis, columns, _ = trained
    for epoch, written in enumerate(history_of(analysis, name), 1):
        tagger = load_tagger(analysis.output / f"taggers/checkpoints/{name}/epoch_{epoch:04d}.safetensors")
        jets = columns.validation
        inputs = jets.inputs
        if attacked:
            inputs = build_attack(analysis.attacks["fgsm"])(tagger, inputs, jets.target)
        p = torch.softmax(tagger(inputs.values, inputs.present), 1).numpy()
        chosen = np.isin(jets.target, [0, 1, 3])
        score = (p[:, 0] + p[:, 1]) / (p[:, 0] + p[:, 1] + p[:, 3])
        expected = roc_auc_score(jets.target.numpy()[chosen] != 3, score[chosen])
        assert written["auc_attacked" if attacked else "auc_raw"] == pytest.approx(expected, abs=1e-6)


def test_validation_loss_carries_the_training_weights(trained) -> None:
    analysis, columns, paths = trained
    tagger, jets = load_tagger(paths[0]), columns.validation
    losses = cross_entropy(tagger(jets.inputs.values, jets.inputs.present), jets.target, reduction="none").numpy()
    _, weight = loss_weights(columns, CPU)
    expected = np.average(losses, weights=weight.numpy())
    assert history_of(analysis, "nominal")[-1]["validation_loss"] == pytest.approx(expected, rel=1e-5)


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
        (path,) = train_all(workplace.analysis({"nominal": {"epochs": 1}}), progress=False)
        states.append(load_tagger(path).state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])


@pytest.mark.parametrize("attack", [None, "fgsm", "noise"])
def test_same_seed_same_bytes(shared_workplace, attack) -> None:
    columns = read_columns(shared_workplace.columns)

    def run(seed: int) -> tuple[bytes, list]:
        torch.rand(17)  # whatever was drawn before
        analysis = shared_workplace.analysis({"t": {"attack": attack, "epochs": 2, "seed": seed}})
        tagger, history = train(columns, analysis.training["t"], analysis, "t", CPU, lambda *_: None)
        tagger.provenance = {}
        return tagger.to_bytes(), history

    first = run(3)
    assert run(3) == first
    assert run(4)[0] != first[0]


def test_taggers_do_not_depend_on_what_was_trained_before(trained, shared_workplace) -> None:
    """`adversarial` alone is the `adversarial` that was trained after `nominal`."""
    columns = read_columns(shared_workplace.columns)
    analysis = shared_workplace.analysis(TRAINING)
    tagger, _ = train(columns, analysis.training["adversarial"], analysis, "adversarial", CPU, lambda *_: None)
    assert tagger.to_bytes() == load_tagger(trained[2][1]).to_bytes()


class Reference:
    """Adversarial training as two explicit steps: attack a copy of the weights, then one plain step."""

    def __init__(self, columns: Columns, analysis, name: str, *, leak: bool = False) -> None:
        settings = analysis.training[name]
        sample = columns.train
        weight, _ = loss_weights(columns, CPU)
        torch.manual_seed(settings.seed)
        self.tagger = Tagger(columns.features, columns.classes, *standardisation(sample.inputs))
        optimiser = torch.optim.Adam(self.tagger.parameters(), lr=settings.learning_rate)
        self.tagger.train()
        order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(settings.seed * 100_003 + 1))
        for jets in order.split(settings.batch):
            inputs, target = sample.inputs[jets], sample.target[jets]
            optimiser.zero_grad()
            values = self.attacked(inputs, target, analysis.attacks["fgsm"].epsilon)
            if leak:
                self.tagger.eval()
                cross_entropy(self.tagger(inputs.values, inputs.present), target).backward()
                self.tagger.train()
            losses = cross_entropy(self.tagger(values, inputs.present), target, reduction="none")
            ((losses * weight[jets]).sum() / weight[jets].abs().sum()).backward()
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
def test_no_clean_gradient_leaks_into_adversarial_training(shared_workplace, exact_generator, batch) -> None:
    """The parameter gradients of the last step, and the weights after it, are those of the two-step reference."""
    columns = read_columns(shared_workplace.columns)
    analysis = shared_workplace.analysis({"t": {"attack": "fgsm", "epochs": 1, "batch": batch}})
    reference = Reference(columns, analysis, "t")
    exact_generator()
    leaking = Reference(columns, analysis, "t", leak=True)
    exact_generator()
    gradients: dict[str, torch.Tensor] = {}

    def after_epoch(tagger: Tagger, _) -> None:
        gradients.update({key: p.grad.clone() for key, p in tagger.named_parameters()})

    tagger, _ = train(columns, analysis.training["t"], analysis, "t", CPU, after_epoch)
    assert set(gradients) == set(reference.gradients)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference.gradients[key], rtol=1e-3, atol=1e-6)
        assert (gradient - leaking.gradients[key]).norm() > 0.2 * gradient.norm()
    for key, tensor in reference.tagger.state_dict().items():
        torch.testing.assert_close(tagger.state_dict()[key], tensor, rtol=1e-3, atol=1e-5)


def test_adversarial_training_resists_more(trained) -> None:
    analysis, columns, paths = trained
    attack = build_attack(analysis.attacks["fgsm"])
    lost = []
    for path in paths[:2]:
        tagger = load_tagger(path)
        raw, attacked = (
            auc(scores(tagger, a, columns.validation)["BvsL"], columns.validation, columns.classes)
            for a in (None, attack)
        )
        lost.append(raw - attacked)
    assert lost[1] < lost[0]


def test_without_bb(workplace, toys) -> None:
    workplace.write({"tt": [toys(1500, 1)]}, classes=("b", "c", "udsg"))
    analysis = workplace.analysis({"t": {"batch": 100, "learning_rate": 3e-3}})
    (path,) = train_all(analysis, progress=False)
    tagger = load_tagger(path)
    assert tagger.classes == ("b", "c", "udsg")
    jets = read_columns(workplace.columns).validation
    p = torch.softmax(tagger(jets.inputs.values, jets.inputs.present), 1).numpy()
    chosen = jets.target.numpy() != 1
    expected = roc_auc_score(jets.target.numpy()[chosen] == 0, (p[:, 0] / (p[:, 0] + p[:, 2]))[chosen])
    found = history_of(analysis, "t")[-1]["auc_raw"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found > 0.9


def test_a_missing_class_gives_no_auc(workplace, toys) -> None:
    jets = toys(400, 1)
    jets["flavour"][:] = np.where(jets["flavour"] == 2, 2, 3)
    workplace.write({"tt": [jets]})
    analysis = workplace.analysis({"t": {"epochs": 1}})
    train_all(analysis, progress=False)
    (epoch,) = history_of(analysis, "t")
    assert epoch["auc_raw"] is epoch["auc_attacked"] is None
    assert math.isfinite(epoch["loss"])


def test_a_lone_negative_jet_does_not_explode(workplace, toys) -> None:
    """Generator weights may be negative: a last batch of one such jet has a negative sum of weights."""
    jets = toys(1000, 1)
    train_rows = np.flatnonzero(jets["split"] == 0)
    size = (len(train_rows) - 1) // 4
    jets["split"][train_rows[4 * size + 1 :]] = 2
    train_rows = np.flatnonzero(jets["split"] == 0)
    assert len(train_rows) == 4 * size + 1
    last = torch.randperm(len(train_rows), generator=torch.Generator().manual_seed(1 * 100_003 + 1))[-1]
    row = train_rows[int(last)]
    jets["weight"][row] *= -1
    # company in its bin, so that the bin is not empty
    company = train_rows[jets["flavour"][train_rows] == jets["flavour"][row]][:3]
    jets["jet_pt"][[row, *company]], jets["jet_eta"][[row, *company]] = 50, 0.1
    jets["flavour"][row] = jets["flavour"][company[0]]
    workplace.write({"tt": [jets]})
    columns = read_columns(workplace.columns)
    analysis = workplace.analysis({"t": {"epochs": 1, "batch": size, "seed": 1}})
    largest = []

    def after_epoch(tagger: Tagger, history) -> None:
        largest.append(max(float(p.grad.abs().max()) for p in tagger.parameters()))
        assert math.isfinite(history[-1]["loss"])

    _, history = train(columns, analysis.training["t"], analysis, "t", CPU, after_epoch)
    assert largest[0] < 100
    assert abs(history[0]["loss"]) < 10


def test_learns_in_spite_of_negative_weights(workplace, toys) -> None:
    """A fifth of the jets negative: one in twenty batches of five has no positive sum of weights."""
    jets = toys(2000, 1)
    jets["weight"] *= np.where(np.random.default_rng(5).random(2000) < 0.2, -1, 1)
    workplace.write({"tt": [jets]})
    analysis = workplace.analysis({"t": {"batch": 5, "epochs": 2}})
    train_all(analysis, progress=False)
    history = history_of(analysis, "t")
    assert abs(history[-1]["loss"]) < 5
    assert history[-1]["auc_raw"] > 0.85


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "training.t: the loss is"),
        ({"attack": "noise"}, "training.t: the loss is"),
        ({"attack": "fgsm"}, "not finite"),
    ],
    ids=["nominal", "noise", "fgsm"],
)
def test_diverged_training_saves_nothing(workplace, toys, settings, said) -> None:
    workplace.write({"tt": [toys(400, 1)]})
    analysis = workplace.analysis({"t": {"epochs": 3, "learning_rate": 1e30, **settings}})
    assert said in refused(analysis)
    assert not (analysis.output / "taggers" / "t.safetensors").exists()


def test_checkpoints_of_an_earlier_training_are_removed(workplace, toys) -> None:
    workplace.write({"tt": [toys(400, 1)]})
    train_all(workplace.analysis({"t": {"epochs": 3}}), progress=False)
    analysis = workplace.analysis({"t": {"epochs": 1}})
    train_all(analysis, progress=False)
    assert len(list((analysis.output / "taggers" / "checkpoints" / "t").iterdir())) == 1
