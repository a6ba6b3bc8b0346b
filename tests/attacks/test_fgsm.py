"""FGSM against three libraries and a loop, and what its steps do to the loss; see test_attack for the rest."""

import importlib
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attacks import FGSM, Budget, GaussianNoise
from models.features import load_features
from models.inputs import Inputs
from models.tagger import Tagger

UNIT_BOX = [((0.0, 1.0), None, False)] * 12


class Unmasked(nn.Module):
    """A tagger as other attack libraries see one: a single tensor in, every entry present."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.tagger(values, torch.ones_like(values, dtype=torch.bool))


@pytest.fixture(scope="module")
def unit_box(make_tagger):
    """Inputs in the unit box without caps, masks and widths, which is all that the libraries know."""
    tagger = make_tagger(UNIT_BOX, mean=[0.0] * 12, std=[1.0] * 12)
    generator = torch.Generator().manual_seed(4)
    values = torch.rand((500, 12), generator=generator)
    values[:20] = values[:20].round()  # on the walls of the box
    target = torch.randint(0, 4, (500,), generator=generator)
    return tagger, Inputs(values, torch.ones_like(values, dtype=torch.bool), torch.arange(500)), target


@pytest.fixture(scope="module")
def library():
    """Imports a module of another library, or skips; their imports warn."""

    def load(name: str):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return importlib.import_module(name)
            except ImportError as error:
                pytest.skip(str(error))

    return load


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.4])
@pytest.mark.parametrize("training", [False, True])
def test_torchattacks_bit_by_bit(unit_box, library, epsilon, training) -> None:
    tagger, clean, target = unit_box
    tagger.train(training)
    theirs = library("torchattacks.attacks.fgsm").FGSM(Unmasked(tagger), eps=epsilon)(clean.values, target)
    ours = FGSM(Budget(epsilon=epsilon))(tagger, clean, target).values
    tagger.eval()
    assert torch.equal(ours, theirs)
    assert (ours != clean.values).float().mean() > 0.9


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.4])
@pytest.mark.parametrize("name", ["LinfFastGradientAttack", "FGSM"])
def test_foolbox(unit_box, library, epsilon, name) -> None:
    tagger, clean, target = unit_box
    foolbox = library("foolbox")
    model = foolbox.PyTorchModel(Unmasked(tagger).eval(), bounds=(0, 1), device="cpu")
    _, theirs, _ = getattr(foolbox.attacks, name)()(model, clean.values, target, epsilons=epsilon)
    ours = FGSM(Budget(epsilon=epsilon))(tagger, clean, target).values
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - clean.values).abs().mean() > 0.5 * epsilon


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.4])
def test_art(unit_box, library, epsilon) -> None:
    tagger, clean, target = unit_box
    classifier = library("art.estimators.classification").PyTorchClassifier(
        Unmasked(tagger), nn.CrossEntropyLoss(), (12,), 4, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = library("art.attacks.evasion").FastGradientMethod(classifier, eps=epsilon, batch_size=500)
    theirs = attack.generate(clean.values.numpy(), target.numpy())
    ours = FGSM(Budget(epsilon=epsilon))(tagger, clean, target).values
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - clean.values).abs().mean() > 0.5 * epsilon


def slow_fgsm(tagger: Tagger, inputs: Inputs, target: torch.Tensor, epsilon: float, capped: bool) -> torch.Tensor:
    """One jet and one feature at a time; its gradient is one backward() per jet in standardised space."""
    mode = tagger.training
    tagger.eval()
    found = inputs.values.clone()
    for jet in range(len(inputs)):
        present = inputs.present[jet]
        z = torch.where(present, (inputs.values[jet] - tagger.mean) / tagger.std, tagger.absent_at)
        z = z.detach().requires_grad_()
        loss = cross_entropy(tagger.network(z[None], present[None]), target[jet][None])
        (gradient,) = torch.autograd.grad(loss, z)
        for k, feature in enumerate(tagger.features.inputs):
            x, g = float(inputs.values[jet, k]), float(gradient[k])
            if feature.integer or feature.frozen or x in feature.pinned or not present[k] or g == 0:
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


@torch.no_grad()
def mean_loss(tagger: Tagger, inputs: Inputs, target: torch.Tensor) -> float:
    return float(cross_entropy(tagger(inputs.values, inputs.present), target))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_does_not_fall(make_tagger, make_jets, seed) -> None:
    tagger = make_tagger(seed=seed, dtype=torch.float64, sharp=40)
    inputs, target = make_jets(300, seed=seed, dtype=torch.float64)
    attacked = [FGSM(Budget(epsilon=epsilon))(tagger, inputs, target) for epsilon in (0.0, 0.005, 0.02, 0.1)]
    losses = [mean_loss(tagger, jets, target) for jets in attacked]
    assert losses[0] == mean_loss(tagger, inputs, target)
    assert losses == sorted(losses)
    assert losses[-1] > 1.005 * losses[0]


def test_fgsm_beats_noise_of_the_same_size(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(sharp=40), make_jets(500)
    clean = mean_loss(tagger, inputs, target)
    kinds = FGSM, GaussianNoise
    fgsm, noise = (mean_loss(tagger, kind(Budget(epsilon=0.1))(tagger, inputs, target), target) for kind in kinds)
    assert fgsm - clean > 4 * abs(noise - clean)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_same_step_bit_by_bit_whatever_the_chunking(make_tagger, make_jets, size) -> None:
    tagger = make_tagger(dtype=torch.float64)
    inputs, target = make_jets(200, dtype=torch.float64)
    attack = FGSM(Budget(epsilon=0.1))
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(200, generator=torch.Generator().manual_seed(size))
    parts = [attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)]
    assert torch.equal(torch.cat(parts), whole[order])


def test_where_the_gradient_is_zero_nothing_moves(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(50)
    with torch.no_grad():
        tagger.network.layers[0].weight[:, 3] = 0
    found = FGSM(Budget(epsilon=0.1))(tagger, inputs, target).values
    assert torch.equal(found[:, 3], inputs.values[:, 3])
    assert (found[:, 0] != inputs.values[:, 0])[inputs.present[:, 0]].all()


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (
            {"kind": "fgsm", "epsilon": 0.05, "capped": False, "seed": 3},
            "FGSM(Budget(epsilon=0.05, {}, capped=False), seed=3)",
        ),
        ({"kind": "noise", "epsilon": 0.1}, "GaussianNoise(Budget(epsilon=0.1, {}, capped=True), seed=0)"),
    ],
    ids=["fgsm", "noise"],
)
def test_built_from_a_configuration(keys, shown) -> None:
    from attacks.build import build_attack
    from configs.attacks import attack_config

    assert repr(build_attack(attack_config(keys))) == shown.format("scale='std'")
