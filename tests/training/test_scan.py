"""Ranking of inputs, subsets of a card, and a training on one of them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from common.errors import AdvtagError
from models.features import FeatureSet, load_features
from models.inputs import Inputs
from models.tagger import load_tagger
from training.cache import open_cache
from training.columns import Sample
from training.scan import areas, cache_of, growing, ranking, scan, scan_cards, subset

CLASSES = ("b", "bb", "c", "udsg")
DEEPCSV = load_features("deepcsv")


def toy_sample(jets: int, inputs: int, seed: int) -> Sample:
    """Values with many ties, a fifth absent; any number of jets of each class."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(-3, 4, (jets, inputs)).astype(np.float32))
    present = torch.from_numpy(rng.random((jets, inputs)) < 0.8)
    target = torch.from_numpy(rng.integers(0, 4, jets))
    key = torch.arange(jets)
    return Sample(Inputs(values, present, key), target, torch.ones(jets), torch.zeros(jets))


def slow_area(sample: Sample, k: int) -> float:
    """Pair by pair: how often the b jet is above the light jet, an absent entry below all others."""

    def score(jet: int) -> float:
        return float(sample.inputs.values[jet, k]) if sample.inputs.present[jet, k] else float("-inf")

    wins = pairs = 0.0
    for one, b in enumerate(sample.target.tolist()):
        for other, light in enumerate(sample.target.tolist()):
            if b in (0, 1) and light == 3:
                wins += 0.5 if score(one) == score(other) else float(score(one) > score(other))
                pairs += 1
    return wins / pairs


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_the_pairs(seed) -> None:
    sample = toy_sample(60, 4, seed)
    np.testing.assert_allclose(areas(sample, CLASSES), [slow_area(sample, k) for k in range(4)], rtol=1e-12)


def test_areas_without_bb() -> None:
    sample = toy_sample(80, 3, 1)
    target = (sample.target - 1).clamp(min=0)
    merged = Sample(sample.inputs, target, sample.pt, sample.eta)
    assert areas(merged, ("b", "c", "udsg")) == areas(sample, CLASSES)


@pytest.mark.parametrize("missing", [(0, 1), (3,)])
def test_no_ranking_without_b_or_light_jets(missing) -> None:
    sample = toy_sample(60, 4, 1)
    chosen = ~torch.isin(sample.target, torch.tensor(missing))
    fewer = Sample(sample.inputs[chosen], sample.target[chosen], sample.pt[chosen], sample.eta[chosen])
    with pytest.raises(AdvtagError, match="needs b and light jets"):
        areas(fewer, CLASSES)


def test_ranking_by_distance_from_a_guess() -> None:
    """An input that is lower for b tells as much as one that is higher; so does presence alone."""
    rng = np.random.default_rng(1)
    target = rng.integers(0, 4, 4000)
    is_b = target < 2
    noise = rng.normal(size=(4000, 67)).astype(np.float32)
    present = np.ones((4000, 67), bool)
    noise[:, 5] -= 2.0 * is_b
    noise[:, 9] += 1.5 * is_b
    noise[:, 20] = 1
    present[:, 20] = rng.random(4000) < np.where(is_b, 0.8, 0.3)
    inputs = Inputs(torch.from_numpy(noise), torch.from_numpy(present), torch.arange(4000))
    sample = Sample(inputs, torch.from_numpy(target), torch.ones(4000), torch.zeros(4000))
    order = ranking(sample, DEEPCSV, CLASSES)
    assert order[:3] == tuple(DEEPCSV.names[k] for k in (5, 9, 20))
    assert sorted(order) == sorted(DEEPCSV.names)
    found = dict(zip(DEEPCSV.names, areas(sample, CLASSES), strict=True))
    distances = [abs(found[name] - 0.5) for name in order]
    assert distances == sorted(distances, reverse=True)
    assert found[order[0]] < 0.1
    assert found[order[1]] > 0.8


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(67)), st.integers(1, 67))
def test_subset_is_the_card_without_the_rest(order, number) -> None:
    names = [DEEPCSV.names[k] for k in order[:number]]
    card = subset(DEEPCSV, names)
    assert card.names == tuple(name for name in DEEPCSV.names if name in names)
    for feature in card.inputs:
        (whole,) = [other for other in DEEPCSV.inputs if other.name == feature.name]
        assert feature.same_as == tuple(name for name in whole.same_as if name in names)
        same = {"same_as": whole.same_as}
        assert feature.model_copy(update=same) == whole
    # a tagger file holds its card and reads it again
    assert FeatureSet.model_validate(json.loads(card.model_dump_json())) == card
    assert (card.digest == DEEPCSV.digest) == (number == 67)


