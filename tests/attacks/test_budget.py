"""The budget against a loop over jets and features in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.budget import Budget
from models.inputs import Inputs

value = st.floats(-50, 50) | st.sampled_from([0.0, -0.0, 1.0, -0.07, 5.0, 1e30, -1e30, 1e-30])
epsilons = st.sampled_from([0.0, 1e-3, 0.05, 1.0, 100.0]) | st.floats(0, 10)


def interval_of(x: float, present: bool, feature, std: float, epsilon: float, capped: bool) -> tuple[float, float]:
    """One entry, by the words of the design."""
    if not present or feature.integer:
        return x, x
    reach = epsilon * std
    if capped and feature.cap is not None and math.isfinite(feature.cap):
        reach = min(reach, feature.cap * abs(x))
    lo, hi = feature.bounds
    low, high = max(x - reach, lo), min(x + reach, hi)
    # a value outside the physical range may only move back towards it
    return min(low, x), max(high, x)


def inputs_of(rows: list[list[tuple[float, bool]]]) -> Inputs:
    values = torch.tensor([[x for x, _ in row] for row in rows], dtype=torch.float64)
    present = torch.tensor([[there for _, there in row] for row in rows])
    return Inputs(values, present, torch.arange(len(rows)))


jets = st.lists(st.lists(st.tuples(value, st.booleans()), min_size=8, max_size=8), min_size=1, max_size=5)


@given(rows=jets, epsilon=epsilons, capped=st.booleans())
@settings(max_examples=150, deadline=None)
def test_interval_is_the_slow_one(make_tagger, rows, epsilon, capped) -> None:
    tagger, inputs = make_tagger(dtype=torch.float64), inputs_of(rows)
    low, high = Budget(epsilon=epsilon, capped=capped).interval(tagger, inputs)
    assert low.shape == high.shape == inputs.values.shape
    for jet, row in enumerate(rows):
        for k, (x, there) in enumerate(row):
            feature = tagger.features.inputs[k]
            expected = interval_of(x, there, feature, float(tagger.std[k]), epsilon, capped)
            assert (float(low[jet, k]), float(high[jet, k])) == pytest.approx(expected, rel=1e-14, abs=1e-300)


@given(rows=jets, epsilon=epsilons, capped=st.booleans(), single=st.booleans())
@settings(max_examples=100, deadline=None)
def test_clean_jets_are_inside(make_tagger, rows, epsilon, capped, single) -> None:
    dtype = torch.float32 if single else torch.float64
    tagger, inputs = make_tagger(dtype=dtype), inputs_of(rows).to(dtype=dtype)
    budget = Budget(epsilon=epsilon, capped=capped)
    low, high = budget.interval(tagger, inputs)
    assert ((low <= inputs.values) & (inputs.values <= high)).all()
    assert torch.equal(budget.project(tagger, inputs, inputs.values).values, inputs.values)


@given(rows=jets, epsilon=epsilons, capped=st.booleans(), seed=st.integers(0, 1000), size=st.floats(0, 1e4))
@settings(max_examples=100, deadline=None)
def test_projection_stays_inside(make_tagger, rows, epsilon, capped, seed, size) -> None:
    tagger, inputs = make_tagger(dtype=torch.float64), inputs_of(rows)
    budget = Budget(epsilon=epsilon, capped=capped)
    move = size * torch.randn(inputs.values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = budget.project(tagger, inputs, inputs.values + move)
    low, high = budget.interval(tagger, inputs)
    assert ((low <= found.values) & (found.values <= high)).all()
    assert torch.equal(budget.project(tagger, inputs, found.values).values, found.values)
    assert found.present is inputs.present
    assert found.key is inputs.key
    frozen = ~inputs.present | torch.from_numpy(tagger.features.integer)
    assert torch.equal(found.values[frozen], inputs.values[frozen])
    lo, hi = torch.from_numpy(tagger.features.bounds).unbind(1)
    within = (lo <= inputs.values) & (inputs.values <= hi)
    assert ((lo <= found.values) & (found.values <= hi))[within].all()


@given(rows=jets, capped=st.booleans())
@settings(max_examples=50, deadline=None)
def test_no_budget_no_move(make_tagger, rows, capped) -> None:
    tagger, inputs = make_tagger(dtype=torch.float64), inputs_of(rows)
    found = Budget(epsilon=0.0, capped=capped).project(tagger, inputs, inputs.values + 3)
    assert torch.equal(found.values, inputs.values)


def test_a_cap_freezes_zero(make_tagger) -> None:
    tagger, inputs = make_tagger(), inputs_of([[(0.0, True)] * 8]).to(dtype=torch.float32)
    low, high = Budget(epsilon=0.1).interval(tagger, inputs)
    moves = (high - low)[0] > 0
    assert moves.tolist() == [True, False, False, True, False, False, False, False]
    low, high = Budget(epsilon=0.1, capped=False).interval(tagger, inputs)
    assert ((high - low)[0] > 0).tolist() == [True] * 6 + [False] * 2


def test_only_keywords() -> None:
    with pytest.raises(TypeError):
        Budget(0.1)
    assert "0.1" in repr(Budget(epsilon=0.1))
