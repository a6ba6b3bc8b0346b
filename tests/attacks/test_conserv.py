"""CONSERVAttack against loops that count everything anew for each step tried; its caps, whatever the chunks; a toy."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from attacks import Budget
from attacks.budget import Interval
from attacks.conserv import Conserv, _features, uncoupled, wrong_odds
from attacks.conserv_kernel import describe
from attacks.conserv_reference import ConservReference
from attacks.distances import histograms, js_distances
from attacks.gradient import input_gradient
from attacks.success import WorkingPoint, counts, is_right
from common.errors import AdvtagError
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import reseed
from models.tagger import Tagger
from tests.attacks.conftest import COUPLED, line

INF = math.inf
FREE = Budget(epsilon=INF, capped=False)
CARD = FeatureSet(
    name="toy",
    inputs=(
        line("wide", bins=(7, -3, 3)),
        line("narrow", bins=(5, -0.3, 0.8), bounds=(-1.0, INF)),
        line("capped", bins=(9, -1.0, 2.1), cap=0.5),
        line("count", integer=True, bins=(4, -1, 3), bounds=(-1.0, 2.0)),
        line("other", integer=True, bins=(4, -2, 2)),
        line("pinned", bins=(6, -2, 2), pinned=(0.0,)),
    ),
)
WP = WorkingPoint("BvsL", 0.5)


@pytest.fixture(scope="module")
def sample(make_tagger, make_jets):
    """A tagger, weighted jets with integers, pinned, absent and outlying entries, and classes that it mostly finds."""

    def make(number: int, *, seed: int = 0, dtype=torch.float64):
        # one hidden layer: five of random weights give every jet the same answer
        tagger = make_tagger(features=CARD, dtype=dtype, sharp=20, hidden=1)
        inputs, target = make_jets(number, CARD, seed=seed, dtype=dtype)
        weight = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 0.3, 1.0, 2.5], number))
        inputs = Inputs(inputs.values, inputs.present, inputs.key, weight)
        with torch.no_grad():
            called = tagger(inputs.values, inputs.present).argmax(1)
        return tagger, inputs, torch.where(torch.arange(number) % 4 == 0, target, called)

    return make


# ---- an obvious implementation: Python numbers, nothing kept from one step tried to the next


def slow_edges(feature, dtype) -> list[float]:
    number, low, high = feature.bins
    edges = range(int(low), int(high) + 1) if feature.integer else np.linspace(low, high, number + 1)
    return np.array(list(edges)).astype(np.float32 if dtype == torch.float32 else np.float64).astype(float).tolist()


def slow_histogram(values, present, weight, edges) -> np.ndarray:
    found = np.zeros(len(edges) + 1)
    for value, there, w in zip(values, present, weight, strict=True):
        if there:
            found[sum(edge <= value for edge in edges)] += abs(w)
    return found


def js_of(p, q) -> float:
    """scipy's distance, which takes the root of a number just below 0 where p and q are the same."""
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(jensenshannon(p, q, base=2)))


def slow_js(clean, moved, present, weight, edges) -> float:
    first, second = (slow_histogram(values, present, weight, edges) for values in (clean, moved))
    return js_of(first, second) if first.sum() > 0 else 0.0


def slow_moments(tagger, values, present, weight) -> np.ndarray:
    mean, std = tagger.mean.double().numpy(), tagger.std.double().numpy()
    total, found = 0.0, np.zeros((len(mean) + 1, len(mean) + 1))
    for row, there, w in zip(values, present, weight, strict=True):
        a = np.concatenate([[1.0], np.where(there, (np.where(there, row, 0) - mean) / std, 0)])
        found += abs(w) * np.outer(a, a)
        total += abs(w)
    return found / total


def slow_uniform(key: int, feature: int, candidate: int, iteration: int) -> float:
    mask = 2**64 - 1
    bits = (key + 0x9E3779B97F4A7C15 * (1 + feature + (candidate << 20) + (iteration << 40))) & mask
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
    return (((bits ^ (bits >> 31)) >> 11) + 0.5) / 2**53


