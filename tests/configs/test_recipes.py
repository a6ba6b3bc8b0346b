"""Recipes: each is what its study says, validates, and trains a step."""

import copy

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from attacks.build import build_attack
from common.errors import AdvtagError
from configs.attacks import attack_config
from configs.load import load_analysis
from configs.training import Free, Loss, Replace, Trades, Training, TrainingRecipe, recipes
from models.features import FeatureSet, expand
from models.inputs import Inputs
from models.tagger import Tagger
from tests.training.conftest import CARD
from training.batches import Batch
from training.optimise import build_optimiser, build_schedule
from training.schemes import build_scheme

ASKED = {
    "deepcsv_nominal", "deepcsv_adversarial", "ngm_alternate", "ngm_kl", "pgd", "pip_pgd", "conserv", "free", "trades",
}  # fmt: skip
WRITTEN = {
    "name": "toy",
    "output": "out",
    "features": "deepcsv",
    "datasets": {"tt": {"files": "x.root"}},
    "attacks": {"mine": {"kind": "fgsm", "epsilon": 0.1}},
}
ADAPTER: TypeAdapter[Training] = TypeAdapter(TrainingRecipe)


def recipe(name: str, **changes) -> Training:
    return ADAPTER.validate_python({"recipe": name, **changes})


def refused(folder, **training) -> str:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**WRITTEN, "training": {"t": training}}))
    with pytest.raises(AdvtagError) as error:
        load_analysis(path)
    text = str(error.value)
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_all_that_were_asked_for() -> None:
    assert set(recipes()) >= ASKED


@pytest.mark.parametrize("name", recipes())
def test_names_its_source_and_survives_json(name) -> None:
    assert len(recipes()[name]["source"]) > 60
    settings = recipe(name)
    assert settings.recipe == name
    assert ADAPTER.validate_json(settings.model_dump_json()) == settings
    for key, value in recipes()[name].items():
        if key not in ("source", "attack", "scheme", "loss"):
            assert getattr(settings, key) == value, key


def toy_batch() -> tuple[Tagger, Batch]:
    features = FeatureSet.model_validate(expand(CARD))
    torch.manual_seed(1)
    n = len(features)
    tagger = Tagger(
        features, ("b", "bb", "c", "udsg"), torch.zeros(n), torch.ones(n), scales={"core": torch.full((n,), 0.5)}
    )
    target = torch.arange(400) % 4
    values = torch.randn(400, n).abs() + torch.tensor([2.0, 2.5, 1.0, 0.0])[target, None]
    values[:, features.integer] = values[:, features.integer].round()
    inputs = Inputs(values, torch.rand(400, n) < 0.9, torch.arange(400))
    inputs = inputs.moved(torch.where(inputs.present, values, 0))
    return tagger.train(), Batch(inputs, target, torch.rand(400) + 0.5)


