"""chi2, KS and JS of data against MC: numbers by hand, other libraries, and toys."""

import csv
import dataclasses

import hist
import numpy as np
import pytest
from scipy import optimize, stats
from scipy.spatial.distance import jensenshannon

from common.distances import js_distance
from common.tables import write_table
from plots import statistics_html
from plots.compare import Bins, chi2_test, effective, enough, js_null, ks_test
from plots.statistics import Row, statistics
from plots.systematics import band, covariance, differences, sources


def bins_of(data, mc, variance=None, found=()):
    data, mc = np.asarray(data, float), np.asarray(mc, float)
    return Bins(data, data.copy(), mc, 1e-6 * mc if variance is None else np.asarray(variance, float), found)


def test_variations_by_source():
    names = ["pileup_up", "pileup_down", "jes_total_down", "toppt", "jes_total_up"]
    expected = {"pileup": ("pileup_up", "pileup_down"), "jes_total": ("jes_total_down", "jes_total_up")}
    assert sources(names) == expected | {"toppt": ("toppt",)}


def test_band_and_covariance_by_hand():
    nominal = np.array([100.0, 50.0])
    varied = {"a_up": [103.0, 48.0], "a_down": [96.0, 49.0], "b": [100.0, 46.0]}
    found = differences(nominal, {name: np.array(values) for name, values in varied.items()})
    # a: up +3, down -4 in the first bin; both down, 2 and 1, in the second. b is symmetrised
    np.testing.assert_allclose(band(nominal, found), [[4, np.sqrt(2**2 + 4**2)], [3, 4]])
    np.testing.assert_allclose(covariance(2, found), [[(9 + 16) / 2, (-6 + 4) / 2], [-1, (4 + 1) / 2 + 16]])
    np.testing.assert_array_equal(band(nominal, ()), np.zeros((2, 2)))


def test_differences_of_shape_have_no_area():
    nominal = np.array([100.0, 50.0])
    found = differences(nominal, {"a_up": np.array([120.0, 60.0]), "a_down": np.array([40.0, 35.0])}, area=True)
    np.testing.assert_allclose(found[0][0], [0, 0], atol=1e-12)
    np.testing.assert_allclose(found[0][1], [-20, 20])


@pytest.mark.parametrize(
    ("variance", "found", "expected"),
    [(0.0, (), 100 / 20), (4.0, (), 100 / (20 + 4 / 20 * 30)), (4.0, ((3.0, -3.0),), 100 / (26 + 9))],
)
def test_chi2_of_one_bin_by_hand(variance, found, expected):
    bins = bins_of([30.0], [20.0], [variance or 1e-9], tuple(tuple(np.array([x]) for x in pair) for pair in found))
    chi2, ndf, p = chi2_test(bins, shape=False)
    assert chi2 == pytest.approx(expected)
    assert ndf == 1
    assert p == pytest.approx(stats.chi2.sf(expected, 1))
    chi2, ndf, p = chi2_test(bins, shape=True)
    assert chi2 == pytest.approx(0, abs=1e-9)
    assert ndf == 0
    assert np.isnan(p)


@pytest.mark.parametrize("shape", [False, True])
def test_chi2_against_a_fit_of_the_nuisances(shape):
    """The covariance matrix is the same as a penalised fit of one parameter for each source."""
    data, mc = np.array([61.0, 140.0, 93.0, 40.0]), np.array([70.0, 120.0, 100.0, 31.0])
    variance = np.array([30.0, 45.0, 60.0, 12.0])
    up, other = np.array([5.0, 11.0, -3.0, 1.0]), np.array([-2.0, 4.0, 6.0, 3.0])
    scale = data.sum() / mc.sum() if shape else 1.0
    sigma2 = scale * mc + scale * variance / mc * data

    def penalised(x):
        a = x[2] if shape else 1.0
        expected = scale * (a * mc + x[0] * up + x[1] * other)
        return ((data - expected) ** 2 / sigma2).sum() + x[0] ** 2 + x[1] ** 2

    fitted = optimize.minimize(penalised, [0.0, 0.0, 1.0], tol=1e-12)
    chi2, ndf, _ = chi2_test(bins_of(data, mc, variance, ((up, -up), (other,))), shape=shape)
    assert chi2 == pytest.approx(fitted.fun, rel=1e-5)
    assert ndf == 4 - shape


