"""Losses against sixty-digit arithmetic, one jet at a time."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch.nn.functional import cross_entropy, softmax

from training.losses import Loss, divergence, weighted_mean

GAMMAS = (0.0, 0.5, 1.0, 2.0, 25.0)
number = st.integers(-3, 3).map(float) | st.floats(-40, 40)
rows = st.integers(2, 6).flatmap(
    lambda n: st.lists(
        st.tuples(st.lists(number, min_size=n, max_size=n), st.integers(0, n - 1)), min_size=1, max_size=5
    )
)


def probabilities(z: list[float] | list[Decimal]) -> list[Decimal]:
    powers = [Decimal(x).exp() for x in z]
    return [power / sum(powers) for power in powers]


def slow_loss(z: list[float], y: int, gamma: float, double_softmax: bool) -> float:
    with localcontext() as context:
        context.prec = 60
        p = probabilities(probabilities(z) if double_softmax else z)[y]
        return float((1 - p) ** Decimal(gamma) * -p.ln())


@pytest.mark.parametrize("double_softmax", [False, True])
@pytest.mark.parametrize("gamma", GAMMAS)
@given(jets=rows)
@settings(max_examples=40, deadline=None)
def test_against_sixty_digits(gamma, double_softmax, jets) -> None:
    logits = torch.tensor([z for z, _ in jets], dtype=torch.float64)
    found = Loss(gamma, double_softmax)(logits, torch.tensor([y for _, y in jets]))
    expected = [slow_loss(z, y, gamma, double_softmax) for z, y in jets]
    assert found.shape == (len(jets),)
    # torch's cross entropy subtracts the true logit from the sum of all: 1e-15 of 40 is lost
    assert found.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-13 if gamma == 0 or double_softmax else 0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_single_precision_keeps_its_digits_where_the_tagger_is_sure(gamma) -> None:
    """p - 1 of the true class is 0 in float32 from a logit of 17 on."""
    ladder = torch.tensor([-80.0, -20.0, -1.0, 0.0, 1.0, 2.0])
    if gamma:
        ladder = torch.cat([ladder, torch.tensor([10.0, 18.0]) if gamma == 25 else torch.tensor([10.0, 18.0, 25.0])])
    logits = torch.zeros(len(ladder), 4)
    logits[:, 2] = ladder
    found = Loss(gamma)(logits, torch.full((len(ladder),), 2))
    expected = [slow_loss(z, 2, gamma, False) for z in logits.tolist()]
    normal = [max(x, 1.2e-38) for x in expected]  # below, float32 has fewer digits, or none
    assert found.dtype == torch.float32
    assert found.clamp(min=1.2e-38).tolist() == pytest.approx(normal, rel=2e-4 if gamma == 25 else 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("double_softmax", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5, 1.0, 2.0, 25.0])
def test_gradients_are_finite_everywhere(gamma, double_softmax, dtype) -> None:
    values = torch.tensor([-1e30, -1e4, -90.0, -17.0, -1.0, 0.0, 1.0, 17.0, 90.0, 1e4, 1e30], dtype=dtype)
    logits = torch.cartesian_prod(values, values, values).requires_grad_()
    for y in range(3):
        losses = Loss(gamma, double_softmax)(logits, torch.full((len(logits),), y))
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        assert torch.isfinite(losses).all()
        assert torch.isfinite(gradient).all()
        assert (losses >= 0).all()


@pytest.mark.parametrize("double_softmax", [False, True])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_that_of_finite_differences(gamma, double_softmax) -> None:
    logits = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).mul_(2).requires_grad_()
    target = torch.arange(7) % 4
    assert torch.autograd.gradcheck(lambda z: Loss(gamma, double_softmax)(z, target), logits)


def test_without_gamma_it_is_the_cross_entropy_of_torch() -> None:
    logits, target = torch.randn(50, 4) * 5, torch.randint(0, 4, (50,))
    assert torch.equal(Loss()(logits, target), cross_entropy(logits, target, reduction="none"))
    torch.testing.assert_close(Loss(1e-9)(logits, target), Loss()(logits, target))


def test_focal_loss_of_the_paper() -> None:
    """Its section 3.2: with gamma 2 a jet at p = 0.9 counts 100 times less than with cross entropy, at 0.968 1000."""
    for p, ratio in ((0.9, 100), (0.968, 1000)):
        logits, target = torch.tensor([[p, 1 - p]], dtype=torch.float64).log(), torch.tensor([0])
        assert float(Loss()(logits, target) / Loss(2)(logits, target)) == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize(
    ("classes", "losses", "smallest", "largest"),
    [(4, (1.4e-2, 1.04e-3, 7.4e-8), 0.1749, 0.4754), (3, (4.0e-3, 4.4e-5, 2.6e-10), 0.2119, 0.5761)],
)
def test_double_softmax_has_the_published_range(classes, losses, smallest, largest) -> None:
    """The worst, an undecided and the best jet in the published training with gamma 25."""
    logits = torch.zeros(3, classes)
    logits[0, 1] = logits[2, 0] = 1e4
    target = torch.zeros(3, dtype=torch.int64)
    assert Loss(25, True)(logits, target).tolist() == pytest.approx(losses, rel=0.04)
    p = (-Loss(0, True)(logits, target)).exp()
    assert p.tolist() == pytest.approx([smallest, 1 / classes, largest], abs=5e-5)
    anywhere = torch.randn(10_000, classes, generator=torch.Generator().manual_seed(1)) * 30
    p = (-Loss(0, True)(anywhere, torch.zeros(10_000, dtype=torch.int64))).exp()
    assert p.min() >= smallest - 1e-4
    assert p.max() <= largest + 1e-4


def test_gamma_of_25_needs_the_double_softmax() -> None:
    """Without it, a jet at 0.9 counts 1e-23 of an undecided one, and pulls 3e-23 as hard; with it, 4e-4 and 3e-4."""
    logits = torch.tensor([[0.25] * 4, [0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3]], dtype=torch.float64).log().requires_grad_()
    for double_softmax, counts, pulls in ((False, 1.01e-23, 3.49e-23), (True, 3.58e-4, 2.97e-4)):
        losses = Loss(25, double_softmax)(logits, torch.tensor([0, 0]))
        pull = torch.autograd.grad(losses.sum(), logits)[0].norm(dim=1)
        assert float((losses[1] / losses[0]).detach()) == pytest.approx(counts, rel=0.01)
        assert float(pull[1] / pull[0]) == pytest.approx(pulls, rel=0.01)


@pytest.mark.parametrize("loss", [Loss(), Loss(2.0), Loss(25.0, True)])
def test_losses_of_half_precision_logits_are_single_precision(loss) -> None:
    logits, target = (torch.randn(20, 4) * 3).bfloat16(), torch.randint(0, 4, (20,))
    found = loss(logits, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(logits.float(), target))
    assert divergence(logits, logits + 1).dtype == torch.float32


@given(pairs=st.integers(2, 6).flatmap(lambda n: st.tuples(*[st.lists(number, min_size=n, max_size=n)] * 2)))
@settings(max_examples=100, deadline=None)
def test_divergence_is_that_of_scipy(pairs) -> None:
    attacked, clean = (torch.tensor([z], dtype=torch.float64) for z in pairs)
    p, q = (softmax(logits, 1).numpy() for logits in (clean, attacked))
    expected = float(rel_entr(p, q).sum())
    assert float(divergence(attacked, clean)) == pytest.approx(expected, rel=1e-9, abs=1e-13)
    assert float(divergence(clean, clean)) == 0


def test_direction_of_the_divergence() -> None:
    """KL(clean || attacked), as torch's KLDivLoss(log of attacked, clean) in TRADES and b-hive; not the other one."""
    clean, attacked = (torch.tensor([p], dtype=torch.float64).log() for p in ([0.5, 0.5], [0.9, 0.1]))
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    other = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert float(divergence(attacked, clean)) == pytest.approx(expected)
    assert float(divergence(clean, attacked)) == pytest.approx(other)
    published = torch.nn.KLDivLoss(reduction="none")(attacked.log_softmax(1), clean.softmax(1)).sum(1)
    torch.testing.assert_close(divergence(attacked, clean), published)


