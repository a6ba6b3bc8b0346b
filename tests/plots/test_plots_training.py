"""AUC and loss against epoch, susceptibility against raw AUC: the artists hold the numbers of the table."""

import copy

import numpy as np
import pytest

from common.errors import AdvtagError
from plots.panels import MARKED
from plots.training import auc_vs_epoch, loss_vs_epoch, roc_vs_epoch, susceptibility

DRAWN = (auc_vs_epoch, susceptibility, loss_vs_epoch)
NAMES = ("BvsL", "BvsC", "CvsL", "CvsB")


def one(epoch: int = 3, area: float | None = 0.9, attacks: tuple[str, ...] = ("fgsm",)) -> dict:
    kinds = ("raw", *attacks)
    return {
        "epoch": epoch, "loss": 0.5, "validation_loss": dict.fromkeys(kinds, 0.6),
        "auc": {kind: dict.fromkeys(NAMES, area) for kind in kinds},
    }  # fmt: skip


def legend_of(figure) -> list[str]:
    (box,) = figure.legends
    return [text.get_text() for text in box.get_texts()]


@pytest.mark.parametrize("name", NAMES)
def test_areas_are_those_of_the_table(histories, name: str) -> None:
    figure = auc_vs_epoch(histories, discriminator=name)
    top, bottom = figure.axes
    lines, ratios = iter(top.lines), iter(bottom.lines)
    for epochs in histories.values():
        for attack in ("raw", "fgsm", "noise"):
            line = next(lines)
            assert list(line.get_xdata()) == [epoch["epoch"] for epoch in epochs]
            assert list(line.get_ydata()) == [epoch["auc"][attack][name] for epoch in epochs]
            if attack != "raw":
                expected = [epoch["auc"][attack][name] / epoch["auc"]["raw"][name] for epoch in epochs]
                below = next(ratios)
                np.testing.assert_allclose(below.get_ydata(), expected, rtol=1e-15)
                assert below.get_color() == line.get_color()
                assert below.get_linestyle() == line.get_linestyle()
    assert not list(lines)
    assert name in top.get_ylabel()
    assert legend_of(figure) == ["jets", "raw", "fgsm", "noise", " ", "tagger", "nominal", "adversarial"]


def test_every_tagger_and_attack_has_a_look_of_its_own() -> None:
    attacks = ("a", "b", "c", "d")
    figure = auc_vs_epoch({name: [one(attacks=attacks)] for name in ("t", "u", "v", "w")})
    looks = [(line.get_color(), str(line._unscaled_dash_pattern), line.get_marker()) for line in figure.axes[0].lines]
    assert len(set(looks)) == len(looks) == 20
    assert {look[0] for look in looks[::5]} == {"black"}  # raw


def test_colours_follow_the_given_order(histories) -> None:
    default = auc_vs_epoch(histories).axes[0].lines
    other = auc_vs_epoch(histories, attacks=["raw", "pgd", "noise", "fgsm"]).axes[0].lines
    known = auc_vs_epoch({"t": [one(attacks=("pgd", "noise", "fgsm"))]}).axes[0].lines
    assert [line.get_color() for line in other[:3]] == [known[i].get_color() for i in (0, 3, 2)]
    assert [line.get_color() for line in other[:3]] != [line.get_color() for line in default[:3]]


@pytest.mark.parametrize("epochs", [1, MARKED, MARKED + 1, 200])
def test_markers_are_few(epochs: int) -> None:
    figure = auc_vs_epoch({"t": [one(i + 1) for i in range(epochs)], "short": [one(1)]})
    line = figure.axes[0].lines[0]
    marked = len(range(0, epochs, line.get_markevery()))
    assert min(epochs, MARKED / 2) <= marked <= MARKED
    assert len(line.get_xdata()) == epochs
    assert figure.axes[0].lines[2].get_markevery() == 1


def test_susceptibility_is_that_of_the_table(histories) -> None:
    figure = susceptibility(histories, discriminator="CvsL")
    assert [axes.get_title("right") for axes in figure.axes] == ["fgsm", "noise"]
    for axes, attack in zip(figure.axes, ("fgsm", "noise"), strict=True):
        lines = iter(axes.lines)
        for epochs in histories.values():
            raw = [epoch["auc"]["raw"]["CvsL"] for epoch in epochs]
            lost = [epoch["auc"]["raw"]["CvsL"] - epoch["auc"][attack]["CvsL"] for epoch in epochs]
            joined, points, first, last = (next(lines) for _ in range(4))
            assert joined.get_linestyle() == "-"
            for line in (joined, points):
                assert list(line.get_xdata()) == raw
                assert list(line.get_ydata()) == lost
            assert points.get_marker() == first.get_marker() == last.get_marker() != "None"
            assert (first.get_xdata()[0], first.get_ydata()[0]) == (raw[0], lost[0])
            assert (last.get_xdata()[0], last.get_ydata()[0]) == (raw[-1], lost[-1])
            assert first.get_markerfacecolor() == "white" != last.get_markerfacecolor() == points.get_color()
        assert not list(lines)
    assert legend_of(figure) == ["tagger", "nominal", "adversarial", " ", "epoch", "first", "last"]


def test_ends_are_the_first_and_the_last_that_are_defined() -> None:
    epochs = [one(i, None if i in (1, 2, 6) else 0.9 + i / 100) for i in range(1, 7)]
    *_, first, last = susceptibility({"t": epochs}).axes[0].lines
    assert (first.get_xdata()[0], last.get_xdata()[0]) == (0.9 + 3 / 100, 0.9 + 5 / 100)


