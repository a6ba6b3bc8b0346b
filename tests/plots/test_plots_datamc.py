"""The numbers in the figure, read back from what it draws."""

from collections.abc import Callable
from pathlib import Path

import hist
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from common.histograms import AXES, Dataset, HistogramFile
from plots.datamc import data_mc
from plots.roc import roc
from plots.shapes import contents, scaled, shown, varied
from plots.stack import Drawing, stack
from plots.style import FLAVOURS, attack_colours, save

MC = ("udsg", "c", "b", "bb")


def folded(file: HistogramFile, variable: str, tagger: str, attack: str, flavours=MC, *, discriminator=False):
    values = contents(scaled(file, variable, "ttbar"), flavours, tagger, attack)[0]
    return shown(values, discriminator=discriminator)


def steps(axes) -> list[StepPatch]:
    return [patch for patch in axes.patches if isinstance(patch, StepPatch)]


def line_of(axes, colour: str, style: str) -> np.ndarray:
    """Values of the only step line with this colour and dash pattern."""
    found = [
        patch.get_data().values
        for patch in steps(axes)
        if not patch.get_fill() and to_hex(patch.get_edgecolor()) == colour
        and (patch.get_linestyle() == "solid") == (style == "solid")
    ]  # fmt: skip
    assert len(found) == 1
    return found[0]


