"""The presets at work: each moves jets, within its interval, and as its study did."""

import pytest
import torch

from attacks.build import build_attack
from configs.attacks import attack_config, presets
from models.inputs import Inputs


@pytest.fixture(scope="module")
def toy(make_tagger, make_jets):
    scales = {"core": [0.2 + 0.1 * k for k in range(8)], "quantile": [2.0] * 8}
    tagger = make_tagger(scales=scales, sharp=40, dtype=torch.float64)
    inputs, target = make_jets(120, dtype=torch.float64)
    values = torch.where(
        inputs.present,
        inputs.values,
        torch.randn(120, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).round(),
    )
    return tagger, Inputs(values, torch.ones_like(inputs.present), inputs.key), target


@pytest.mark.parametrize("name", presets())
def test_moves_jets_within_its_interval(toy, name) -> None:
    tagger, inputs, target = toy
    attack = build_attack(attack_config({"preset": name}))
    found, interval = attack(tagger, inputs, target), attack.interval(tagger, inputs)
    moved = found.values != inputs.values
    assert moved.any()
    assert (found.values >= interval.low).all()
    assert (found.values <= interval.high).all()
    integer = torch.as_tensor(tagger.features.integer)
    assert moved[:, integer].any() == ("pip" in name)
    assert moved[:, ~integer].any() == (name != "bhive2025-pip")


@pytest.mark.parametrize(
    ("name", "scale"), [("stein2021", "std"), ("deepjet2022", "quantile"), ("deepjet2023", "core")]
)
def test_fgsm_of_a_study_in_its_units(toy, name, scale) -> None:
    """x + eps s sign(gradient), by hand, where neither cap nor bound is in the way."""
    tagger, inputs, target = toy
    attack = build_attack(attack_config({"preset": name}))
    values = inputs.values.clone().requires_grad_()
    torch.nn.functional.cross_entropy(tagger(values, inputs.present), target).backward()
    expected = inputs.values + attack.budget.epsilon * tagger.scale(scale) * values.grad.sign()
    found = attack(tagger, inputs, target).values
    interval = attack.interval(tagger, inputs)
    inside = (found > interval.low) & (found < interval.high)
    assert not inside.any()  # all the way to the wall
    free = [0] if name == "deepjet2023" else [0, 1]  # no cap
    torch.testing.assert_close(found[:, free], expected[:, free], rtol=1e-12, atol=1e-12)
    if name == "deepjet2023":
        capped = (found - inputs.values)[:, 1].abs()
        torch.testing.assert_close(
            capped,
            torch.minimum(0.2 * inputs.values[:, 1].abs(), (expected - inputs.values)[:, 1].abs()),
            rtol=1e-9,
            atol=1e-12,
        )


def test_normed_gradient_of_the_training_of_robustpart(toy) -> None:
    """All inputs of the toy card are one group: steps have the norm eps in units of the core."""
    tagger, inputs, target = toy
    attack = build_attack(attack_config({"preset": "robustpart2023"}))
    found = attack(tagger, inputs, target).values
    units = ((found - inputs.values) / tagger.scale("core"))[:, ~torch.as_tensor(tagger.features.integer)]
    assert (units.norm(dim=1) <= 0.01 * (1 + 1e-6)).all()
    assert units.norm(dim=1).median() > 0.003
