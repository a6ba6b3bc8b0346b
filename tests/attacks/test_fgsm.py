"""FGSM against torchattacks, and against a loop; and what no attack may touch."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attacks import FGSM, Budget, GaussianNoise
from attacks.attack import evaluation_mode, input_gradient
from attacks.build import build_attack
from configs.schema import Attack as AttackConfig
from models.features import load_features
from models.inputs import Inputs
from models.tagger import Tagger

UNIT_BOX = [((0.0, 1.0), None, False)] * 12
ATTACKS = [FGSM, GaussianNoise]


class Unmasked(nn.Module):
    """A tagger as other attack libraries see one: a single tensor in, every entry present."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.tagger(values, torch.ones_like(values, dtype=torch.bool))


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.4])
@pytest.mark.parametrize("training", [False, True])
def test_torchattacks_bit_by_bit(make_tagger, epsilon, training) -> None:
    """On inputs in the unit box without caps, masks and widths, which is all that torchattacks knows."""
    torchattacks = pytest.importorskip("torchattacks.attacks.fgsm")
    tagger = make_tagger(UNIT_BOX, mean=[0.0] * 12, std=[1.0] * 12).train(training)
    generator = torch.Generator().manual_seed(4)
    values = torch.rand((500, 12), generator=generator)
    values[:20] = values[:20].round()  # on the walls of the box
    target = torch.randint(0, 4, (500,), generator=generator)
    theirs = torchattacks.FGSM(Unmasked(tagger), eps=epsilon)(values, target)
    clean = Inputs(values, torch.ones_like(values, dtype=torch.bool), torch.arange(500))
    ours = FGSM(Budget(epsilon=epsilon))(tagger, clean, target).values
    assert torch.equal(ours, theirs)
    assert (ours != values).float().mean() > 0.9


def slow_fgsm(tagger: Tagger, inputs: Inputs, target: torch.Tensor, epsilon: float, capped: bool) -> torch.Tensor:
    """One jet and one feature at a time; its gradient is one backward() per jet in standardised space."""
    mode = tagger.training
    tagger.eval()
    found = inputs.values.clone()
    for jet in range(len(inputs)):
        present = inputs.present[jet]
        z = torch.where(present, (inputs.values[jet] - tagger.mean) / tagger.std, tagger.absent_at)
        z = z.detach().requires_grad_()
        loss = cross_entropy(tagger.network(z[None]), target[jet][None])
        (gradient,) = torch.autograd.grad(loss, z)
        for k, feature in enumerate(tagger.features.inputs):
            x, g = float(inputs.values[jet, k]), float(gradient[k])
            if feature.integer or not present[k] or g == 0:
                continue
            move = math.copysign(epsilon * float(tagger.std[k]), g)
            if capped and feature.cap is not None:
                move = math.copysign(min(abs(move), feature.cap * abs(x)), g)
            lo, hi = feature.bounds
            moved = x + move
            if moved > hi:
                moved = max(hi, x) if move > 0 else moved
            if moved < lo:
                moved = min(lo, x) if move < 0 else moved
            found[jet, k] = moved
    tagger.train(mode)
    return found


@pytest.mark.parametrize("capped", [True, False])
@pytest.mark.parametrize("epsilon", [0.01, 0.3, 5.0])
def test_against_slow_reference(make_tagger, make_jets, capped, epsilon) -> None:
    tagger = make_tagger(dtype=torch.float64)
    inputs, target = make_jets(60, dtype=torch.float64)
    found = FGSM(Budget(epsilon=epsilon, capped=capped))(tagger, inputs, target)
    expected = slow_fgsm(tagger, inputs, target, epsilon, capped)
    torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-15)
    assert (found.values != inputs.values).float().mean() > 0.3


