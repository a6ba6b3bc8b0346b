"""Sums of products of inputs against loops over jets, and what follows from them against numpy."""

from itertools import product

import hist
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory

from attacks import FGSM, Budget
from common.correlations import ALONE, MONOMIALS, PAIRED, SQUARED, WEIGHTED, Sums, added
from configs.schema import Region, Selection
from models.features import load_features
from processors import correlations
from processors.blocks import Fill
from processors.correlations import Correlator, by_category
from processors.histograms import HistogramProcessor
from processors.jets import read_jets

AXES = [hist.axis.Regular(10, -1, 3), hist.axis.Integer(0, 4), hist.axis.Regular(5, 0, 1)]


def some_jets(jets=40):
    rng = np.random.default_rng(5)
    x = rng.normal(1, 1.5, (3, jets)).astype(np.float32)
    x[:, :3] = [[np.nan, np.inf, -np.inf]] * 3
    y = (x + rng.normal(0, 0.3, x.shape)).astype(np.float32)
    return x, y, rng.random(x.shape) < 0.7, rng.normal(1, 2, jets)


def slow(x, y, present, weight, rows, term, power):
    """One term of one pair after another, jet by jet."""
    (a, c), (b, d) = term

    def placed(value, i):
        low, high = AXES[i].edges[0], AXES[i].edges[-1]
        return 1.0 if np.isnan(value) else min(max((float(value) - low) / (high - low), 0.0), 1.0)

    total = np.zeros((3, 3))
    for k, jet in enumerate(rows):
        for i, j in product(range(3), repeat=2):
            if present[i, jet] and present[j, jet]:
                first = placed(x[i, jet], i) ** a * placed(y[i, jet], i) ** c
                total[i, j] += weight[k] ** power * first * placed(x[j, jet], j) ** b * placed(y[j, jet], j) ** d
    return total


def test_every_term_against_a_loop(monkeypatch):
    """Negative weights, absent and infinite entries, NaN, an axis of integers, batches that do not divide the jets."""
    monkeypatch.setattr(correlations, "BATCH", 7)
    x, y, present, weight = some_jets()
    rows = np.flatnonzero(np.arange(40) % 3 > 0)
    fills = [Fill("r", rows, {"nominal": weight[rows]}), Fill("none", rows[:0], {"nominal": weight[:0]})]
    correlator = Correlator(AXES, present, fills, "nominal")
    correlator.fill("", "raw", x)
    correlator.fill("t", "fgsm", x, y)
    found = by_category(correlator.blocks)
    assert not found["none", "", "raw"].any()
    block = found["r", "t", "fgsm"]
    np.testing.assert_allclose(found["r", "", "raw"], block[:ALONE], rtol=1e-12)
    for place, term in enumerate((*WEIGHTED, *SQUARED, *PAIRED)):
        power = 1 if place < len(WEIGHTED) else 2
        expected = slow(x, y, present, weight[rows], rows, term, power)
        np.testing.assert_allclose(block[place], expected, rtol=1e-9, atol=1e-9, err_msg=str(term))
    sums = Sums(block)
    for (a, b), (c, d) in product(MONOMIALS, repeat=2):
        expected = slow(x, y, present, weight[rows], rows, ((a + c, 0), (b + d, 0)), 2)
        np.testing.assert_allclose(sums.squared(a + c, b + d), expected, rtol=1e-9, atol=1e-9)
        if a + b:
            expected = slow(x, y, present, weight[rows], rows, ((a, c), (b, d)), 2)
            np.testing.assert_allclose(sums.mixed((a, b), (c, d)), expected, rtol=1e-9, atol=1e-9)


