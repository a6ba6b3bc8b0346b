"""What is drawn: scaling, sums, flow bins, rebinning."""

import dataclasses

import hist
import numpy as np
import pytest

from common.errors import AdvtagError
from common.histograms import AXES, Dataset, HistogramFile, read_histograms
from plots.shapes import contents, filled, merged, scaled, shown
from plots.stack import Drawing, ratio, stack


def test_scaled_is_the_sum_over_datasets_times_their_scale(toy: HistogramFile) -> None:
    source = toy.histograms["Jet_pt"]
    where = {"region": "ttbar", "variation": "nominal", "tagger": "adversarial", "attack": "fgsm", "flavour": "c"}
    expected, squared = np.zeros(42), np.zeros(42)
    for name in ("ttbar", "QCD"):
        part = source[{axis: hist.loc(category) for axis, category in where.items()} | {"dataset": hist.loc(name)}]
        factor = toy.datasets[name].cross_section * toy.luminosity / toy.datasets[name].sum_weights
        expected += part.values(flow=True) * factor
        squared += part.variances(flow=True) * factor**2
    values, variances = contents(scaled(toy, "Jet_pt", "ttbar"), ["c"], "adversarial", "fgsm")
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(variances, squared)
    assert values.sum() > 100


def test_data_are_never_scaled(toy: HistogramFile) -> None:
    values, variances = contents(scaled(toy, "Jet_pt", "ttbar"), ["data"], "nominal", "raw")
    assert values.sum() == 3000
    np.testing.assert_array_equal(values, variances)


def test_the_file_on_disk_gives_the_same_shapes(toy: HistogramFile, written) -> None:
    again = read_histograms(written)
    for name in ("Jet_nSelectedTracks", "BvsL"):
        a, b = scaled(toy, name, "dijet"), scaled(again, name, "dijet")
        np.testing.assert_array_equal(a.values(flow=True), b.values(flow=True))
        assert stack(b, ["nominal"]).integer == (name == "Jet_nSelectedTracks")
        assert b.axes[-1].label == toy.histograms[name].axes[-1].label


def test_scaled_and_stack_leave_the_file_as_it_is(toy: HistogramFile) -> None:
    before = {name: h.view(flow=True).copy() for name, h in toy.histograms.items()}
    for name in ("Jet_pt", "BvsL"):
        shapes = scaled(toy, name, "ttbar")
        kept = shapes.view(flow=True).copy()
        stack(shapes, ["nominal", "adversarial"], Drawing(name == "BvsL"))
        np.testing.assert_array_equal(shapes.view(flow=True), kept)
    for name, h in toy.histograms.items():
        np.testing.assert_array_equal(h.view(flow=True), before[name])


def test_flow_goes_into_the_edge_bins_of_a_copy() -> None:
    content = np.array([5.0, 1.0, 2.0, 3.0, 7.0])
    np.testing.assert_array_equal(shown(content, discriminator=False), [6.0, 2.0, 10.0])
    np.testing.assert_array_equal(content, [5.0, 1.0, 2.0, 3.0, 7.0])


def test_undefined_discriminators_stay_out_of_the_first_bin() -> None:
    content = np.concatenate([[99.0], np.ones(1000), [4.0]])
    bins = shown(content, discriminator=True)
    assert bins.size == 40
    np.testing.assert_array_equal(bins, [25.0] * 39 + [29.0])


@pytest.mark.parametrize(("bins", "together"), [(1000, 25), (40, 1), (100, 2), (37, 1)])
def test_discriminators_are_shown_in_about_40_bins(bins: int, together: int) -> None:
    assert merged(bins) == together


