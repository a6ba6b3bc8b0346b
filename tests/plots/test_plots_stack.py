"""Absent entries, stacks by process, merged bins, shapes by flavour: counted by hand from jets."""

import dataclasses

import hist
import numpy as np
import pytest

from common.histograms import AXES, Dataset, HistogramFile
from plots.datamc import data_mc
from plots.flavours import flavour_shapes
from plots.shapes import NOMINAL, jets_in, scaled, varied
from plots.stack import Drawing, Reader, stack
from plots.statistics import Content, raw_bins, statistics

LUMINOSITY = 10.0


@pytest.fixture(scope="module")
def jets():
    """Simulated and data jets, some without an entry: dataset, flavour, weight, value, whether it is there."""
    rng = np.random.default_rng(3)
    n = 600
    dataset = rng.choice(["tt", "dy", "run"], n)
    flavour = np.where(dataset == "run", "data", rng.choice(["b", "bb", "c", "udsg"], n))
    weight = np.where(dataset == "run", 1.0, rng.normal(1.0, 0.5, n))
    return dataset, flavour, weight, rng.uniform(0, 12, n), rng.random(n) < 0.7


@pytest.fixture(scope="module")
def file(jets) -> HistogramFile:
    dataset, flavour, weight, value, there = jets
    categories = {
        "dataset": ["tt", "dy", "run"], "region": ["r"], "flavour": ["b", "bb", "c", "udsg", "data"],
        "variation": [NOMINAL, "w_up"], "tagger": ["t"], "attack": ["raw", "fgsm"],
    }  # fmt: skip
    axes = [hist.axis.StrCategory(categories[name], name=name, growth=True) for name in AXES]
    x = hist.Hist(*axes, hist.axis.Regular(12, 0, 12, name="x"), storage=hist.storage.Weight())
    score = hist.Hist(*axes, hist.axis.Regular(1000, 0, 1, name="BvsL"), storage=hist.storage.Weight())
    for variation, factor in ((NOMINAL, 1.0), ("w_up", 1.2)):
        for attack, shift in (("raw", 0.0), ("fgsm", 1.0)):
            if attack == "fgsm" and variation != NOMINAL:
                continue
            use = slice(None) if attack == "raw" and variation == NOMINAL else dataset != "run"
            common = {"region": "r", "variation": variation, "tagger": "t", "attack": attack}
            w = np.where(value < 6, factor, 1.0) * weight
            has = there[use]
            score.fill(dataset[use], flavour=flavour[use], **common, BvsL=np.full(len(has), -1.0), weight=w[use])
            some = {"dataset": dataset[use][has], "flavour": flavour[use][has], "weight": w[use][has]}
            x.fill(**some, **common, x=value[use][has] + shift)
    books = {"tt": Dataset(False, 2.0, 40.0, 1, 1), "dy": Dataset(False, 3.0, 60.0, 1, 1)}
    books["run"] = Dataset(True, None, 1.0, 1, 1)
    return HistogramFile({"x": x, "BvsL": score}, ("x",), ("BvsL",), books, LUMINOSITY, {})


FACTORS = {"tt": 2.0 * LUMINOSITY / 40, "dy": 3.0 * LUMINOSITY / 60, "run": 1.0}


def content(jets, choose, *, shift: float = 0.0, power: int = 1) -> np.ndarray:
    """Sum of scaled weights: absent, a gap, then the bins; the overflow is in the last one."""
    total = np.zeros(14)
    for dataset, flavour, weight, value, there in zip(*jets, strict=True):
        if choose(dataset, flavour):
            place = 2 + min(int(value + shift), 11) if there else 0
            total[place] += (weight * FACTORS[dataset]) ** power
    return total


def with_jets(file: HistogramFile, **options) -> dict:
    names = (NOMINAL, *varied(file, "x", "r"))
    return {name: jets_in(file, "r", name, **options) for name in names}


def test_absent_entries_have_a_bin(jets, file) -> None:
    s = stack(scaled(file, "x", "r"), ["t"], jets=with_jets(file), variations=varied(file, "x", "r"))
    assert s.absent
    assert s.edges[:3].tolist() == [-2.0, -1.0, 0.0]
    np.testing.assert_allclose(s.mc, content(jets, lambda d, f: d != "run"), atol=1e-9)
    np.testing.assert_allclose(s.mc_variance, content(jets, lambda d, f: d != "run", power=2), atol=1e-9)
    np.testing.assert_allclose(s.data, content(jets, lambda d, f: d == "run"))
    np.testing.assert_allclose(s.flavours["c"], content(jets, lambda d, f: f == "c"), atol=1e-9)
    distorted = content(jets, lambda d, f: d != "run", shift=1.0)
    np.testing.assert_allclose(s.distorted["t", "fgsm"], distorted, atol=1e-9)
    assert s.distorted["t", "fgsm"][0] == pytest.approx(s.mc[0])  # an attack makes nothing appear
    low = np.array([row < 6 for row in jets[3]])
    moved = content([np.asarray(each)[low & ~jets[4]] for each in jets], lambda d, f: d != "run")[0]
    assert abs(s.systematic[:, 0]).max() == pytest.approx(abs(0.2 * moved))


def test_nothing_absent_has_no_bin(toy) -> None:
    s = stack(scaled(toy, "Jet_pt", "ttbar"), ["nominal"], jets={NOMINAL: jets_in(toy, "ttbar")})
    assert not s.absent
    assert s.edges[0] == 20


