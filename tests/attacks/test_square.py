"""The square attack against a loop over jets, against all corners, and by what it must not do."""

import math
from itertools import product

import pytest
import torch

import attacks.square
from attacks.budget import Budget
from attacks.noise import GaussianNoise
from attacks.objectives import margins
from attacks.square import Square
from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import reseed, uniform
from tests.attacks.conftest import COUPLED, INF, KINDS, card
from tests.attacks.test_pgd import assert_coupled, slow_free, slow_project

FREE = [((-INF, INF), None, False)] * 6


def slow_share(fraction: float, query: int, queries: int) -> float:
    """The schedule of the authors' code, on queries of 10000."""
    place = 10_000 * query / queries
    steps = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000, INF)
    return fraction / 2 ** next(halvings for halvings, end in enumerate(steps) if place <= end)


def slow_square(tagger, inputs: Inputs, target, attack: Square) -> torch.Tensor:
    interval, n = attack.budget.interval(tagger, inputs), inputs.values.shape[1]
    found = []
    for jet in range(len(inputs)):
        key, y = reseed(inputs.key[jet : jet + 1], attack.seed), int(target[jet])
        low, high = interval.low[jet].tolist(), interval.high[jet].tolist()
        free = slow_free(tagger.features, inputs, interval, jet)

        def corner(up, jet=jet, low=low, high=high):
            row = [high[k] if up[k] else low[k] for k in range(n)]
            return slow_project(tagger.features, inputs, interval, jet, row)

        def margin(up, jet=jet, y=y, corner=corner):
            with torch.no_grad():
                logits = tagger(torch.tensor([corner(up)], dtype=torch.float64), inputs.present[jet : jet + 1])[0]
            return max(float(z) for k, z in enumerate(logits) if k != y) - float(logits[y])

        up = [u < 0.5 for u in uniform(key, n, 0)[0].tolist()]
        best = margin(up)
        for query in range(1, attack.queries):
            u = uniform(key, n, query)[0].tolist()
            share, ends = slow_share(attack.fraction, query, attack.queries), list(up)
            order = {k: 2 * u[k] - (u[k] >= 0.5) for k in range(n) if free[k]}
            for k, place in order.items():
                if place < share:
                    ends[k] = u[k] < 0.5
            if order:
                first = min(order, key=order.get)
                ends[first] = not up[first]
            value = margin(ends)
            if value > best:
                up, best = ends, value
        found.append(corner(up))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("features", [card(KINDS), COUPLED])
@pytest.mark.parametrize("parameters", [{"queries": 60}, {"queries": 25, "fraction": 1.0, "seed": 2}, {"queries": 1}])
def test_against_slow_reference(make_tagger, make_jets, features, parameters) -> None:
    tagger = make_tagger(features=features, sharp=10, dtype=torch.float64)
    inputs, target = make_jets(30, features, dtype=torch.float64)
    attack = Square(Budget(epsilon=0.5), **parameters)
    found = attack(tagger, inputs, target).values
    torch.testing.assert_close(found, slow_square(tagger, inputs, target, attack), rtol=1e-12, atol=1e-14)
    assert (found != inputs.values).double().mean() > 0.25


@torch.no_grad()
def margins_of(tagger, inputs: Inputs, target) -> torch.Tensor:
    return margins(tagger(inputs.values, inputs.present), target)


def test_finds_the_best_corner(make_tagger, make_jets) -> None:
    """Of all 64; random corners, as many as it looks at first, do not."""
    tagger = make_tagger(FREE, sharp=10, dtype=torch.float64)
    inputs, target = make_jets(200, 6, dtype=torch.float64)
    budget = Budget(epsilon=0.7)
    interval = budget.interval(tagger, inputs)
    corners = torch.stack(
        [
            margins_of(tagger, inputs.moved(torch.where(torch.tensor(up), interval.high, interval.low)), target)
            for up in product([False, True], repeat=6)
        ]
    )
    reached = margins_of(tagger, Square(budget, queries=200)(tagger, inputs, target), target)
    assert torch.isclose(reached, corners.amax(0), rtol=1e-12).double().mean() > 0.75
    assert (reached <= corners.amax(0) + 1e-12).all()
    once = margins_of(tagger, Square(budget, queries=1)(tagger, inputs, target), target)
    assert torch.isclose(once, corners.amax(0), rtol=1e-12).double().mean() < 0.3


