"""Figures of an inspection: what is in the cells, lines and contours is what is in the tables."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import AdvtagError
from plots.heat import input_map, stem_label, stems_of
from plots.inspection import inspection_figures, read_inspection
from plots.matrices import ENOUGH, confusion, correlation_matrices, square
from plots.reweighting import reweighting_maps, spectra
from plots.shifts import asymmetry, flavour_shifts
from plots.surfaces import loss_lines, loss_planes

CLASSES = ["b", "bb", "c", "udsg"]
TAGGERS = {"nominal": 1.0, "adversarial": 0.3}
ATTACKS = ("fgsm", "noise")
PAIRS = 10


def feature(name: str, group: str, slot: int | None = None) -> dict:
    label = f"{name} of things" + ("" if slot is None else f", {group} {slot + 1}")
    stem = name if slot is None else name.removesuffix(f"_{slot}")
    common = {"group": group, "integer": False, "label": label, "axis_label": f"{label} [GeV]"}
    return {"name": name, "stem": stem, "slot": slot, **common}


def shifted(strength: float) -> dict:
    return {
        flavour: {
            "attacked": [0, 5, 8, 90, 20, 5, 0], "up": 0.5 + sign * strength / 2, "down": 0.5 - sign * strength / 2,
            "mean": sign * strength, "shift": [None, *[sign * strength * x for x in (1, 2, 3, 2, 1)], None],
            "error": [None, *[0.1] * 5, None],
        }
        for flavour, sign in (("b", -1), ("bb", -1), ("c", 0), ("udsg", 1))
    }  # fmt: skip


def surface(strength: float) -> dict:
    line, grid = np.linspace(-2, 2, 9), np.linspace(-2, 2, 5)
    plane = (strength * grid[None, :] + 0.01 * grid[:, None] ** 2).tolist()
    along = {"mean": (strength * line).tolist(), "quantiles": [(f * strength * line).tolist() for f in (0.5, 0.9, 1.5)]}
    across = {"mean": (0.01 * line**2).tolist(), "quantiles": [(f * line).tolist() for f in (-0.05, 0, 0.05)]}
    jet = {"place": 3, "class": 2, "pt": 45.6, "eta": -1.23, "plane": plane}
    return {"clean": 0.7, "attack": along, "random": across, "plane": plane, "jet": jet}


@pytest.fixture
def inspection() -> dict:
    """Five inputs: two of the jet, one track variable of two slots, and one of a vertex between these two."""
    inputs = [
        feature("pt", "jet"), feature("ip_0", "track", 0), feature("mass", "vertex"), feature("ip_1", "track", 1),
        feature("eta", "jet"),
    ]  # fmt: skip
    rng = np.random.default_rng(1)

    def by(make) -> dict:
        return {name: {attack: make(strength) for attack in ATTACKS} for name, strength in TAGGERS.items()}

    matrix = {"jets": [[5, 0, 3, 2]] * 4, "fraction": [[0.5, 0.0, 0.3, 0.2]] * 3 + [[None] * 4]}
    confused = {name: dict.fromkeys(("raw", *ATTACKS), matrix) for name in TAGGERS}
    raw = {
        "edges": [-2, -1, 0, 1, 2, 3],
        "flavours": {f: {"jets": 200, "raw": [1, 5, 10, 100, 10, 5, 1]} for f in CLASSES},
    }
    counts = {f: rng.uniform(1, 5, (3, 2)).tolist() for f in CLASSES}
    return {
        "format": 1, "columns": "x", "jets": 1000, "versions": {}, "classes": CLASSES, "inputs": inputs,
        "attacks": dict.fromkeys(ATTACKS, "?"), "taggers": dict.fromkeys(TAGGERS, "?"),
        "distances": {"weights": "columns", "null": [0.05] * 5,
                      "taggers": by(lambda s: [0.1 * s, None, 0.3 * s, 0.0, 0.2])},
        "correlations": {
            "weights": "columns", "pairs": [100 + i for i in range(9)] + [ENOUGH - 1],
            "raw": [round(x, 3) for x in rng.uniform(-0.5, 0.5, PAIRS)],
            "taggers": by(lambda s: [round(x, 3) for x in np.linspace(-0.5, 0.5, PAIRS) * s]),
        },
        "confusion": {"weights": "columns", "taggers": confused},
        "absence": {"weights": "columns", "flavours": {
            name: {"jets": 10, "absent": [0.1, 0.2, 0.3, 0.4, 0.0]} for name in (*CLASSES, "all", "data")
        }},
        "reweighting": {
            "weights": "columns", "pt_edges": [15, 20, 200, 1001], "eta_edges": [-2.5, 0, 2.5], "before": counts,
            "forms": {"flat": {f: [[0.0, 1.0], [2.0, 0.5], [10.0, 1.0]] for f in CLASSES}},
        },
        "shifts": {"weights": "columns", "inputs": {"ip_0": raw},
                   "taggers": by(lambda s: {cap: {"ip_0": shifted(s)} for cap in ("capped", "uncapped")})},
        "surfaces": {"weights": "none", "jets": 50, "line": np.linspace(-2, 2, 9).tolist(),
                     "grid": np.linspace(-2, 2, 5).tolist(), "quantiles": [0.16, 0.5, 0.84], "taggers": by(surface)},
    }  # fmt: skip


def jobs_of(inspection, name: str = ""):
    jobs = {
        str(job.path.relative_to("plots/inspection")): job
        for job in inspection_figures(inspection, Path("plots"), "Simulation")
    }
    return {path: job for path, job in jobs.items() if name in path}


def drawn(inspection, name: str):
    (job,) = jobs_of(inspection, name).values()
    return job.draw(job.what, **job.options)


def cells(axes) -> np.ndarray:
    (image,) = axes.images
    return np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_every_figure_has_a_name_and_says_what_it_shows(inspection) -> None:
    jobs = jobs_of(inspection)
    per_attack = [
        "distances_{}.png", "correlations/nominal/{}.png", "correlations/adversarial/{}.png", "confusion_{}.png",
        "shift/ip_0/{}_capped.png", "shift/ip_0/{}_uncapped.png", "loss_{}.png", "plane_{}.png",
    ]  # fmt: skip
    expected = [name.format(attack) for attack in ATTACKS for name in per_attack]
    assert list(jobs) == [*expected, "absence.png", "reweighting_flat.png", "spectra_flat.png"]
    about = jobs["shift/ip_0/fgsm_capped.png"].about
    assert (about.kind, about.variable, about.taggers, about.attacks) == ("jets", "ip_0", tuple(TAGGERS), ("fgsm",))
    about = jobs["correlations/nominal/noise.png"].about
    assert (about.kind, about.taggers, about.attacks) == ("correlations", ("nominal",), ("noise",))


def test_drawing_changes_no_table_and_writes_files(inspection, tmp_path: Path) -> None:
    before = copy.deepcopy(inspection)
    for job in inspection_figures(inspection, tmp_path, "Simulation"):
        if "noise" not in job.path.name:
            job.draw(job.what, **job.options)
    assert inspection == before
    (job,) = (job for job in inspection_figures(inspection, tmp_path, "Simulation") if "loss_fgsm" in job.path.name)
    assert job.run() == tmp_path / "inspection" / "loss_fgsm.png"
    assert job.path.stat().st_size > 5000


def test_inputs_by_group_and_stem(inspection) -> None:
    stems = stems_of(inspection["inputs"])
    assert stems == {("jet", "pt"): [0], ("jet", "eta"): [4], ("track", "ip"): [1, 3], ("vertex", "mass"): [2]}
    assert [stem_label(inspection["inputs"][k]) for k in (0, 1)] == ["pt of things", "ip_0 of things"]


def test_distances_are_in_their_cells(inspection) -> None:
    axes, bar = drawn(inspection, "distances_fgsm").axes
    nan = np.nan
    expected = [[[0.1 * s] * 2, [0.2] * 2, [nan, 0.0], [0.3 * s] * 2] for s in TAGGERS.values()]
    assert np.allclose(cells(axes), np.hstack(expected), equal_nan=True)
    # in brackets what is not above the null of 0.05; nothing where undefined; once for an input without slots
    assert texts(axes)[:8] == [".10", "(.03)", ".20", ".20", "(.00)", "(.00)", ".30", ".09"]
    assert texts(axes)[8:] == ["nominal", "adversarial"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{name} of things" for name in ("pt", "eta", "ip_0", "mass")
    ]
    assert bar.get_ylim() == (0, pytest.approx(0.3))


def test_absence_has_colours_from_0_to_1(inspection) -> None:
    axes, bar = drawn(inspection, "absence").axes
    assert cells(axes).shape == (4, 12)
    assert bar.get_ylim() == (0, 1)
    assert texts(axes)[-6:] == [*CLASSES, "all", "data"]


def test_map_of_one_block_of_a_card_without_slots() -> None:
    inputs = [feature("pt", "jet"), feature("mass", "vertex")]
    figure = input_map({"inputs": inputs, "blocks": {"x": [0.0, 0.0]}}, title="", scale="")
    assert cells(figure.axes[0]).tolist() == [[0], [0]]


def test_square() -> None:
    matrix = square([1, 2, None, 4, 5, 6], 4, 9)
    assert np.array_equal(matrix, [[9, 1, 2, np.nan], [1, 9, 4, 5], [2, 4, 9, 6], [np.nan, 5, 6, 9]], equal_nan=True)


def test_correlations_by_group_and_their_difference(inspection) -> None:
    figure = drawn(inspection, "correlations/nominal/fgsm")
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    raw, attacked, change = (cells(panels[name]) for name in ("raw", "attacked", "attacked - raw"))
    order = [0, 4, 1, 3, 2]
    for table, found in ((inspection["correlations"]["raw"], raw), (np.linspace(-0.5, 0.5, 10).round(3), attacked)):
        whole = square(list(table), 5, 1.0)
        whole[3, 4] = whole[4, 3] = np.nan  # too few jets
        assert np.allclose(found, whole[np.ix_(order, order)], equal_nan=True)
    assert np.allclose(change, attacked - raw, equal_nan=True)
    (image,) = panels["attacked - raw"].images
    assert image.norm.vmax == -image.norm.vmin == pytest.approx(np.nanmax(abs(change)))
    labels = [text.get_text() for text in panels["raw"].get_yticklabels()]
    assert labels == ["pt", "eta", "ip 0 to 1", "mass"]
    heading, note = (text.get_text() for text in figure.texts)
    assert heading == "fgsm on nominal"
    assert note.startswith("1,000 jets; a pair counts the jets that have both inputs, 29 at least")


def test_correlations_without_a_change(inspection) -> None:
    table = {
        "inputs": inspection["inputs"],
        "jets": 10,
        "pairs": [10] * 10,
        "raw": [None] * 10,
        "attacked": [None] * 10,
    }
    figure = correlation_matrices(table, title="x")
    assert np.isnan(cells(figure.axes[0])).all()


def test_confusion_says_fractions_and_jets(inspection) -> None:
    table = {"classes": CLASSES, "taggers": inspection["confusion"]["taggers"]}
    panels = [axes for axes in confusion(table, attack="fgsm").axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels if axes.texts] == ["nominal"] * 2 + ["adversarial"] * 2
    assert [axes.get_title(loc="right") for axes in panels if axes.texts] == ["raw", "fgsm"] * 2
    assert np.allclose(cells(panels[0])[:3], [[0.5, 0.0, 0.3, 0.2]] * 3)
    assert np.isnan(cells(panels[0])[3]).all()
    assert texts(panels[0]) == ["0.500\n5", "0.000\n0", "0.300\n3", "0.200\n2"] * 3


def test_reweighting_maps_are_spectra_weights_and_their_product(inspection) -> None:
    table = {**inspection["reweighting"], "weights": inspection["reweighting"]["forms"]["flat"]}
    panels = [axes for axes in reweighting_maps(table, form="flat").axes if axes.get_title(loc="right")]
    assert len(panels) == 12
    for row, panel in enumerate(panels[::4]):
        before, weights = np.array(table["before"]["b"]), np.array(table["weights"]["b"])
        expected = [before / before.sum(), weights, before * weights / (before * weights).sum()][row]
        found = np.ma.filled(panel.collections[0].get_array(), np.nan)
        assert np.allclose(found, np.where(expected > 0, expected, np.nan).T, equal_nan=True)
    assert panels[4].collections[0].norm(1.0) == pytest.approx(0.5)  # a weight of 1 is white


def test_spectra_are_parts_of_all_jets(inspection) -> None:
    table = {**inspection["reweighting"], "weights": inspection["reweighting"]["forms"]["flat"]}
    panels = spectra(table, form="flat").axes
    before, weights = np.array(list(table["before"].values())), np.array(list(table["weights"].values()))
    for row, content in enumerate((before, before * weights)):
        for column, edges in enumerate((table["pt_edges"], table["eta_edges"])):
            found = [patch.get_data().values * np.diff(edges) for patch in panels[2 * row + column].patches]
            assert np.allclose(found, content.sum(2 - column) / content.sum())


def test_shapes_ratios_and_shifts_by_flavour(inspection) -> None:
    figure = drawn(inspection, "shift/ip_0/fgsm_uncapped")
    top, ratio, profile = figure.axes[0], figure.axes[2], figure.axes[4]
    assert np.allclose(
        top.patches[0].get_data().values, np.array([5, 10, 100, 10, 5]) / 132
    )  # flow counts, and is not drawn
    assert np.allclose(top.patches[1].get_data().values, np.array([5, 8, 90, 20, 5]) / 132)
    # 200 jets of weight 132: the outermost bins hold too few
    assert np.allclose(ratio.patches[0].get_data().values, [np.nan, np.nan, 0.9, np.nan, np.nan], equal_nan=True)
    line = profile.containers[3].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.5], [3.0])
    assert texts(top) == ["b: -1.00", "bb: -1.00", "c: +0.00", "udsg: +1.00", "(up $-$ down)/(up + down)"]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "off"


def test_asymmetry() -> None:
    assert asymmetry({"up": 0.6, "down": 0.2}) == pytest.approx(0.5)
    assert asymmetry({"up": 0.0, "down": 0.0}) is None
    assert asymmetry({"up": None, "down": None}) is None


def test_a_flavour_without_jets_is_not_drawn(inspection) -> None:
    table = inspection["shifts"]["inputs"]["ip_0"]
    nothing = {"attacked": [0.0] * 7, "up": None, "down": None, "mean": None, "shift": [None] * 7, "error": [None] * 7}
    what = {
        "edges": table["edges"],
        "axis_label": "x",
        "raw": {"b": {"jets": 0, "raw": [0.0] * 7}},
        "taggers": {"t": {"b": nothing}},
    }
    figure = flavour_shifts(what, attack="fgsm", capped=True)
    assert not figure.axes[0].patches
    assert texts(figure.axes[0])[0] == "b: none moved"


def test_losses_are_lines_and_contours(inspection) -> None:
    surfaces = inspection["surfaces"]
    table = {"classes": CLASSES, **{key: surfaces[key] for key in ("jets", "line", "grid")}}
    table["taggers"] = {name: found["fgsm"] for name, found in surfaces["taggers"].items()}
    panels = loss_lines(table, attack="fgsm").axes
    for axes, strength in zip(panels, TAGGERS.values(), strict=True):
        median, mean = axes.lines[0], axes.lines[1]
        assert np.allclose(mean.get_ydata(), strength * np.array(table["line"]))
        assert np.allclose(median.get_ydata(), 0.9 * strength * np.array(table["line"]))
        assert np.allclose(axes.lines[3].get_ydata(), 0.01 * np.array(table["line"]) ** 2)
    assert panels[0].get_ylim() == panels[1].get_ylim()
    planes = loss_planes(table, attack="fgsm")
    titles = [axes.get_title(loc="right") for axes in planes.axes if axes.get_title(loc="right")]
    assert titles == [
        "nominal: 50 jets, mean", "nominal: one c jet, pT 46 GeV, η -1.2",
        "adversarial: 50 jets, mean", "adversarial: one c jet, pT 46 GeV, η -1.2",
    ]  # fmt: skip
    filled = planes.axes[0].collections[0]
    assert filled.levels[0] == -filled.levels[-1] <= -2.04
    assert np.allclose(filled.zmin, np.min(table["taggers"]["nominal"]["plane"]))


def test_reading(tmp_path: Path, inspection) -> None:
    path = tmp_path / "inspection.json"
    assert read_inspection(path) is None
    path.write_text(json.dumps(inspection))
    assert read_inspection(path) == inspection


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda page: page.update(format=2), "'format' is not 1"),
        (lambda page: page.pop("shifts"), "no 'shifts'"),
        (lambda page: page.pop("inputs"), "no 'inputs'"),
        (lambda page: page["distances"]["taggers"]["nominal"].pop("fgsm"), "no 'fgsm'"),
        (lambda page: page["correlations"]["taggers"].pop("adversarial"), "no 'adversarial'"),
        (lambda page: page["surfaces"].update(taggers=None), "'NoneType' object is not subscriptable"),
    ],
)
def test_not_an_inspection(tmp_path: Path, inspection, change, reason: str) -> None:
    change(inspection)
    path = tmp_path / "inspection.json"
    path.write_text(json.dumps(inspection))
    with pytest.raises(AdvtagError) as error:
        read_inspection(path)
    assert str(error.value) == f"{path}: not an inspection ({reason}); run `advtag inspect` again"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_not_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "inspection.json"
    path.write_bytes(content)
    with pytest.raises(AdvtagError, match="not an inspection"):
        read_inspection(path)
