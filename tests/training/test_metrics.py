"""Areas, mistag rates and fooling ratios against scikit-learn and against loops."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from attacks.success import WorkingPoint
from models.discriminators import discriminators
from training.metrics import (
    RocHistogram,
    fooling_ratios,
    performance,
    roc_histograms,
    susceptibility,
    working_points,
)

CLASSES = ("b", "bb", "c", "udsg")
B, BB, C, LIGHT = range(4)


def beta(rng, truth):
    return np.where(truth, rng.beta(4, 1.2, len(truth)), rng.beta(0.7, 4, len(truth)))


def confident(rng, truth):
    """Piles up at 0 and, in float32, on 1 exactly."""
    return 1 / (1 + np.exp(-np.where(truth, 9, -9) - 9 * rng.normal(size=len(truth))))


def tied(rng, truth):
    return beta(rng, truth).round(2)


def undefined(rng, truth):
    return np.where(rng.random(len(truth)) < 0.05, -1, beta(rng, truth))


def blind(rng, truth):
    return rng.random(len(truth))


def toy(shape, dtype=torch.float32, number=200_000, seed=0):
    """Scores, true classes (b or udsg) and weights."""
    rng = np.random.default_rng(seed)
    truth = rng.random(number) < 0.3
    score = torch.from_numpy(np.asarray(shape(rng, truth), dtype=np.float64)).to(dtype)
    target = torch.from_numpy(np.where(truth, B, LIGHT))
    return score, target, torch.from_numpy(rng.gamma(1, 1, number))


def fill(score, target, weight=None, discriminator="BvsL") -> RocHistogram:
    return RocHistogram.fill(torch.as_tensor(score), torch.as_tensor(target), CLASSES, discriminator, weight)


SHAPES = [beta, confident, tied, undefined, blind]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_area_and_mistag_rate_against_sklearn(shape, dtype) -> None:
    score, target, weight = toy(shape, dtype)
    for w in (None, weight):
        found = fill(score, target, w)
        area = roc_auc_score(target == B, score, sample_weight=w)
        assert found.auc() == pytest.approx(area, abs=1e-5)
        mistag, efficiency, _ = roc_curve(target == B, score, sample_weight=w, drop_intermediate=False)
        for wanted in (0.3, 0.8, 0.93):
            expected = np.interp(wanted, efficiency, mistag)
            # single jets weigh up to 2e-4 here, the statistical error is 1e-3
            assert found.mistag_at_efficiency(wanted) == pytest.approx(expected, abs=4e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_rates_at_a_threshold_against_counting(shape) -> None:
    score, target, weight = toy(shape)
    found = fill(score, target, weight)
    for threshold in (0.0, 1e-3, 0.1, 0.5, 0.77, 0.999, 1.0, 1.1):
        for rate, code in ((found.efficiency, B), (found.mistag, LIGHT)):
            jets = target == code
            expected = float(weight[jets & (score >= threshold)].sum() / weight[jets].sum())
            # a threshold inside a bin cuts the jets of one tied value in parts: at 0.1 and 0.77 they are one bin
            tolerance = 0.03 if shape is tied and threshold not in (0, 0.5, 1, 1.1) else 1e-4
            assert rate(threshold) == pytest.approx(expected, abs=tolerance)
    if shape is undefined:
        assert found.efficiency(0.0) < 0.96
    if shape is confident:
        assert found.efficiency(1.0) > 0.1


@pytest.mark.parametrize("shape", [beta, confident, undefined, blind])
@pytest.mark.parametrize("wanted", [0.05, 0.5, 0.8, 0.94])
def test_threshold_has_its_efficiency(shape, wanted) -> None:
    score, target, _ = toy(shape)
    found = fill(score, target)
    threshold = found.threshold_at_efficiency(wanted)
    signal = score[target == B]
    expected = float((signal >= threshold).float().mean())
    if shape is confident and wanted == 0.05:  # more than that are 1 exactly
        assert threshold == 1
        assert expected == pytest.approx(found.efficiency(1.0), abs=1e-6)
        assert expected > wanted
    else:
        assert expected == pytest.approx(wanted, abs=2e-4)
        assert found.efficiency(threshold) == pytest.approx(wanted, abs=1e-9)
        assert found.mistag(threshold) == pytest.approx(found.mistag_at_efficiency(wanted), abs=1e-9)


def test_efficiency_that_no_cut_reaches() -> None:
    """Signal 0.9, 0, undefined, undefined: a cut keeps half of it at most."""
    found = fill([0.9, 0.0, -1.0, -1.0, 0.5, 0.0], [B, B, B, BB, LIGHT, LIGHT])
    assert found.threshold_at_efficiency(0.25) == pytest.approx(0.9, abs=1e-3)
    assert found.mistag_at_efficiency(0.25) == 0
    assert found.threshold_at_efficiency(0.5) == 0
    assert found.mistag_at_efficiency(0.5) == 1
    assert found.threshold_at_efficiency(0.51) is found.mistag_at_efficiency(0.51) is None
    assert found.auc() == pytest.approx(roc_auc_score([1, 1, 1, 1, 0, 0], [0.9, 0, -1, -1, 0.5, 0]))


def test_all_of_the_signal() -> None:
    found = fill([0.2, 0.9, 0.3, 0.1], [B, B, LIGHT, LIGHT], torch.tensor([0.1, 0.2, 0.3, 0.7]))
    assert found.threshold_at_efficiency(1.0) == pytest.approx(0.2, abs=1e-3)
    assert found.mistag_at_efficiency(1.0) == pytest.approx(0.3)


def test_all_of_the_signal_whatever_the_rounding_of_its_sum() -> None:
    for seed in range(30):
        score, target, weight = toy(beta, number=300, seed=seed)
        found = fill(score, target, weight)
        lowest = float(score[target == B].min())
        assert found.threshold_at_efficiency(1.0) == pytest.approx(lowest, rel=0.005)


@pytest.mark.parametrize("efficiency", [0.0, -0.1, 1.1, float("nan")])
def test_efficiencies_are_parts(efficiency) -> None:
    with pytest.raises(ValueError, match="above 0"):
        fill([0.2, 0.9], [LIGHT, B]).threshold_at_efficiency(efficiency)


@pytest.mark.parametrize("score", [1.01, -0.5, float("nan"), float("inf")])
def test_scores_that_are_none(score) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        fill([0.5, score], [B, LIGHT])


@pytest.mark.parametrize("target", [[B, B, C], [LIGHT, LIGHT, C], [C, C, C]])
def test_a_class_that_never_occurs(target) -> None:
    found = fill([0.2, 0.5, 0.9], target)
    numbers = (found.auc(), found.efficiency(0.5), found.mistag(0.5), found.mistag_at_efficiency(0.8))
    assert {*numbers, found.threshold_at_efficiency(0.8)} == {None}
    assert fill(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).auc() is None


def test_weights_keep_their_sign() -> None:
    """Against all pairs of jets; with a sum that is not positive nothing is defined."""
    rng = np.random.default_rng(0)
    target = rng.choice([B, BB, C, LIGHT], 60)
    score = (rng.random(60) + (target <= BB)).clip(0, 1.5) / 1.5
    weight = rng.choice([-1.0, 1.0, 2.0], 60)
    area, total = 0.0, 0.0
    for i in np.flatnonzero(target <= BB):
        for j in np.flatnonzero(target == LIGHT):
            area += weight[i] * weight[j] * (1.0 if score[i] > score[j] else 0.5 * (score[i] == score[j]))
            total += weight[i] * weight[j]
    assert fill(score, target, torch.from_numpy(weight)).auc() == pytest.approx(area / total)
    weight[target == LIGHT] -= 2
    assert fill(score, target, torch.from_numpy(weight)).auc() is None


scores = st.floats(0, 1, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 0.5])
jet = st.tuples(scores, st.integers(0, 3), st.integers(1, 5))


@settings(max_examples=60, deadline=None)
@given(st.lists(jet, max_size=30), st.integers(0, 30), st.integers(0, 30), st.randoms(use_true_random=False))
def test_parts_add_up(jets, first, second, random) -> None:
    """In any grouping and any order of jets; and a jet of weight 2 is two jets."""

    def of(some) -> RocHistogram:
        columns = [
            torch.tensor([entry[k] for entry in some], dtype=(torch.float64, torch.int64)[k == 1]) for k in (0, 1, 2)
        ]
        return fill(*columns)

    first, second = sorted((first, second))
    a, b, c = (of(part) for part in (jets[:first], jets[first:second], jets[second:]))
    whole = of(jets).content
    assert np.array_equal(((a + b) + c).content, whole)
    assert np.array_equal((a + (b + c)).content, whole)
    assert np.array_equal((c + a + b).content, whole)
    assert np.array_equal(of(random.sample(jets, len(jets))).content, whole)
    assert np.array_equal(of([(s, t, 1) for s, t, w in jets for _ in range(w)]).content, whole)
    assert whole.sum() == sum(w for _, t, w in jets if t != C)
    signal = [(s, w) for s, t, w in jets if t in (B, BB)]
    light = [(s, w) for s, t, w in jets if t == LIGHT]
    area = of(jets).auc()
    assert (area is None) == (not signal or not light)
    if area is not None:
        assert 0 <= area <= 1
        rates = of(jets).efficiency(0.5), of(jets).mistag(0.5)
        for rate, some in zip(rates, (signal, light), strict=True):
            assert rate == pytest.approx(sum(w for s, w in some if s >= 0.5) / sum(w for _, w in some))


def tagged_toy(number: int = 3000, seed: int = 0, classes=CLASSES):
    """Logits that know the truth, others that know less, true classes and weights."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, len(classes), (number,), generator=generator)
    truth = torch.nn.functional.one_hot(target, len(classes))
    noise = torch.randn(2, number, len(classes), generator=generator)
    weight = torch.rand(number, generator=generator) + 0.1
    return 3 * truth + noise[0], 1.5 * truth + noise[0] + 0.5 * noise[1], target, weight


