"""The budget against a loop over jets and features in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.attack import Attack
from attacks.budget import Budget
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from tests.attacks.conftest import INF, KINDS, card, line

value = st.floats(-50, 50) | st.sampled_from([0.0, -0.0, 1.0, -0.07, 5.0, 1e30, -1e30, 1e-30])
epsilons = st.sampled_from([0.0, 1e-3, 0.05, 1.0, 100.0, INF]) | st.floats(0, 10)

CARD = FeatureSet(
    name="toy",
    inputs=(*card(KINDS).inputs, line("frozen", frozen=True), line("pinned", pinned=(1.0, -0.07), cap=3.0)),
)
# what float32 holds exactly, as the tagger stores it
CORE = [0.5, 0.0, 1.5, 0.25, 0.015625, 7.0, 1.0, 0.0, 2.0, 0.125]
QUANTILE = [3.0, 2.0, 0.0, 0.5, 0.03125, 9.0, 4.0, 1.0, 2.5, 1.25]
TABLE = {"x0": 0.3, "x1": 0.0, "x2": 0.7, "x3": 0.1, "x4": 0.03, "x5": 11.0, "x7": 5.0, "pinned": 0.4}
scales = st.sampled_from(["std", "core", "quantile", TABLE])


@pytest.fixture(scope="module")
def tagger(make_tagger):
    return make_tagger(features=CARD, scales={"core": CORE, "quantile": QUANTILE}, dtype=torch.float64)


def unit_of(tagger, scale, k: int) -> float:
    """The unit of one feature, from where the test has it."""
    if scale == "std":
        return float(tagger.std[k])
    if isinstance(scale, str):
        return {"core": CORE, "quantile": QUANTILE}[scale][k]
    return scale.get(CARD.names[k], 0.0)


def interval_of(x: float, present: bool, feature, unit: float, epsilon: float, capped: bool) -> tuple[float, float]:
    """One entry, by the words of the design."""
    if not present or feature.integer or feature.frozen or x in feature.pinned or unit == 0:
        return x, x
    reach = epsilon * unit
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


jets = st.lists(st.lists(st.tuples(value, st.booleans()), min_size=10, max_size=10), min_size=1, max_size=5)


@given(rows=jets, epsilon=epsilons, capped=st.booleans(), scale=scales)
@settings(max_examples=200, deadline=None)
def test_interval_is_the_slow_one(tagger, rows, epsilon, capped, scale) -> None:
    inputs = inputs_of(rows)
    found = Budget(epsilon=epsilon, capped=capped, scale=scale).interval(tagger, inputs)
    assert found.low.shape == found.high.shape == inputs.values.shape
    assert torch.equal(found.clean, inputs.values)
    assert found.coupling is None
    for jet, row in enumerate(rows):
        for k, (x, there) in enumerate(row):
            unit = unit_of(tagger, scale, k)
            expected = interval_of(x, there, CARD.inputs[k], unit, epsilon, capped)
            assert (float(found.low[jet, k]), float(found.high[jet, k])) == pytest.approx(expected, rel=1e-14)
            assert bool(found.free[jet, k]) is (expected[0] < expected[1])


@given(rows=jets, epsilon=epsilons, capped=st.booleans(), single=st.booleans())
@settings(max_examples=100, deadline=None)
def test_clean_jets_are_inside(make_tagger, rows, epsilon, capped, single) -> None:
    dtype = torch.float32 if single else torch.float64
    tagger, inputs = make_tagger(features=CARD, dtype=dtype), inputs_of(rows).to(dtype=dtype)
    interval = Budget(epsilon=epsilon, capped=capped).interval(tagger, inputs)
    assert interval.low.dtype == interval.high.dtype == dtype
    assert ((interval.low <= inputs.values) & (inputs.values <= interval.high)).all()
    assert torch.equal(interval.project(inputs.values), inputs.values)


@given(rows=jets, epsilon=epsilons, capped=st.booleans(), seed=st.integers(0, 1000), size=st.floats(0, 1e4))
@settings(max_examples=100, deadline=None)
def test_projection_stays_inside(tagger, rows, epsilon, capped, seed, size) -> None:
    inputs = inputs_of(rows)
    before = inputs.values.clone()
    interval = Budget(epsilon=epsilon, capped=capped).interval(tagger, inputs)
    move = size * torch.randn(inputs.values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = interval.project(inputs.values + move)
    assert torch.equal(inputs.values, before)
    assert ((interval.low <= found) & (found <= interval.high)).all()
    assert torch.equal(interval.project(found), found)
    pinned = torch.isin(inputs.values[:, 9], torch.tensor(CARD.inputs[9].pinned, dtype=torch.float64))
    stay = ~inputs.present | torch.from_numpy(CARD.integer | CARD.frozen)
    stay[:, 9] |= pinned
    assert torch.equal(found[stay], inputs.values[stay])
    lo, hi = torch.from_numpy(CARD.bounds).unbind(1)
    within = (lo <= inputs.values) & (inputs.values <= hi)
    assert ((lo <= found) & (found <= hi))[within].all()
    # the nearest: what is inside already stays where it was sent
    inside = (interval.low <= before + move) & (before + move <= interval.high)
    assert torch.equal(found[inside], (before + move)[inside])


@given(rows=jets, capped=st.booleans(), scale=scales)
@settings(max_examples=50, deadline=None)
def test_no_budget_no_move(tagger, rows, capped, scale) -> None:
    inputs = inputs_of(rows)
    interval = Budget(epsilon=0.0, capped=capped, scale=scale).interval(tagger, inputs)
    assert torch.equal(interval.project(inputs.values + 3), inputs.values)
    assert not interval.free.any()


def test_a_cap_freezes_zero(make_tagger) -> None:
    tagger, inputs = make_tagger(), inputs_of([[(0.0, True)] * 8]).to(dtype=torch.float32)
    interval = Budget(epsilon=0.1).interval(tagger, inputs)
    assert interval.free[0].tolist() == [True, False, False, True, False, False, False, False]
    interval = Budget(epsilon=0.1, capped=False).interval(tagger, inputs)
    assert interval.free[0].tolist() == [True] * 6 + [False] * 2


def test_infinite_epsilon_leaves_caps_and_physical_ranges(tagger) -> None:
    """x, then lowest and highest by hand; index 2 has unit 0 in `quantile`, and goes nowhere."""
    x = [2.0, 2.0, 2.0, 0.5, -0.05, 4.0, 3.0, 3.0, 1.0, 2.0]
    inputs = inputs_of([[(entry, True) for entry in x]])
    interval = Budget(epsilon=INF, scale="quantile").interval(tagger, inputs)
    low = [-INF, 1.6, 2.0, 0.0, -0.07, -4.0, 3.0, 3.0, 1.0, -4.0]
    high = [INF, 2.4, 2.0, 1.0, -0.025, 5.0, 3.0, 3.0, 1.0, 8.0]
    assert interval.low[0].tolist() == pytest.approx(low)
    assert interval.high[0].tolist() == pytest.approx(high)
    uncapped = Budget(epsilon=INF, scale="quantile", capped=False).interval(tagger, inputs)
    assert uncapped.low[0].tolist() == [-INF, -INF, 2.0, 0.0, -0.07, -INF, 3.0, 3.0, 1.0, -INF]
    assert uncapped.high[0].tolist() == [INF, INF, 2.0, 1.0, 0.0, 5.0, 3.0, 3.0, 1.0, INF]
    pinned = inputs_of([[(entry, True) for entry in [*x[:9], 1.0]]])
    interval = Budget(epsilon=INF).interval(tagger, pinned)
    assert interval.low[0, 9] == interval.high[0, 9] == 1
    assert not torch.isnan(interval.project(torch.zeros_like(inputs.values))).any()


def test_steps_of_infinite_and_no_epsilon_are_numbers(tagger) -> None:
    assert Budget(epsilon=INF, scale="core").step(tagger).tolist() == [INF if unit else 0.0 for unit in CORE]
    assert Budget(epsilon=0.0, scale="core").step(tagger).tolist() == [0.0] * 10
    assert Budget(epsilon=0.5, scale="core").step(tagger).tolist() == [unit / 2 for unit in CORE]


class Stays(Attack):
    def perturb(self, tagger, inputs, target, interval):
        return inputs.values


class Wanders(Stays):
    bounded = False


def test_only_attacks_without_a_step_take_an_infinite_epsilon(tagger, make_jets) -> None:
    with pytest.raises(AdvtagError, match="Stays needs a finite epsilon"):
        Stays(Budget(epsilon=INF))
    inputs, target = make_jets(5, 10, dtype=torch.float64)
    assert torch.equal(Wanders(Budget(epsilon=INF))(tagger, inputs, target).values, inputs.values)
    Stays(Budget(epsilon=1e300))


@pytest.mark.parametrize("epsilon", [-1e-9, -1.0, -INF, math.nan])
def test_impossible_epsilons_are_refused(epsilon) -> None:
    with pytest.raises(AdvtagError, match=f"epsilon is {epsilon}; expected 0 or more"):
        Budget(epsilon=epsilon)


@pytest.mark.parametrize("scale", ["core", "quantile", "sdt", ""])
def test_a_scale_that_the_tagger_does_not_know(make_tagger, make_jets, scale) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(5)
    with pytest.raises(AdvtagError, match=f"does not know the scale '{scale}'"):
        Budget(epsilon=0.1, scale=scale).interval(tagger, inputs)
    with pytest.raises(AdvtagError, match="train it again"):
        Wanders(Budget(epsilon=0.0, scale=scale))(tagger, inputs, target)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": 1.0}, ["toy", "not among the inputs: y"]),
        ({"pt": 1.0, "x0": None}, ["not among the inputs: pt", "missing: x0"]),
        ({"x5": None, "pinned": None}, ["missing: pinned, x5"]),
        ({"x3": -0.1}, ["x3 is -0.1", "0 or more"]),
        ({"x3": math.nan}, ["x3 is nan"]),
        ({"x3": INF}, ["x3 is inf"]),
        ({"x6": -1.0}, ["x6 is -1.0"]),
    ],
    ids=str,
)
def test_tables_that_cannot_be_are_refused(tagger, change, said) -> None:
    table = {name: width for name, width in {**TABLE, **change}.items() if width is not None}
    inputs = inputs_of([[(1.0, True)] * 10])
    with pytest.raises(AdvtagError) as refused:
        Budget(epsilon=0.1, scale=table).interval(tagger, inputs)
    text = str(refused.value)
    assert "\n" not in text
    for words in said:
        assert words in text


def test_integer_and_frozen_inputs_stay_even_where_a_table_has_them(tagger) -> None:
    inputs = inputs_of([[(3.0, True)] * 10])
    interval = Budget(epsilon=1.0, scale={**TABLE, "x6": 2.0, "frozen": 2.0}).interval(tagger, inputs)
    stay = [1, 6, 7, 8]
    assert torch.equal(interval.low[:, stay], inputs.values[:, stay])
    assert torch.equal(interval.high[:, stay], inputs.values[:, stay])
    assert interval.free[0].nonzero().flatten().tolist() == [0, 2, 3, 4, 5, 9]


def test_only_keywords() -> None:
    with pytest.raises(TypeError):
        Budget(0.1)
    assert "0.1" in repr(Budget(epsilon=0.1))