@pytest.mark.parametrize("name", recipes())
def test_trains_a_step_on_toy_jets(name) -> None:
    """Weights move by about a learning rate; jets of adversarial recipes are attacked, inside the budget."""
    settings = recipe(name, network="deepcsv")
    tagger, batch = toy_batch()
    before = copy.deepcopy(tagger)
    attack = None if settings.attack is None else build_attack(settings.attack)
    optimiser = build_optimiser(settings, tagger.parameters())
    schedule = build_schedule(settings, optimiser)
    seen: list[torch.Tensor] = []
    steps = []

    def update(loss: torch.Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(tagger.parameters(), settings.clip)
        optimiser.step()
        steps.append(float(loss.detach()))

    # in training mode: attacks look at jets in an order of their own
    hook = tagger.register_forward_pre_hook(
        lambda tagger, given: seen.append(given[0].detach().clone()) if tagger.training else None
    )
    loss = build_scheme(settings, attack)(tagger, batch, 0, 0, update)
    hook.remove()
    schedule.step()
    assert torch.isfinite(loss)
    assert len(steps) == (settings.scheme.replays if isinstance(settings.scheme, Free) else 1)
    assert float(loss) == pytest.approx(sum(steps) / len(steps))
    for old, new in zip(before.parameters(), tagger.parameters(), strict=True):
        assert not torch.equal(old, new)
        assert (old - new).abs().max() < 10 * len(steps) * settings.learning_rate
    attacked = [values for values in seen if not torch.equal(values, batch.inputs.values)]
    assert bool(attacked) == (settings.attack is not None)
    if attack is not None:
        interval = attack.interval(before, batch.inputs)
        for values in attacked:
            assert ((values >= interval.low) & (values <= interval.high)).all()


@pytest.mark.parametrize("pair", ["deepcsv", "stein2021"])
def test_a_pair_differs_in_the_attack_alone(pair) -> None:
    clean, attacked = recipe(f"{pair}_nominal"), recipe(f"{pair}_adversarial")
    assert clean.attack is None
    assert attacked.attack == attack_config({"preset": "stein2021"})
    same = {"attack": None, "recipe": None}
    assert clean.model_copy(update=same) == attacked.model_copy(update=same)
    assert attacked.scheme == Replace()


def test_the_seeds_as_published() -> None:
    settings = recipe("stein2021_adversarial")
    assert settings.loss == Loss(gamma=25, double_softmax=True)
    assert (settings.epochs, settings.batch, settings.learning_rate) == (200, 1_000_000, 1e-4)
    assert (settings.optimiser, settings.schedule, settings.weights) == ("adam", "published", "balanced")
    assert settings.patience is None
    assert (settings.attack.kind, settings.attack.epsilon, settings.attack.capped) == ("fgsm", 0.01, False)
    assert recipe("deepcsv_adversarial").loss == Loss()


def test_later_studies() -> None:
    robustpart, bhive = recipe("ngm_alternate"), recipe("ngm_kl")
    assert robustpart.scheme == Replace(every=2)
    assert (robustpart.attack.kind, robustpart.attack.epsilon) == ("ngm", 0.01)
    assert bhive.scheme == Replace(every=3, kl=1.0)
    assert (bhive.attack.kind, bhive.attack.epsilon, bhive.clip) == ("ngm", 0.1, 1.0)
    for settings in (robustpart, bhive):
        assert (settings.optimiser, settings.learning_rate, settings.batch) == ("radam", 1e-3, 512)
    free, nominal = recipe("free"), recipe("deepcsv_nominal")
    assert free.scheme == Free(kind="free", replays=4)
    assert free.epochs * free.scheme.replays == nominal.epochs
    assert recipe("trades").scheme == Trades(kind="trades", beta=6.0)


def test_keys_beside_a_recipe_win_as_wholes() -> None:
    settings = recipe("ngm_kl", batch=64, scheme={"kind": "replace", "every": 5}, attack="mine")
    assert settings.batch == 64
    assert settings.scheme == Replace(every=5)
    assert settings.attack == "mine"
    assert settings.epochs == recipe("ngm_kl").epochs
    without = ADAPTER.validate_python({"attack": "mine", "batch": 64})
    assert without.recipe is None
    assert ADAPTER.validate_json(without.model_dump_json()) == without


def test_unknown_recipe_is_named_with_those_that_are_known(tmp_path) -> None:
    text = refused(tmp_path, recipe="pdg")
    assert text.startswith("training.t: no recipe 'pdg'; known: ")
    assert all(name in text for name in recipes())
    assert "no recipe ['pgd']" in refused(tmp_path, recipe=["pgd"])


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"recipe": "free", "attack": None}, "scheme 'free' needs an attack"),
        ({"scheme": {"kind": "replace", "every": 2}}, "scheme 'replace' needs an attack"),
        ({"recipe": "free", "attack": {"preset": "bhive2025-pgd"}}, "scheme 'free' needs an attack of kind 'fgsm'"),
        ({"recipe": "trades", "attack": {"preset": "stein2021"}}, "scheme 'trades' needs an attack of kind 'pgd'"),
        ({"recipe": "trades", "attack": {"preset": "bhive2025-pgd"}}, "with a random start"),
        ({"recipe": "pgd", "attack": {"preset": "stein2012"}}, "no preset 'stein2012'; known: stein2021"),
        ({"recipe": "pgd", "attack": {"kind": "pgd", "epsilon": -1}}, "greater than or equal to 0"),
        ({"recipe": "pgd", "attack": "yours"}, "training.t.attack: no 'yours'; known: mine"),
        ({"recipe": "free", "scheme": {"kind": "free", "replay": 2}}, "unknown key; did you mean 'replays'?"),
        ({"recipe": "pgd", "learning_rat": 1}, "unknown key; did you mean 'learning_rate'?"),
        ({"loss": {"gamma": -1}}, "training.t.loss.gamma"),
        ({"scheme": {"kind": "replace", "every": 0}, "attack": "mine"}, "every"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, training, said) -> None:
    assert said in refused(tmp_path, **training)