def slow_conserv(attack: Conserv, tagger, inputs: Inputs, target) -> np.ndarray:
    interval = attack.interval(tagger, inputs)
    keys = reseed(inputs.key, attack.seed).tolist()
    moved = inputs.values.numpy().copy()
    cells = [target == c for c in range(4)] if attack.within == "class" else [target >= 0]
    for iteration in range(attack.iterations):
        x = torch.from_numpy(moved.copy())
        objective = wrong_odds(tagger.classes, attack.working_point)
        gradient, odds = input_gradient(tagger, inputs, target, Interval(x, x, x), x, objective)
        right = is_right(tagger(x, inputs.present), target, tagger.classes, attack.working_point).tolist()
        for cell in cells:
            jets = sorted(torch.nonzero(cell).flatten().tolist(), key=lambda i: keys[i])
            if jets and inputs.weight[jets].abs().sum() > 0:
                slow_pass(attack, tagger, inputs, interval, moved, jets, iteration, gradient, odds, right, keys)
    return moved


def slow_pass(attack, tagger, inputs, interval, moved, jets, iteration, gradient, odds, right, keys) -> None:
    clean, present, weight = inputs.values.numpy(), inputs.present.numpy(), inputs.weight.numpy()
    edges = [slow_edges(feature, inputs.values.dtype) for feature in tagger.features.inputs]
    before = slow_moments(tagger, clean[jets], present[jets], weight[jets])
    number = len(edges)
    cap = attack.correlation_cap * (np.trace(before) - 1) / math.sqrt(number)
    price = 0.1 ** (iteration / (attack.iterations - 1)) if attack.iterations > 1 else 1.0

    def distance(k: int) -> float:
        return slow_js(clean[jets, k], moved[jets, k], present[jets, k], weight[jets], edges[k])

    def change() -> float:
        return float(np.linalg.norm(slow_moments(tagger, moved[jets], present[jets], weight[jets]) - before))

    def cost(k: int, gain: float) -> float:
        visible = attack.alpha / number * (distance(k) / attack.js_cap) ** 2 + attack.beta * (change() / cap) ** 2
        return price * visible - gain * share

    for i in jets:
        if not right[i]:
            continue
        need = max(0.1, -float(odds[i]))
        share, left = abs(weight[i]) / np.abs(weight[jets]).sum() / need, 2 * need
        for k, feature in enumerate(tagger.features.inputs):
            old, low, high = moved[i, k], interval.low[i, k].item(), interval.high[i, k].item()
            if not low < high or not np.abs(weight[jets])[present[jets, k]].sum() > 0:
                continue
            slope, present_norm = float(gradient[i, k]), change()
            least = 1.0 if feature.integer else 1e-3 * float(tagger.std[k])
            best, chosen, risen = cost(k, 0.0), old, 0.0
            for c in range(attack.candidates):
                way = (1 if slope >= 0 else -1) * (1 if c % 2 == 0 else -1)
                room = float(high) - float(old) if way > 0 else float(old) - float(low)
                if room < least:
                    continue
                draw = slow_uniform(keys[i], k, c, iteration)
                step = 1 + math.floor(draw * room) if feature.integer else least + draw * (room - least)
                moved[i, k] = min(max(float(old) + way * step, low), high)
                gain = slope * (float(moved[i, k]) - float(old))
                new = change()
                if distance(k) <= attack.js_cap and (new <= cap or new <= present_norm):
                    found = cost(k, min(gain, left))
                    if found < best:
                        best, chosen, risen = found, moved[i, k], gain
                moved[i, k] = old
            moved[i, k] = chosen
            left -= risen


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float64, {"integers": ("count", "other"), "within": "class"}),
        (torch.float32, {"integers": ("other",), "within": "sample", "seed": 3}),
        (torch.float64, {"working_point": WP, "alpha": 0.0, "iterations": 1}),
        (torch.float64, {"beta": 1.0, "js_cap": 0.2, "budget": Budget(epsilon=0.3)}),
    ],
)
def test_against_a_slow_reference(sample, dtype, options) -> None:
    tagger, inputs, target = sample(48, dtype=dtype)
    options = {"iterations": 2, "candidates": 4, "js_cap": 0.08, "correlation_cap": 0.1, "budget": FREE, **options}
    attack = Conserv(**options)
    found = attack(tagger, inputs, target).values
    expected = torch.from_numpy(slow_conserv(attack, tagger, inputs, target))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert float((found != inputs.values)[inputs.present].double().mean()) > 0.1


