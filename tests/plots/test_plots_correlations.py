"""Correlations of inputs: against numpy and the bootstrap, toys of pulls and p-values, verdicts, figures, rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.correlations import ALONE, Sums
from common.histograms import Dataset, HistogramFile
from common.tables import write_table
from plots.catalogue import About
from plots.correlation_figures import correlation_figures
from plots.correlations import (
    attacked,
    compare,
    expected_data,
    power,
    samples,
    summed,
    threshold,
    visibility,
)
from plots.input_matrices import LABELLED, label_size, ticks_of
from plots.pearson import estimate, shift_variance
from plots.statistics import Row, correlation_rows, read_statistics
from processors.correlations import products

INPUTS = 6
RHO = 0.6 ** np.abs(np.subtract.outer(np.arange(INPUTS), np.arange(INPUTS)))
RNG = np.random.default_rng


TOYS = 200


def values(rng, number, mixing=RHO):
    """Correlated inputs in [0, 1] with skewed shapes, and one of few whole numbers."""
    x = np.linalg.cholesky(mixing) @ rng.normal(size=(INPUTS, number))
    x = np.clip(0.2 * np.exp(0.5 * x), 0, 1)
    x[-1] = np.round(4 * x[-1]) / 4
    return x


def jets(rng, number, mixing=RHO):
    """The same; two of them are absent in a fifth of the jets."""
    x = values(rng, number, mixing)
    there = np.ones((INPUTS, number), bool)
    there[1:3] = rng.random(number) < 0.8
    return np.where(there, x, 0.0), there


def block(x, there, weight=None, before=None):
    weight = np.ones(x.shape[1]) if weight is None else weight
    tensors = [None if a is None else torch.from_numpy(np.ascontiguousarray(a)) for a in (x, before, there, weight)]
    return products(*tensors).numpy()


def sums(*arguments, **options):
    return Sums(block(*arguments, **options))


def test_weighted_correlations_are_those_of_numpy():
    rng = RNG(1)
    x, there = jets(rng, 500)
    weight = rng.normal(1, 1, 500)
    found = estimate(sums(x, there, weight)).r
    for i in range(INPUTS):
        for j in range(INPUTS):
            both = there[i] & there[j]
            w = weight[both] / weight[both].sum()
            a, b = (x[k, both] - w @ x[k, both] for k in (i, j))
            assert found[i, j] == pytest.approx((w @ (a * b)) / math.sqrt((w @ a**2) * (w @ b**2)))
    unweighted = estimate(sums(x, np.ones_like(there))).r
    np.testing.assert_allclose(unweighted, np.corrcoef(x), rtol=1e-9)


def test_errors_are_those_of_a_bootstrap():
    """Of z, for weighted jets, and of the shift of the same jets under an attack, which is far smaller."""
    rng = RNG(2)
    number = 2000
    x, there = jets(rng, number)
    y = np.where(there, np.clip(x + rng.normal(0, 0.03, x.shape), 0, 1), 0.0)
    weight = rng.choice([-1.0, 1.0, 1.0, 1.0, 2.0], number)
    raw_sums, moved_sums = sums(x, there, weight), sums(y, there, weight, before=x)
    raw, moved = estimate(raw_sums), estimate(moved_sums)
    first, second = [], []
    for _ in range(250):
        drawn = rng.integers(0, number, number)
        first.append(estimate(sums(x[:, drawn], there[:, drawn], weight[drawn])).z)
        second.append(estimate(sums(y[:, drawn], there[:, drawn], weight[drawn])).z)
    upper = np.triu_indices(INPUTS, 1)
    spread = np.std(first, axis=0)[upper]
    np.testing.assert_allclose(np.sqrt(raw.variance[upper]), spread, rtol=0.2)  # 4.5 % from 250 draws
    assert np.mean(np.sqrt(raw.variance[upper]) / spread) == pytest.approx(1, abs=0.05)
    variance = shift_variance(raw, raw_sums, moved, moved_sums)
    spread = np.std(np.array(second) - np.array(first), axis=0)[upper]
    np.testing.assert_allclose(np.sqrt(variance[upper]), spread, rtol=0.2)
    independent = shift_variance(raw, raw_sums, moved, Sums(moved_sums.block[:ALONE]))
    np.testing.assert_allclose(independent[upper], (raw.variance + moved.variance)[upper])
    assert np.median(variance[upper] / independent[upper]) < 0.5


def toys(number, mixing=RHO, *, weighted=True):
    """Comparisons of samples that agree."""
    rng = RNG(3)
    found = []
    for _ in range(number):
        data = estimate(sums(*jets(rng, 1500, mixing)))
        weight = rng.choice([-1.0, 1.0, 1.0, 2.0], 4000) if weighted else None
        found.append(compare(data, estimate(sums(*jets(rng, 4000, mixing), weight))))
    return found


def test_pulls_of_toys():
    """Mean 0, standard deviation 1; p-values of the largest are not too small, though pairs depend on each other."""
    found = toys(TOYS)
    pulls = np.array([comparison.pulls[np.triu_indices(INPUTS, 1)] for comparison in found])
    assert {comparison.pairs for comparison in found} == {15}
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=4 / math.sqrt(TOYS))
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=4 / math.sqrt(2 * TOYS))
    assert pulls.std() == pytest.approx(1, abs=0.05)
    p = np.array([comparison.p for comparison in found])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p < level) < level + 3 * math.sqrt(level * (1 - level) / TOYS)
    assert np.mean(p < 0.5) > 0.3
    assert np.mean([comparison.squares for comparison in found]) == pytest.approx(15, rel=0.1)
    for comparison in found:
        assert (comparison.p < 0.05) == (comparison.exceeding > 0) == (comparison.largest > threshold(15))


def test_p_values_of_independent_inputs_are_uniform():
    p = np.array([comparison.p for comparison in toys(TOYS, np.eye(INPUTS), weighted=False)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs(np.mean(p < level) - level) < 3.5 * math.sqrt(level * (1 - level) / TOYS)


def file_of(*, attacks, data=1500, number=3000, scale=0.5, rng=None):
    """A histogram file with MC, attacked by functions of (jets, there, rng), and data or none; MC stands for `data`."""
    rng = RNG(4) if rng is None else rng
    x, there = jets(rng, number)
    blocks = {("r", "", "raw"): block(x, there)}
    for name, attack in attacks.items():
        moved = np.where(there, attack(x, there, rng), 0.0)
        blocks["r", "nominal", name] = block(moved, there, before=x)
    datasets = {"tt": Dataset(False, 1.0, float(number), number, number)}
    found = {"tt": blocks}
    if data:
        datasets["run"] = Dataset(True, None, float(data), data, data)
        found["run"] = {("r", "", "raw"): block(*jets(rng, data))}
    names = ("pt", "ip_0", "ip_1", "ip_2", "mass", "tracks")
    return HistogramFile({}, names, (), datasets, number * scale, {}, found)


def shuffle(x, there, rng):
    """The jets that have input 1 exchange it: no histogram changes, its correlations vanish."""
    y = x.copy()
    y[1, there[1]] = rng.permutation(x[1, there[1]])
    return y


@pytest.mark.parametrize("data", [1500, 0])
def test_verdicts(data):
    """Marginals kept and correlations lost: visible. Nothing moved: invisible. The same with and without data."""
    attacks = {"shuffle": shuffle, "nothing": lambda x, there, rng: x, "tiny": lambda x, there, rng: x * 0.999}
    file = file_of(attacks=attacks, data=data)
    raw = samples(file, "r")
    assert (raw.data is None) == (data == 0)
    found = {name: attacked(file, "r", raw, "nominal", name)[1] for name in attacks}
    assert found["shuffle"].verdict == "visible"
    assert 1 in found["shuffle"].pair
    assert found["shuffle"].power_least > 0.99
    assert found["nothing"].verdict == found["tiny"].verdict == "invisible"
    assert found["nothing"].chi2 == pytest.approx(0, abs=1e-6)
    assert found["nothing"].noise == pytest.approx(0, abs=1e-6)
    assert attacked(file, "r", raw, "nominal", "unknown") is None


def test_little_mc_is_unclear():
    """Jets that were drawn anew, with the same correlations: what moves is fluctuation, and only `power` is fooled."""
    verdicts = []
    for seed in range(6):
        file = file_of(
            attacks={"anew": lambda x, there, rng: values(rng, x.shape[1])},
            data=40_000, number=1000, rng=RNG(seed),
        )  # fmt: skip
        verdicts.append(attacked(file, "r", samples(file, "r"), "nominal", "anew")[1].verdict)
    assert "visible" not in verdicts


def test_power_is_that_of_the_test():
    """Data that follow the attacked MC are rejected at least as often as said; raw ones in 5 %, at most."""
    other = RHO.copy()
    other[0, 4] = other[4, 0] = RHO[0, 4] + 0.12
    rng = RNG(5)
    far = 400_000
    raw, moved = estimate(sums(*jets(rng, far))), estimate(sums(*jets(rng, far, other)))
    rejected = []
    for _ in range(100):
        toy, mc = estimate(sums(*jets(rng, 1500, other))), estimate(sums(*jets(rng, 3000)))
        rejected.append(compare(toy, mc).p < 0.05)
        size = replace(raw, variance=mc.variance, entries=mc.entries)
    seen = visibility(toy, size, moved, np.zeros_like(raw.r))
    assert seen.pair == (0, 4)
    assert 0.4 < seen.power < 0.95
    assert np.mean(rejected) > seen.power - 3 * math.sqrt(0.25 / 100)
    assert power(0.0, 15) == pytest.approx(0.05 / 15, rel=0.05)
    assert power(threshold(15), 15) == pytest.approx(0.5, abs=1e-6)


def test_expected_data_have_the_errors_of_real_ones():
    """MC of weight 3 with scale 1/6: as many data as half of its jets."""
    rng = RNG(6)
    x, there = jets(rng, 20_000)
    found = {"tt": {("r", "", "raw"): block(x, there, np.full(20_000, 3.0))}}
    datasets = {"tt": Dataset(False, 1.0, 60_000.0, 20_000, 20_000)}
    file = HistogramFile({}, tuple("abcdef"), (), datasets, 10_000.0, {}, found)
    expected = estimate(expected_data(file, "r"))
    real = estimate(sums(*jets(rng, 10_000)))
    upper = np.triu_indices(INPUTS, 1)
    np.testing.assert_allclose(expected.variance[upper], real.variance[upper], rtol=0.25)
    assert expected.jets == pytest.approx(10_000)
    assert expected_data(file, "s") is None
    assert summed(file, "r", "", "raw", data=True) is None


def test_constants_and_few_jets():
    rng = RNG(7)
    x, there = jets(rng, 400)
    x[4] = 0.3
    there[3] = np.arange(400) < 20
    found = estimate(sums(np.where(there, x, 0.0), there))
    assert np.isnan(found.r[4]).all()
    assert np.isnan(found.r[:, 4]).all()
    assert not found.tested[4].any()
    assert not found.tested[:, 3].any()
    assert found.tested[0, 1]
    nothing = estimate(sums(x[:, :30], there[:, :30]))
    comparison = compare(nothing, found)
    assert (comparison.pairs, comparison.pair) == (0, None)
    assert math.isnan(comparison.p)
    assert math.isnan(comparison.squares)
    assert visibility(nothing, nothing, nothing, np.zeros_like(nothing.r)).verdict == ""


@pytest.mark.parametrize("mean", [0.02, 0.9])
@pytest.mark.parametrize("rho", [0.5, 0.99, 0.9999])
def test_an_input_too_narrow_for_its_moments_is_not_tested(mean, rho):
    """The error is that of centred numbers, or the pair is not tested; down to where not even r is known."""
    rng = RNG(9)
    x = np.linalg.cholesky([[1, rho], [rho, 1]]) @ rng.normal(size=(2, 20_000))
    u, v = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    r = np.mean(u * v)
    expected = np.mean(((u * v - r * (u**2 + v**2) / 2) / (1 - r**2)) ** 2) / 20_000
    tested = []
    for width in 10 ** np.linspace(-1.5, -9, 31):
        found = estimate(sums(mean * (1 + width * x), np.ones_like(x, dtype=bool)))
        tested.append(bool(found.tested[0, 1]))
        if tested[-1]:
            assert found.variance[0, 1] == pytest.approx(expected, rel=0.01)
            assert found.entries[0, 1] == pytest.approx(20_000 / 3, rel=0.1)
        elif np.isfinite(found.r[0, 1]):
            assert found.r[0, 1] == pytest.approx(r, abs=1e-6)
    assert tested == sorted(tested, reverse=True)
    assert sum(tested) == pytest.approx(1 + 4 * (np.log10(1e3 * np.sqrt(1 - rho**2)) - 1.5), abs=1)


def test_an_input_that_follows_from_another():
    """r = 1: data and MC agree, and an attack that breaks the relation is seen."""
    rng = RNG(8)
    x, _ = jets(rng, 2000)
    there = np.ones_like(x, dtype=bool)
    x[1] = 0.5 * x[0]
    y = x.copy()
    y[1] = np.clip(x[1] + rng.normal(0, 0.01, 2000), 0, 1)
    raw_sums, moved_sums = sums(x, there), sums(y, there, before=x)
    raw, moved = estimate(raw_sums), estimate(moved_sums)
    assert compare(raw, raw).pulls[0, 1] == 0
    seen = visibility(raw, raw, moved, shift_variance(raw, raw_sums, moved, moved_sums))
    assert (seen.verdict, seen.pair) == ("visible", (0, 1))


def test_rows_of_the_table(tmp_path):
    file = file_of(attacks={"shuffle": shuffle})
    raw, moved = correlation_rows(file, "r")
    assert raw.variable == raw.kind == "correlations"
    assert (raw.tagger, raw.attack, raw.verdict) == ("", "raw", "")
    assert (moved.tagger, moved.attack, moved.verdict) == ("nominal", "shuffle", "visible")
    assert raw.data == 1500
    assert raw.mc == pytest.approx(1500)
    assert raw.shape_ndf == moved.shift_ndf == 15
    assert raw.largest_p > 1e-3
    assert moved.largest_p < 1e-6  # data follow the raw MC
    assert "ip_0" in moved.pair
    write_table(tmp_path / "statistics.csv", Row, [raw, moved])
    back = read_statistics(tmp_path / "statistics.csv")
    assert [row.pair for row in back] == [raw.pair, moved.pair]
    assert back[1].largest_pull == pytest.approx(moved.largest_pull, rel=1e-5)
    assert math.isnan(back[0].shift_power)
    assert list(correlation_rows(replace(file, correlations=None), "r")) == []
    (only,) = correlation_rows(file_of(attacks={"shuffle": shuffle}, data=0), "r")
    assert (only.attack, only.verdict, only.shape_ndf) == ("shuffle", "visible", 0)


@pytest.mark.parametrize("data", [1500, 0])
def test_figures(tmp_path, data):
    file = file_of(attacks={"shuffle": shuffle}, data=data)
    first, second = correlation_figures(file, ["r"], tmp_path, "Simulation")
    assert first.path == tmp_path / "r" / "correlations.png"
    assert second.path == tmp_path / "r" / "correlations" / "nominal" / "shuffle.png"
    assert second.about == About("correlations", "Correlations under shuffle", "r", "", ("nominal",), ("shuffle",))
    assert [panel.title for panel in first.what] == (["data", "MC", "data - MC"] if data else ["MC"])
    np.testing.assert_allclose(first.what[-2 if data else 0].values, samples(file, "r").mc.r)
    attacked_mc, change, _ = (panel.values for panel in second.what)
    np.testing.assert_allclose(attacked_mc - samples(file, "r").mc.r, change)
    assert "visible" in second.options["headings"][0]
    figure = second.draw(second.what, **second.options)
    assert len(figure.axes) == 6
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["pt", "ip 0 to 2", "mass", "tracks"]
    first.run()
    assert (tmp_path / "r" / "correlations.png").stat().st_size > 5000
    assert list(correlation_figures(replace(file, correlations=None), ["r"], tmp_path, "Simulation")) == []


def test_every_attack_of_every_tagger_has_a_figure(tmp_path):
    """Whatever is in their names."""
    file = file_of(attacks={"x_y": shuffle})
    blocks = file.correlations["tt"]
    blocks["r", "nominal_x", "y"] = blocks["r", "nominal", "x_y"]
    paths = [job.path for job in correlation_figures(file, ["r"], tmp_path, "Simulation")]
    assert len(set(paths)) == 3


def test_labels_and_lines():
    names = ("eta", "pt", "ip_0", "ip_1", "jet_7", "mass")
    ticks = ticks_of(names, ("jet", "jet", "track", "track", "jets", "vertex"))
    assert ticks.places == [0, 1, 2.5, 4, 5]
    assert ticks.labels == ["eta", "pt", "ip 0 to 1", "jet_7", "mass"]
    assert (ticks.thin, ticks.thick) == ([2, 4], [2, 4, 5])
    assert ticks_of(names).thick == []
    assert label_size(ticks, 0.5) == 10
    assert label_size(ticks, 0.1) == pytest.approx(0.1 * 64)


def test_many_inputs_are_labelled_by_group():
    many = [f"ip_{slot}" for slot in range(LABELLED)]
    ticks = ticks_of(["pt", *many], ["jet", *["track"] * LABELLED])
    assert (ticks.labels, ticks.places) == (["jet", "track"], [0, (LABELLED + 1) / 2])
    assert ticks_of(["pt", *many]).labels == ["pt", f"ip 0 to {LABELLED - 1}"]