def test_order_does_not_matter():
    x, y, present, weight = some_jets()

    def block(rows):
        correlator = Correlator(AXES, present, [Fill("r", rows, {"nominal": weight[rows]})], "nominal")
        correlator.fill("t", "fgsm", x, y)
        return by_category(correlator.blocks)

    parts = [block(rows) for rows in np.array_split(np.random.default_rng(1).permutation(40), 3)]
    total = added(added(parts[2], {}), added(parts[0], parts[1]))
    np.testing.assert_allclose(total["r", "t", "fgsm"], block(np.arange(40))["r", "t", "fgsm"], rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def filled(simulated, taggers):
    """Weighted simulated jets, their flat weights, and the sums of a chunk."""
    (path,) = simulated.glob("qcd_mc_12_*.root")
    with uproot.open(path) as file:
        number = file["Events"].num_entries
    metadata = {"dataset": "qcd", "filename": str(path), "entrystart": 0, "entrystop": number}

    def events():
        return NanoEventsFactory.from_root(
            {str(path): "Events"}, schemaclass=BaseSchema, mode="virtual", metadata=metadata
        ).events()

    features = load_features("deepcsv")
    content = {"nominal": taggers["nominal"].read_bytes()}
    regions = {"all": Region(), "hard": Region(jet_pt=40)}
    attacks = {"fgsm": FGSM(Budget(epsilon=0.2))}
    arguments = (features, Selection(), {"qcd": False}, regions, content, attacks, "float64")
    blocks = HistogramProcessor(*arguments, correlations=True).process(events())["blocks"]["qcd"]
    assert "correlations" not in HistogramProcessor(*arguments).process(events())["blocks"]["qcd"]
    return features, read_jets(events(), features, Selection(), data=False), by_category(blocks["correlations"])


def test_simulated_jets_against_numpy(filled):
    """Means, variances and correlations of pairs, with the weights of the events, as numpy has them."""
    features, jets, found = filled
    assert set(found) == {(region, *of) for region in ("all", "hard") for of in (("", "raw"), ("nominal", "fgsm"))}
    keep = jets.pt >= 40
    sums = Sums(found["hard", "", "raw"])
    checked = 0
    for i, j in [(0, 1), (2, 3), (1, 65), (40, 41), (7, 60), (62, 66)]:
        both = keep & jets.present[:, i] & jets.present[:, j]
        ends = [features.inputs[k].bins[1:] for k in (i, j)]
        x = np.stack([np.clip(jets.values[both, k].astype(float), *end) for k, end in zip((i, j), ends, strict=True)])
        x = (x - np.array(ends)[:, :1]) / np.diff(np.array(ends), axis=1)
        weight = jets.weight[both]
        n = sums.weighted(0, 0)[i, j]
        assert n == pytest.approx(weight.sum())
        assert sums.squared(0, 0)[i, j] == pytest.approx((weight**2).sum())
        if both.sum() > 10:
            expected = np.cov(x, aweights=weight, ddof=0)
            mean = sums.weighted(1, 0)[i, j] / n, sums.weighted(0, 1)[i, j] / n
            covariance = sums.weighted(1, 1)[i, j] / n - mean[0] * mean[1]
            assert covariance == pytest.approx(expected[0, 1], rel=1e-6, abs=1e-12)
            assert sums.weighted(2, 0)[i, j] / n - mean[0] ** 2 == pytest.approx(expected[0, 0], rel=1e-6)
            checked += 1
    assert checked >= 5


def test_attacked_jets_are_paired_with_the_raw_ones(filled):
    _, _, found = filled
    raw, moved = Sums(found["all", "", "raw"]), Sums(found["all", "nominal", "fgsm"])
    np.testing.assert_allclose(moved.weighted(0, 0), raw.weighted(0, 0))
    pt = moved.mixed((1, 0), (1, 0))[1, 1]  # the attack moves each pt a little: x y is close to y^2
    assert pt == pytest.approx(raw.squared(2, 0)[1, 1], rel=0.5)
    assert pt != raw.squared(2, 0)[1, 1]
    with pytest.raises(KeyError):
        moved.mixed((0, 0), (1, 0))