def test_only_forward_passes(make_tagger, make_jets, monkeypatch) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(50)
    gradients = []

    def refuse(*args, **kwargs):
        raise AssertionError("a gradient")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(type(tagger), "vjp", refuse)
    tagger.network.register_forward_pre_hook(lambda _, args: gradients.append(args[0].requires_grad))
    Square(Budget(epsilon=0.1), queries=40)(tagger, inputs, target)
    assert gradients == [False] * 40


def test_never_loses_margin(make_tagger, make_jets, monkeypatch) -> None:
    tagger, (inputs, target) = make_tagger(sharp=10, dtype=torch.float64), make_jets(200, dtype=torch.float64)
    met, objective = [], attacks.square.objective_of

    def record(*args):
        met.append(objective(*args))
        return met[-1]

    monkeypatch.setattr(attacks.square, "objective_of", record)
    found = Square(Budget(epsilon=0.5, capped=False), queries=80)(tagger, inputs, target)
    reached = margins_of(tagger, found, target)
    torch.testing.assert_close(reached, torch.stack(met).amax(0), rtol=0, atol=0)
    assert (reached > met[0]).double().mean() > 0.5
    assert len(met) == 80


@pytest.mark.parametrize("features", [card(KINDS), COUPLED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stays_at_the_ends(make_tagger, make_jets, features, dtype) -> None:
    tagger, (inputs, target) = make_tagger(features=features, dtype=dtype), make_jets(200, features, dtype=dtype)
    budget = Budget(epsilon=0.3)
    found = Square(budget, queries=30)(tagger, inputs, target).values
    interval = budget.interval(tagger, inputs)
    assert found.dtype == dtype
    assert ((found == interval.low) | (found == interval.high))[interval.free].all()
    assert ((interval.low <= found) & (found <= interval.high)).all()
    assert_coupled(features, inputs, found)
    ups = (found == interval.high)[interval.free].double().mean()
    assert 0.3 < ups < 0.7


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_a_query_changes_few_entries_at_last(make_tagger, make_jets, fraction) -> None:
    """On average fraction/2 of the entries and one more at first; one at the end, and never none."""
    kinds = [((-INF, INF), None, False)] * 40
    tagger, (inputs, target) = make_tagger(kinds, sharp=0), make_jets(200, 40)
    inputs = Inputs(inputs.values, torch.ones_like(inputs.present), inputs.key)
    looked = []
    tagger.register_forward_pre_hook(lambda _, args: looked.append(args[0].clone()))
    Square(Budget(epsilon=0.3), queries=1000, fraction=fraction)(tagger, inputs, target)
    # a flat network keeps its start, so that each query differs from the first by what it tries
    changed = [(values != looked[0]).sum(1).double() for values in looked[1:]]
    assert float(changed[0].mean()) == pytest.approx(fraction * 40 / 2 + 0.5, abs=0.8)
    assert float(torch.stack(changed).min()) == 1
    assert float(changed[-1].mean()) < 1.05


@pytest.mark.parametrize("seed", range(2))
def test_beats_noise(make_tagger, make_jets, seed) -> None:
    tagger = make_tagger(sharp=10, seed=seed, dtype=torch.float64)
    inputs, target = make_jets(200, seed=seed, dtype=torch.float64)
    clean = margins_of(tagger, inputs, target).mean()
    square, noise = (
        margins_of(tagger, attack(tagger, inputs, target), target).mean() - clean
        for attack in (Square(Budget(epsilon=0.2), queries=100), GaussianNoise(Budget(epsilon=0.2)))
    )
    assert square > 4 * abs(noise)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_jet_does_not_know_its_batch(make_tagger, make_jets, size) -> None:
    tagger = make_tagger(features=COUPLED, sharp=10, dtype=torch.float64)
    inputs, target = make_jets(100, COUPLED, dtype=torch.float64)
    attack = Square(Budget(epsilon=0.5), queries=30)
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(100, generator=torch.Generator().manual_seed(size))
    parts = torch.cat([attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)])
    assert torch.equal(parts, whole[order])


def test_nothing_to_move(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(20)
    absent = Inputs(torch.zeros_like(inputs.values), torch.zeros_like(inputs.present), inputs.key)
    assert torch.equal(Square(Budget(epsilon=0.5), queries=5)(tagger, absent, target).values, absent.values)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"queries": 0}, "queries is 0"),
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.1}, "fraction is 1.1"),
        ({"fraction": math.nan}, "fraction is nan"),
    ],
)
def test_wrong_parameters(parameters, named) -> None:
    with pytest.raises(AdvtagError, match=f"{named}; expected"):
        Square(Budget(epsilon=0.1), **parameters)


def test_repr() -> None:
    assert repr(Square(Budget(epsilon=0.1))).endswith("seed=0, queries=500, fraction=0.3)")