def test_stack_adds_up_and_folds_variances_too(toy: HistogramFile) -> None:
    shapes = scaled(toy, "trackSip2dSig_0", "ttbar")
    s = stack(shapes, ["nominal", "adversarial"])
    values, variances = contents(shapes, ["b", "bb", "c", "udsg"], "nominal", "raw")
    assert values[0] > 0
    assert values[-1] > 0
    assert s.mc.sum() == pytest.approx(values.sum())
    assert s.mc_variance.sum() == pytest.approx(variances.sum())
    np.testing.assert_allclose(sum(s.flavours.values()), s.mc)
    assert list(s.flavours) == ["udsg", "c", "b", "bb"]
    assert set(s.distorted) == {(t, a) for t in ("nominal", "adversarial") for a in ("noise", "fgsm", "pgd")}
    assert s.data is not None
    assert s.data.sum() == 3000


def test_categories_without_content_are_not_drawn(toy: HistogramFile) -> None:
    shapes = scaled(toy, "BvsL", "ttbar")
    assert filled(shapes, "tagger") == ["nominal", "adversarial"]
    assert filled(shapes, "attack") == ["raw", "noise", "fgsm", "pgd"]
    assert filled(scaled(toy, "BvsL", "empty"), "tagger") == []


def test_undefined_part_is_reported(toy: HistogramFile) -> None:
    s = stack(scaled(toy, "BvsL", "ttbar"), ["nominal"], Drawing(discriminator=True))
    assert s.undefined == pytest.approx(0.03, abs=0.015)


def test_raw_is_found_even_if_only_a_later_tagger_has_it(toy: HistogramFile, clear) -> None:
    shapes = scaled(toy, "Jet_pt", "ttbar")
    clear(shapes, "tagger", "nominal")
    s = stack(shapes, ["nominal", "adversarial"])
    assert s.mc.sum() > 100
    assert s.data is not None


def test_axes_without_flow_bins() -> None:
    axes = [hist.axis.StrCategory([n], name=a) for a, n in zip(AXES[2:], ("b", "nominal", "t", "raw"), strict=True)]
    h = hist.Hist(*axes, hist.axis.Regular(4, 0, 1, name="x", flow=False), storage=hist.storage.Weight())
    h.fill(flavour="b", variation="nominal", tagger="t", attack="raw", x=[0.1, 0.9], weight=2.0)
    values, variances = contents(h.project("flavour", "tagger", "attack", "x"), ["b"], "t", "raw")
    np.testing.assert_array_equal(values, [0, 2, 0, 0, 2, 0])
    np.testing.assert_array_equal(variances, [0, 4, 0, 0, 4, 0])


def test_ratio_is_undefined_without_mc(toy: HistogramFile) -> None:
    s = stack(scaled(toy, "Jet_pt", "ttbar"), ["nominal"])
    s = dataclasses.replace(s, mc=np.where(np.arange(40) == 3, -0.5, s.mc))
    assert np.isnan(ratio(s.mc, s)).nonzero()[0].tolist() == [3]


@pytest.mark.parametrize(
    ("variable", "region", "variation", "text"),
    [
        ("nope", "ttbar", "nominal", "no histogram of nope; this file has Jet_pt"),
        ("Jet_pt", "nope", "nominal", "no region 'nope'; it has ttbar, dijet, empty"),
        ("Jet_pt", "ttbar", "down", "no variation 'down'; it has nominal, up"),
    ],
)
def test_unknown_names(toy: HistogramFile, variable: str, region: str, variation: str, text: str) -> None:
    with pytest.raises(AdvtagError, match=text):
        scaled(toy, variable, region, variation)


def test_datasets_that_cannot_be_scaled(toy: HistogramFile) -> None:
    no_weights = {**toy.datasets, "QCD": Dataset(False, 1.0, 0.0, 10, 10)}
    with pytest.raises(AdvtagError, match=r"dataset QCD: its sum of generator weights is 0"):
        scaled(dataclasses.replace(toy, datasets=no_weights), "Jet_pt", "ttbar")
    with pytest.raises(AdvtagError, match="dataset QCD has histograms but no entry"):
        scaled(dataclasses.replace(toy, datasets={"ttbar": toy.datasets["ttbar"]}), "Jet_pt", "ttbar")
