"""Objectives against one jet at a time in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.objectives import cross_entropies, dlr, margins, targeted_dlr

number = st.integers(-3, 3).map(float) | st.floats(-30, 30)
jets = st.integers(4, 6).flatmap(
    lambda n: st.lists(
        st.tuples(st.lists(number, min_size=n, max_size=n), st.integers(0, n - 1), st.integers(0, n - 1)),
        min_size=1,
        max_size=5,
    )
)


def slow_cross_entropy(z: list[float], y: int) -> float:
    highest = max(z)
    return highest + math.log(sum(math.exp(other - highest) for other in z)) - z[y]


def slow_margin(z: list[float], y: int) -> float:
    return max(other for k, other in enumerate(z) if k != y) - z[y]


def slow_dlr(z: list[float], y: int) -> float:
    first, _, third = sorted(z, reverse=True)[:3]
    return -(z[y] - max(other for k, other in enumerate(z) if k != y)) / max(first - third, 1e-12)


def slow_targeted(z: list[float], y: int, t: int) -> float:
    first, _, third, fourth = sorted(z, reverse=True)[:4]
    return -(z[y] - z[t]) / max(first - (third + fourth) / 2, 1e-12)


def tensors(rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z = torch.tensor([row for row, _, _ in rows], dtype=torch.float64)
    return z, torch.tensor([y for _, y, _ in rows]), torch.tensor([t for _, _, t in rows])


@given(rows=jets)
@settings(max_examples=200, deadline=None)
def test_against_plain_python(rows) -> None:
    z, y, t = tensors(rows)
    found = {
        "ce": (cross_entropies(z, y), [slow_cross_entropy(row, y) for row, y, _ in rows]),
        "margin": (margins(z, y), [slow_margin(row, y) for row, y, _ in rows]),
        "dlr": (dlr(z, y), [slow_dlr(row, y) for row, y, _ in rows]),
        "targeted": (targeted_dlr(z, y, t), [slow_targeted(row, y, t) for row, y, t in rows]),
    }
    for name, (values, expected) in found.items():
        assert values.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12), name


def test_ratios_of_torchattacks() -> None:
    apgd = pytest.importorskip("torchattacks.attacks.apgd").APGD(torch.nn.Identity())
    apgdt = pytest.importorskip("torchattacks.attacks.apgdt").APGDT(torch.nn.Identity())
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    y, t = torch.randint(0, 5, (2, 200), generator=generator)
    torch.testing.assert_close(dlr(z, y), apgd.dlr_loss(z, y), rtol=1e-9, atol=0)
    torch.testing.assert_close(targeted_dlr(z, y, t), apgdt.dlr_loss_targeted(z, y, t), rtol=1e-9, atol=0)


@given(rows=jets)
@settings(max_examples=100, deadline=None)
def test_above_0_exactly_where_argmax_is_wrong(rows) -> None:
    z, y, _ = tensors(rows)
    ties = (z == z.amax(1, keepdim=True)).sum(1) > 1
    wrong = z.argmax(1) != y
    for objective in (margins, dlr):
        assert torch.equal((objective(z, y) > 0)[~ties], wrong[~ties])


@given(rows=jets, size=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@settings(max_examples=100, deadline=None)
def test_ratios_do_not_change_with_the_scale_of_the_logits(rows, size, shift) -> None:
    z, y, t = tensors(rows)
    ordered = z.sort(1, descending=True).values
    spread = ordered[:, 0] - ordered[:, 2]
    clear = spread > 1e-3  # else the floor of the denominator, or rounding of the shift, would show
    for objective in (dlr, lambda z, y: targeted_dlr(z, y, t)):
        torch.testing.assert_close(objective(size * z + shift, y)[clear], objective(z, y)[clear], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(margins(size * z, y), size * margins(z, y))


@given(rows=jets, dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=100, deadline=None)
def test_values_and_gradients_are_finite(rows, dtype) -> None:
    """Many of these logits tie; a tie of the first three makes both of the ratio's parts 0."""
    z, y, t = tensors(rows)
    z = z.to(dtype)
    for objective in (cross_entropies, margins, dlr, lambda z, y: targeted_dlr(z, y, t)):
        leaf = z.clone().requires_grad_()
        values = objective(leaf, y)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        assert values.shape == (len(rows),)
        assert values.dtype == dtype
        assert torch.isfinite(values).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_logits_tie(dtype) -> None:
    z, y, t = torch.full((3, 4), 1.7, dtype=dtype), torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2])
    leaf = z.requires_grad_()
    for values in (dlr(leaf, y), targeted_dlr(leaf, y, t), margins(leaf, y)):
        assert values.tolist() == [0, 0, 0]
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        assert torch.isfinite(gradient).all()
        assert (gradient.gather(1, y[:, None]) < 0).all()  # there is still a way up: less of the true class


@given(rows=jets)
@settings(max_examples=60, deadline=None)
def test_a_jet_does_not_know_its_batch(rows) -> None:
    z, y, t = tensors(rows)
    for objective in (cross_entropies, margins, dlr):
        whole = objective(z, y)
        assert torch.equal(torch.cat([objective(z[k : k + 1], y[k : k + 1]) for k in range(len(z))]), whole)
    whole = targeted_dlr(z, y, t)
    alone = [targeted_dlr(z[k : k + 1], y[k : k + 1], t[k : k + 1]) for k in range(len(z))]
    assert torch.equal(torch.cat(alone), whole)


@pytest.mark.parametrize("objective", [cross_entropies, margins, dlr, lambda z, y: targeted_dlr(z, y, (y + 1) % 4)])
def test_gradients_by_finite_differences(objective) -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (30,), generator=generator)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(leaf, y).sum(), leaf)
    for k in range(4):
        step = torch.zeros_like(z)
        step[:, k] = 1e-7
        slope = (objective(z + step, y) - objective(z - step, y)) / 2e-7
        torch.testing.assert_close(gradient[:, k], slope, rtol=1e-4, atol=1e-5)