# ---- caps


def weights(inputs: Inputs) -> np.ndarray:
    return np.ones(len(inputs)) if inputs.weight is None else inputs.weight.abs().numpy()


def caps_hold(attack: Conserv, tagger: Tagger, clean: Inputs, moved: Inputs) -> tuple[float, float]:
    """Of one set of jets, counted anew; returns the largest distance and the relative change of the moments."""
    w, present, x, y = weights(clean), clean.present.numpy(), clean.values.numpy(), moved.values.numpy()
    distances = [
        slow_js(x[:, k], y[:, k], present[:, k], w, slow_edges(feature, clean.values.dtype))
        for k, feature in enumerate(tagger.features.inputs)
    ]
    before, after = (slow_moments(tagger, values, present, w) for values in (x, y))
    scale = (np.trace(before) - 1) / math.sqrt(len(distances))
    change = float(np.linalg.norm(after - before))
    assert max(distances) <= attack.js_cap * (1 + 1e-7)
    assert change <= attack.correlation_cap * scale * (1 + 1e-9)
    # relative to the norm itself, the change is smaller still
    assert scale <= np.linalg.norm(before[1:, 1:]) * (1 + 1e-12)
    return max(distances), change / scale


@settings(max_examples=15, deadline=None)
@given(
    number=st.integers(1, 200),
    seed=st.integers(0, 999),
    caps=st.tuples(st.sampled_from([1e-3, 0.02, 0.3]), st.sampled_from([1e-4, 0.01, 0.2])),
    price=st.sampled_from([0.0, 0.03, 1.0]),
    epsilon=st.sampled_from([0.1, 2.0, INF]),
    within=st.sampled_from(["class", "sample"]),
    single=st.booleans(),
)
def test_caps_hold(sample, number, seed, caps, price, epsilon, within, single) -> None:
    tagger, inputs, target = sample(number, seed=seed, dtype=torch.float32 if single else torch.float64)
    attack = Conserv(
        Budget(epsilon=epsilon), iterations=3, candidates=6, js_cap=caps[0], correlation_cap=caps[1],
        alpha=price, beta=price, within=within, integers=("count",), seed=seed,
    )  # fmt: skip
    moved = attack(tagger, inputs, target)
    interval = attack.interval(tagger, inputs)
    assert ((interval.low <= moved.values) & (moved.values <= interval.high)).all()
    for c in target.unique() if within == "class" else ():
        caps_hold(attack, tagger, inputs[target == c], moved[target == c])
    caps_hold(attack, tagger, inputs, moved)


def test_caps_of_chunks_hold_for_their_union(sample) -> None:
    tagger, inputs, target = sample(1200)
    # chunks that differ: sorted by the first input, of unequal size
    order = inputs.values[:, 0].argsort()
    parts = order.split([700, 20, 1, 400, 79])
    attack = Conserv(FREE, candidates=12, js_cap=0.01, correlation_cap=0.01, integers=("count",))
    moved = [attack(tagger, inputs[part], target[part]) for part in parts]
    values = torch.cat([part.values for part in moved])
    clean, after, truth = inputs[order], inputs[order].moved(values), target[order]
    found = [caps_hold(attack, tagger, clean[truth == c], after[truth == c]) for c in truth.unique()]
    caps_hold(attack, tagger, clean, after)
    # they bind: had they been ignored, this would show
    assert max(js for js, _ in found) > 0.002
    assert max(change for _, change in found) > 0.003
    ignored = Conserv(FREE, candidates=12, js_cap=1.0, correlation_cap=1e9, alpha=0.0, beta=0.0)(tagger, inputs, target)
    assert float(np.nanmax(js_distances(CARD, inputs, ignored))) > 0.1


