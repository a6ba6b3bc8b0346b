"""When a tagger is right, against one jet at a time in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.success import FLAVOURS, WorkingPoint, counts, flavour_of, is_right
from common.errors import AdvtagError

WITH_BB, WITHOUT = ("b", "bb", "c", "udsg"), ("b", "c", "udsg")
SIDES = {"BvsL": ("b bb", "udsg"), "BvsC": ("b bb", "c"), "CvsL": ("c", "udsg"), "CvsB": ("c", "b bb")}
orders = st.sampled_from([WITH_BB, WITHOUT]).flatmap(st.permutations)
working_points = st.none() | st.builds(
    WorkingPoint, st.sampled_from(list(SIDES)), st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)
)


def slow(logits: list[float], truth: str, classes, working_point: WorkingPoint | None) -> tuple[bool, bool]:
    """Does the jet count, and is the tagger right about it."""
    highest = max(logits)
    weights = {name: math.exp(logit - highest) for name, logit in zip(classes, logits, strict=True)}
    total = sum(weights.values())
    p = {name: weight / total for name, weight in weights.items()}
    if working_point is None:
        per_flavour = {"b": p["b"] + p.get("bb", 0.0), "c": p["c"], "udsg": p["udsg"]}
        called = max(per_flavour, key=per_flavour.get)  # the first of equals, as argmax
        return True, called == {"bb": "b"}.get(truth, truth)
    signal, background = (sides.split() for sides in SIDES[working_point.discriminator])
    s, b = (sum(p.get(name, 0.0) for name in side) for side in (signal, background))
    tagged = s + b > 0 and s / (s + b) >= working_point.threshold
    counted = truth in (*signal, *background)
    return counted, counted and tagged == (truth in signal)


logit = st.integers(-4, 4).map(float) | st.floats(-10, 10) | st.sampled_from([-2000.0, 2000.0])
jet_rows = st.lists(st.tuples(st.lists(logit, min_size=4, max_size=4), st.integers(0, 3)), min_size=1, max_size=6)


@given(rows=jet_rows, classes=orders, working_point=working_points)
@settings(max_examples=300, deadline=None)
def test_against_a_loop(rows, classes, working_point) -> None:
    n = len(classes)
    logits = torch.tensor([row[:n] for row, _ in rows], dtype=torch.float64)
    target = torch.tensor([truth % n for _, truth in rows])
    right, counted = is_right(logits, target, classes, working_point), counts(target, classes, working_point)
    assert right.dtype == counted.dtype == torch.bool
    assert right.shape == counted.shape == target.shape
    for jet in range(len(rows)):
        near = _near_a_tie(logits[jet], classes, working_point)
        expected = slow(logits[jet].tolist(), classes[target[jet]], classes, working_point)
        assert bool(counted[jet]) is expected[0]
        assert near or bool(right[jet]) is expected[1]
        assert counted[jet] or not right[jet]


def _near_a_tie(logits: torch.Tensor, classes, working_point) -> bool:
    """Where rounding of a sum of exponentials decides, two roundings may differ."""
    p = dict(zip(classes, logits.softmax(0).tolist(), strict=True))
    b = p["b"] + p.get("bb", 0.0)
    if working_point is None:
        first, second = sorted([b, p["c"], p["udsg"]])[-1:-3:-1]
        return first != second and first - second < 1e-12
    s, o = {"BvsL": (b, p["udsg"]), "BvsC": (b, p["c"]), "CvsL": (p["c"], p["udsg"]), "CvsB": (p["c"], b)}[
        working_point.discriminator
    ]
    return s + o > 0 and 0 < abs(s / (s + o) - working_point.threshold) < 1e-12


def right(logits, truth: str, classes=WITH_BB, working_point=None, dtype=torch.float32) -> bool:
    return bool(
        is_right(torch.tensor([logits], dtype=dtype), torch.tensor([classes.index(truth)]), classes, working_point)
    )


def test_bb_called_b_is_right_and_both_add_up() -> None:
    assert right([3.0, 0, 0, 0], "bb")
    assert right([0.0, 3, 0, 0], "b")
    # neither is the highest class, together they are the highest flavour
    assert right([1.0, 1, 1.3, 0], "b")
    assert right([1.0, 1, 1.3, 0], "bb")
    assert not right([1.0, 1, 1.3, 0], "c")
    assert right([1.0, 1.3, 0], "c", WITHOUT)


def test_an_undefined_discriminator_tags_nothing() -> None:
    """Neither b nor light, down to the last bit of the probabilities: 0/0."""
    logits = [-200.0, -200, 0, -200]
    for threshold in (0.0, 0.5, 1.0):
        point = WorkingPoint("BvsL", threshold)
        assert not right(logits, "b", working_point=point)
        assert not right(logits, "bb", working_point=point)
        assert right(logits, "udsg", working_point=point)
        assert not right(logits, "c", working_point=point)  # nothing to be right about


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, True), (0.500001, False)])
def test_jets_at_the_threshold_are_tagged(threshold, expected) -> None:
    point = WorkingPoint("CvsL", threshold)
    assert right([0.0, 0, 1, 1], "c", working_point=point) is expected
    assert right([0.0, 0, 1, 1], "udsg", working_point=point) is not expected


def test_who_counts() -> None:
    target = torch.arange(4)
    assert counts(target, WITH_BB).tolist() == [True] * 4
    assert counts(target, WITH_BB, WorkingPoint("BvsL", 0.5)).tolist() == [True, True, False, True]
    assert counts(target, WITH_BB, WorkingPoint("CvsB", 0.5)).tolist() == [True, True, True, False]
    assert counts(target[:3], WITHOUT, WorkingPoint("CvsL", 0.5)).tolist() == [False, True, True]
    assert counts(target[:0], WITH_BB, WorkingPoint("CvsL", 0.5)).tolist() == []


@pytest.mark.parametrize("working_point", [None, WorkingPoint("BvsC", 0.5)])
def test_no_jets(working_point) -> None:
    assert is_right(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), WITH_BB, working_point).shape == (0,)


def test_flavours() -> None:
    assert flavour_of(WITH_BB).tolist() == [0, 0, 1, 2]
    assert flavour_of(("udsg", "c", "b")).tolist() == [2, 1, 0]
    assert [name for names in FLAVOURS for name in names] == list(WITH_BB)


def test_unknown_discriminators_are_refused() -> None:
    with pytest.raises(AdvtagError, match=r"'BvsAll'; known: BvsL, BvsC, CvsL, CvsB"):
        WorkingPoint("BvsAll", 0.5)


@pytest.mark.parametrize("threshold", [-1.0, 1.01, math.nan, math.inf])
def test_thresholds_that_no_discriminator_reaches_are_refused(threshold) -> None:
    with pytest.raises(AdvtagError, match=f"BvsL: threshold {threshold}; expected 0 to 1"):
        WorkingPoint("BvsL", threshold)
