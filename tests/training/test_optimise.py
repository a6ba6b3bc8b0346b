"""Optimisers against their formulas, one weight at a time, and schedules as functions of the epoch."""

import math

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from configs.training import Training
from training.optimise import build_optimiser, build_schedule, factor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def settings_of(**written) -> Training:
    return Training(**{"learning_rate": 0.01, "schedule": "constant", **written})


def slow_adam(weight: float, gradients: list[float], rate: float) -> float:
    """Algorithm 1 of arXiv:1412.6980."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = BETA_1 * m + (1 - BETA_1) * g, BETA_2 * v + (1 - BETA_2) * g * g
        weight -= rate * (m / (1 - BETA_1**t)) / (math.sqrt(v / (1 - BETA_2**t)) + EPSILON)
    return weight


def slow_radam(weight: float, gradients: list[float], rate: float) -> float:
    """Algorithm 2 of arXiv:1908.03265, rectified from rho > 5 as its code."""
    m = v = 0.0
    longest = 2 / (1 - BETA_2) - 1
    for t, g in enumerate(gradients, 1):
        m, v = BETA_1 * m + (1 - BETA_1) * g, BETA_2 * v + (1 - BETA_2) * g * g
        step = rate * m / (1 - BETA_1**t)
        rho = longest - 2 * t * BETA_2**t / (1 - BETA_2**t)
        if rho > 5:
            rectified = (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)
            step *= math.sqrt(rectified) * math.sqrt(1 - BETA_2**t) / (math.sqrt(v) + EPSILON)
        weight -= step
    return weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "slow"), [("adam", slow_adam), ("radam", slow_radam)])
def test_steps_are_those_of_the_paper(name, slow, dtype) -> None:
    """Twelve steps: RAdam rectifies from the sixth."""
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(2, 5)), rng.normal(0.3, 1, (12, 2, 5))
    weights = [Parameter(torch.tensor(row, dtype=dtype)) for row in start]
    optimiser = build_optimiser(settings_of(optimiser=name), iter(weights))
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = torch.tensor(gradient, dtype=dtype)
        optimiser.step()
    for k, row in enumerate(start):
        expected = [slow(x, gradients[:, k, column].tolist(), 0.01) for column, x in enumerate(row)]
        assert weights[k].tolist() == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 1e-9)


def test_adam_is_one_kernel() -> None:
    optimiser = build_optimiser(settings_of(), [Parameter(torch.ones(3))])
    assert optimiser.param_groups[0]["fused"] is True
    elsewhere = build_optimiser(settings_of(), [Parameter(torch.ones(3, device="meta"))])
    assert not elsewhere.param_groups[0]["fused"]


FORMULAS = {
    "published": lambda epoch: 1 / (1 + epoch / 30),
    "cosine": lambda epoch: (1 + math.cos(math.pi * epoch / 7)) / 2,
    "constant": lambda epoch: 1.0,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_learning_rate_of_each_epoch(name) -> None:
    settings = settings_of(schedule=name, epochs=7)
    optimiser = build_optimiser(settings, [Parameter(torch.ones(3))])
    schedule = build_schedule(settings, optimiser)
    rates = []
    for _ in range(7):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx([0.01 * FORMULAS[name](epoch) for epoch in range(7)], rel=1e-12)
    assert rates == pytest.approx([0.01 * factor(settings, epoch) for epoch in range(7)], rel=1e-12)
    assert rates[0] == 0.01
    assert min(rates) > 0
    assert rates == sorted(rates, reverse=True)


def test_published_schedule() -> None:
    """1e-4 at first, half of it after 30 epochs, 1.31e-5 in the last of 200."""
    settings = settings_of(schedule="published", learning_rate=1e-4, epochs=200)
    rates = [settings.learning_rate * factor(settings, epoch) for epoch in (0, 30, 199)]
    assert rates == pytest.approx([1e-4, 5e-5, 1e-4 / (1 + 199 / 30)])


@pytest.mark.parametrize("optimiser", ["adam", "radam"])
@pytest.mark.parametrize("schedule", FORMULAS)
def test_resumed_in_the_middle_it_goes_on_bit_by_bit(optimiser, schedule) -> None:
    """State dicts of optimiser and schedule, as a checkpoint keeps them, carry everything."""
    settings = settings_of(optimiser=optimiser, schedule=schedule, epochs=10)

    def begin() -> tuple:
        weight = Parameter(torch.linspace(-1, 1, 6))
        found = build_optimiser(settings, [weight])
        return weight, found, build_schedule(settings, found)

    def epochs(weight, found, plan, numbers) -> None:
        for epoch in numbers:
            for step in range(3):
                weight.grad = torch.sin(weight.detach() * (5 + epoch + step))
                found.step()
            plan.step()

    through = begin()
    epochs(*through, range(10))
    first = begin()
    epochs(*first, range(6))
    second = begin()
    with torch.no_grad():
        second[0].copy_(first[0])
    for new, old in zip(second[1:], first[1:], strict=True):
        new.load_state_dict(old.state_dict())
    epochs(*second, range(6, 10))
    assert torch.equal(second[0], through[0])
    assert second[1].param_groups[0]["lr"] == through[1].param_groups[0]["lr"]
