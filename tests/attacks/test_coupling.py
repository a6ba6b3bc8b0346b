"""Entries that are one quantity, or a multiple of another, move together: toy cards, the DeepCSV card, real jets."""

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from attacks import FGSM, Attack, Budget, GaussianNoise
from attacks.coupling import coupling_of
from attacks.gradient import input_gradient
from models.features import FeatureSet, load_features
from models.inputs import Inputs
from tests.attacks.conftest import COUPLED, INF, line
from tests.conftest import NANO

NAMES = COUPLED.names
PLAIN = FeatureSet(
    name="plain",
    inputs=tuple(feature.model_copy(update={"same_as": (), "proportional_to": None}) for feature in COUPLED.inputs),
)
MULTIPLES = {"multiple": "a", "another": "a", "of_count": "count"}


def followed(inputs: Inputs, jet: int) -> dict[str, str | None]:
    """What each coupled entry of one jet follows, in the words of the card."""

    def there(name: str) -> bool:
        return bool(inputs.present[jet, NAMES.index(name)])

    def at(name: str) -> float:
        return float(inputs.values[jet, NAMES.index(name)])

    found: dict[str, str | None] = {}
    for name, sources in (("same", ["a", "b"]), ("alias", ["b"])):
        matches = [source for source in sources if there(name) and there(source) and at(source) == at(name)]
        found[name] = matches[0] if matches else None
    for name, source in MULTIPLES.items():
        can = there(name) and there(source) and at(source) != 0
        found[name] = source if can else None
    return found


@pytest.fixture(scope="module")
def taggers(make_tagger):
    """The same tagger, with the couplings and without."""
    scales = {"core": [0.5] * 8 + [0.0, 1.0]}
    return [make_tagger(features=card, scales=scales, dtype=torch.float64) for card in (COUPLED, PLAIN)]