def test_caps_hold_for_values_as_the_inputs_can_hold_them(make_tagger) -> None:
    """Steps of float32 of two thirds of a bin: a value must be rounded before its bin counts."""
    features = FeatureSet(name="coarse", inputs=(line("far", bins=(20, 1e6, 1e6 + 2)), line("near", bins=(20, -2, 2))))
    tagger = make_tagger(features=features, mean=[1e6 + 1, 0.0], std=[0.5, 1.0], sharp=20, hidden=1)
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal([1e6 + 1, 0], [0.5, 1], (2000, 2))).float()
    inputs = Inputs(values, torch.ones_like(values, dtype=torch.bool), torch.arange(2000))
    with torch.no_grad():
        target = tagger(values, inputs.present).argmax(1)
    attack = Conserv(FREE, within="sample", js_cap=0.01, correlation_cap=0.02)
    moved = attack(tagger, inputs, target)
    assert float((moved.values[:, 0] != values[:, 0]).double().mean()) > 0.1
    assert caps_hold(attack, tagger, inputs, moved)[0] > 0.005


@settings(max_examples=200, deadline=None)
@given(
    histograms=arrays(np.int64, (3, 2, 5), elements=st.integers(0, 10**6)).filter(lambda h: (h.sum(-1) > 0).all()),
    fractions=arrays(np.float64, 3, elements=st.floats(0.01, 1)),
)
def test_the_divergence_is_jointly_convex(histograms, fractions) -> None:
    """What the caps of a union rest on."""
    fractions = fractions / fractions.sum()
    p, q = (histograms / histograms.sum(-1, keepdims=True)).transpose(1, 0, 2)
    each = [js_of(first, second) ** 2 for first, second in zip(p, q, strict=True)]
    union = js_of(fractions @ p, fractions @ q) ** 2
    assert union <= fractions @ each + 1e-9


# ---- who moves, and who does not


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("within", ["class", "sample"])
def test_order_of_the_jets_does_not_matter(sample, dtype, within) -> None:
    tagger, inputs, target = sample(500, dtype=dtype)
    attack = Conserv(FREE, candidates=6, js_cap=0.02, within=within)
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    assert torch.equal(attack(tagger, inputs[order], target[order]).values, whole[order])
    assert not torch.equal(Conserv(FREE, candidates=6, js_cap=0.02, seed=1)(tagger, inputs, target).values, whole)