def test_deepcsv_card_against_slow_reference() -> None:
    features = load_features("deepcsv")
    torch.manual_seed(0)
    tagger = Tagger(features, ("b", "c", "udsg"), torch.randn(67), torch.rand(67) + 0.5).eval().double()
    present = torch.rand(20, 67) < 0.7
    values = torch.where(present, 3 * torch.randn(20, 67, dtype=torch.float64), 0)
    inputs, target = Inputs(values, present, torch.arange(20)), torch.randint(0, 3, (20,))
    found = FGSM(Budget(epsilon=0.05))(tagger, inputs, target).values
    torch.testing.assert_close(found, slow_fgsm(tagger, inputs, target, 0.05, True), rtol=1e-12, atol=1e-15)
    assert torch.equal(found[:, [59, 63, 64, 65, 66]], values[:, [59, 63, 64, 65, 66]])
    assert torch.equal(found[~present], values[~present])


def sharp(tagger: Tagger) -> Tagger:
    """The same network with a loss that the inputs decide: an untrained one gives every class 1/4."""
    with torch.no_grad():
        tagger.network.layers[-1].weight *= 40
    return tagger


@torch.no_grad()
def mean_loss(tagger: Tagger, inputs: Inputs, target: torch.Tensor) -> float:
    return float(cross_entropy(tagger(inputs.values, inputs.present), target))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_does_not_fall(make_tagger, make_jets, seed) -> None:
    tagger = sharp(make_tagger(seed=seed, dtype=torch.float64))
    inputs, target = make_jets(300, seed=seed, dtype=torch.float64)
    attacked = [FGSM(Budget(epsilon=epsilon))(tagger, inputs, target) for epsilon in (0.0, 0.005, 0.02, 0.1)]
    losses = [mean_loss(tagger, jets, target) for jets in attacked]
    assert losses[0] == mean_loss(tagger, inputs, target)
    assert losses == sorted(losses)
    assert losses[-1] > 1.005 * losses[0]


def test_fgsm_beats_noise_of_the_same_size(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = sharp(make_tagger()), make_jets(500)
    clean = mean_loss(tagger, inputs, target)
    fgsm, noise = (mean_loss(tagger, kind(Budget(epsilon=0.1))(tagger, inputs, target), target) for kind in ATTACKS)
    assert fgsm - clean > 4 * abs(noise - clean)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("capped", [True, False])
def test_frozen_entries_and_intervals(make_tagger, make_jets, kind, dtype, capped) -> None:
    tagger = make_tagger(dtype=dtype)
    inputs, target = make_jets(400, dtype=dtype)
    before = inputs.values.clone()
    budget = Budget(epsilon=0.7, capped=capped)
    found = kind(budget)(tagger, inputs, target)
    assert torch.equal(inputs.values, before)
    frozen = ~inputs.present | torch.from_numpy(tagger.features.integer)
    assert torch.equal(found.values[frozen], before[frozen])
    low, high = budget.interval(tagger, inputs)
    assert ((low <= found.values) & (found.values <= high)).all()
    assert torch.equal(found.present, inputs.present)
    assert torch.equal(found.key, inputs.key)
    assert found.values.dtype == dtype
    assert not found.values.requires_grad
    assert (found.values != before).any()


@pytest.mark.parametrize("kind", ATTACKS)
def test_no_budget_is_the_identity(make_tagger, make_jets, kind) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(100)
    assert torch.equal(kind(Budget(epsilon=0.0))(tagger, inputs, target).values, inputs.values)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_parameter_gradients_are_untouched(make_tagger, make_jets, kind, filled, frozen) -> None:
    """The leak of the predecessors: a clean gradient left behind for the next training step."""
    tagger, (inputs, target) = make_tagger().train(), make_jets(50)
    if filled:
        cross_entropy(tagger(inputs.values, inputs.present), target).backward()
    tagger.requires_grad_(not frozen)
    before = {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in tagger.named_parameters()}
    state = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    kind(Budget(epsilon=0.1))(tagger, inputs, target)
    for name, parameter in tagger.named_parameters():
        held, copy = before[name]
        assert parameter.grad is held
        assert filled == (held is not None)
        assert held is None or torch.equal(held, copy)
        assert parameter.requires_grad is not frozen
    assert all(torch.equal(tensor, state[name]) for name, tensor in tagger.state_dict().items())


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("training", [False, True])
def test_mode_is_restored_and_dropout_is_off(make_tagger, make_jets, kind, training) -> None:
    tagger, (inputs, target) = make_tagger(dropout=0.5).train(training), make_jets(100)
    seen = []
    handle = tagger.network.register_forward_hook(
        lambda module, *_: seen.extend(layer.training for layer in module.modules())
    )
    attack = kind(Budget(epsilon=0.1))
    first, second = attack(tagger, inputs, target), attack(tagger, inputs, target)
    handle.remove()
    assert torch.equal(first.values, second.values)
    assert not any(seen)
    assert bool(seen) is (kind is FGSM)
    assert all(module.training is training for module in tagger.modules())
    tagger.eval()
    assert torch.equal(attack(tagger, inputs, target).values, first.values)


@pytest.mark.parametrize("training", [False, True])
def test_mode_is_restored_when_the_attack_raises(make_tagger, make_jets, training) -> None:
    tagger, (inputs, _) = make_tagger().train(training), make_jets(10)
    with pytest.raises((IndexError, RuntimeError)):
        FGSM(Budget(epsilon=0.1))(tagger, inputs, torch.full((10,), 99))
    assert all(module.training is training for module in tagger.modules())
    assert torch.is_grad_enabled()
    with pytest.raises(KeyError), evaluation_mode(tagger):
        raise KeyError(str(tagger.training))
    assert tagger.training is training


@pytest.mark.parametrize("kind", ATTACKS)
def test_attack_does_not_draw_from_the_global_generator(make_tagger, make_jets, kind) -> None:
    tagger, (inputs, target) = make_tagger().train(), make_jets(50)
    state = torch.get_rng_state()
    kind(Budget(epsilon=0.1))(tagger, inputs, target)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_jet_does_not_know_its_batch(make_tagger, make_jets, kind, size) -> None:
    tagger = make_tagger(dtype=torch.float64)
    inputs, target = make_jets(200, dtype=torch.float64)
    attack = kind(Budget(epsilon=0.1))
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(200, generator=torch.Generator().manual_seed(size))
    parts = [attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)]
    assert torch.equal(torch.cat(parts), whole[order])


