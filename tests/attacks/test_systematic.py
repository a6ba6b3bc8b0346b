"""The coherent shift against a loop over jets and features, and what it must not look at."""

import math

import pytest
import torch

from attacks.budget import Budget
from attacks.systematic import Systematic
from common.errors import AdvtagError
from tests.attacks.conftest import COUPLED, INF, KINDS
from tests.attacks.test_pgd import assert_coupled

TABLE = {"x0": 0.5, "x1": -1.0, "x2": 1.0, "x4": 0.25, "x5": 0.0, "x6": 1.0}


def slow_shift(tagger, inputs, epsilon: float, capped: bool, numbers: dict[str, float]) -> torch.Tensor:
    """One entry at a time, by the words of the design; for a card without couplings."""
    found = inputs.values.clone()
    for jet in range(len(inputs)):
        for k, feature in enumerate(tagger.features.inputs):
            x, number = float(inputs.values[jet, k]), numbers.get(feature.name, 0.0)
            if not inputs.present[jet, k] or feature.integer:
                continue
            move = epsilon * float(tagger.std[k])
            shift = number * move
            if capped and feature.cap is not None:
                shift = math.copysign(min(abs(shift), feature.cap * abs(x)), shift)
            moved, (lo, hi) = x + shift, feature.bounds
            if shift > 0 and moved > hi:
                moved = max(hi, x)
            if shift < 0 and moved < lo:
                moved = min(lo, x)
            found[jet, k] = moved
    return found


@pytest.mark.parametrize("capped", [True, False])
@pytest.mark.parametrize("epsilon", [0.01, 0.4])
@pytest.mark.parametrize("shift", ["up", "down", TABLE])
def test_against_slow_reference(make_tagger, make_jets, shift, epsilon, capped) -> None:
    tagger = make_tagger(dtype=torch.float64)
    # inside the bounds: outside, what a shift brings back depends on the budget, which has its own tests
    inputs, target = make_jets(100, dtype=torch.float64)
    low, high = (torch.tensor([kind[0][end] for kind in KINDS], dtype=torch.float64) for end in (0, 1))
    inputs = inputs.moved(torch.clamp(inputs.values, low, high))
    number = {"up": 1.0, "down": -1.0}.get(shift) if isinstance(shift, str) else None
    numbers = TABLE if number is None else dict.fromkeys(tagger.features.names, number)
    found = Systematic(Budget(epsilon=epsilon, capped=capped), shift=shift)(tagger, inputs, target).values
    expected = slow_shift(tagger, inputs, epsilon, capped, numbers)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    assert (found != inputs.values).float().mean() > 0.2


def test_all_jets_move_by_the_same(make_tagger, make_jets) -> None:
    tagger = make_tagger([((-INF, INF), None, False)] * 4, scales={"core": [0.5, 2.0, 0.0, 1.0]}, dtype=torch.float64)
    inputs, target = make_jets(200, 4, dtype=torch.float64)
    attack = Systematic(Budget(epsilon=0.1, scale="core"), shift={"x0": 1.0, "x1": -0.5, "x2": 1.0})
    moves = attack(tagger, inputs, target).values - inputs.values
    expected = torch.tensor([0.05, -0.1, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(moves, torch.where(inputs.present, expected, 0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shift", ["up", "down", {"a": -1.0, "same": 1.0, "multiple": 1.0}])
def test_followers_follow(make_tagger, make_jets, shift) -> None:
    """What a table says of an entry that follows another does not count: it is the other's."""
    tagger = make_tagger(features=COUPLED, dtype=torch.float64)
    inputs, target = make_jets(300, COUPLED, dtype=torch.float64)
    found = Systematic(Budget(epsilon=0.2), shift=shift)(tagger, inputs, target).values
    assert_coupled(COUPLED, inputs, found)
    a, same = COUPLED.names.index("a"), COUPLED.names.index("same")
    alike = inputs.present[:, a] & inputs.present[:, same] & (inputs.values[:, a] == inputs.values[:, same])
    assert torch.equal(found[alike, a], found[alike, same])
    moved = (found != inputs.values)[alike, a]
    assert moved.any()
    assert ((found > inputs.values)[alike, a] == (shift == "up"))[moved].all()


def test_does_not_look_at_the_truth_or_at_the_network(make_tagger, make_jets) -> None:
    tagger, other, (inputs, target) = make_tagger(), make_tagger(), make_jets(50)
    torch.nn.init.normal_(other.network.layers[0].weight)
    calls = []
    for one in (tagger, other):
        one.register_forward_pre_hook(lambda *_: calls.append(1))
    attack = Systematic(Budget(epsilon=0.1))
    expected = attack(tagger, inputs, target).values
    assert torch.equal(attack(tagger, inputs, 3 - target).values, expected)
    assert torch.equal(attack(other, inputs, target).values, expected)
    assert torch.equal(attack(tagger, inputs[:7], target[:7]).values, expected[:7])
    assert not calls


def test_unknown_features_are_named(make_tagger, make_jets) -> None:
    attack = Systematic(Budget(epsilon=0.1), shift={"x0": 1.0, "pt": 0.5, "eta": 1.0})
    with pytest.raises(AdvtagError, match="eta, pt"):
        attack(make_tagger(), *make_jets(5))


@pytest.mark.parametrize("shift", ["sideways", {"x0": 1.5}, {"x0": 0.5, "x1": math.nan}, {"x0": -INF}])
def test_wrong_shifts(shift) -> None:
    with pytest.raises(AdvtagError, match=r"shift (of 'x[01]' )?is .*expected"):
        Systematic(Budget(epsilon=0.1), shift=shift)


def test_repr() -> None:
    attack = Systematic(Budget(epsilon=0.1), shift={"x0": 0.5})
    assert repr(attack).endswith("seed=0, shift={'x0': 0.5})")
