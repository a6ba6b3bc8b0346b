"""PIP and PIP-PGD against loops over jets and features; and which integers move, how often, and how far."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from attacks.budget import Budget
from attacks.pip import PIP, PIPPGD, integers_of
from common.errors import AdvtagError
from models.features import FeatureSet, load_features
from models.inputs import Inputs
from models.keys import reseed, uniform
from tests.attacks.conftest import INF, KINDS, line

COUNTS = [
    *KINDS,
    ((0.0, 2.0), None, True),
    ((-INF, INF), None, True),
    ((-1.0, 1.0), None, True),
]
BOTH = [PIP, PIPPGD]


def whole(inputs: Inputs, integer: torch.Tensor) -> Inputs:
    """The same jets with whole numbers where integers are."""
    return inputs.moved(torch.where(integer, inputs.values.round(), inputs.values))


@pytest.fixture(scope="module")
def counted(make_tagger, make_jets):
    """A tagger on eleven inputs, five of them integers, and jets for it."""
    tagger = make_tagger(COUNTS, dtype=torch.float64, sharp=20)
    inputs, target = make_jets(120, len(COUNTS), dtype=torch.float64)
    return tagger, whole(inputs, torch.from_numpy(tagger.features.integer)), target


def linear(make_tagger, kinds, weight: list[list[float]]):
    """A tagger whose logits are the inputs times weights [classes][inputs]."""
    n = len(kinds)
    tagger = make_tagger(kinds, mean=[0.0] * n, std=[1.0] * n, dtype=torch.float64, hidden=0, width=n)
    with torch.no_grad():
        tagger.network.layers[0].weight.copy_(torch.tensor(weight))
        tagger.network.layers[0].bias.zero_()
    return tagger


def gradient_of(tagger, x: list[float], present: torch.Tensor, code: int) -> list[float]:
    """Of the cross entropy of one jet in its physical inputs."""
    z = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(tagger(z, present[None]), torch.tensor([code])), z)
    return gradient[0].tolist()


def range_of(x: float, bounds: tuple[float, float], steps: int) -> tuple[float, float]:
    low, high = max(x - steps, bounds[0]), min(x + steps, bounds[1])
    return min(low, x), max(high, x)


def slow(tagger, inputs, target, *, steps, sharpness, maximum, seed=0, names=None, stride=None, box=None, start=False):
    """The words of the docstring, one jet, one input and one step at a time; stride and box of the rest, per input."""
    features = tagger.features.inputs
    clean = inputs.values.tolist()
    now = [list(row) for row in clean]
    if start:
        draws = uniform(reseed(inputs.key, seed), len(features), 0).tolist()
        for j, k in ((j, k) for j in range(len(now)) for k, feature in enumerate(features) if not feature.integer):
            low, high = float(box.low[j, k]), float(box.high[j, k])
            now[j][k] = low + draws[j][k] * (high - low)
    chosen = [k for k, f in enumerate(features) if f.integer and (names is None or f.name in names)]
    for step in range(steps):
        gradients = [gradient_of(tagger, x, inputs.present[j], int(target[j])) for j, x in enumerate(now)]
        there = [[k for k in chosen if inputs.present[j, k]] for j in range(len(now))]
        largest = [max((abs(gradients[j][k]) for k in there[j]), default=0.0) for j in range(len(now))]
        for j, x in enumerate(now):
            draws = uniform(reseed(inputs.key[j : j + 1], seed), len(features), step + 1)[0].tolist()
            top = largest[j] if maximum == "jet" else max(largest)
            for k in range(len(features)):
                g = gradients[j][k]
                if k in there[j] and g != 0 and draws[k] < (abs(g) / top) ** sharpness:
                    low, high = range_of(clean[j][k], features[k].bounds, steps)
                    x[k] += math.copysign(1, g)
                    if not low <= x[k] <= high:
                        x[k] = clean[j][k]
                elif stride is not None and not features[k].integer and g != 0:
                    low, high = float(box.low[j, k]), float(box.high[j, k])
                    x[k] = min(max(x[k] + math.copysign(stride[k], g), low), high)
    return torch.tensor(now, dtype=torch.float64)


@pytest.mark.parametrize("maximum", ["jet", "batch"])
@pytest.mark.parametrize(("steps", "sharpness"), [(1, 0.0), (1, 1.0), (4, 0.5), (3, 5.0)])
def test_pip_against_slow_reference(counted, steps, sharpness, maximum) -> None:
    tagger, inputs, target = counted
    attack = PIP(Budget(epsilon=0.1), steps=steps, sharpness=sharpness, maximum=maximum, seed=3)
    found = attack(tagger, inputs, target).values
    expected = slow(tagger, inputs, target, steps=steps, sharpness=sharpness, maximum=maximum, seed=3)
    assert torch.equal(found, expected)
    assert 0.005 < (found != inputs.values)[:, tagger.features.integer].double().mean() < 0.9


@pytest.mark.parametrize("maximum", ["jet", "batch"])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize(("epsilon", "step_size", "capped"), [(0.02, None, True), (0.5, 0.6, True), (0.5, 0.3, False)])
def test_pip_pgd_against_slow_reference(counted, epsilon, step_size, capped, maximum, start) -> None:
    tagger, inputs, target = counted
    budget = Budget(epsilon=epsilon, capped=capped)
    chosen = ("x6", "x8")
    attack = PIPPGD(budget, steps=4, step_size=step_size, maximum=maximum, features=chosen, random_start=start, seed=1)
    found = attack(tagger, inputs, target).values
    stride = [(0.25 if step_size is None else step_size) * epsilon * float(width) for width in tagger.std]
    box, rules = budget.interval(tagger, inputs), {"steps": 4, "sharpness": 1.0, "seed": 1, "names": chosen}
    expected = slow(tagger, inputs, target, maximum=maximum, stride=stride, box=box, start=start, **rules)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    integer = tagger.features.integer
    assert torch.equal(found[:, integer], expected[:, integer])
    moved = (found != inputs.values).any(0)
    assert moved.tolist() == [True] * 7 + [False, True, False, False]


@given(seed=st.integers(0, 1000), steps=st.integers(1, 6), sharpness=st.sampled_from([0, 0.3, 1, 8, INF]))
@settings(max_examples=60, deadline=None)
def test_integers_by_whole_steps_inside_their_range(make_tagger, make_jets, seed, steps, sharpness) -> None:
    tagger, (inputs, target) = make_tagger(COUNTS, seed=seed), make_jets(30, len(COUNTS), seed=seed)
    integer = torch.from_numpy(tagger.features.integer)
    inputs = whole(inputs, integer)
    found = PIP(Budget(epsilon=INF), steps=steps, sharpness=sharpness, seed=seed)(tagger, inputs, target).values
    assert torch.equal(found[:, ~integer], inputs.values[:, ~integer])
    assert torch.equal(found[~inputs.present], inputs.values[~inputs.present])
    assert torch.equal(found[:, integer], found[:, integer].round())
    assert ((found - inputs.values).abs() <= steps).all()
    lo, hi = torch.from_numpy(tagger.features.bounds).unbind(1)
    outside = (found < lo) | (found > hi)
    farther = torch.where(inputs.values < lo, found < inputs.values, found > inputs.values)
    assert not (outside & farther).any()
    assert not (outside & (inputs.values >= lo) & (inputs.values <= hi)).any()


def test_sharpness_from_all_to_the_largest(counted) -> None:
    """The same draws: what moves at a higher sharpness moves at a lower one; at infinity only the largest does."""
    tagger, inputs, target = counted
    bounds = torch.from_numpy(tagger.features.bounds)
    unbounded = torch.from_numpy(tagger.features.integer) & torch.isinf(bounds).all(1)
    moved = [
        PIP(Budget(epsilon=1), sharpness=s)(tagger, inputs, target).values != inputs.values
        for s in (0, 0.3, 1, 3, 30, INF)
    ]
    gradients = torch.tensor(
        [
            gradient_of(tagger, x.tolist(), p, int(t))
            for x, p, t in zip(inputs.values, inputs.present, target, strict=True)
        ]
    )
    free = unbounded & inputs.present & (gradients != 0)
    assert torch.equal(moved[0][:, unbounded], free[:, unbounded])
    for more, fewer in pairwise(moved):
        assert (fewer <= more).all()
        assert fewer.sum() < more.sum()
    size = torch.where(torch.from_numpy(tagger.features.integer) & inputs.present, gradients.abs(), 0)
    largest = (size == size.amax(1, keepdim=True)) & (size > 0)
    assert torch.equal(moved[-1] | largest, largest)
    assert torch.equal(moved[-1][:, unbounded], largest[:, unbounded])


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_frequency(make_tagger, sharpness) -> None:
    n, weight = 20_000, [[1.0, -0.7, 0.4, 0.1], [0.0] * 4, [0.0] * 4, [0.0] * 4]
    tagger = linear(make_tagger, [((-INF, INF), None, True)] * 4, weight)
    inputs = Inputs(torch.zeros(n, 4).double(), torch.ones(n, 4, dtype=torch.bool), torch.arange(n))
    found = PIP(Budget(epsilon=1), sharpness=sharpness)(tagger, inputs, torch.zeros(n, dtype=torch.int64)).values
    for k, w in enumerate(weight[0]):
        p = abs(w) ** sharpness
        moved = float((found[:, k] == -math.copysign(1, w)).double().mean())
        assert moved == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n))
        assert set(found[:, k].tolist()) <= {0.0, -math.copysign(1, w)}
    independent = torch.corrcoef(found[:, 1:].T) - torch.eye(3)
    assert float(independent.abs().max()) < 5 / math.sqrt(n)


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (2, 0), (3, 1), (4, 0)])
def test_what_would_leave_its_range_goes_back_to_clean(make_tagger, steps, expected) -> None:
    tagger = linear(make_tagger, [((-5.0, 3.0), None, True)], [[-1.0], [0.0], [0.0], [0.0]])
    inputs = Inputs(torch.tensor([[2.0]]).double(), torch.tensor([[True]]), torch.tensor([5]))
    found = PIP(Budget(epsilon=1), steps=steps)(tagger, inputs, torch.tensor([0])).values
    assert found.tolist() == [[2.0 + expected]]


@pytest.mark.parametrize("kind", BOTH)
def test_without_gradient_nothing_moves(make_tagger, make_jets, kind) -> None:
    tagger = make_tagger(COUNTS, dtype=torch.float64)
    with torch.no_grad():
        tagger.network.layers[0].weight[:, 6] = 0
        tagger.network.layers[0].weight[:, 0] = 0
    inputs, target = make_jets(100, len(COUNTS), dtype=torch.float64)
    found = kind(Budget(epsilon=1), sharpness=0)(tagger, inputs, target).values
    assert torch.equal(found[:, [0, 6]], inputs.values[:, [0, 6]])
    assert (found[:, 7] != inputs.values[:, 7]).any()


def test_default_integers_decide_no_presence() -> None:
    features = load_features("deepcsv")
    assert integers_of(features, None) == {"jetNSecondaryVertices", "vertexNTracks"}
    renamed = FeatureSet(
        name="toy",
        inputs=(
            line("n", integer=True, branch=("Jet_new", "Jet_old")),
            line("m", integer=True),
            line("x", present={"branch": "Jet_old", "above": 0}),
            line("frozen", integer=True, frozen=True),
            line("twice", integer=True, proportional_to="m"),
        ),
    )
    assert integers_of(renamed, None) == {"m"}
    assert integers_of(renamed, ("n",)) == {"n"}
    for name in ("x", "frozen", "twice", "y"):
        with pytest.raises(AdvtagError, match=f"cannot move {name}; .* can move: m, n"):
            integers_of(renamed, ("n", name))


def test_only_named_integers_of_the_deepcsv_card(make_tagger) -> None:
    features = load_features("deepcsv")
    tagger = make_tagger(features=features, sharp=20)
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 5, (200, len(features)), generator=generator).float()
    inputs = Inputs(values, torch.ones_like(values, dtype=torch.bool), torch.arange(200))
    target = torch.randint(0, 4, (200,), generator=generator)
    for names in (None, ("jetNSelectedTracks",)):
        found = PIP(Budget(epsilon=1, scale="core"), features=names)(tagger, inputs, target).values
        moved = {features.names[k] for k in (found != values).any(0).nonzero().squeeze(1).tolist()}
        assert moved == set(names or ("jetNSecondaryVertices", "vertexNTracks"))
    with pytest.raises(AdvtagError, match="cannot move jetNTracks, pt"):
        PIP(Budget(epsilon=1), features=("pt", "jetNTracks"))(tagger, inputs, target)


def test_followers_and_pinned_integers(make_tagger, make_jets) -> None:
    features = FeatureSet(
        name="toy",
        inputs=(
            line("n", integer=True),
            line("same", integer=True, same_as="n", bounds=(-2.0, 2.0)),
            line("m", integer=True),
            line("of_m", proportional_to="m"),
            line("pinned", integer=True, pinned=(1.0, -2.0)),
        ),
    )
    tagger = make_tagger(features=features, dtype=torch.float64, sharp=20)
    inputs, target = make_jets(400, features, dtype=torch.float64)
    clean, there = inputs.values, inputs.present
    same = there[:, 0] & there[:, 1] & (clean[:, 0] == clean[:, 1])
    multiple = there[:, 2] & there[:, 3] & (clean[:, 2] != 0) & (clean[:, 3] != 0)
    for kind in BOTH:
        found = kind(Budget(epsilon=3), steps=3, sharpness=0)(tagger, inputs, target).values
        integer = torch.from_numpy(features.integer)
        assert torch.equal(found[:, integer], found[:, integer].round())
        assert torch.equal(found[same, 0], found[same, 1])
        assert (found[same, 0] != clean[same, 0]).any()
        held = same & (clean[:, 1].abs() <= 2)
        assert (found[held, 1].abs() <= 2).all()
        # a multiple that cannot move holds what it follows; a free one goes with it
        assert torch.equal(found[multiple, 2] != clean[multiple, 2], found[multiple, 3] != clean[multiple, 3])
        assert (found[multiple, 2] != clean[multiple, 2]).any() == (kind is PIPPGD)
        ratio = found[multiple, 3] / clean[multiple, 3]
        torch.testing.assert_close(ratio, found[multiple, 2] / clean[multiple, 2])
        assert (found[~multiple, 2] != clean[~multiple, 2]).any()
        stays = torch.isin(clean[:, 4], torch.tensor([1.0, -2.0]).double()) | ~there[:, 4]
        assert torch.equal(found[stays, 4], clean[stays, 4])
        assert (found[~stays, 4] != clean[~stays, 4]).any()


@pytest.mark.parametrize("steps", [1, 5])
def test_pip_pgd_without_integers_is_sign_steps(make_tagger, make_jets, steps) -> None:
    kinds = [kind for kind in KINDS if not kind[2]]
    tagger, (inputs, target) = make_tagger(kinds, dtype=torch.float64), make_jets(60, len(kinds), dtype=torch.float64)
    budget = Budget(epsilon=0.3)
    found = PIPPGD(budget, steps=steps)(tagger, inputs, target).values
    box, values = budget.interval(tagger, inputs), inputs.values
    for _ in range(steps):
        rows = zip(values.tolist(), inputs.present, target.tolist(), strict=True)
        sign = torch.tensor([gradient_of(tagger, x, there, code) for x, there, code in rows]).sign()
        values = torch.minimum(torch.maximum(values + 0.3 / steps * tagger.std * sign, box.low), box.high)
    torch.testing.assert_close(found, values, rtol=1e-12, atol=1e-14)
    assert torch.equal(PIP(budget)(tagger, inputs, target).values, inputs.values)


def test_random_start_leaves_integers(counted) -> None:
    """Sharpness infinity and one step: all integers but one per jet are where they started."""
    tagger, inputs, target = counted
    integer = tagger.features.integer
    budget = Budget(epsilon=0.4)
    started = PIPPGD(budget, steps=1, step_size=1e-9, sharpness=INF, random_start=True)(tagger, inputs, target).values
    assert ((started != inputs.values)[:, integer].sum(1) <= 1).all()
    assert torch.equal(started[:, integer], started[:, integer].round())
    box = budget.interval(tagger, inputs)
    share = ((started - box.low) / (box.high - box.low))[:, 0][inputs.present[:, 0]]
    assert float(share.min()) < 0.1
    assert float(share.max()) > 0.9
    assert ((box.low <= started) & (started <= box.high))[:, ~integer].all()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("size", [1, 13])
def test_a_jet_does_not_know_its_batch(counted, kind, size) -> None:
    tagger, inputs, target = counted
    attack = kind(Budget(epsilon=0.1), steps=3)
    assert attack.per_jet
    expected = attack(tagger, inputs, target).values
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(size))
    parts = [attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)]
    assert torch.equal(torch.cat(parts), expected[order])
    batch = kind(Budget(epsilon=0.1), steps=3, maximum="batch")
    assert not batch.per_jet
    together = batch(tagger, inputs, target).values
    alone = torch.cat([batch(tagger, inputs[j : j + 1], target[j : j + 1]).values for j in range(len(inputs))])
    assert not torch.equal(together, alone)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_no_attack_may_touch(make_tagger, make_jets, kind, dtype) -> None:
    tagger = make_tagger(COUNTS, dtype=dtype, dropout=0.5).train()
    inputs, target = make_jets(100, len(COUNTS), dtype=dtype)
    before, state = inputs.values.clone(), torch.get_rng_state()
    attack = kind(Budget(epsilon=0.3), steps=2)
    found = attack(tagger, inputs, target)
    interval = attack.interval(tagger, inputs)
    assert ((interval.low <= found.values) & (found.values <= interval.high)).all()
    assert torch.equal(inputs.values, before)
    assert torch.equal(found.values[~inputs.present], before[~inputs.present])
    assert found.values.dtype == dtype
    assert tagger.training
    assert all(parameter.grad is None for parameter in tagger.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attack(tagger, inputs, target).values, found.values)
    assert not torch.equal(kind(Budget(epsilon=0.3), steps=2, seed=1)(tagger, inputs, target).values, found.values)
    assert torch.equal(kind(Budget(epsilon=0.0))(tagger, inputs, target).values, before)
    assert len(attack(tagger, inputs[:0], target[:0])) == 0


def test_refuses_parameters() -> None:
    budget = Budget(epsilon=0.1)
    for kind in BOTH:
        for wrong in ({"steps": 0}, {"sharpness": -1.0}, {"sharpness": math.nan}, {"maximum": "event"}):
            with pytest.raises(AdvtagError, match=next(iter(wrong))):
                kind(budget, **wrong)
    for step_size in (0.0, -1.0, INF, math.nan):
        with pytest.raises(AdvtagError, match="step_size"):
            PIPPGD(budget, step_size=step_size)
    with pytest.raises(AdvtagError, match="finite epsilon"):
        PIPPGD(Budget(epsilon=INF))
    assert repr(PIP(budget, features=["a"])).endswith("seed=0, steps=1, sharpness=1.0, maximum='jet', features=('a',))")