def points(axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and vertical extents of the error bar points."""
    container = axes.containers[-1]
    x, y = container.lines[0].get_data()
    return x, y, np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])


@pytest.fixture(scope="module")
def figure(toy: HistogramFile) -> Figure:
    return data_mc(scaled(toy, "trackSip2dSig_0", "ttbar"), luminosity=toy.luminosity, region="ttbar")


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title("left"), axes.get_title("right"), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text() for text in axes.texts]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return found


def test_the_top_of_the_stack_is_the_scaled_mc(figure: Figure, toy: HistogramFile) -> None:
    below = np.zeros(50)
    for flavour in MC:
        fills = [p for p in steps(figure.axes[0]) if to_hex(p.get_facecolor()) == FLAVOURS[flavour] and p.get_fill()]
        assert len(fills) == 1
        top, _, bottom = fills[0].get_data()
        np.testing.assert_allclose(np.broadcast_to(bottom, 50), below)
        below = below + folded(toy, "trackSip2dSig_0", "nominal", "raw", [flavour])
        np.testing.assert_allclose(top, below)
    np.testing.assert_allclose(below, folded(toy, "trackSip2dSig_0", "nominal", "raw"))


def test_the_band_is_the_statistical_error(figure: Figure, toy: HistogramFile) -> None:
    total = folded(toy, "trackSip2dSig_0", "nominal", "raw")
    variances = contents(scaled(toy, "trackSip2dSig_0", "ttbar"), MC, "nominal", "raw")[1]
    error = np.sqrt(shown(variances, discriminator=False))
    for axes, middle, scale in (
        (figure.axes[0], total, 1.0),
        (figure.axes[1], 1.0, np.where(total > 0, total, 1)),
    ):
        (band,) = [patch for patch in steps(axes) if patch.get_hatch()]
        top, _, bottom = band.get_data()
        good = total > 0
        np.testing.assert_allclose(top[good], (middle + error / scale)[good])
        np.testing.assert_allclose(bottom[good], (middle - error / scale)[good])


def test_data_and_their_ratio(figure: Figure, toy: HistogramFile) -> None:
    data = folded(toy, "trackSip2dSig_0", "nominal", "raw", ["data"])
    mc = folded(toy, "trackSip2dSig_0", "nominal", "raw")
    drawn = (data > 0) | (mc > 0)
    x, y, bars = points(figure.axes[0])
    np.testing.assert_allclose(x, (np.arange(-10, 40) + 0.5)[drawn])
    np.testing.assert_allclose(y, data[drawn])
    ones = y == 1
    assert ones.any()
    np.testing.assert_allclose(bars[ones], [[0.1728, 3.2995]] * int(ones.sum()), atol=2e-4)
    _, ratio, ratio_bars = points(figure.axes[1])
    np.testing.assert_allclose(ratio, (data / np.where(mc > 0, mc, np.nan))[mc > 0])
    np.testing.assert_allclose(ratio_bars, bars[mc[drawn] > 0] / mc[mc > 0][:, None])


@pytest.mark.parametrize("attack", ["noise", "fgsm", "pgd"])
@pytest.mark.parametrize(("tagger", "style"), [("nominal", "solid"), ("adversarial", "dashed")])
def test_distorted_lines_and_their_ratio(figure: Figure, toy: HistogramFile, attack, tagger, style) -> None:
    colour = attack_colours(list(toy.histograms["Jet_pt"].axes["attack"]))[attack]
    distorted = folded(toy, "trackSip2dSig_0", tagger, attack)
    mc = folded(toy, "trackSip2dSig_0", "nominal", "raw")
    np.testing.assert_allclose(line_of(figure.axes[0], colour, style), distorted)
    expected = distorted / np.where(mc > 0, mc, np.nan)
    np.testing.assert_allclose(line_of(figure.axes[2], colour, style), expected)
    assert np.nanmax(np.abs(expected - 1)) > 0.01


def test_discriminators_have_a_column_for_each_tagger(toy: HistogramFile) -> None:
    figure = data_mc(scaled(toy, "BvsL", "ttbar"), luminosity=1.0, drawing=Drawing(discriminator=True))
    top = figure.axes[:2]
    assert [axes.texts[0].get_text() for axes in top] == ["tagger: nominal", "tagger: adversarial"]
    colour = attack_colours(list(toy.histograms["BvsL"].axes["attack"]))["fgsm"]
    for axes, tagger in zip(top, ("nominal", "adversarial"), strict=True):
        values = line_of(axes, colour, "solid")
        assert values.size == 40
        np.testing.assert_allclose(values, folded(toy, "BvsL", tagger, "fgsm", discriminator=True))
    assert any("undefined, not shown" in text for text in texts(figure))


def test_integer_variables_have_bins_around_integers(toy: HistogramFile) -> None:
    figure = data_mc(scaled(toy, "Jet_nSelectedTracks", "ttbar"), luminosity=1.0)
    assert steps(figure.axes[0])[0].get_data().edges.tolist() == [i - 0.5 for i in range(16)]
    assert figure.axes[-1].get_xlim() == (-0.5, 14.5)


def test_what_is_written_on_it(figure: Figure) -> None:
    found = texts(figure)
    for text in (
        "Simulation",
        "41.5 fb$^{-1}$",
        "2D IP significance of track 1",
        "data",
        "MC stat. error",
        "udsg",
    ):
        assert text in found
    assert {"MC, noise", "MC, fgsm", "MC, pgd", "for nominal", "for adversarial"} <= set(found)
    assert any("under- and overflow" in text for text in found)
    assert not any("preliminary" in text.lower() for text in found)
    assert figure.axes[0].get_yscale() == "log"


def test_without_data_there_is_no_data_panel(build_toy: Callable[..., HistogramFile]) -> None:
    file = build_toy(300, data=False, inputs=("Jet_pt",))
    figure = data_mc(scaled(file, "Jet_pt", "ttbar"), luminosity=1.0)
    assert [axes.get_ylabel() for axes in figure.axes] == ["jets / bin", "distorted / raw"]
    assert "data" not in texts(figure)


def test_only_data(toy: HistogramFile, clear) -> None:
    shapes = scaled(toy, "Jet_pt", "ttbar")
    for flavour in MC:
        clear(shapes, "flavour", flavour)
    figure = data_mc(shapes, luminosity=1.0)
    assert points(figure.axes[0])[1].sum() == 3000
    assert "MC stat. error" not in texts(figure)


def test_only_raw_mc(build_toy: Callable[..., HistogramFile], clear) -> None:
    shapes = scaled(build_toy(300, data=False, inputs=("Jet_pt",)), "Jet_pt", "ttbar")
    for attack in ("noise", "fgsm", "pgd"):
        clear(shapes, "attack", attack)
    assert [axes.get_ylabel() for axes in data_mc(shapes, luminosity=1.0).axes] == ["jets / bin"]


def test_an_empty_histogram_says_so(toy: HistogramFile) -> None:
    figure = data_mc(scaled(toy, "trackSip2dSig_9", "ttbar"), luminosity=1.0, region="ttbar")
    assert "no entries in ttbar" in texts(figure)


def test_large_distortions_get_a_logarithmic_ratio(toy: HistogramFile) -> None:
    shapes = scaled(toy, "Jet_pt", "ttbar")
    shapes.view(flow=True)["value"][:, :, shapes.axes["attack"].index("pgd")] *= 20
    figure = data_mc(shapes, luminosity=1.0)
    assert figure.axes[2].get_yscale() == "log"
    assert figure.axes[2].get_ylim()[1] > 20


def test_points_out_of_range_are_marked(toy: HistogramFile) -> None:
    shapes = scaled(toy, "Jet_pt", "ttbar")
    shapes.view(flow=True)["value"][shapes.axes["flavour"].index("data"), :, :, 5] *= 50
    axes = data_mc(shapes, luminosity=1.0).axes[1]
    marks = [line for line in axes.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert [x for line in marks for x in line.get_xdata()] == [20 + 4.5 * 5]
    assert marks[0].get_ydata()[0] < axes.get_ylim()[1]


def test_users_names_do_not_break_the_figure(toy: HistogramFile, tmp_path: Path) -> None:
    shapes = scaled(toy, "BvsL", "ttbar")
    names = {"nominal": "_$x^{", "adversarial": "a rather long name of a tagger, 2018 v15", "ghost": "<&>"}
    tagger = hist.axis.StrCategory([names[name] for name in shapes.axes["tagger"]], name="tagger", growth=True)
    axes = [tagger if axis.name == "tagger" else axis for axis in shapes.axes]
    renamed = hist.Hist(*axes, storage=hist.storage.Weight(), data=shapes.view(flow=True))
    for i, figure in enumerate(
        [data_mc(renamed, luminosity=1.0, region="$_", drawing=Drawing(discriminator=True)), roc(renamed, region="$_")]
    ):
        assert any("a rather long nam" in text.get_text() for text in figure.findobj(Text))
        assert save(figure, tmp_path / f"{i}.png").stat().st_size > 10_000


def known(data: tuple[float, ...] = (6.0, 12.0, 2.0)) -> HistogramFile:
    """Three bins between flow bins, a scale of 2, one variation with two sides and one with one; all by hand."""
    names = [["mc", "run"], ["r"], ["b", "udsg", "data"], ["nominal", "a_up", "a_down", "c"], ["t"], ["raw", "fgsm"]]
    axes = [hist.axis.StrCategory(n, name=axis, growth=True) for n, axis in zip(names, AXES, strict=True)]
    h = hist.Hist(*axes, hist.axis.Regular(3, 0, 3, name="x"), storage=hist.storage.Weight())

    def put(values: tuple[float, ...], **where: str) -> None:
        x = [-1.0, 0.5, 1.5, 2.5, 9.0]
        h.fill(x=x, weight=values, **{"dataset": "mc", "region": "r", "tagger": "t", "attack": "raw"} | where)

    put((1, 1, 3, 1, 0), flavour="b", variation="nominal")
    put((0, 1, 1, 1, 1), flavour="udsg", variation="nominal")  # with b and flow bins: 3, 4, 3
    put((1, 2, 3, 1, 0), flavour="b", variation="a_up")
    put((0, 1, 1, 1, 1.5), flavour="udsg", variation="a_up")  # 4, 4, 3.5
    put((1, 0, 3, 1, 0), flavour="b", variation="a_down")
    put((0, 1, 1, 1, 1.25), flavour="udsg", variation="a_down")  # 2, 4, 3.25
    put((1, 1, 2, 1, 0), flavour="b", variation="c")
    put((0, 1, 1, 1, 1), flavour="udsg", variation="c")  # 3, 3, 3
    put((0, 1, 3, 1, 1), flavour="b", variation="nominal", attack="fgsm")
    put((0, 1, 1, 1, 1), flavour="udsg", variation="nominal", attack="fgsm")  # 2, 4, 4
    if data:
        for place, n in zip((0.5, 1.5, 2.5), data, strict=True):
            h.fill(x=[place] * int(n), dataset="run", region="r", flavour="data", variation="nominal", tagger="t",
                   attack="raw")  # fmt: skip
    datasets = {"mc": Dataset(False, 1.0, 5.0, 10, 10), "run": Dataset(True, None, 20.0, 20, 20)}
    return HistogramFile({"x": h}, ("x",), (), datasets, 10.0, {})


def hatched_and_grey(axes) -> list[np.ndarray]:
    found = [patch for patch in steps(axes) if patch.get_fill() and (patch.get_hatch() or patch.get_alpha() == 0.3)]
    return [
        np.stack([p.get_data().values, p.get_data().baseline]) for p in sorted(found, key=lambda p: not p.get_hatch())
    ]


def test_stack_ratio_and_bands_by_hand() -> None:
    file = known()
    shapes, variations = scaled(file, "x", "r"), varied(file, "x", "r")
    assert list(variations) == ["a_up", "a_down", "c"]
    figure = data_mc(shapes, luminosity=10.0, variations=variations)
    top, ratio, distortion = figure.axes
    mc, squares = np.array([6.0, 8.0, 6.0]), 4 * np.array([1 + 1 + 1, 9 + 1, 1 + 1 + 1])
    systematic = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 1.0]])
    error, (down, up) = np.sqrt(squares), np.sqrt(squares + systematic**2)
    for axes, middle, unit in ((top, mc, 1.0), (ratio, 1.0, mc)):
        stat, total = hatched_and_grey(axes)
        np.testing.assert_allclose(stat, [middle + error / unit, middle - error / unit])
        np.testing.assert_allclose(total, [middle + up / unit, middle - down / unit])
    np.testing.assert_allclose(points(ratio)[1], [6 / 6, 12 / 8, 2 / 6])
    np.testing.assert_allclose(line_of(distortion, attack_colours(["raw", "fgsm"])["fgsm"], "solid"), [4 / 6, 1, 8 / 6])
    assert "MC stat. + syst." in texts(figure)


def test_area_by_hand() -> None:
    file = known(data=(6.0, 3.0, 1.0))
    s = stack(scaled(file, "x", "r"), ["t"], Drawing(area=True), variations=varied(file, "x", "r"))
    assert s.factor == 10 / 20
    np.testing.assert_allclose(s.mc, [3, 4, 3])
    np.testing.assert_allclose(sum(s.flavours.values()), s.mc)
    np.testing.assert_allclose(s.mc_variance, [3, 10, 3])
    np.testing.assert_allclose(s.distorted["t", "fgsm"], [2, 4, 4])
    a_up, a_down, c = (
        10 / 11.5 * np.array([4, 4, 3.5]),
        10 / 9.25 * np.array([2, 4, 3.25]),
        10 / 9 * np.array([3, 3, 3]),
    )
    sides = np.stack([a_up - s.mc, a_down - s.mc])
    one = np.abs(c - s.mc)
    expected = np.sqrt([(-sides).max(0).clip(0) ** 2 + one**2, sides.max(0).clip(0) ** 2 + one**2])
    np.testing.assert_allclose(s.systematic, expected)
    figure = data_mc(scaled(file, "x", "r"), luminosity=10.0, drawing=Drawing(area=True))
    assert any("scaled to the area\nof the data, by 0.5\n" in text for text in texts(figure))
    np.testing.assert_allclose(points(figure.axes[1])[1], [2, 3 / 4, 1 / 3])
    assert "MC stat. + syst." not in texts(figure)


def test_area_without_data_changes_nothing() -> None:
    shapes = scaled(known(data=()), "x", "r")
    assert stack(shapes, ["t"], Drawing(area=True)).factor == 1
    assert not any("area" in text for text in texts(data_mc(shapes, luminosity=10.0, drawing=Drawing(area=True))))


def test_drawing_changes_no_histogram() -> None:
    file = known()
    shapes, variations = scaled(file, "x", "r"), varied(file, "x", "r")
    histograms = [file.histograms["x"], shapes, *variations.values()]
    before = [h.view(flow=True).copy() for h in histograms]
    data_mc(shapes, luminosity=10.0, variations=variations, drawing=Drawing(area=True))
    for h, kept in zip(histograms, before, strict=True):
        np.testing.assert_array_equal(h.view(flow=True), kept)


def test_variations_that_were_never_filled_are_left_out(toy: HistogramFile) -> None:
    assert varied(toy, "Jet_pt", "ttbar") == {}
