"""Discriminators against a reference in plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classes import DISCRIMINATORS
from models.discriminators import UNDEFINED, discriminators, tagger_scores

CLASSES = ("b", "bb", "c", "udsg")


def reference(row: dict[str, float]) -> dict[str, float]:
    b, c, light = row["b"] + row.get("bb", 0.0), row["c"], row["udsg"]
    pairs = {"BvsL": (b, light), "BvsC": (b, c), "CvsL": (c, light), "CvsB": (c, b)}
    found = {}
    for name, (signal, background) in pairs.items():
        total = signal + background
        found[name] = -1.0 if total == 0 or not math.isfinite(total) else signal / total
    return found


probability = st.floats(0, 1) | st.just(0.0)


@given(
    rows=st.lists(st.tuples(*[probability] * 4), min_size=1, max_size=20),
    order=st.permutations(CLASSES),
    bb=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_against_reference(rows, order, bb) -> None:
    """In any order of the classes, with bb or without."""
    classes = [name for name in order if bb or name != "bb"]
    values = [dict(zip(CLASSES, row, strict=True)) for row in rows]
    tensor = torch.tensor([[row[name] for name in classes] for row in values], dtype=torch.float64)
    found = discriminators(tensor, classes)
    assert list(found) == ["BvsL", "BvsC", "CvsL", "CvsB"]
    for jet, row in enumerate(values):
        expected = reference({name: row[name] for name in classes})
        for name, value in expected.items():
            assert float(found[name][jet]) == pytest.approx(value, rel=1e-12)


def test_undefined_is_minus_one() -> None:
    nan, inf = math.nan, math.inf
    rows = torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 1], [0.5, 0.5, 0, 0], [nan, 0, 0.5, 0.5], [inf, 0, 1, 1]])
    found = {name: values.tolist() for name, values in discriminators(rows, CLASSES).items()}
    assert UNDEFINED == -1
    assert found["BvsL"] == [-1, 0, 1, -1, -1]
    assert found["BvsC"] == [0, -1, 1, -1, -1]
    assert found["CvsL"] == [1, 0, -1, 0.5, 0.5]
    assert found["CvsB"][:4] == [1, -1, 0, -1]


def test_defined_ones_are_in_the_unit_interval() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 30, (5000, 4)).astype(np.float32))
    for values in discriminators(logits.softmax(1), CLASSES).values():
        defined = values != UNDEFINED
        assert defined.float().mean() > 0.99
        assert ((values[defined] >= 0) & (values[defined] <= 1)).all()


def test_without_bb_it_is_b_alone() -> None:
    merged = discriminators(torch.tensor([[0.3, 0.2, 0.5]]), ("b", "c", "udsg"))
    split = discriminators(torch.tensor([[0.1, 0.2, 0.2, 0.5]]), CLASSES)
    for name in DISCRIMINATORS:
        torch.testing.assert_close(merged[name], split[name])
    assert float(merged["BvsL"][0]) == pytest.approx(0.375)


@pytest.mark.parametrize("classes", [CLASSES, ("udsg", "c", "b")])
def test_node_outputs(classes) -> None:
    """bb is b, too; a tagger without a class for bb has no output of it."""
    rows = torch.softmax(torch.randn(50, len(classes), generator=torch.Generator().manual_seed(1)), 1)
    rows[0] = math.nan
    found = tagger_scores(rows, classes)
    assert list(found) == [*DISCRIMINATORS, "prob_b", "prob_bb", "prob_c", "prob_udsg"]
    for jet, row in enumerate(rows.tolist()):
        p = dict(zip(classes, row, strict=True))
        expected = {"prob_b": p["b"] + p.get("bb", 0.0), "prob_c": p["c"], "prob_udsg": p["udsg"]}
        for name, value in expected.items():
            assert float(found[name][jet]) == (-1.0 if jet == 0 else pytest.approx(value, rel=1e-6))
        if "bb" in p and jet:
            assert float(found["prob_bb"][jet]) == pytest.approx(p["bb"], rel=1e-6)
    if "bb" not in classes:
        assert (found["prob_bb"] == UNDEFINED).all()