@pytest.mark.parametrize("kind", ATTACKS)
def test_no_jets(make_tagger, make_jets, kind) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(0)
    assert kind(Budget(epsilon=0.1))(tagger, inputs, target).values.shape == (0, 8)


def test_works_where_gradients_are_off(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(50)
    attack = FGSM(Budget(epsilon=0.1))
    expected = attack(tagger, inputs, target).values
    with torch.no_grad():
        assert torch.equal(attack(tagger, inputs, target).values, expected)
        assert not torch.is_grad_enabled()
    tagger.requires_grad_(False)
    assert torch.equal(attack(tagger, inputs, target).values, expected)


def test_input_gradient_by_finite_differences(make_tagger, make_jets) -> None:
    tagger = make_tagger(dtype=torch.float64)
    inputs, target = make_jets(5, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return cross_entropy(tagger(values, inputs.present), target, reduction="none")

    gradient = input_gradient(tagger, inputs, target)
    for k in range(inputs.values.shape[1]):
        step = torch.zeros_like(inputs.values)
        step[:, k] = 1e-6
        slope = (loss(inputs.values + step) - loss(inputs.values - step)) / 2e-6
        torch.testing.assert_close(gradient[:, k], slope, rtol=1e-4, atol=1e-8)


def test_built_from_a_configuration() -> None:
    fgsm = build_attack(AttackConfig(kind="fgsm", epsilon=0.05, capped=False, seed=3))
    noise = build_attack(AttackConfig(kind="noise", epsilon=0.1))
    assert repr(fgsm) == "FGSM(Budget(epsilon=0.05, capped=False), seed=3)"
    assert repr(noise) == "GaussianNoise(Budget(epsilon=0.1, capped=True), seed=0)"


def test_no_warnings(make_tagger, make_jets) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ATTACKS:
            kind(Budget(epsilon=0.1))(make_tagger(), *make_jets(20))