def test_pearson_of_two_counted_samples():
    first, second = np.array([30.0, 45.0, 25.0]), np.array([50.0, 80.0, 20.0])
    chi2, ndf, p = chi2_test(bins_of(first, second, second), shape=True)
    # Pearson takes the pooled sample for the expectation, this test the scaled second: alike to a few percent here
    table = stats.chi2_contingency(np.stack([first, second]), correction=False)
    assert chi2 == pytest.approx(table.statistic, rel=0.05)
    assert ndf == table.dof
    assert p == pytest.approx(table.pvalue, rel=0.15)


@pytest.mark.parametrize("shape", [False, True])
def test_p_values_of_consistent_toys_are_uniform(shape):
    """Weighted MC with its own fluctuations, some negative weights, two sources, and a tail of low counts."""
    rng = np.random.default_rng(11)
    truth = 4000 * np.exp(-np.arange(24) / 3.0) / 3.5
    tilt, hump = truth * np.linspace(-0.1, 0.1, 24), truth * 0.08 * np.sin(np.arange(24) / 4)
    found, p = ((tilt, -tilt), (hump, -hump)), []
    for _ in range(400):
        data = rng.poisson((truth + rng.normal() * tilt + rng.normal() * hump).clip(0))
        plus, minus = rng.poisson(truth * 5 * 1.1), rng.poisson(truth * 5 * 0.1)
        mc, variance = (plus - minus) / 5.0, (plus + minus) / 25.0
        p.append(chi2_test(Bins(data * 1.0, data * 1.0, mc, variance, found), shape=shape)[2])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.035)


def test_variations_under_an_attack_are_relative():
    bins = bins_of(np.ones(3), [100.0, 0.0, 300.0], found=((np.array([10.0, 0.0, 70.0]),),))
    moved = bins.distorted(np.array([50.0, 40.0, 310.0]), np.ones(3))
    np.testing.assert_allclose(moved.differences[0][0], [5, 40 * 80 / 400, 310 * 70 / 300])
    np.testing.assert_array_equal(moved.mc, [50, 40, 310])


def test_few_entries_are_merged_from_the_left():
    mc = np.array([4.0, 7.0, 10.0, 3.0, 12.0, 2.0])
    starts = enough(bins_of(np.ones(6), mc), 1.0)
    np.testing.assert_array_equal(starts, [0, 2, 3])
    assert enough(bins_of(np.ones(6), mc / 10), 1.0) is None
    longer = np.array([*mc, 9.0])
    np.testing.assert_array_equal(enough(bins_of(np.ones(7), longer, longer * 2), 1.0), [0, 3])  # 21 / 2 and 26 / 2
    np.testing.assert_array_equal(enough(bins_of(np.ones(7), longer), 0.5), [0, 3])  # half as many data are expected
    empty = np.array([0.0, 0.0, 30.0, 0.0, 0.0, 20.0, 0.0])
    np.testing.assert_array_equal(enough(bins_of(empty, empty), 1.0), [0, 3])
    at = bins_of(np.arange(6.0), mc, found=((mc,),)).at(starts)
    np.testing.assert_array_equal(at.data, [1, 2, 12])
    np.testing.assert_array_equal(at.differences[0][0], [11, 10, 17])


def test_weighted_data_use_their_own_errors():
    bins = Bins(np.array([20.0, -1.0]), np.array([60.0, 70.0]), np.array([30.0, 25.0]), np.array([9.0, 5.0]))
    chi2, ndf, _ = chi2_test(bins, shape=False)
    assert ndf == 1  # 25^2 < 10 x 70: the second joins the first
    assert chi2 == pytest.approx((19 - 55) ** 2 / (130 + 14))


