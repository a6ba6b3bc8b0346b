"""Measurements on toys: what was put into the data comes out."""

import numpy as np
import pytest

from study.counts import Bootstrap, Counts, count
from study.fit import FREE, Model, Templates, fit, histograms
from study.jets import FLAVOURS, Jets
from study.methods import negative_tags, probes, subtracted

EFFICIENCY = np.array([[0.8, 0.6, 0.7], [0.4, 0.3, 0.2], [0.1, 0.05, 0.08]]).T
"""[pt bins, flavours]"""
MC = np.array([[400.0, 300.0, 200.0], [50.0, 80.0, 20.0], [300.0, 500.0, 100.0]]).T


def counts(jets, efficiency, *, data=False):
    """Expected counts, [1 selection, 1 replica]."""
    passed = jets * efficiency
    if data:
        jets, passed = jets.sum(axis=1, keepdims=True), passed.sum(axis=1, keepdims=True)
    return Counts(jets[None], passed[None, None])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_subtraction_finds_the_efficiency_of_the_data(flavour):
    # another spectrum and another size, the flavours of each bin those of the simulation
    data_jets = MC * np.array([[3.0], [0.5], [2.0]])
    changed = EFFICIENCY.copy()
    i = FLAVOURS.index(flavour)
    changed[:, i] *= [0.95, 1.1, 0.9]
    found = subtracted(counts(data_jets, changed, data=True), counts(MC, EFFICIENCY), flavour)
    true = (data_jets * changed)[:, i].sum() / data_jets[:, i].sum()
    expected = (data_jets * EFFICIENCY)[:, i].sum() / data_jets[:, i].sum()
    assert found.data[0, 0] == pytest.approx(true)
    assert found.mc[0, 0] == pytest.approx(expected)
    assert found.scale_factor[0, 0] == pytest.approx(true / expected)


def test_background_that_simulation_does_not_know_is_a_bias():
    data_jets = MC.copy()
    data_jets[:, 2] *= 2
    found = subtracted(counts(data_jets, EFFICIENCY, data=True), counts(MC, EFFICIENCY), "b")
    assert found.scale_factor[0, 0] < 0.95


def test_negative_tags_scale_with_the_negative_rate():
    flipped = EFFICIENCY * np.array([0.2, 0.4, 0.9])
    positive, negative = EFFICIENCY.copy(), flipped.copy()
    positive[:, 2] *= 1.3
    negative *= 1.3
    data = [counts(MC, each, data=True) for each in (positive, negative)]
    found = negative_tags(*data, counts(MC, EFFICIENCY), counts(MC, flipped))
    assert found.scale_factor[0, 0] == pytest.approx(1.3)
    light = MC[:, 2]
    assert found.data[0, 0] == pytest.approx(1.3 * np.sum(light * EFFICIENCY[:, 2]) / light.sum())


def test_nothing_to_subtract_from_is_undefined():
    empty = Counts(np.zeros((1, 3, 1)), np.zeros((1, 1, 3, 1)))
    assert np.isnan(subtracted(empty, counts(MC, EFFICIENCY), "b").scale_factor).all()