def slow_interval(tagger, plain, inputs: Inputs, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """The plain budget, then the intersection of what an entry and all its followers allow, jet by jet."""
    alone = budget.interval(plain, inputs)
    low, high, x = (tensor.clone().numpy() for tensor in (alone.low, alone.high, inputs.values))
    for jet in range(len(inputs)):
        sources = followed(inputs, jet)
        for name in MULTIPLES:
            k = NAMES.index(name)
            if sources[name] is None:
                low[jet, k] = high[jet, k] = x[jet, k]
        for name, source in sources.items():
            if source is None or (name in MULTIPLES and x[jet, NAMES.index(name)] == 0):
                continue  # 0 times something is 0 wherever that goes
            k, s = NAMES.index(name), NAMES.index(source)
            ends = sorted(
                x[jet, s] * end / x[jet, k] if name in MULTIPLES else end for end in (low[jet, k], high[jet, k])
            )
            low[jet, s], high[jet, s] = max(low[jet, s], ends[0]), min(high[jet, s], ends[1])
    return np.minimum(low, x), np.maximum(high, x)


@given(data=st.data(), epsilon=st.sampled_from([0.0, 0.01, 0.3, 50.0, INF]), capped=st.booleans())
@settings(max_examples=200, deadline=None)
def test_interval_is_the_slow_one(taggers, jets_of, data, epsilon, capped) -> None:
    inputs = data.draw(jets_of(COUPLED))
    budget = Budget(epsilon=epsilon, capped=capped, scale=data.draw(st.sampled_from(["std", "core"])))
    found = budget.interval(taggers[0], inputs)
    low, high = slow_interval(*taggers, inputs, budget)
    np.testing.assert_allclose(found.low, low, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.high, high, rtol=1e-12, atol=0)
    assert ((found.low <= inputs.values) & (inputs.values <= found.high)).all()
    alone = budget.interval(taggers[1], inputs)
    assert ((alone.low <= found.low) & (found.high <= alone.high)).all()
    for jet in range(len(inputs)):
        for name, source in followed(inputs, jet).items():
            k = NAMES.index(name)
            assert not (source and found.free[jet, k])
            stuck = source and found.low[jet, k] == found.high[jet, k] and inputs.values[jet, k] != 0
            # not even by a rounding
            assert not (stuck and found.free[jet, NAMES.index(source)])
    others = [NAMES.index(name) for name in NAMES if name not in ("same", "alias", *MULTIPLES)]
    assert torch.equal(found.free[:, others], (found.low < found.high)[:, others])


@given(data=st.data(), epsilon=st.sampled_from([0.01, 0.3, 50.0]), capped=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_projected_entries_move_together(taggers, jets_of, data, epsilon, capped, seed) -> None:
    inputs = data.draw(jets_of(COUPLED))
    interval = Budget(epsilon=epsilon, capped=capped).interval(taggers[0], inputs)
    move = torch.randn(inputs.values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = interval.project(inputs.values + 2 * epsilon * move)
    assert torch.equal(interval.project(found), found)
    alone = Budget(epsilon=epsilon, capped=capped).interval(taggers[1], inputs)
    assert ((alone.low <= found) & (found <= alone.high)).all()
    assert torch.equal(interval.project(inputs.values), inputs.values)
    assert_together(inputs, found)


def assert_together(inputs: Inputs, found: torch.Tensor) -> None:
    for jet in range(len(inputs)):
        x, moved = inputs.values[jet].tolist(), found[jet].tolist()
        for name, source in followed(inputs, jet).items():
            k = NAMES.index(name)
            if name in MULTIPLES and source is None:
                assert moved[k] == x[k]
            if source is None:
                continue
            s = NAMES.index(source)
            if name in MULTIPLES:
                assert moved[k] == pytest.approx(x[k] * (moved[s] / x[s]), rel=1e-14)
                assert moved[s] != x[s] or moved[k] == x[k]
            else:
                assert moved[k] == moved[s]


@pytest.mark.parametrize("kind", [FGSM, GaussianNoise])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attacked_jets_keep_their_equalities_bit_by_bit(make_tagger, make_jets, kind, dtype) -> None:
    tagger = make_tagger(features=COUPLED, dtype=dtype, sharp=40)
    inputs, target = make_jets(400, COUPLED, dtype=dtype)
    found = kind(Budget(epsilon=0.2))(tagger, inputs, target).values
    counted = dict.fromkeys(("a", "b", "alias", "multiple", "another"), 0)
    for jet in range(len(inputs)):
        x, moved = inputs.values[jet], found[jet]
        for name, source in followed(inputs, jet).items():
            if source is None:
                continue
            k, s = NAMES.index(name), NAMES.index(source)
            if name in MULTIPLES:
                assert float(moved[k]) == pytest.approx(float(x[k] * (moved[s] / x[s])), rel=4e-7)
            else:
                assert moved[k] == moved[s]
                assert moved[k] - x[k] == moved[s] - x[s]
            key = source if name == "same" else name
            if moved[s] != x[s] and key in counted:
                counted[key] += 1
    assert min(counted.values()) > 15, counted  # each kind was met, and had moved


def entries(**rows) -> Inputs:
    """One jet: value, or None where absent."""
    values = torch.tensor([[rows.get(name) or 0.0 for name in NAMES]], dtype=torch.float64)
    return Inputs(values, torch.tensor([[rows.get(name) is not None for name in NAMES]]), torch.arange(1))


@pytest.mark.parametrize(
    ("rows", "source"),
    [
        ({"a": 2.0, "b": 2.0, "same": 2.0}, "a"),
        ({"a": 1.0, "b": 2.0, "same": 2.0}, "b"),
        ({"a": None, "b": 2.0, "same": 2.0}, "b"),
        ({"a": None, "b": None, "same": 0.0}, "same"),  # an absent entry holds 0, too
        ({"a": 0.0, "b": None, "same": None}, "same"),
        ({"a": 0.0, "b": None, "same": 0.0}, "a"),
        ({"a": 1.0, "b": 2.0, "same": 1.0 + 1e-12}, "same"),
    ],
    ids=str,
)
def test_the_first_that_matches_wins_and_nothing_absent_does(rows, source) -> None:
    coupling, _ = coupling_of(COUPLED, entries(**rows))
    place = coupling.columns.tolist().index(NAMES.index("same"))
    assert NAMES[coupling.source[0, place]] == source


@pytest.mark.parametrize(
    ("rows", "stuck"),
    [
        ({"a": 2.0, "multiple": -3.0}, False),
        ({"a": -2.0, "multiple": 3.0}, False),
        ({"a": 0.0, "multiple": 3.0}, True),
        ({"a": None, "multiple": 3.0}, True),
        ({"a": 2.0, "multiple": None}, True),
        ({"a": 2.0, "multiple": 0.0}, True),
    ],
    ids=str,
)
def test_multiples_of_nothing_are_frozen(taggers, rows, stuck) -> None:
    inputs = entries(**rows)
    a, k = NAMES.index("a"), NAMES.index("multiple")
    interval = Budget(epsilon=0.05).interval(taggers[0], inputs)
    found = interval.project(inputs.values + 0.01)
    assert (found[0, k] == inputs.values[0, k]) == stuck
    # what nobody follows is free of the cap of its multiple
    assert interval.free[0, a] == (rows["a"] is not None)


def test_followers_by_hand(make_tagger) -> None:
    """a moves at most 1 by epsilon; `multiple` = 2 a by its cap of 10 %, `another` = -a/2 down to -2 by its range."""
    tagger = make_tagger(features=COUPLED, mean=[0.0] * 10, std=[1.0] * 10, dtype=torch.float64)
    inputs = entries(a=3.0, multiple=6.0, another=-1.5)
    interval = Budget(epsilon=1.0).interval(tagger, inputs)
    assert (float(interval.low[0, 0]), float(interval.high[0, 0])) == pytest.approx((2.7, 3.3))
    found = interval.project(inputs.values + 10)[0]
    assert [float(found[k]) for k in (0, 4, 5)] == pytest.approx([3.3, 6.6, -1.65])
    uncapped = Budget(epsilon=1.0, capped=False).interval(tagger, inputs)
    assert (float(uncapped.low[0, 0]), float(uncapped.high[0, 0])) == pytest.approx((2.5, 3.5))
    inputs = entries(a=3.0, another=-1.9)
    interval = Budget(epsilon=1.0, capped=False).interval(tagger, inputs)
    assert (float(interval.low[0, 0]), float(interval.high[0, 0])) == pytest.approx((2.0, 3 * 2 / 1.9))
    # outside its range a follower may only move back, and so may what it follows
    inputs = entries(a=5.0, another=2.5)
    interval = Budget(epsilon=1.0, capped=False).interval(tagger, inputs)
    assert (float(interval.low[0, 0]), float(interval.high[0, 0])) == (4.0, 5.0)


def test_a_follower_that_stays_holds_what_it_follows(make_tagger, make_jets) -> None:
    """Exactly: x (y'/y) = x for the interval's y', although rounding could leave room for one more digit."""
    for rules in ({"frozen": True}, {"integer": True}, {"cap": 0.0}, {"pinned": (1.5,)}):
        card = FeatureSet(name="t", inputs=(line("y"), line("x", proportional_to="y", **rules), line("free")))
        tagger = make_tagger(features=card, dtype=torch.float64)
        inputs, target = make_jets(500, 3, dtype=torch.float64)
        if "pinned" in rules:
            inputs.values[:, 1] = 1.5
        both = inputs.present[:, 0] & inputs.present[:, 1] & (inputs.values[:, :2] != 0).all(1)
        found = FGSM(Budget(epsilon=0.1))(tagger, inputs, target).values
        assert torch.equal(found[both, 0], inputs.values[both, 0])
        assert (found[~both & inputs.present[:, 0], 0] != inputs.values[~both & inputs.present[:, 0], 0]).any()
        assert torch.equal(found[:, 1], inputs.values[:, 1])


def test_no_coupling_where_the_card_has_none(make_tagger, make_jets) -> None:
    tagger, (inputs, _) = make_tagger(), make_jets(5)
    assert Budget(epsilon=0.1).interval(tagger, inputs).coupling is None
    assert coupling_of(tagger.features, inputs) == (None, None)


def test_gradient_through_the_coupling_by_finite_differences(make_tagger, make_jets) -> None:
    tagger = make_tagger(features=COUPLED, dtype=torch.float64, sharp=40)
    inputs, target = make_jets(40, COUPLED, dtype=torch.float64)
    interval = Budget(epsilon=0.1).interval(tagger, inputs)
    values = interval.project(inputs.values + 0.02)

    def loss(values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return cross_entropy(tagger(values, inputs.present), target, reduction="none")

    gradient, losses = input_gradient(tagger, inputs, target, interval, values)
    torch.testing.assert_close(losses, loss(values), rtol=1e-12, atol=0)
    # the slope in one entry alone, then that of all that move with it
    alone = torch.zeros_like(values)
    for k in range(len(COUPLED)):
        step = torch.zeros_like(values)
        step[:, k] = 1e-6
        alone[:, k] = (loss(values + step) - loss(values - step)) / 2e-6
    met = 0
    for jet in range(len(inputs)):
        expected = alone[jet].clone()
        for name, source in followed(inputs, jet).items():
            if source is None:
                continue
            k, s = NAMES.index(name), NAMES.index(source)
            slope = inputs.values[jet, k] / inputs.values[jet, s] if name in MULTIPLES else 1
            expected[s] += slope * alone[jet, k]
            expected[k] = 0
            met += abs(float(alone[jet, k])) > 1e-3
        torch.testing.assert_close(gradient[jet], expected, rtol=1e-4, atol=1e-7)
    assert met > 20


def test_fgsm_follows_the_sum_of_both_slopes(make_tagger) -> None:
    """`same` pulls harder the other way: what is good for `a` alone is not what is done."""
    tagger = make_tagger(features=COUPLED, mean=[0.0] * 10, std=[1.0] * 10, hidden=1, dropout=0.0, dtype=torch.float64)
    with torch.no_grad():
        for parameter in tagger.network.parameters():
            parameter.zero_()
        tagger.network.layers[0].weight[0, :3] = torch.tensor([1.0, 0.0, -3.0])
        tagger.network.layers[0].bias[0] = 10
        tagger.network.layers[-1].weight[0, 0] = 1.0
    target = torch.tensor([3])  # the loss rises with the logit of b
    together, apart = entries(a=1.0, same=1.0), entries(a=1.0, same=1.5)
    found = FGSM(Budget(epsilon=0.1))(tagger, together, target).values[0]
    assert found[[0, 2]].tolist() == pytest.approx([0.9, 0.9])
    found = FGSM(Budget(epsilon=0.1))(tagger, apart, target).values[0]
    assert found[[0, 2]].tolist() == pytest.approx([1.1, 1.4])


def make_card(*inputs) -> FeatureSet:
    return FeatureSet(name="t", inputs=inputs)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([line("a"), line("b", same_as="c")], "'b' follows 'c', which is no input"),
        ([line("a"), line("b", same_as=("a", "c"))], "'b' follows 'c', which is no input"),
        ([line("a"), line("b", proportional_to="c")], "'b' follows 'c', which is no input"),
        ([line("a"), line("b", same_as="a"), line("c", same_as="b")], "'c' follows 'b', which itself follows another"),
        ([line("a", same_as="b"), line("b", proportional_to="c"), line("c")], "'a' follows 'b', which itself"),
        ([line("a", same_as="b"), line("b", same_as="a")], "which itself follows another"),
        ([line("a", same_as="a")], "'a' follows 'a', which itself follows another"),
    ],
)
def test_unknown_names_and_chains_are_refused(inputs, said) -> None:
    with pytest.raises(ValidationError, match=said):
        make_card(*inputs)


def test_two_rules_for_one_entry_are_refused() -> None:
    with pytest.raises(ValidationError, match="'b': give `same_as` or `proportional_to`, not both"):
        line("b", same_as="a", proportional_to="c")


# --- the DeepCSV card

DEEPCSV = load_features("deepcsv")
RATIO = DEEPCSV.names.index("vertexEnergyRatio")
SIGNIFICANCES = {
    DEEPCSV.names.index(f"trackSip{d}SigAboveCharm"): [DEEPCSV.names.index(f"trackSip{d}Sig_{k}") for k in range(6)]
    for d in ("2d", "3d")
}


def test_only_the_significances_above_charm_follow_and_only_the_ratio_is_pinned() -> None:
    followers = {k: feature.same_as for k, feature in enumerate(DEEPCSV.inputs) if feature.same_as}
    assert followers == {k: tuple(DEEPCSV.names[s] for s in sources) for k, sources in SIGNIFICANCES.items()}
    assert [k for k, feature in enumerate(DEEPCSV.inputs) if feature.pinned] == [RATIO]
    assert DEEPCSV.inputs[RATIO].pinned == (1.0,)
    assert not any(feature.proportional_to or feature.frozen for feature in DEEPCSV.inputs)


@pytest.fixture(scope="module")
def real_jets() -> Inputs:
    """The jets of the real PFNano file, by a few lines of uproot: the rules of PFNano written out once more.

    None of its 17 vertices holds all tracks; six of them are said to.
    """
    with uproot.open(NANO / "pfnano.root") as file:
        tree = file["Events"]
        flat = {b: ak.to_numpy(ak.flatten(tree[b].array())) for f in DEEPCSV.inputs for b in f.branch}
    values = np.stack([flat[feature.branch[0]].astype(np.float64) for feature in DEEPCSV.inputs], 1)
    present = np.isfinite(values) & (values != -999)
    for k, feature in enumerate(DEEPCSV.inputs):
        rule = feature.present
        if rule is not None and rule.above is not None:
            above = feature.slot if rule.above == "slot" else rule.above
            present[:, k] &= values[:, DEEPCSV.names.index(rule.branch.removeprefix("Jet_DeepCSV_"))] > above
        elif rule is not None:
            category = values[:, DEEPCSV.names.index("vertexCategory")]
            present[:, k] &= np.isin(category, rule.one_of)
        if feature.name.endswith("AboveCharm"):
            present[:, k] &= values[:, k] != -1
    values[np.flatnonzero(present[:, RATIO])[:6], RATIO] = 1
    present = torch.from_numpy(present)
    values = torch.where(present, torch.from_numpy(values), 0)
    return Inputs(values, present, torch.arange(len(values)))


@pytest.mark.parametrize("kind", [FGSM, GaussianNoise])
def test_real_jets(make_tagger, real_jets, kind: type[Attack]) -> None:
    tagger = make_tagger(features=DEEPCSV, dtype=torch.float64, sharp=40)
    x, there = real_jets.values, real_jets.present
    target = torch.arange(len(x)) % 4
    found = kind(Budget(epsilon=0.05))(tagger, real_jets, target).values
    met = 0
    for k, sources in SIGNIFICANCES.items():
        for jet in range(len(x)):
            same = [s for s in sources if there[jet, k] and there[jet, s] and x[jet, s] == x[jet, k]]
            if same:
                met += bool(found[jet, k] != x[jet, k])
                assert found[jet, k] == found[jet, same[0]]
    assert met > 10
    pinned = there[:, RATIO] & (x[:, RATIO] == 1)
    assert pinned.sum() == 6
    assert torch.equal(found[pinned, RATIO], x[pinned, RATIO])
    free = there[:, RATIO] & ~pinned
    assert (found[free, RATIO] != x[free, RATIO]).all()
    assert free.sum() == 11


def test_the_card_can_let_them_go(make_tagger, real_jets) -> None:
    """Without `same_as` the two copies part ways: the coupling is what holds them together."""
    loose = DEEPCSV.model_copy(
        update={"inputs": tuple(feature.model_copy(update={"same_as": ()}) for feature in DEEPCSV.inputs)}
    )
    tagger = make_tagger(features=loose, dtype=torch.float64, sharp=40)
    found = FGSM(Budget(epsilon=0.05))(tagger, real_jets, torch.arange(len(real_jets)) % 4).values
    apart = 0
    for k, sources in SIGNIFICANCES.items():
        for s in sources:
            same = real_jets.present[:, k] & real_jets.present[:, s]
            same &= real_jets.values[:, s] == real_jets.values[:, k]
            apart += int((found[same, k] != found[same, s]).sum())
    assert apart > 5