def test_too_little_is_undefined_and_not_wrong():
    for data, mc in (([1.0, 2.0], [1.0, 1.5]), ([3.0, 40.0], [0.0, 0.0]), ([3.0, 40.0], [-30.0, 10.0])):
        chi2, ndf, p = chi2_test(bins_of(data, mc, np.ones(2)), shape=True)
        assert np.isnan(chi2)
        assert np.isnan(p)
        assert ndf == 0
    assert np.isnan(ks_test(bins_of([3.0, 40.0], [-30.0, 10.0]))).all()
    assert np.isnan(js_null(bins_of([3.0, 40.0], [-30.0, 10.0], np.ones(2)), seed=1)).all()
    assert np.isnan(chi2_test(Bins(None, None, np.full(3, 90.0), np.full(3, 9.0)), shape=False)[0])


def test_ks_against_scipy():
    rng = np.random.default_rng(3)
    first, second = np.floor(rng.normal(5.0, 2, 400)), np.floor(rng.normal(5.3, 2, 300))
    edges = np.arange(-6, 20)
    counts, mc = (np.histogram(x, edges)[0] * 1.0 for x in (first, second))
    statistic, p = ks_test(bins_of(counts, 2 * mc, 4 * mc))
    expected = stats.ks_2samp(first, second, method="asymp")
    assert statistic == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, rel=1e-6)
    assert effective(2 * mc, 4 * mc) == pytest.approx(300)


def test_js_against_scipy_and_by_hand():
    first, second = np.array([1.0, 5, 0, 3]), np.array([2.0, 2, 2, 1])
    assert float(js_distance(first, second)) == pytest.approx(jensenshannon(first, second, base=2))
    assert float(js_distance(np.array([1.0, 0]), np.array([0, 3.0]))) == 1
    assert float(js_distance(first, 7 * first)) == pytest.approx(0, abs=1e-7)
    assert float(js_distance(np.array([1.0, -2]), np.array([0, 3.0]))) == 1
    assert np.isnan(js_distance(np.zeros(2), np.ones(2)))


def test_null_of_js():
    bins = bins_of(np.full(30, 50.0), np.full(30, 400.0), np.full(30, 800.0))
    mean, high = js_null(bins, seed=5)
    # 1500 jets against 30 x 400^2/800 = 6000 effective ones, 29 degrees of freedom
    assert mean == pytest.approx(np.sqrt(29 / (8 * np.log(2)) * (1 / 1500 + 1 / 6000)), rel=0.03)
    assert mean < high < 1.5 * mean
    assert js_null(bins, seed=5) == (mean, high)
    assert js_null(bins, seed=6) != (mean, high)


@pytest.fixture(scope="module")
def small(build_toy):
    """One input and BvsL; a source with two sides, one with one, filled for raw MC."""
    file = dataclasses.replace(build_toy(2000, inputs=("Jet_pt",), regions=("ttbar",)), discriminators=("BvsL",))
    rng = np.random.default_rng(2)
    for name in ("Jet_pt", "BvsL"):
        h = file.histograms[name]
        for variation, factor in (("jes_up", 1.05), ("jes_down", 0.95), ("toppt", 1.0)):
            for dataset, flavour, tagger in [(d, f, t) for d in ("ttbar", "QCD") for f in ("b", "udsg") for t in
                                             ("nominal", "adversarial")]:  # fmt: skip
                values = 20 + rng.exponential(45, 1000) * factor if name == "Jet_pt" else rng.random(1000)
                h.fill(**{name: values}, dataset=dataset, region="ttbar", flavour=flavour, variation=variation,
                       tagger=tagger, attack="raw", weight=2.0)  # fmt: skip
    histograms = {name: file.histograms[name] for name in ("Jet_pt", "BvsL")}
    return dataclasses.replace(file, histograms=histograms)


@pytest.fixture(scope="module")
def rows(small):
    return statistics(small)