@pytest.mark.parametrize("classes", [CLASSES, ("b", "c", "udsg")])
def test_performance_of_all_discriminators(classes) -> None:
    clean, attacked, target, weight = tagged_toy(20_000, classes=classes)
    pairs = {"BvsL": ("b bb", "udsg"), "BvsC": ("b bb", "c"), "CvsL": ("c", "udsg"), "CvsB": ("c", "b bb")}
    raw, moved = ({"loss": z[:, 0], **discriminators(z.softmax(1), classes)} for z in (clean, attacked))
    raw_histograms, moved_histograms = (roc_histograms(scores, target, classes, weight) for scores in (raw, moved))
    thresholds = working_points(raw_histograms, 0.7)
    found = performance(moved_histograms, thresholds, 0.7)
    assert list(found) == list(pairs)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    names = np.array(classes)[target.numpy()]
    for name, (signal, background) in pairs.items():
        is_signal, is_background = (np.isin(names, group.split()) for group in (signal, background))
        used, score, w = is_signal | is_background, moved[name].numpy(), weight.numpy()
        area = roc_auc_score(is_signal[used], score[used], sample_weight=w[used])
        assert found[name]["auc"] == pytest.approx(area, abs=1e-5)
        curve = roc_curve(is_signal[used], score[used], sample_weight=w[used], drop_intermediate=False)
        assert found[name]["mistag_at_efficiency"] == pytest.approx(np.interp(0.7, curve[1], curve[0]), abs=1e-3)
        threshold = found[name]["threshold"]
        tagged = raw[name].numpy() >= threshold
        assert w[tagged & is_signal].sum() / w[is_signal].sum() == pytest.approx(0.7, abs=5e-4)
        for rate, jets in (("efficiency", is_signal), ("mistag", is_background)):
            expected = w[jets & (score >= threshold)].sum() / w[jets].sum()
            assert found[name][rate] == pytest.approx(expected, abs=5e-4)
        assert found[name]["efficiency"] < 0.6