def test_losses_are_those_of_the_table(histories) -> None:
    figure = loss_vs_epoch(histories)
    for axes, (name, epochs) in zip(figure.axes, histories.items(), strict=True):
        assert axes.get_title("right") == name
        training, *validation = axes.lines
        assert list(training.get_ydata()) == [epoch["loss"] for epoch in epochs]
        for line, attack in zip(validation, ("raw", "fgsm", "noise"), strict=True):
            assert list(line.get_xdata()) == [epoch["epoch"] for epoch in epochs]
            assert list(line.get_ydata()) == [epoch["validation_loss"][attack] for epoch in epochs]
    assert legend_of(figure)[-4:] == ["validation jets", "raw", "fgsm", "noise"]


def test_taggers_with_different_attacks() -> None:
    histories = {"t": [one(attacks=("fgsm",))], "u": [one(attacks=("pgd", "fgsm"))], "v": [one(attacks=())]}
    top, bottom = auc_vs_epoch(histories).axes
    assert (len(top.lines), len(bottom.lines)) == (2 + 3 + 1, 1 + 2 + 1)  # the last one is the line at 1
    assert top.lines[1].get_color() == top.lines[4].get_color() != top.lines[3].get_color()
    panels = susceptibility(histories).axes
    assert {axes.get_title("right"): len(axes.lines) for axes in panels} == {"fgsm": 8, "pgd": 4}
    assert [len(axes.lines) for axes in loss_vs_epoch(histories).axes] == [3, 4, 2]


@pytest.mark.parametrize("draw", DRAWN)
def test_the_table_is_left_as_it_was(histories, draw) -> None:
    before = copy.deepcopy(histories)
    draw(histories)
    assert histories == before


@pytest.mark.parametrize("draw", DRAWN)
def test_one_epoch(draw) -> None:
    axes = draw({"t": [one(3)]}).axes
    assert all(len(line.get_xdata()) in (1, 2) for panel in axes for line in panel.lines)
    assert {line.get_marker() for line in axes[0].lines} - {"None"}  # or nothing would be seen
    if draw is not susceptibility:
        assert axes[-1].get_xlim() == (2.5, 3.5)


@pytest.mark.parametrize("draw", [auc_vs_epoch, susceptibility])
def test_all_null(draw) -> None:
    axes = draw({"t": [one(i, None) for i in (1, 2, 3)]}).axes[0]
    assert all(np.isnan(np.asarray(line.get_ydata(), float)).all() for line in axes.lines)
    assert [text.get_text() for text in axes.texts] == ["undefined: a class has no jets"]


def test_nothing_is_said_where_something_is_drawn(histories) -> None:
    assert not [text for draw in DRAWN for axes in draw(histories).axes for text in axes.texts]


def test_a_raw_area_of_zero_has_no_ratio() -> None:
    epochs = [one(1, 0.0), one(2, 0.5)]
    assert str(auc_vs_epoch({"t": epochs}).axes[1].lines[0].get_ydata().tolist()) == "[nan, 1.0]"


def test_no_attacks() -> None:
    histories = {"t": [one(i, attacks=()) for i in (1, 2)]}
    (axes,) = auc_vs_epoch(histories).axes
    assert list(axes.lines[0].get_ydata()) == [0.9, 0.9]
    assert [len(axes.lines) for axes in loss_vs_epoch(histories).axes] == [2]
    with pytest.raises(AdvtagError, match=r"no attacks .* `evaluate_with`"):
        susceptibility(histories)


@pytest.mark.parametrize("draw", DRAWN)
def test_nothing_to_plot(draw) -> None:
    with pytest.raises(AdvtagError, match="no epochs"):
        draw({"nominal": []})


@pytest.mark.parametrize(
    ("draw", "taggers"),
    [*((loss_vs_epoch, n) for n in (1, 2, 4, 10)), (susceptibility, 2), (auc_vs_epoch, 2), (auc_vs_epoch, 30)],
)
def test_panels_and_legend_do_not_overlap(draw, taggers: int) -> None:
    attacks = ("fgsm", "noise", "pgd", "conserv_2026_with_a_long_name")
    figure = draw({f"tagger_with_a_long_name_{i}": [one(attacks=attacks)] for i in range(taggers)})
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    (box,) = [legend.get_window_extent() for legend in figure.legends]
    everything = [*boxes, box]
    for i, first in enumerate(everything):
        assert not any(first.overlaps(other) for other in everything[i + 1 :])
    width, height = figure.get_size_inches() * figure.dpi
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in everything)


def curve(mistag: float) -> dict[str, object]:
    return {name: {"0.50": mistag, "0.95": 1.0 if mistag < 1 else None} for name in NAMES}


def test_roc_curves_by_epoch() -> None:
    epochs = [{**one(i), "mistag": {"raw": curve(0.1 / i), "fgsm": curve(0.5)}} for i in range(1, 41)]
    figure = roc_vs_epoch({"t": epochs, "old": [one()]}, discriminator="CvsB")
    raw, fgsm = figure.axes
    assert [axes.get_title(loc="right") for axes in (raw, fgsm)] == ["t: raw", "t: fgsm"]
    assert [line.get_ydata()[0] for line in raw.lines] == [0.1 / i for i in (1, 2, 3, 6, 12, 22, 40)]
    assert {tuple(line.get_ydata()) for line in fgsm.lines} == {(0.5, 1.0)}
    assert (raw.get_xlabel(), raw.get_ylabel()) == ("efficiency of c", "mistag rate of b+bb")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "epoch",
        *["1", "2", "3", "6", "12", "22", "40"],
    ]
    with pytest.raises(AdvtagError, match="no epochs"):
        roc_vs_epoch({"old": [one()]})
