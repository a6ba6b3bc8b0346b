"""What every attack must do and must not touch; `ATTACKS` in conftest lists them."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from attacks import FGSM, Attack, Budget, GaussianNoise
from attacks.attack import evaluation_mode
from attacks.checks import refuse_bad_gradient, refuse_bad_input, unchecked
from attacks.gradient import input_gradient, objective_of
from attacks.objectives import cross_entropies, dlr, margins
from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import Tagger
from tests.attacks.conftest import COUPLED, KINDS, card

CARDS = {"plain": card(KINDS), "coupled": COUPLED}
features = pytest.mark.parametrize("features", CARDS.values(), ids=CARDS)


def assert_inside(attack: Attack, tagger: Tagger, inputs: Inputs, found: Inputs) -> None:
    """In its interval, what cannot move as it was, and everything but the values handed on."""
    interval = attack.interval(tagger, inputs)
    assert ((interval.low <= found.values) & (found.values <= interval.high)).all()
    assert torch.equal(interval.project(found.values), found.values)
    stay = ~inputs.present | (interval.low == interval.high) | torch.from_numpy(tagger.features.frozen)
    if type(attack).interval is Attack.interval:
        stay |= torch.from_numpy(tagger.features.integer)
    assert torch.equal(found.values[stay], inputs.values[stay])
    assert found.present is inputs.present
    assert found.key is inputs.key
    assert found.weight is inputs.weight
    assert found.values.dtype == inputs.values.dtype
    assert not found.values.requires_grad


@given(data=st.data(), epsilon=st.sampled_from([0.0, 1e-3, 0.3, 20.0]), capped=st.booleans())
@settings(max_examples=25, deadline=None)
def test_inside_the_interval_whatever_the_jets(make_attack, make_tagger, jets_of, data, epsilon, capped) -> None:
    features = data.draw(st.sampled_from(list(CARDS.values())))
    tagger = make_tagger(features=features, dtype=torch.float64, sharp=40)
    inputs = data.draw(jets_of(features))
    target = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=len(inputs), max_size=len(inputs))))
    before = inputs.values.clone()
    attack = make_attack(epsilon, capped=capped)
    found = attack(tagger, inputs, target)
    assert torch.equal(inputs.values, before)
    assert_inside(attack, tagger, inputs, found)
    if epsilon == 0:
        assert torch.equal(found.values, before)


@features
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"capped": False}, {"scale": "core"}], ids=str)
def test_inside_the_interval(make_attack, make_tagger, make_jets, features, dtype, options) -> None:
    scales = {"core": np.linspace(0, 2, len(features))}
    tagger = make_tagger(features=features, scales=scales, dtype=dtype, sharp=40)
    inputs, target = make_jets(200, features, dtype=dtype)
    inputs = dataclasses.replace(inputs, weight=torch.linspace(-0.5, 2, 200))
    before = inputs.values.clone()
    attack = make_attack(0.7, **options)
    found = attack(tagger, inputs, target)
    assert torch.equal(inputs.values, before)
    assert_inside(attack, tagger, inputs, found)
    assert (found.values != before).any()


@features
def test_no_epsilon_is_the_identity(make_attack, make_tagger, make_jets, features) -> None:
    tagger, (inputs, target) = make_tagger(features=features), make_jets(50, features)
    found = make_attack(0.0)(tagger, inputs, target)
    for field in dataclasses.fields(Inputs):
        assert getattr(found, field.name) is getattr(inputs, field.name)


@features
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_no_jets(make_attack, make_tagger, make_jets, features, epsilon) -> None:
    tagger, (inputs, target) = make_tagger(features=features), make_jets(0, features)
    found = make_attack(epsilon)(tagger, inputs, target)
    assert found.values.shape == found.present.shape == (0, len(features))
    assert found.key.shape == (0,)


@features
@pytest.mark.parametrize("jet", range(3))
def test_one_jet(make_attack, make_tagger, make_jets, features, jet) -> None:
    tagger, (inputs, target) = make_tagger(features=features), make_jets(3, features)
    one, attack = inputs[jet : jet + 1], make_attack(0.1)
    found = attack(tagger, one, target[jet : jet + 1])
    assert_inside(attack, tagger, one, found)


@features
@pytest.mark.parametrize("size", [1, 7])
def test_a_jet_does_not_know_its_batch(make_attack, make_tagger, make_jets, features, size) -> None:
    """To the last digits of float64: a product of matrices may round differently for other numbers of rows."""
    attack = make_attack(0.1)
    if not attack.per_jet:
        pytest.skip("looks at all jets at once")
    tagger = make_tagger(features=features, dtype=torch.float64)
    inputs, target = make_jets(30, features, dtype=torch.float64)
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(30, generator=torch.Generator().manual_seed(size))
    parts = [attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)]
    torch.testing.assert_close(torch.cat(parts), whole[order], rtol=1e-9, atol=1e-12)


@features
def test_twice_is_the_same(make_attack, make_tagger, make_jets, features) -> None:
    tagger, (inputs, target) = make_tagger(features=features), make_jets(100, features)
    first, second = (make_attack(0.1)(tagger, inputs, target).values for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("seed", range(3))
@features
def test_the_loss_does_not_fall(make_aimed, make_tagger, make_jets, features, seed) -> None:
    tagger = make_tagger(features=features, seed=seed, dtype=torch.float64, sharp=40)
    inputs, target = make_jets(200, features, seed=seed, dtype=torch.float64)
    clean = objective_of(tagger, inputs, target, inputs.values).mean()
    for epsilon in (0.005, 0.1):
        found = make_aimed(epsilon)(tagger, inputs, target).values
        assert objective_of(tagger, inputs, target, found).mean() > clean


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_parameter_gradients_are_untouched(make_attack, make_tagger, make_jets, filled, frozen) -> None:
    """The leak of the predecessors: a clean gradient left behind for the next training step."""
    tagger, (inputs, target) = make_tagger().train(), make_jets(50)
    if filled:
        cross_entropy(tagger(inputs.values, inputs.present), target).backward()
    tagger.requires_grad_(not frozen)
    before = {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in tagger.named_parameters()}
    state = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    make_attack(0.1)(tagger, inputs, target)
    for name, parameter in tagger.named_parameters():
        held, copy = before[name]
        assert parameter.grad is held
        assert filled == (held is not None)
        assert held is None or torch.equal(held, copy)
        assert parameter.requires_grad is not frozen
    assert all(torch.equal(tensor, state[name]) for name, tensor in tagger.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_mode_is_restored_and_dropout_is_off(make_attack, make_tagger, make_jets, training) -> None:
    tagger, (inputs, target) = make_tagger(dropout=0.5).train(training), make_jets(50)
    seen = []
    handle = tagger.network.layers[0].register_forward_hook(
        lambda *_: seen.extend(layer.training for layer in tagger.network.modules())
    )
    attack = make_attack(0.1)
    first, second = attack(tagger, inputs, target), attack(tagger, inputs, target)
    handle.remove()
    assert torch.equal(first.values, second.values)
    assert not any(seen)
    assert all(module.training is training for module in tagger.modules())
    tagger.eval()
    assert torch.equal(attack(tagger, inputs, target).values, first.values)


def test_those_that_aim_look_at_the_tagger(make_aimed, make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(20)
    calls = []
    tagger.network.layers[0].register_forward_hook(lambda *_: calls.append(1))
    make_aimed(0.1)(tagger, inputs, target)
    assert calls


def test_no_global_generator_is_drawn_from(make_attack, make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(dropout=0.5).train(), make_jets(50)

    def others() -> tuple:
        return repr(np.random.get_state()), random.getstate()  # noqa: NPY002

    state, before = torch.get_rng_state(), others()
    make_attack(0.1)(tagger, inputs, target)
    assert torch.equal(torch.get_rng_state(), state)
    assert others() == before


def test_works_where_gradients_are_off(make_attack, make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(50)
    attack = make_attack(0.1)
    expected = attack(tagger, inputs, target).values
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert torch.equal(attack(tagger, inputs, target).values, expected)
        assert not torch.is_grad_enabled()
    tagger.requires_grad_(False)
    assert torch.equal(attack(tagger, inputs, target).values, expected)
    wanted = inputs.moved(inputs.values.clone().requires_grad_())
    found = attack(tagger, wanted, target).values
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert wanted.values.grad is None


# --- input that no attack can move


def refused(attack: Attack, tagger: Tagger, inputs: Inputs, target: torch.Tensor) -> str:
    with pytest.raises(AdvtagError) as error:
        attack(tagger, inputs, target)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_present_entry_that_is_not_finite_is_named(make_attack, make_tagger, make_jets, bad, epsilon) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(50)
    values = inputs.values.clone()
    rows = inputs.present[:, 3].nonzero().flatten()[:7]
    values[rows, 3] = bad
    text = refused(make_attack(epsilon), tagger, inputs.moved(values), target)
    assert "'x3'" in text
    assert "7 of 50 jets" in text
    assert "must be absent" in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_an_absent_entry_holds_does_not_matter(make_attack, make_tagger, make_jets, bad) -> None:
    tagger, (inputs, target) = make_tagger(features=COUPLED), make_jets(50, COUPLED)
    attack = make_attack(0.1)
    expected = attack(tagger, inputs, target).values
    dirty = inputs.moved(torch.where(inputs.present, inputs.values, bad))
    found = attack(tagger, dirty, target).values
    assert torch.equal(found[inputs.present], expected[inputs.present])


@pytest.mark.parametrize("number", [1, 7, 9])
def test_jets_of_another_card_are_refused(make_attack, make_tagger, make_jets, number) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5, number)
    text = refused(make_attack(0.1), tagger, inputs, target)
    assert text == f"jets with {number} inputs, but card 'toy' of the tagger has 8"
    none = inputs[:0]
    assert "8" in refused(make_attack(0.1), tagger, none, target[:0])


@pytest.mark.parametrize("wrong", [-1, 4, 99])
def test_a_class_that_the_tagger_does_not_have(make_attack, make_tagger, make_jets, wrong) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5)
    target[2] = wrong
    text = refused(make_attack(0.1), tagger, inputs, target)
    assert f"true class {wrong} among the jets" in text
    assert "b, bb, c, udsg" in text


def test_a_table_for_other_features(make_attack, make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5)
    table = {f"x{k}": 1.0 for k in range(6)}
    attack = make_attack(0.1, scale=table)
    if type(attack).interval is not Attack.interval:
        pytest.skip("has intervals of its own")
    attack(tagger, inputs, target)
    del table["x2"]
    assert "missing: x2" in refused(make_attack(0.1, scale=table), tagger, inputs, target)


def test_large_values_whose_sum_overflows_are_finite(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5)
    large = inputs.moved(torch.full_like(inputs.values, 3e38))
    assert not torch.isfinite(large.values.sum())
    refuse_bad_input(tagger, large, target)


def test_a_training_looks_at_nothing_until_its_end(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5)
    bad = inputs.moved(torch.full_like(inputs.values, torch.nan))
    with unchecked():
        refuse_bad_input(tagger, bad, target)
        refuse_bad_gradient(bad.values)
    with pytest.raises(AdvtagError, match="not finite although present"):
        refuse_bad_input(tagger, bad, target)
    with pytest.raises(AdvtagError, match="gradient of the loss is not finite"):
        refuse_bad_gradient(bad.values)


class Raises(Attack):
    def perturb(self, tagger, inputs, target, interval):
        assert not tagger.training
        assert not torch.is_grad_enabled()
        raise KeyError("on purpose")


@features
def test_where_there_is_nothing_to_do_nothing_is_done(make_tagger, make_jets, features) -> None:
    tagger, (inputs, target) = make_tagger(features=features), make_jets(5, features)
    assert Raises(Budget(epsilon=0.0))(tagger, inputs, target) is inputs
    none = inputs[:0]
    assert Raises(Budget(epsilon=0.1))(tagger, none, target[:0]) is none


def test_restored_when_an_attack_raises(make_tagger, make_jets) -> None:
    for training in (False, True):
        tagger, (inputs, target) = make_tagger().train(training), make_jets(10)
        with pytest.raises(KeyError, match="on purpose"):
            Raises(Budget(epsilon=0.1))(tagger, inputs, target)
        assert all(module.training is training for module in tagger.modules())
        assert torch.is_grad_enabled()
        with pytest.raises(KeyError), evaluation_mode(tagger):
            raise KeyError(str(tagger.training))
        assert tagger.training is training


# --- the parts


def test_whatever_an_attack_wants_is_projected(make_tagger, make_jets) -> None:
    class Far(Attack):
        def perturb(self, tagger, inputs, target, interval):
            return inputs.values + 1e9

    tagger, (inputs, target) = (
        make_tagger(features=COUPLED, dtype=torch.float64),
        make_jets(50, COUPLED, dtype=torch.float64),
    )
    found = Far(Budget(epsilon=0.1))(tagger, inputs, target)
    assert_inside(Far(Budget(epsilon=0.1)), tagger, inputs, found)
    assert (found.values > inputs.values).any(1).float().mean() > 0.9


@pytest.mark.parametrize("objective", [cross_entropies, margins, dlr])
def test_input_gradient_by_finite_differences(make_tagger, make_jets, objective) -> None:
    tagger = make_tagger(dtype=torch.float64, sharp=40)
    inputs, target = make_jets(20, dtype=torch.float64)
    interval = Budget(epsilon=0.1).interval(tagger, inputs)
    values = interval.project(inputs.values + 0.02)

    def at(values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return objective(tagger(values, inputs.present), target)

    gradient, found = input_gradient(tagger, inputs, target, interval, values, objective)
    assert not gradient.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, at(values))
    assert torch.equal(objective_of(tagger, inputs, target, values, objective), found)
    for k in range(inputs.values.shape[1]):
        step = torch.zeros_like(values)
        step[:, k] = 1e-6
        slope = (at(values + step) - at(values - step)) / 2e-6
        torch.testing.assert_close(gradient[:, k], slope, rtol=1e-4, atol=1e-7)


def test_a_gradient_does_not_know_its_batch(make_tagger, make_jets) -> None:
    tagger = make_tagger(dtype=torch.float64)
    inputs, target = make_jets(60, dtype=torch.float64)
    budget = Budget(epsilon=0.1)
    whole, _ = input_gradient(tagger, inputs, target, budget.interval(tagger, inputs), inputs.values)
    for jets in torch.arange(60).split(7):
        few = inputs[jets]
        gradient, _ = input_gradient(tagger, few, target[jets], budget.interval(tagger, few), few.values)
        torch.testing.assert_close(gradient, whole[jets], rtol=1e-12, atol=1e-15)


def test_a_gradient_that_is_not_finite_is_refused(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5)
    with torch.no_grad():
        tagger.network.layers[0].weight[3] = float("nan")
    assert "not finite" in refused(FGSM(Budget(epsilon=0.1)), tagger, inputs, target)


def test_arguments() -> None:
    with pytest.raises(TypeError):
        Attack(Budget(epsilon=0.1))
    with pytest.raises(TypeError):
        FGSM(Budget(epsilon=0.1), 3)
    attack = GaussianNoise(Budget(epsilon=0.05, capped=False), seed=3)
    assert repr(attack) == "GaussianNoise(Budget(epsilon=0.05, scale='std', capped=False), seed=3)"