def test_performance_without_a_threshold() -> None:
    clean, _, target, _ = tagged_toy(100)
    histograms = roc_histograms(discriminators(clean.softmax(1), CLASSES), target.clamp(max=C), CLASSES)
    thresholds = working_points(histograms)
    assert thresholds["BvsL"] is thresholds["CvsL"] is None
    assert thresholds["BvsC"] is not None
    found = performance(histograms, thresholds)
    assert set(found["BvsL"].values()) == {None}
    assert found["BvsC"]["efficiency"] == pytest.approx(0.8)


def slow_fooling(clean, attacked, target, weight, cut=None):
    """Jet by jet; `cut` is (discriminator, threshold)."""
    flavour = {B: "b", BB: "b", C: "c", LIGHT: "udsg"}

    def right(logits, truth) -> bool:
        b, bb, c, light = logits.softmax(0).tolist()
        if cut is None:
            sums = {"b": b + bb, "c": c, "udsg": light}
            return max(sums, key=sums.get) == flavour[truth]
        sums = {"BvsL": (b + bb, light), "CvsB": (c, b + bb)}[cut[0]]
        return (sums[0] / sum(sums) >= cut[1]) == (flavour[truth] == {"BvsL": "b", "CvsB": "c"}[cut[0]])

    used = {None: (B, BB, C, LIGHT), "BvsL": (B, BB, LIGHT), "CvsB": (C, B, BB)}[cut and cut[0]]
    rows = {name: [0, 0, 0, 0.0, 0.0] for name in ("all", "b", "c", "udsg")}
    for before, after, truth, w in zip(clean, attacked, target.tolist(), weight.tolist(), strict=True):
        for name in ("all", flavour[truth]):
            if truth in used:
                rows[name][0] += 1
                if right(before, truth):
                    rows[name][1] += 1
                    rows[name][3] += w
                    if not right(after, truth):
                        rows[name][2] += 1
                        rows[name][4] += w
    return rows


