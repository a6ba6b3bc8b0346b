"""Binned ROC and AUC against scikit-learn on the unbinned values."""

import hist
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from common.errors import AdvtagError
from common.histograms import HistogramFile
from plots.roc import DISCRIMINATORS, auc, auc_table, curves, roc, roc_points
from plots.shapes import scaled


def jets(n: int = 30_000, *, weighted: bool = True, seed: int = 3):
    rng = np.random.default_rng(seed)
    flavour = rng.choice(["b", "bb", "c", "udsg"], n)
    heavy = np.isin(flavour, ["b", "bb"])
    scores = rng.beta(np.where(heavy, 4, 1.5), np.where(heavy, 2, 4))
    scores[rng.random(n) < 0.05] = -1.0
    scores[rng.random(n) < 0.01] = 1.0
    return flavour, scores, rng.exponential(1, n) if weighted else np.ones(n)


def filled_with(flavour, scores, weights) -> hist.Hist:
    h = hist.Hist(
        hist.axis.StrCategory(["udsg", "tau", "c", "bb", "b"], name="flavour"),
        hist.axis.Regular(1000, 0, 1, name="BvsL"),
        storage=hist.storage.Weight(),
    )
    return h.fill(flavour=flavour, BvsL=scores, weight=weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("signal", "background"), [(("b", "bb"), ("udsg",)), (("c",), ("b", "bb"))])
def test_auc_is_that_of_the_unbinned_values(weighted: bool, signal, background) -> None:
    flavour, scores, weights = jets(weighted=weighted)
    used = np.isin(flavour, [*signal, *background])
    exact = roc_auc_score(np.isin(flavour, signal)[used], scores[used], sample_weight=weights[used])
    binned = auc(*roc_points(filled_with(flavour, scores, weights), signal, background))
    assert abs(binned - exact) < 1e-3
    assert abs(exact - 0.5) > 0.02


def test_points_are_the_passing_parts_of_the_unbinned_values() -> None:
    flavour, scores, weights = jets()
    ours = roc_points(filled_with(flavour, scores, weights), ["b", "bb"], ["udsg"])
    for rates, names in zip(ours, (["b", "bb"], ["udsg"]), strict=True):
        used = np.isin(flavour, names)
        passing = [weights[used & (scores >= cut)].sum() for cut in (1.0, 0.9, 0.5, 0.001, 0.0)]
        np.testing.assert_allclose(rates[[1, 101, 501, 1000, 1001]], np.array(passing) / weights[used].sum())
        assert (rates[0], rates[-1]) == (0, pytest.approx(1))


def test_each_cut_by_hand() -> None:
    h = filled_with(["b", "b", "b", "b", "udsg", "udsg"], [-1, 0.5, 1.0, 0.9995, -1, 0.5], 1.0)
    efficiency, mistag = roc_points(h, ["b"], ["udsg"])
    assert efficiency.size == mistag.size == 1003
    assert (efficiency[1], mistag[1]) == (0.25, 0)  # only the value 1
    assert (efficiency[2], mistag[2]) == (0.5, 0)  # and the highest bin
    assert (efficiency[-2], mistag[-2]) == (0.75, 0.5)  # the loosest cut: undefined jets fail it too
    assert auc(efficiency, mistag) == pytest.approx(6 / 8)  # of 8 pairs: 5 in order, 2 ties


def test_negative_weights_keep_the_area_unbiased() -> None:
    flavour, scores, _ = jets(60_000)
    weights = np.where(np.random.default_rng(1).random(flavour.size) < 0.2, -1.0, 1.0)
    plain = auc(*roc_points(filled_with(flavour, scores, 1.0), ["b"], ["udsg"]))
    signed = auc(*roc_points(filled_with(flavour, scores, weights), ["b"], ["udsg"]))
    assert abs(signed - plain) < 0.01
    exact = pair_sum(scores, weights, flavour == "b", flavour == "udsg")
    assert abs(signed - exact) < 1e-3


def pair_sum(scores, weights, signal, background) -> float:
    """Sum over all pairs of w w' [s > s'], ties half, over the sum of all w w'; any sign of the weights."""
    order = np.argsort(scores[background])
    sorted_scores, running = scores[background][order], np.append(0, np.cumsum(weights[background][order]))
    below = running[np.searchsorted(sorted_scores, scores[signal], "left")]
    upto = running[np.searchsorted(sorted_scores, scores[signal], "right")]
    return float((weights[signal] * (below + upto) / 2).sum() / weights[signal].sum() / running[-1])


@pytest.mark.parametrize(("weights", "signal"), [(1.0, ["tau"]), (1.0, ["no such"]), (-1.0, ["b"])])
def test_no_efficiency_without_a_positive_sum(weights: float, signal) -> None:
    with pytest.raises(AdvtagError, match=rf"BvsL: flavour {signal[0]} has a sum of weights of -?\d"):
        roc_points(filled_with(["b", "b", "udsg"], [0.1, 0.2, 0.3], weights), signal, ["udsg"])


def test_table_of_all_discriminators(toy: HistogramFile) -> None:
    rows = auc_table(toy, ["ttbar"])
    assert len(rows) == 4 * 2 * 4
    assert {row["discriminator"] for row in rows} == set(DISCRIMINATORS)
    shapes = scaled(toy, "CvsL", "ttbar")
    chosen = {"tagger": hist.loc("adversarial"), "attack": hist.loc("pgd")}
    expected = auc(*roc_points(shapes[chosen], ["c"], ["udsg"]))
    keys = {"region": "ttbar", "tagger": "adversarial", "attack": "pgd", "discriminator": "CvsL"}
    assert [row["auc"] for row in rows if {k: row[k] for k in keys} == keys] == [expected]
    raw, attacked = (
        next(r["auc"] for r in rows if (r["tagger"], r["attack"], r["discriminator"]) == ("nominal", a, "BvsL"))
        for a in ("raw", "pgd")
    )
    assert raw > 0.85
    assert attacked < 0.5


def test_a_missing_flavour_has_no_auc(toy: HistogramFile, clear) -> None:
    shapes = scaled(toy, "BvsL", "ttbar")
    clear(shapes, "flavour", "udsg")
    assert set(curves(shapes, "BvsL").values()) == {None}
    assert roc(shapes).axes[0].texts[-1].get_text() == "no b+bb or no udsg jets"


def test_figure_shows_every_tagger_and_attack(toy: HistogramFile) -> None:
    shapes = scaled(toy, "BvsL", "ttbar")
    axes = roc(shapes, region="ttbar").axes[0]
    assert axes.get_yscale() == "log"
    found = curves(shapes, "BvsL")
    assert len(axes.lines) == len(found) == 8
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    expected = []
    for (tagger, attack), points in found.items():
        expected += [tagger] * (tagger not in expected) + [f"{attack}: {auc(*points):.4f}"]
    assert names == expected
    for line, (efficiency, mistag) in zip(axes.lines, found.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), efficiency[mistag > 0])
        np.testing.assert_array_equal(line.get_ydata(), mistag[mistag > 0])


def test_an_output_that_a_tagger_has_not_has_no_curve(toy: HistogramFile) -> None:
    shapes = scaled(toy, "CvsB", "ttbar")
    content = shapes.view(flow=True)
    content["value"][..., 0] += content["value"][..., 1:].sum(-1)
    content["value"][..., 1:] = 0.0
    content["variance"][..., 1:] = 0.0
    assert curves(shapes, "CvsB") == {}