def test_both_sides_of_the_divergence_have_gradients() -> None:
    """By hand: softmax(attacked) - p in the attacked logits, p (log(p/q) - KL) in the clean ones."""
    generator = torch.Generator().manual_seed(3)
    attacked, clean = (torch.randn(5, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    losses = divergence(attacked, clean)
    of_attacked, of_clean = torch.autograd.grad(losses.sum(), [attacked, clean])
    p, q = clean.softmax(1), attacked.softmax(1)
    torch.testing.assert_close(of_attacked, q - p)
    torch.testing.assert_close(of_clean, p * ((p / q).log() - losses[:, None]))


def test_divergence_of_extreme_scores_is_finite() -> None:
    values = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4])
    pairs = torch.cartesian_prod(*[values] * 4)
    attacked, clean = pairs[:, :2].clone().requires_grad_(), pairs[:, 2:].clone().requires_grad_()
    losses = divergence(attacked, clean)
    gradients = torch.autograd.grad(losses.sum(), [attacked, clean])
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


weights = st.lists(st.tuples(st.floats(0, 100), st.floats(-20, 20, width=32)), min_size=1, max_size=30)


@given(jets=weights)
@settings(max_examples=100, deadline=None)
def test_weighted_mean_is_that_of_plain_python(jets) -> None:
    losses, weight = (torch.tensor(column, dtype=torch.float64) for column in zip(*jets, strict=True))
    total = sum(abs(w) for _, w in jets)
    expected = sum(loss * w for loss, w in jets) / max(total, 1e-6)
    assert float(weighted_mean(losses, weight)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    largest = max(loss for loss, _ in jets)
    assert abs(float(weighted_mean(losses, weight))) <= largest * (1 + 1e-9)


def test_weighted_mean_of_ordinary_weights_is_the_average() -> None:
    rng = np.random.default_rng(1)
    losses, weight = rng.exponential(1, 1000), rng.uniform(0, 3, 1000)
    found = weighted_mean(torch.from_numpy(losses), torch.from_numpy(weight))
    assert float(found) == pytest.approx(np.average(losses, weights=weight))
    assert float(weighted_mean(torch.ones(3), torch.zeros(3))) == 0
