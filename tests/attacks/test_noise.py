"""Gaussian noise: its distribution, its reproducibility, and what it must not look at."""

import math

import pytest
import torch
from scipy.stats import kstest, norm

from attacks import Budget, GaussianNoise
from models.inputs import Inputs
from models.keys import normal

FREE = [((-math.inf, math.inf), None, False)] * 4


@pytest.fixture(scope="module")
def moves(make_tagger, make_jets) -> torch.Tensor:
    """Moves in units of eps s of present, unconstrained entries, [jets, features]."""
    tagger = make_tagger(FREE, dtype=torch.float64)
    inputs, target = make_jets(20_000, 4, dtype=torch.float64)
    inputs = Inputs(inputs.values, torch.ones_like(inputs.present), inputs.key)
    found = GaussianNoise(Budget(epsilon=0.05))(tagger, inputs, target)
    return (found.values - inputs.values) / (0.05 * tagger.std)


def test_distribution_is_normal_cut_at_one_sigma(moves) -> None:
    """Clamped, so that P(|z| > 1) piles up at the ends: variance 1 - 2 phi(1)."""
    expected = math.sqrt(1 - 2 * norm.pdf(1))
    n = moves.numel()
    assert float(moves.abs().max()) <= 1 + 1e-9
    assert abs(float(moves.mean())) < 5 * expected / math.sqrt(n)
    assert float(moves.std()) == pytest.approx(expected, abs=5 / math.sqrt(n))
    assert float((moves.abs() > 1 - 1e-9).double().mean()) == pytest.approx(2 * norm.sf(1), abs=5 / math.sqrt(n))
    inner = moves[moves.abs() < 0.999].numpy()
    area = norm.cdf(0.999) - norm.cdf(-0.999)
    assert kstest(inner, lambda z: (norm.cdf(z) - norm.cdf(-0.999)) / area).pvalue > 1e-3


def test_features_are_independent(moves) -> None:
    correlation = torch.corrcoef(moves.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / math.sqrt(len(moves))


@pytest.mark.parametrize("capped", [True, False])
def test_is_the_projected_normal_of_the_key(make_tagger, make_jets, capped) -> None:
    tagger = make_tagger(dtype=torch.float64)
    inputs, target = make_jets(300, dtype=torch.float64)
    budget = Budget(epsilon=0.4, capped=capped)
    found = GaussianNoise(budget, seed=7)(tagger, inputs, target).values
    z = normal(inputs.key, 8, 7)
    interval = budget.interval(tagger, inputs)
    for k in range(8):
        wanted = inputs.values[:, k] + 0.4 * tagger.std[k] * z[:, k]
        expected = torch.minimum(torch.maximum(wanted, interval.low[:, k]), interval.high[:, k])
        torch.testing.assert_close(found[:, k], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", ["core", {f"x{k}": 0.5 * k for k in range(6)}], ids=["core", "table"])
def test_is_as_wide_as_its_scale(make_tagger, make_jets, scale) -> None:
    core = [0.5 * k for k in range(8)]
    tagger = make_tagger(scales={"core": core}, dtype=torch.float64)
    inputs, target = make_jets(300, dtype=torch.float64)
    found = GaussianNoise(Budget(epsilon=0.4, scale=scale, capped=False))(tagger, inputs, target).values
    unbound, z = inputs.present[:, 1], normal(inputs.key, 8, 0)[:, 1].clamp(-1, 1)
    torch.testing.assert_close((found - inputs.values)[unbound, 1], 0.4 * core[1] * z[unbound], rtol=1e-9, atol=1e-12)
    assert torch.equal(found[:, 0], inputs.values[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 11, 250])
def test_same_noise_whatever_the_chunking(make_tagger, make_jets, chunk, dtype) -> None:
    tagger, (inputs, target) = make_tagger(dtype=dtype), make_jets(500, dtype=dtype)
    attack = GaussianNoise(Budget(epsilon=0.1))
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(500, generator=torch.Generator().manual_seed(chunk))
    parts = [attack(tagger, inputs[jets], target[jets]).values for jets in order.split(chunk)]
    assert torch.equal(torch.cat(parts), whole[order])


def test_batches_get_different_noise(moves) -> None:
    """The predecessors re-seeded with 0 in each call: every batch had the same noise."""
    assert not torch.equal(moves[:1000], moves[1000:2000])
    assert len(moves[moves.abs() < 0.999].unique()) == int((moves.abs() < 0.999).sum())


def test_another_seed_is_other_noise(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(FREE), make_jets(200, 4)
    first, second = (GaussianNoise(Budget(epsilon=0.1), seed=seed)(tagger, inputs, target) for seed in (0, 1))
    moved = (first.values != inputs.values) & (second.values != inputs.values)
    assert (first.values != second.values)[moved].float().mean() > 0.7


def test_does_not_look_at_the_truth_or_at_the_network(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(seed=0), make_jets(200)
    other = make_tagger(seed=0)
    torch.nn.init.normal_(other.network.layers[0].weight)
    attack = GaussianNoise(Budget(epsilon=0.1))
    expected = attack(tagger, inputs, target).values
    calls = []
    for network in (tagger, other):
        network.network.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    assert torch.equal(attack(tagger, inputs, 3 - target).values, expected)
    assert torch.equal(attack(other, inputs, torch.zeros_like(target)).values, expected)
    assert not calls