def test_a_weight_of_two_is_the_jet_twice(sample) -> None:
    tagger, inputs, _ = sample(60)
    features, x, present = _features(tagger), inputs.values.numpy(), inputs.present.numpy()
    heavy = np.where(np.arange(60) < 20, 2.0, 1.0)
    twice = np.concatenate([np.arange(60), np.arange(20)])
    first = describe(x, present, heavy, features)
    second = describe(x[twice], present[twice], np.ones(80), features)
    for name in ("histograms", "totals", "moments"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(first.moments, slow_moments(tagger, x, present, heavy), rtol=1e-12, atol=1e-12)
    sums = histograms(CARD, Inputs(inputs.values, inputs.present, inputs.key, torch.from_numpy(heavy)))[0]
    np.testing.assert_allclose(first.histograms[:, : sums.shape[1]] * first.totals[:, None], sums, rtol=1e-12)


def test_size_and_sign_of_all_weights_do_not_matter(sample) -> None:
    tagger, inputs, target = sample(300)
    attack = Conserv(FREE, iterations=3, js_cap=0.02)
    expected = attack(tagger, inputs, target).values
    for factor in (4.0, -0.5):
        scaled = Inputs(inputs.values, inputs.present, inputs.key, factor * inputs.weight)
        assert torch.equal(attack(tagger, scaled, target).values, expected)
    unweighted = Inputs(inputs.values, inputs.present, inputs.key)
    ones = Inputs(inputs.values, inputs.present, inputs.key, torch.full((300,), -1.0))
    assert torch.equal(attack(tagger, unweighted, target).values, attack(tagger, ones, target).values)
    assert not torch.equal(attack(tagger, unweighted, target).values, expected)


@pytest.mark.parametrize("working_point", [None, WP, WorkingPoint("CvsB", 0.3)])
def test_fooled_jets_stay(sample, working_point) -> None:
    tagger, inputs, target = sample(800)
    moved = {
        n: Conserv(FREE, iterations=n, js_cap=0.03, correlation_cap=0.05, working_point=working_point)(
            tagger, inputs, target
        )
        for n in (1, 4)
    }
    right = {
        n: is_right(tagger(jets.values, jets.present), target, tagger.classes, working_point)
        for n, jets in {0: inputs, **moved}.items()
    }
    assert torch.equal(moved[4].values[~right[0]], inputs.values[~right[0]])
    fooled = right[0] & ~right[1]
    assert int(fooled.sum()) > 5
    assert torch.equal(moved[4].values[fooled], moved[1].values[fooled])
    assert int((right[0] & ~right[4]).sum()) > int(fooled.sum())
    if working_point is not None:
        without = ~counts(target, tagger.classes, working_point)
        assert without.any()
        assert torch.equal(moved[4].values[without], inputs.values[without])


@pytest.mark.parametrize("classes", [("b", "bb", "c", "udsg"), ("udsg", "c", "b")])
@pytest.mark.parametrize("working_point", [None, *(WorkingPoint(d, 0.37) for d in ("BvsL", "BvsC", "CvsL", "CvsB"))])
def test_odds_above_0_are_a_wrong_answer(classes, working_point) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((2000, len(classes)), generator=generator, dtype=torch.float64)
    target = torch.randint(0, len(classes), (2000,), generator=generator)
    counted = counts(target, classes, working_point)
    odds = wrong_odds(classes, working_point)(logits, target)[counted]
    right = is_right(logits, target, classes, working_point)[counted]
    assert torch.equal(odds <= 0, right)
    assert right.any()
    assert not right.all()


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_working_point_that_nothing_crosses(sample, threshold) -> None:
    tagger, inputs, target = sample(100)
    attack = Conserv(FREE, iterations=2, working_point=WorkingPoint("BvsL", threshold))
    assert torch.isfinite(attack(tagger, inputs, target).values).all()


def test_absent_entries_are_nowhere(sample) -> None:
    tagger, inputs, target = sample(300)
    attack = Conserv(FREE, iterations=3, js_cap=0.02)
    expected = attack(tagger, inputs, target).values
    for nonsense in (math.nan, 1e30, -INF):
        other = inputs.moved(torch.where(inputs.present, inputs.values, nonsense))
        found = attack(tagger, other, target).values
        assert torch.equal(found[inputs.present], expected[inputs.present])
        torch.testing.assert_close(
            found[~inputs.present], other.values[~inputs.present], equal_nan=True, rtol=0, atol=0
        )


def test_few_jets_and_no_weight(sample) -> None:
    tagger, inputs, target = sample(40)
    attack = Conserv(FREE)
    for jets in (slice(0, 0), slice(0, 1), slice(3, 5)):
        moved = attack(tagger, inputs[jets], target[jets])
        assert moved.values.shape == inputs.values[jets].shape
        if len(moved):
            caps_hold(attack, tagger, inputs[jets], moved)
    alone = torch.where(torch.arange(40) == 7, 3, target)
    moved = attack(tagger, inputs, alone)
    caps_hold(attack, tagger, inputs[7:8], moved[7:8])
    weightless = Inputs(inputs.values, inputs.present, inputs.key, (target != 1).double())
    moved = attack(tagger, weightless, target)
    assert torch.equal(moved.values[target == 1], inputs.values[target == 1])
    nothing = Inputs(torch.zeros_like(inputs.values), torch.zeros_like(inputs.present), inputs.key)
    assert torch.equal(attack(tagger, nothing, target).values, nothing.values)


# ---- intervals


def test_coupled_entries_and_what_they_follow_are_frozen(make_tagger, make_jets) -> None:
    tagger = make_tagger(features=COUPLED, sharp=30, dtype=torch.float64)
    inputs, target = make_jets(300, COUPLED, dtype=torch.float64)
    budget = Budget(epsilon=1.0)
    whole, found = budget.interval(tagger, inputs), uncoupled(budget.interval(tagger, inputs))
    held = torch.zeros_like(inputs.present)
    for jet in range(300):
        for place, column in enumerate(whole.coupling.columns.tolist()):
            source = int(whole.coupling.source[jet, place])
            if source != column:
                held[jet, [source, column]] = True
    assert torch.equal(found.free, (whole.low < whole.high) & ~held)
    assert (held & whole.free).any()
    attack = Conserv(budget, js_cap=0.1, correlation_cap=0.1)
    moved = attack(tagger, inputs, target)
    assert torch.equal(moved.values[held], inputs.values[held])
    assert (moved.values != inputs.values).any()


@pytest.mark.parametrize(("epsilon", "reach"), [(0.1, 1), (2.0, 4), (INF, INF)])
def test_intervals_of_integers_and_bins(make_tagger, make_jets, epsilon, reach) -> None:
    tagger = make_tagger(features=CARD, std=[2.0] * 6, dtype=torch.float64)
    inputs, _ = make_jets(400, CARD, dtype=torch.float64)
    budget = Budget(epsilon=epsilon)
    plain = budget.interval(tagger, inputs)
    found = Conserv(budget, integers=("count", "other")).interval(tagger, inputs)
    for jet in range(400):
        for k, feature in enumerate(CARD.inputs):
            x, (_, first, last) = float(inputs.values[jet, k]), feature.bins
            low, high = float(plain.low[jet, k]), float(plain.high[jet, k])
            if feature.integer and inputs.present[jet, k]:
                low, high = max(x - reach, feature.bounds[0]), min(x + reach, feature.bounds[1])
            if feature.integer:
                last -= 1  # the value at the last edge is in the overflow
            low, high = min(max(low, first), x), max(min(high, last), x)
            assert (float(found.low[jet, k]), float(found.high[jet, k])) == (low, high)
    assert torch.equal(found.clean, inputs.values)


def test_integers_stay_integers(sample) -> None:
    tagger, inputs, target = sample(500)
    moved = Conserv(FREE, js_cap=0.1, correlation_cap=0.1, integers=("count",))(tagger, inputs, target)
    column, other = moved.values[:, 3], moved.values[:, 4]
    assert torch.equal(column, column.round())
    assert int((column != inputs.values[:, 3]).sum()) > 10
    assert torch.equal(other, inputs.values[:, 4])


def test_published_form_refuses_absent_entries(sample) -> None:
    tagger, inputs, target = sample(20)
    with pytest.raises(AdvtagError, match="absent"):
        ConservReference(FREE)(tagger, inputs, target)


# ---- parameters


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"iterations": 0}, "iterations is 0; expected 1 or more"),
        ({"candidates": -1}, "candidates is -1"),
        ({"js_cap": 0.0}, "js_cap is 0.0; expected a number above 0, up to 1"),
        ({"js_cap": math.nan}, "js_cap is nan"),
        ({"correlation_cap": INF}, "correlation_cap is inf"),
        ({"alpha": -1.0}, "alpha is -1.0; expected a number, 0 or more"),
        ({"beta": math.nan}, "beta is nan"),
        ({"within": "jet"}, "within is 'jet'; expected `class` or `sample`"),
    ],
)
def test_bad_parameters(wrong, message) -> None:
    with pytest.raises(AdvtagError, match=message):
        Conserv(FREE, **wrong)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"bins": 0}, {"candidates": 0}, {"step": 0.0}, {"js_cap": -1.0}])
def test_bad_parameters_of_the_published_form(wrong) -> None:
    with pytest.raises(AdvtagError, match=f"{next(iter(wrong))} is "):
        ConservReference(FREE, **wrong)


@pytest.mark.parametrize("name", ["wide", "nowhere"])
def test_unknown_integers(sample, name) -> None:
    tagger, inputs, target = sample(5)
    with pytest.raises(AdvtagError, match=f"integers: '{name}' is no integer input of card 'toy'"):
        Conserv(FREE, integers=(name,))(tagger, inputs, target)


def test_no_warnings(sample) -> None:
    tagger, inputs, target = sample(50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Conserv(FREE, js_cap=0.1)(tagger, inputs, target)
        assert repr(Conserv(FREE, seed=3)).endswith("working_point=None, integers=())")
