"""The pt-eta-flavour weights against the published formulas, written as loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AdvtagError
from models.inputs import Inputs
from training.cache import open_cache
from training.columns import Sample
from training.weights import ETA_EDGES, MAX_WEIGHT, PT_EDGES, PtEtaFlavourWeights

forms = pytest.mark.parametrize("form", ["balanced", "flat"])


def sample_of(target, pt, eta, weight) -> Sample:
    number = len(target)
    inputs = Inputs(torch.zeros(number, 1), torch.ones(number, 1).bool(), torch.arange(number), torch.as_tensor(weight))
    return Sample(inputs, torch.as_tensor(target), torch.as_tensor(pt), torch.as_tensor(eta))


class Fitted:
    """Weights fitted to arrays, which they take and give."""

    def __init__(self, target, pt, eta, weight, classes, form="balanced", **settings) -> None:
        self.weights = PtEtaFlavourWeights.fit([sample_of(target, pt, eta, weight)], classes, form, **settings)

    def __call__(self, target, pt, eta) -> np.ndarray:
        found = self.weights(*(torch.as_tensor(array) for array in (target, pt, eta)))
        assert found.dtype == torch.float64
        return found.numpy()


def bin_of(edges: np.ndarray, x: float) -> int:
    """Half-open bins; what lies outside counts in the outermost."""
    found = 0
    for edge in range(len(edges) - 1):
        if x >= edges[edge]:
            found = edge
    return found


def published(target, pt, eta, weight, classes, form) -> np.ndarray:
    """w_f(bin) = mean_f' h_f'(bin) / h_f(bin) * (N / N_f) / sum_f' (N / N_f'), or (N / bins) / n_f(bin), one jet at a
    time, average 1.
    """
    counts: dict[tuple[int, int, int], float] = {}
    place = [(int(f), bin_of(PT_EDGES, p), bin_of(ETA_EDGES, e)) for f, p, e in zip(target, pt, eta, strict=True)]
    for where, w in zip(place, weight, strict=True):
        counts[where] = counts.get(where, 0.0) + w
    number = [sum(n for where, n in counts.items() if where[0] == f) for f in range(classes)]
    total = sum(number)
    weights = []
    for f, i, j in place:
        if form == "flat":
            weights.append(total / 150 / counts[f, i, j])
            continue
        shapes = [counts.get((g, i, j), 0.0) / number[g] for g in range(classes) if number[g] > 0]
        h_f = counts[f, i, j] / number[f]
        balance = (total / number[f]) / sum(total / n for n in number if n > 0)
        weights.append(sum(shapes) / len(shapes) / h_f * balance)
    weights = np.array(weights)
    return weights * sum(weight) / sum(w * v for w, v in zip(weights, weight, strict=True))


def toy(number: int, classes: int, seed: int, *, negative: float = 0.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, number)
    pt = rng.exponential(40 + 30 * target) + rng.uniform(10, 30)
    eta = np.clip(rng.normal(0, 0.8 + 0.3 * target), -2.6, 2.6)
    weight = rng.uniform(0.5, 2, number) * np.where(rng.random(number) < negative, -1, 1)
    return target, pt, eta, weight


@forms
@given(
    number=st.integers(1, 120),
    classes=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_published_formula(form, number, classes, seed) -> None:
    target, pt, eta, weight = toy(number, classes, seed)
    found = Fitted(target, pt, eta, weight, classes, form)(target, pt, eta)
    expected = published(target, pt, eta, weight, classes, form)
    np.testing.assert_allclose(found, np.minimum(expected, MAX_WEIGHT), rtol=1e-9)
    lower = Fitted(target, pt, eta, weight, classes, form, cap=0.9)(target, pt, eta)
    np.testing.assert_allclose(lower, np.minimum(expected, 0.9), rtol=1e-9)


@forms
@given(number=st.integers(2, 300), seed=st.integers(0, 10_000), negative=st.sampled_from([0.0, 0.1, 0.4]))
@settings(max_examples=60, deadline=None)
def test_weights_are_finite_and_average_one(form, number, seed, negative) -> None:
    target, pt, eta, weight = toy(number, 4, seed, negative=negative)
    weight[0] = number  # the sum of generator weights of a physical sample is positive
    found = Fitted(target, pt, eta, weight, 4, form, cap=np.inf)(target, pt, eta)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found * weight).sum() / weight.sum() == pytest.approx(1)


def test_classes_get_equal_totals_and_spectra() -> None:
    rng = np.random.default_rng(3)
    target = rng.choice(4, 40_000, p=[0.5, 0.1, 0.2, 0.2])
    pt = rng.triangular(10, 20 + 20 * target, 110).clip(20, 105.9)
    eta = rng.uniform(-2.5, 2.5, 40_000) * rng.uniform(0.3, 1, 40_000) ** (target / 3)
    weight = rng.uniform(0.5, 2, 40_000)
    found = Fitted(target, pt, eta, weight, 4, cap=np.inf)(target, pt, eta) * weight
    spectra = [
        np.histogram2d(pt[target == f], eta[target == f], [PT_EDGES, ETA_EDGES], weights=found[target == f])[0]
        for f in range(4)
    ]
    unweighted = [np.histogram2d(pt[target == f], eta[target == f], [PT_EDGES[1:8], ETA_EDGES])[0] for f in range(4)]
    assert np.min(unweighted) > 0
    assert np.ptp(unweighted, axis=0).min() > 10
    for spectrum in spectra[1:]:
        np.testing.assert_allclose(spectrum, spectra[0], rtol=1e-9)
    assert spectra[0].sum() == pytest.approx(weight.sum() / 4)


def test_flat_is_flat_in_pt_eta_and_flavour() -> None:
    """Whatever the spectra and sizes of the classes, every filled bin of every class gets the same total."""
    rng = np.random.default_rng(4)
    target = rng.choice(3, 30_000, p=[0.6, 0.1, 0.3])
    pt, eta = rng.triangular(20, 20 + 25 * target, 106), rng.uniform(-2.5, 2.5, 30_000)
    weight = rng.uniform(0.5, 2, 30_000)
    found = Fitted(target, pt, eta, weight, 3, "flat", cap=np.inf)(target, pt, eta) * weight
    for f in range(3):
        bins = [PT_EDGES[1:8], ETA_EDGES]
        spectrum = np.histogram2d(pt[target == f], eta[target == f], bins, weights=found[target == f])[0]
        np.testing.assert_allclose(spectrum, weight.sum() / (3 * 6 * 10), rtol=1e-9)


@given(number=st.integers(1, 100), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_none_weighs_one(number, seed) -> None:
    target, pt, eta, weight = toy(number, 3, seed)
    fitted = Fitted(target, pt, eta, weight, 3, "none")
    assert (fitted(target, pt, eta) == 1).all()
    jets = sample_of(target, pt, eta, weight.astype(np.float32))
    assert torch.equal(fitted.weights.of(jets), jets.weight)


@forms
@given(number=st.integers(2, 200), cuts=st.lists(st.integers(0, 200), max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_chunks_are_the_whole(form, number, cuts, seed) -> None:
    jets = toy(number, 3, seed)
    edges = [0, *sorted(cuts), 200]
    chunks = [[array[start:stop] for array in jets] for start, stop in itertools.pairwise(edges)]
    whole = PtEtaFlavourWeights.fit([sample_of(*jets)], 3, form)
    found = PtEtaFlavourWeights.fit((sample_of(*chunk) for chunk in chunks), 3, form)
    torch.testing.assert_close(found.table, whole.table, rtol=1e-12, atol=0)


def test_of_jets_on_disk(shared_workplace, monkeypatch) -> None:
    """Fitted chunk by chunk, and multiplied with the generator weights in single precision."""
    train = open_cache(shared_workplace.columns).train
    jets = train.read(0, len(train))
    monkeypatch.setattr(type(train).chunks, "__defaults__", (100,))
    fitted = PtEtaFlavourWeights.fit(train, 4)
    arrays = [tensor.numpy().astype(np.float64) for tensor in (jets.pt, jets.eta, jets.weight)]
    expected = np.minimum(published(jets.target.numpy(), *arrays, 4, "balanced"), MAX_WEIGHT) * arrays[2]
    assert fitted.of(jets).dtype == torch.float32
    np.testing.assert_allclose(fitted.of(jets), expected, rtol=1e-6)
    part = train.read(17, 60)
    assert torch.equal(fitted.of(part), fitted.of(jets)[17:60])


def test_single_and_double_precision_have_the_same_bins() -> None:
    """Also exactly on the edges, which are numbers in both."""
    fitted = Fitted(*toy(2000, 2, 6), 2)
    pt = np.concatenate([PT_EDGES, np.nextafter(PT_EDGES.astype(np.float32), 0), [-5, 1e9]])
    eta = np.concatenate([ETA_EDGES, [-99, 99]])
    every = list(itertools.product((0, 1), pt.tolist(), eta.tolist()))
    slow = [float(fitted.weights.table[f, bin_of(PT_EDGES, p), bin_of(ETA_EDGES, e)]) for f, p, e in every]
    target, pt, eta = (np.array(column) for column in zip(*every, strict=True))
    assert fitted(target, pt, eta).tolist() == slow
    assert fitted(target, pt.astype(np.float32), eta.astype(np.float32)).tolist() == slow


def test_empty_bins_and_empty_classes_weigh_nothing() -> None:
    target, pt, eta = np.array([0, 0, 2, 2]), np.array([50.0, 200, 50, 50]), np.zeros(4)
    fitted = Fitted(target, pt, eta, np.ones(4), 4)
    every = np.array([(f, p, e) for f in range(4) for p in PT_EDGES[:-1] for e in ETA_EDGES[:-1]])
    found = fitted(every[:, 0].astype(int), every[:, 1], every[:, 2])
    assert np.isfinite(found).all()
    assert (found > 0).sum() == 3
    assert fitted(np.array([1, 3]), np.array([50.0, 50]), np.zeros(2)).tolist() == [0, 0]


def test_outside_the_edges_counts_in_the_outermost_bins() -> None:
    target, pt, eta, weight = toy(2000, 2, 5)
    fitted = Fitted(target, pt, eta, weight, 2)
    one = np.array([1])

    def at(p: float, e: float) -> float:
        return float(fitted(one, np.array([p]), np.array([e]))[0])

    assert at(1.0, 0.1) == at(15.0, 0.1)
    assert at(5000.0, 0.1) == at(1000.0, 0.1)
    assert at(50.0, -4.0) == at(50.0, -2.5)
    assert at(50.0, 2.5) == at(50.0, 2.49) == at(50.0, 3)
    assert at(20.0, 0.1) == at(25.9, 0.1) != at(26.0, 0.1)


def test_flavours_of_equal_spectra_and_size_weigh_one() -> None:
    target, pt, eta = np.repeat([0, 1], 3), np.tile([30.0, 50, 70], 2), np.tile([0.1, 1.1, -2.0], 2)
    fitted = Fitted(target, pt, eta, np.ones(6), 2)
    np.testing.assert_allclose(fitted(target, pt, eta), 1)


def test_a_bin_outweighed_by_negative_weights() -> None:
    """All of one class is negative: it weighs nothing, the rest is finite."""
    target, pt, eta = np.array([0, 0, 1, 1, 1]), np.full(5, 50.0), np.zeros(5)
    weight = np.array([1.0, 1, -2, 0.5, 0.5])
    found = Fitted(target, pt, eta, weight, 2)(target, pt, eta)
    assert np.isfinite(found).all()
    assert (found[2:] == 0).all()
    assert (found[:2] > 0).all()


def test_weights_that_add_up_to_nothing_positive_are_refused() -> None:
    jets = np.arange(40) % 4
    pt, eta = np.full(40, 50.0), np.zeros(40)
    with pytest.raises(AdvtagError, match="nothing positive"):
        Fitted(jets, pt, eta, np.full(40, -1.0), 4)