def toy_jets(rng, number=400):
    event = np.sort(rng.integers(0, number // 2, number))
    pt = rng.uniform(30, 200, number)
    return Jets(event, np.arange(number), pt, None, {}, {}, np.zeros(number))


def test_probes_are_those_of_a_loop():
    rng = np.random.default_rng(5)
    jets = toy_jets(rng)
    inside, tagged = rng.random(len(jets)) < 0.8, rng.random(len(jets)) < 0.5
    expected = []
    for event in set(jets.event.tolist()):
        rows = sorted(
            (row for row in range(len(jets)) if jets.event[row] == event and inside[row]), key=lambda row: -jets.pt[row]
        )
        if len(rows) >= 2:
            first, second = rows[:2]
            expected += ([first] if tagged[second] else []) + ([second] if tagged[first] else [])
    assert probes(jets, inside, tagged).tolist() == sorted(expected)
    assert len(expected) > 50


# the fit


def toy_templates(seed, size, fractions, efficiency, factor=1.0):
    """Jets of three flavours with masses and tags; expected contents are proportional to `size`."""
    rng = np.random.default_rng(seed)
    flavour = rng.choice(3, size, p=fractions).astype(np.int8)
    mass = np.where(
        rng.random(size) < np.array([0.8, 0.4, 0.1])[flavour],
        rng.gamma(4, np.array([0.9, 0.35, 0.25])[flavour]),
        -1,
    )
    passed = (rng.random(size) < np.array(efficiency)[flavour])[None]
    return mass, flavour, np.full(size, factor), passed


ASKED = {"c": ((0.01, 0.6, 0.39), (1.0, 1.2, 0.8)), "b": ((0.2, 0.2, 0.6), (0.9, 0.9, 1.3))}


@pytest.mark.parametrize("flavour", ["b", "c"])
def test_fit_finds_the_scale_factor(flavour):
    fractions, factors = ASKED[flavour]
    before = (0.7, 0.4, 0.2)
    replicas = np.ones((1, 400_000))
    mc = toy_templates(1, 400_000, fractions, before, 0.25)
    data = toy_templates(2, 100_000, fractions, tuple(np.multiply(before, factors)))
    templates = histograms(mc[0], mc[1], *mc[2:], replicas)
    observed = histograms(data[0], None, *data[2:], replicas[:, :100_000])
    found = fit(observed, templates, flavour).scale_factor[0, 0]
    assert found == pytest.approx(factors[FLAVOURS.index(flavour)], abs=0.03)


def test_fit_of_the_simulation_itself_is_one():
    mass, flavour, weight, passed = toy_templates(1, 3000, (0.2, 0.2, 0.6), (0.7, 0.4, 0.2))
    replicas = np.ones((1, 3000))
    mc = histograms(mass, flavour, weight, passed, replicas)
    found = fit(histograms(mass, None, weight, passed, replicas), mc, "b")
    assert found.scale_factor[0, 0] == pytest.approx(1, abs=1e-4)
    assert found.mc[0, 0] == pytest.approx(passed[0, flavour == 0].mean())


def model():
    rng = np.random.default_rng(8)
    shape = (6, 3)
    return Model(
        rng.uniform(5, 50, shape),
        rng.uniform(5, 50, shape),
        np.array([0.5, 0.4, 0.45]),
        FREE["b"],
        rng.uniform(1, 9, 12),
    )


def test_likelihood_profiles_the_simulation():
    """Against a search for the best factor of each bin (Barlow and Beeston)."""
    tried, rng = model(), np.random.default_rng(9)
    observed, parameters = rng.poisson(60, 12).astype(float), np.array([1.2, 0.9, 1.1, 0.8])
    relative = np.full(12, 0.02)
    mean = tried.expected(parameters)[0]
    factor = np.linspace(0.2, 4, 200_001)[:, None]
    moved = mean * factor
    each = moved - observed * np.log(moved) + (factor - 1) ** 2 / (2 * relative)
    perfect = observed - observed * np.log(observed)
    assert tried.likelihood(parameters, observed, relative)[0] == pytest.approx(
        (each.min(axis=0) - perfect).sum(), abs=1e-6
    )


def test_gradient_is_the_slope_of_the_likelihood():
    tried, rng = model(), np.random.default_rng(9)
    observed, parameters = rng.poisson(60, 12).astype(float), np.array([1.2, 0.9, 1.1, 0.8])
    relative = np.full(12, 0.02)
    slope = tried.likelihood(parameters, observed, relative)[1]
    for i in range(4):
        step = np.eye(4)[i] * 1e-5
        high, low = (tried.likelihood(parameters + sign * step, observed, relative)[0] for sign in (1, -1))
        assert slope[i] == pytest.approx((high - low) / 2e-5, rel=1e-5)


def test_fit_without_jets_in_the_data_is_no_number_out_of_nothing():
    mass, flavour, weight, passed = toy_templates(1, 500, (0.2, 0.2, 0.6), (0.7, 0.4, 0.2))
    mc = histograms(mass, flavour, weight, passed, np.ones((1, 500)))
    empty = Templates(
        *(np.zeros_like(part[..., :1]) for part in (mc.passed, mc.failed)), mc.passed_variance, mc.failed_variance
    )
    found = fit(empty, mc, "b").scale_factor
    assert np.isnan(found).all()


def test_errors_of_the_bootstrap_are_those_of_repeated_toys():
    """Spread of a subtraction over replicas against its spread over independent samples."""
    measured, spread = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        samples = []
        for data, size in ((True, 1500), (False, 3000)):
            flavour = rng.choice(3, size, p=[0.7, 0.05, 0.25]).astype(np.int8)
            passed = rng.random((1, size)) < np.array([0.7, 0.3, 0.1])[flavour]
            replicas = Bootstrap(60, seed=seed).weights((2 + data) * 100_000_000 + np.arange(size))
            kept = None if data else flavour
            samples.append(count(np.full(size, 50.0), (), kept, np.ones(size), passed, replicas))
        factor = subtracted(*samples, "b").scale_factor[0]
        measured.append(factor[0])
        spread.append(factor[1:].std(ddof=1))
    # 60 toys know their spread to 9 %
    assert np.mean(spread) == pytest.approx(np.std(measured, ddof=1), rel=0.3)
    assert np.mean(measured) == pytest.approx(1, abs=4 * np.std(measured) / np.sqrt(60))