def test_a_row_for_each_variable_tagger_and_attack(rows):
    attacks, taggers = ("noise", "fgsm", "pgd"), ("nominal", "adversarial")
    expected = [("Jet_pt", "", "raw"), *(("Jet_pt", t, a) for t in taggers for a in attacks)]
    expected += [("BvsL", t, a) for t in taggers for a in ("raw", *attacks)]
    assert [(row.variable, row.tagger, row.attack) for row in rows] == expected
    assert all((row.verdict == "") == (row.attack == "raw") for row in rows)
    assert {row.kind for row in rows if row.variable == "BvsL"} == {"discriminator"}


def test_flow_bins_count_and_undefined_values_do_not(small, rows):
    pt, score = rows[0], next(row for row in rows if row.variable == "BvsL")
    h = small.histograms["Jet_pt"][{"flavour": hist.loc("data"), "tagger": hist.loc("nominal")}].project("Jet_pt")
    assert pt.data == h.values(flow=True).sum() > h.values().sum()
    h = small.histograms["BvsL"][{"flavour": hist.loc("data"), "tagger": hist.loc("nominal")}].project("BvsL")
    assert score.data == h.values(flow=True)[1:].sum() < h.values(flow=True).sum()


def test_variations_make_the_chi2_smaller(small, rows, clear):
    histograms = {name: h.copy() for name, h in small.histograms.items()}
    for h in histograms.values():
        for variation in ("jes_up", "jes_down", "toppt"):
            clear(h, "variation", variation)
    without = statistics(dataclasses.replace(small, histograms=histograms))
    assert [row.ndf for row in without] == [row.ndf for row in rows]
    assert all(a.chi2 < b.chi2 for a, b in zip(rows, without, strict=True))


def test_statistics_change_no_histogram(small):
    before = {name: h.view(flow=True).copy() for name, h in small.histograms.items()}
    statistics(small)
    for name, h in small.histograms.items():
        np.testing.assert_array_equal(h.view(flow=True), before[name])


def test_without_data_verdicts_are_expected_ones(build_toy):
    file = build_toy(3000, data=False, inputs=("Jet_pt",), regions=("ttbar",))
    rows = statistics(dataclasses.replace(file, discriminators=("BvsL",)), ["ttbar"])
    assert len(rows) == 15
    for row in rows:
        assert all(np.isnan([row.data, row.chi2, row.p, row.shape_p, row.ks, row.ks_p, row.js, row.js_null_95]))
        assert row.mc > 0
        assert (row.verdict == "") == (row.attack == "raw")


def test_empty_regions_and_variables_have_no_rows(toy):
    assert statistics(toy, ["empty"]) == []
    assert "trackSip2dSig_9" not in {row.variable for row in statistics(toy, ["dijet"])}


def test_data_alone(build_toy, clear):
    file = build_toy(300, inputs=("Jet_pt",), regions=("ttbar",))
    for flavour in ("b", "bb", "c", "udsg"):
        clear(file.histograms["Jet_pt"], "flavour", flavour)
    (row,) = statistics(dataclasses.replace(file, discriminators=()))
    assert row.data == 300
    assert row.mc == 0
    assert np.isnan([row.chi2, row.ks, row.js, row.js_null]).all()


def test_csv(rows, tmp_path):
    write_table(tmp_path / "s.csv", Row, rows)
    with (tmp_path / "s.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == [field.name for field in dataclasses.fields(Row)]
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        assert line["attack"] == row.attack
        assert float(line["p"]) == pytest.approx(row.p, rel=1e-5)
        assert line["shift_chi2"] == ("" if row.attack == "raw" else f"{row.shift_chi2:.6g}")


def test_the_shape_of_one_bin_has_no_cell():
    assert [cell.text for cell in statistics_html.test(0.0, 0, np.nan)] == [statistics_html.NONE] * 2
    assert statistics_html.test(8.0, 4, 0.5)[0].text == "8.0/4"