def test_subset_forgets_a_multiple_of_what_is_left_out() -> None:
    entry = {"branch": "x", "label": "x", "bins": [10, 0, 1]}
    inputs = [{"name": "a", **entry}, {"name": "b", "proportional_to": "a", **entry}, {"name": "c", **entry}]
    card = FeatureSet.model_validate({"name": "toy", "inputs": inputs})
    assert subset(card, ["c", "b"]).inputs[0].proportional_to is None
    assert subset(card, ["b", "a"]).inputs[1].proportional_to == "a"


@pytest.mark.parametrize(("names", "said"), [((), "no input"), (("pt", "nobody"), "'nobody'"), (("pt", "pt"), "'pt'")])
def test_wrong_subsets(names, said) -> None:
    with pytest.raises(AdvtagError, match=f"'deepcsv'.*{said}"):
        subset(DEEPCSV, names)


def test_cards_grow_by_the_order() -> None:
    order = DEEPCSV.names[::-1]
    cards = dict(scan_cards(DEEPCSV, order, (1, 4, 67)))
    assert list(cards) == [1, 4, 67]
    for number, card in cards.items():
        assert set(card.names) == set(order[:number])
    assert [number for number, _ in scan_cards(DEEPCSV, order)] == list(growing(67))
    for wrong in (0, 68):
        with pytest.raises(AdvtagError, match=f"{wrong} of them asked for; expected 1 to 67"):
            list(scan_cards(DEEPCSV, order, (wrong,)))


@pytest.mark.parametrize("inputs", [1, 2, 4, 67, 300])
def test_numbers_grow_from_one_to_all(inputs) -> None:
    numbers = growing(inputs)
    assert numbers[0] == 1
    assert numbers[-1] == inputs
    assert list(numbers) == sorted(set(numbers))
    assert len(numbers) <= 10


@pytest.fixture(scope="module")
def small(shared_workplace):
    cache = open_cache(shared_workplace.columns)
    return cache, cache_of(cache, subset(cache.features, ["noise", "lifetime"]))


def test_cached_jets_have_the_inputs_of_the_subset(small) -> None:
    whole, some = small
    assert some.features.names == ("lifetime", "noise")
    assert some.digest != whole.digest
    for mine, theirs in ((some.train, whole.train), (some.validation, whole.validation)):
        assert len(mine) == len(theirs)
        sample, expected = mine.read(3, 60), theirs.read(3, 60)
        assert torch.equal(sample.inputs.values, expected.inputs.values[:, [0, 3]])
        assert torch.equal(sample.inputs.present, expected.inputs.present[:, [0, 3]])
        assert torch.equal(sample.inputs.key, expected.inputs.key)
        assert torch.equal(sample.weight, expected.weight)
        assert torch.equal(sample.target, expected.target)
        assert sum(len(chunk) for chunk in mine.chunks(100)) == len(theirs)
        assert all(chunk.inputs.values.shape[1] == 2 for chunk in mine.chunks(100))


def test_scan_trains_on_growing_inputs(shared_workplace) -> None:
    """Areas of the taggers that it leaves behind, and the same page again when there is nothing left to train."""
    analysis = shared_workplace.analysis({"t": {"attack": "fgsm", "epochs": 1, "learning_rate": 3e-3}})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = scan(analysis, "t", (1, 2), progress=False)
    written = path.read_bytes()
    page = json.loads(written)
    cache = open_cache(shared_workplace.columns)
    jets = cache.validation.read(0, len(cache.validation))
    order = ranking(jets, cache.features, cache.classes)
    assert (page["attack"], page["epochs"]) == ("fgsm", 1)
    assert [(point["inputs"], point["added"]) for point in page["points"]] == [(1, [order[0]]), (2, [order[1]])]
    chosen = jets.target.numpy() != 2
    for number, point in zip((1, 2), page["points"], strict=True):
        card = subset(cache.features, order[:number])
        tagger = load_tagger(path.parent / f"t_{number:04d}.safetensors", card)
        columns = [cache.features.names.index(name) for name in card.names]
        p = tagger(jets.inputs.values[:, columns], jets.inputs.present[:, columns]).softmax(1).numpy()
        score = (p[:, :2].sum(1) / (p[:, :2].sum(1) + p[:, 3]))[chosen]
        expected = roc_auc_score(jets.target.numpy()[chosen] != 3, score, sample_weight=jets.weight.numpy()[chosen])
        assert point["auc"]["raw"]["BvsL"] == pytest.approx(expected, abs=5e-4)  # of a histogram
        assert point["auc"]["fgsm"]["BvsL"] < point["auc"]["raw"]["BvsL"]
    assert scan(analysis, "t", (1, 2), progress=False).read_bytes() == written
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "settings"), [("nobody", {}), ("t", {"evaluate_with": []})])
def test_nothing_to_scan(shared_workplace, name, settings) -> None:
    analysis = shared_workplace.analysis({"t": settings})
    with pytest.raises(AdvtagError, match=f"needs a training with `evaluate_with`; no such '{name}' among: t"):
        scan(analysis, name, progress=False)
