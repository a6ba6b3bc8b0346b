"""Sweeps against a product written out by hand; labels that are safe whatever the values are."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import AdvtagError
from condor.job import label_of
from condor.sweep import numbers, points, values_of


@given(st.lists(st.text(max_size=120), min_size=1, max_size=6))
def test_labels_are_distinct_names_of_files(texts):
    taken = set()
    labels = [label_of(text, taken) for text in texts]
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", label) for label in labels)


@pytest.mark.parametrize(
    ("text", "expected"), [("0-4", [0, 1, 2, 3, 4]), ("3", [3]), ("1,3, 7-9", [1, 3, 7, 8, 9]), ("5-5", [5])]
)
def test_numbers(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "4-0", "1,,2", "-3", "1,1", "0-99999999", "0-3,2"])
def test_wrong_numbers(text):
    with pytest.raises(AdvtagError, match="--seeds"):
        numbers(text)


def test_values_are_yaml():
    assert values_of("a.b=1,0.5,x,[1, 2],{kind: fgsm, epsilon: 0.1},null") == (
        "a.b",
        [1, 0.5, "x", [1, 2], {"kind": "fgsm", "epsilon": 0.1}, None],
    )
    for wrong in ("a", "=1", "a=[", "a=1,1"):
        with pytest.raises(AdvtagError, match="--set"):
            values_of(wrong)


def test_a_sweep_is_the_whole_product(odd_place):
    found = list(
        points(
            odd_place.folder / "analysis.yaml",
            ["training.nominal.batch=100"],
            seeds=[3, 4],
            folds=2,
            settings=["training.attack=fgsm,null", "attacks.fgsm.epsilon=0.05,0.2"],
            limit=1000,
        )
    )
    expected = set(itertools.product(("nominal", "adversarial"), ("fgsm", None), (0.05, 0.2), (3, 4), (0, 1)))
    seen = set()
    for point in found:
        training = point.training
        name = point.item.settings["training"]
        assert training == point.analysis.training[name]
        assert training.batch == (100 if name == "nominal" else 200)
        assert training.fold.of == 2
        seen.add((name, training.attack, point.analysis.attacks["fgsm"].epsilon, training.seed, training.fold.number))
    assert seen == expected
    assert len(found) == len(expected) == len({point.item.label for point in found})
    assert found[0].item.label == "nominal-attack_fgsm-epsilon_0_05-seed3-fold0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": ["training.seed="]}, "no job: training.seed has no value"),
        ({"seeds": range(100_000)}, r"200,000 jobs \(2 training x 100000 training.seed\)"),
        ({"settings": ["training.attakc=fgsm"]}, "training.nominal.attakc: unknown key; did you mean 'attack'"),
        ({"settings": ["training.seed=1,2"], "seeds": [1]}, "training.seed: given twice"),
        ({"settings": ["a=1", "a=2"]}, "given twice"),
        ({"trainings": ["x"]}, "no such training; known: nominal, adversarial"),
    ],
)
def test_wrong_sweeps(odd_place, options, message):
    with pytest.raises(AdvtagError, match=message):
        list(points(odd_place.folder / "analysis.yaml", [], limit=5000, **options))