@pytest.mark.parametrize("cut", [None, ("BvsL", 0.6), ("CvsB", 0.4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_fooling_ratios_against_a_loop(cut, seed) -> None:
    clean, attacked, target, weight = tagged_toy(600, seed)
    point = None if cut is None else WorkingPoint(*cut)
    found = fooling_ratios(clean, attacked, target, CLASSES, weight=weight, working_point=point)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    expected = slow_fooling(clean, attacked, target, weight, cut)
    assert list(found) == list(expected)
    for name, (jets, right, fooled, before, after) in expected.items():
        row = found[name]
        assert (row["jets"], row["right"], row["fooled"]) == (jets, right, fooled)
        if right:
            assert row["ratio"] == pytest.approx(fooled / right)
            assert row["weighted_ratio"] == pytest.approx(after / before)
            assert row["ratio"] != pytest.approx(row["weighted_ratio"])
        else:
            assert row["ratio"] is row["weighted_ratio"] is None
    assert 0.05 < found["all"]["ratio"] < 0.6
    unweighted = fooling_ratios(clean, attacked, target, CLASSES, working_point=point)
    assert unweighted["all"]["weighted_ratio"] == unweighted["all"]["ratio"] == found["all"]["ratio"]


def test_jets_that_become_right_are_not_subtracted() -> None:
    clean, _, target, _ = tagged_toy(500)
    other = clean.roll(1, 0)
    found, back = (fooling_ratios(*logits, target, CLASSES)["all"] for logits in ((clean, other), (other, clean)))
    assert back["fooled"] > 0
    assert found["right"] - found["fooled"] == back["right"] - back["fooled"]
    assert found["ratio"] == found["fooled"] / found["right"]


def test_weights_without_a_positive_sum() -> None:
    clean = torch.eye(4)[[B, B, LIGHT]]
    weight = torch.tensor([1.0, -3.0, 2.0])
    found = fooling_ratios(clean, clean.roll(1, 0), torch.tensor([B, B, LIGHT]), CLASSES, weight=weight)
    assert (found["b"]["ratio"], found["b"]["weighted_ratio"]) == (0.5, None)
    assert found["udsg"]["weighted_ratio"] == 1
    assert found["all"]["weighted_ratio"] is None


def test_nobody_was_right() -> None:
    clean = torch.zeros(4, 4)
    clean[:, C] = 5
    found = fooling_ratios(clean, -clean, torch.tensor([B, BB, LIGHT, LIGHT]), CLASSES)
    assert {row["ratio"] for row in found.values()} == {None}
    assert {row["weighted_ratio"] for row in found.values()} == {None}
    assert [row["jets"] for row in found.values()] == [4, 2, 0, 2]
    nobody = fooling_ratios(clean[:0], clean[:0], torch.zeros(0, dtype=torch.int64), CLASSES)
    assert nobody["all"] == {"jets": 0, "right": 0, "fooled": 0, "ratio": None, "weighted_ratio": None}


def test_susceptibility() -> None:
    assert susceptibility(0.9, 0.6) == {"difference": pytest.approx(0.3), "ratio": pytest.approx(2 / 3)}
    assert susceptibility(None, 0.6) == susceptibility(0.9, None) == {"difference": None, "ratio": None}
    assert susceptibility(0.0, 0.6)["ratio"] is None