def test_stack_by_process(jets, file) -> None:
    shapes = scaled(file, "x", "r", by_process=True)
    s = stack(shapes, ["t"], jets={NOMINAL: jets_in(file, "r", by_process=True)})
    assert list(s.flavours) == ["tt", "dy"]
    for name in s.flavours:
        np.testing.assert_allclose(s.flavours[name], content(jets, lambda d, f, name=name: d == name), atol=1e-9)
    by_flavour = stack(scaled(file, "x", "r"), ["t"], jets=with_jets(file))
    np.testing.assert_allclose(s.mc, by_flavour.mc, atol=1e-9)
    np.testing.assert_allclose(s.data, by_flavour.data)


@pytest.mark.parametrize(("rebin", "merged"), [(1, 1), (3, 3), (5, 4), (100, 12)])
def test_merged_bins(jets, file, rebin, merged) -> None:
    s = stack(scaled(file, "x", "r"), ["t"], Drawing(rebin=rebin), jets=with_jets(file))
    expected = content(jets, lambda d, f: d == "run")
    np.testing.assert_allclose(s.data[2:], expected[2:].reshape(-1, merged).sum(1))
    assert s.data[0] == expected[0]
    assert len(s.edges) == 12 // merged + 3


def test_integers_are_not_merged(toy) -> None:
    shapes = {NOMINAL: scaled(toy, "Jet_nSelectedTracks", "ttbar")}
    assert len(Reader(shapes, {}, Drawing(rebin=5)).edges) == 16


def test_figure_says_what_is_absent(file) -> None:
    figure = data_mc(scaled(file, "x", "r"), luminosity=1.0, jets=with_jets(file))
    top, *_, lowest = figure.axes
    assert [text.get_text() for text in top.texts] == ["absent"]
    figure.canvas.draw()
    assert min(lowest.get_xticks()) >= 0
    assert lowest.get_xlim() == (-2, 12)


@pytest.mark.parametrize("log", [True, False])
def test_scale_of_the_axis(file, log) -> None:
    figure = data_mc(scaled(file, "x", "r"), luminosity=1.0, drawing=Drawing(log=log))
    assert figure.axes[0].get_yscale() == ("log" if log else "linear")


def test_shapes_by_flavour(jets, file) -> None:
    figure = flavour_shapes(scaled(file, "x", "r"), jets={NOMINAL: jets_in(file, "r")})
    top, bottom = figure.axes[:3], figure.axes[3:6]
    for axes, below, names in zip(top, bottom, (("b", "bb"), ("c",), ("udsg",)), strict=True):
        raw = content(jets, lambda d, f, names=names: f in names)
        moved = content(jets, lambda d, f, names=names: f in names, shift=1.0)
        filled, attacked = (patch.get_data().values for patch in axes.patches)
        np.testing.assert_allclose(filled, raw / raw.sum(), atol=1e-12)
        np.testing.assert_allclose(attacked, moved / raw.sum(), atol=1e-12)
        (drawn,) = below.patches
        positive = raw > 0
        np.testing.assert_allclose(drawn.get_data().values[positive], moved[positive] / raw[positive])


def test_shapes_by_flavour_of_one_flavour_or_none(file, clear) -> None:
    shapes = scaled(file, "x", "r")
    for name in ("b", "bb", "c"):
        clear(shapes, "flavour", name)
    assert len(flavour_shapes(shapes).axes) == 2
    clear(shapes, "flavour", "udsg")
    clear(shapes, "flavour", "data")
    assert "no entries" in flavour_shapes(shapes, region="r").axes[0].texts[0].get_text()


def test_shapes_of_every_tagger_are_in_range(toy) -> None:
    """The first tagger is flat, the other one has a peak."""
    shapes = scaled(toy, "BvsL", "ttbar")
    nominal, adversarial = (shapes.axes["tagger"].index(name) for name in ("nominal", "adversarial"))
    view = shapes.view(flow=True)
    for key in ("value", "variance"):
        view[key][:, nominal, :, 1:-1] = 1.0
        view[key][:, adversarial] = 0.0
        view[key][:, adversarial, :, 700] = 1000.0
    figure = flavour_shapes(shapes, drawing=Drawing(discriminator=True))
    assert figure.axes[0].get_ylim()[1] > 1


def test_nothing_is_changed(file) -> None:
    before = {name: h.view(flow=True).copy() for name, h in file.histograms.items()}
    data_mc(scaled(file, "x", "r"), luminosity=1.0, jets=with_jets(file), variations=varied(file, "x", "r"))
    flavour_shapes(scaled(file, "x", "r"), jets={NOMINAL: jets_in(file, "r")})
    for name, h in file.histograms.items():
        assert (h.view(flow=True) == before[name]).all()
    assert dataclasses.is_dataclass(file)


def test_statistics_count_absent_entries(jets, file) -> None:
    read = Content(file, "r", {NOMINAL: scaled(file, "x", "r"), **varied(file, "x", "r")}, discriminator=False)
    values, variances = read(["b", "bb", "c", "udsg"], "t", "raw")
    expected = content(jets, lambda d, f: d != "run")
    np.testing.assert_allclose(values, [expected[0], 0, *expected[2:], 0], atol=1e-9)
    expected = content(jets, lambda d, f: d != "run", power=2)
    np.testing.assert_allclose(variances, [expected[0], 0, *expected[2:], 0], atol=1e-9)
    raw, attacked = [row for row in statistics(file, ["r"]) if row.variable == "x"]
    assert (raw.data, attacked.data) == (np.sum(jets[0] == "run"),) * 2
    assert attacked.mc == pytest.approx(raw.mc)
    assert raw_bins(read, ["t"]).absent == 1
