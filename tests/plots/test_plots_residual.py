"""The uncertainty from attacks, computed by hand from a few jets."""

import csv

import hist
import numpy as np
import pytest

from common.errors import AdvtagError
from common.histograms import AXES, Dataset, HistogramFile
from common.tables import write_table
from models.classes import DISCRIMINATORS
from plots.residual import NOT_MADE, Residual, hidden, passing, residuals, verdict_of, worst
from plots.residual_figures import residual_figure, residual_figures
from plots.statistics import Row, statistics

TIMES = 10
# each TIMES times. 100 light jets: 10 at 0.65, 1 at 0.95; 50 b jets: 30 at 0.95, 10 at 0.65
RAW = {"udsg": [0.1] * 89 + [0.65] * 10 + [0.95], "b": [0.1] * 8 + [-1] * 2 + [0.65] * 10 + [0.95] * 30}
ATTACKS = {
    "loud": {"udsg": [0.1] * 60 + [0.65] * 40, "b": [0.1] * 50},
    "quiet": {"udsg": [0.1] * 85 + [0.65] * 10 + [0.95] * 5, "b": [0.1] * 20 + [0.95] * 30},
    "silent": {"udsg": RAW["udsg"], "b": [0.1] * 11 + [0.65] * 10 + [0.95] * 29},
}
VARIED = {"x_up": [0.1] * 15 + [0.95] * 35, "x_down": [0.1] * 18 + [0.95] * 32, "y": [0.1] * 7 + [0.95] * 43}


def toy_file(variations=True, times=TIMES):
    h = hist.Hist(
        *[hist.axis.StrCategory([], name=axis, growth=True) for axis in AXES],
        hist.axis.Regular(1000, 0, 1, name="BvsL"),
        storage=hist.storage.Weight(),
    )

    def fill(values, flavour, attack="raw", variation="nominal"):
        of = {"dataset": "mc", "region": "emu", "flavour": flavour, "tagger": "nominal"}
        h.fill(**of, variation=variation, attack=attack, BvsL=values * times, weight=2.0)

    for flavour, values in RAW.items():
        fill(values, flavour)
    for attack, moved in ATTACKS.items():
        for flavour, values in moved.items():
            fill(values, flavour, attack)
    for name, values in VARIED.items() if variations else ():
        fill(values, "b", variation=name)
        fill(RAW["udsg"], "udsg", variation=name)
    datasets = {"mc": Dataset(False, 3.0, 300.0, 100, 150)}
    return HistogramFile({"BvsL": h}, (), ("BvsL",), datasets, 50.0, {})


def seen(attack, kind, verdict, region="emu", tagger="nominal"):
    nan = float("nan")
    return Row(
        region, "v", kind, tagger, attack, nan, 1, *(nan, 0, nan) * 2, *[nan] * 5, *(nan, nan, 0, nan, nan), verdict
    )


VERDICTS = [
    seen("loud", "input", "visible"),
    seen("loud", "discriminator", "visible"),
    seen("quiet", "input", "invisible"),
    seen("quiet", "input", ""),
    seen("quiet", "discriminator", "unclear"),
    seen("silent", "input", "invisible"),
    seen("silent", "discriminator", "invisible"),
]
POINTS = {"loose": 0.11, "medium": 0.01}


def table(**changes):
    options = {"working_points": POINTS} | changes
    return {(row.working_point, row.flavour, row.attack): row for row in residuals(toy_file(), VERDICTS, **options)}


def test_shifts_by_hand():
    rows = table()
    assert len(rows) == 2 * 2 * 3
    loose = rows["loose", "b", "quiet"]
    assert 0.1 < loose.cut <= 0.65
    assert loose.efficiency == pytest.approx(40 / 50)
    assert loose.error == pytest.approx(np.sqrt(0.8 * 0.2 / (50 * TIMES)))
    assert loose.shift == pytest.approx(-10 / 50)
    medium = rows["medium", "light", "quiet"]
    assert 0.65 < medium.cut <= 0.95
    assert medium.efficiency == pytest.approx(0.01)
    assert medium.shift == pytest.approx(0.04)
    assert rows["loose", "light", "loud"].shift == pytest.approx(0.29)


def test_residual_is_the_largest_of_the_invisible():
    row = table()["loose", "b", "loud"]
    assert row.residual_inputs == pytest.approx(10 / 50)  # quiet; loud is seen
    assert row.residual == pytest.approx(1 / 50)  # silent; quiet may be seen in a discriminator
    assert (row.input, row.correlations, row.discriminator) == ("visible", "not made", "visible")
    assert table()["medium", "light", "loud"].residual == 0


def test_variations_are_added_in_quadrature():
    row = table()["loose", "b", "quiet"]
    # up: x by at most max(-5, -8) < 0, y by +3 and, as it has one side, by -3
    assert row.conventional_up == pytest.approx(3 / 50)
    assert row.conventional_down == pytest.approx(np.hypot(8, 3) / 50)
    assert table()["loose", "light", "quiet"].conventional_up == 0
    without = residuals(toy_file(variations=False), VERDICTS, working_points=POINTS)
    assert all(np.isnan(row.conventional_up) for row in without)


def test_cuts_may_be_given():
    rows = table(cuts={("nominal", "loose"): 0.7})
    assert rows["loose", "b", "quiet"].cut == pytest.approx(0.7)
    assert rows["loose", "b", "quiet"].efficiency == pytest.approx(30 / 50)
    assert rows["medium", "b", "quiet"].cut == table()["medium", "b", "quiet"].cut


def test_least_error_of_a_shift():
    """Ten b jets in fifty, of weight 2, leave the region above the cut, and none comes in."""
    row = table()["loose", "b", "quiet"]
    assert row.shift_error == pytest.approx(2 * np.sqrt(10 * TIMES) / (2 * 50 * TIMES))
    assert table()["loose", "light", "silent"].shift_error == 0


@pytest.mark.parametrize(("times", "points"), [(10, {"loose", "medium"}), (9, {"loose"}), (1, {"loose"})])
def test_a_cut_with_few_light_jets_is_left_out(times, points):
    """One light jet in 100 passes the medium cut; a cut that is given stays."""
    file = toy_file(times=times)
    assert {row.working_point for row in residuals(file, VERDICTS, working_points=POINTS)} == points
    cuts = {("nominal", "medium"): 0.7}
    given = residuals(file, VERDICTS, working_points=POINTS, cuts=cuts)
    assert {row.working_point for row in given} == {"loose", "medium"}


def test_correlations_of_examples_of_another_tagger():
    """They are filled for the tagger that the examples were made on."""
    key = ("emu", "robust", "fgsm@nominal")
    rows = [seen("fgsm", "correlations", "visible"), seen("fgsm@nominal", "input", "invisible", tagger="robust")]
    assert verdict_of(worst(rows), key, "correlations") == "visible"
    assert verdict_of(worst(rows), key, "input") == "invisible"
    assert verdict_of(worst(rows[1:]), key, "correlations") == ""
    assert verdict_of({(*key, "correlations"): NOT_MADE}, key, "correlations") == NOT_MADE


def test_correlations_without_a_verdict_hide_nothing():
    """The file has some, of another attack."""
    rows = residuals(toy_file(), [*VERDICTS, seen("loud", "correlations", "visible")], working_points=POINTS)
    assert {(row.attack, row.correlations) for row in rows} == {("loud", "visible"), ("quiet", ""), ("silent", "")}
    assert all(np.isnan(row.residual_inputs) for row in rows)


def test_worst_verdict_of_each_kind():
    rows = [seen("a", "input", verdict) for verdict in ("invisible", "visible", "unclear", "")]
    found = worst(
        [*rows, seen("a", "correlations", "unclear"), seen("a", "correlations", "invisible"), seen("raw", "input", "")]
    )
    assert found == {
        ("emu", "nominal", "a", "input"): "visible",
        ("emu", "nominal", "a", "correlations"): "unclear",
    }


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("invisible", "not made", "invisible"), True),
        (("invisible", "", "invisible"), False),
        (("invisible", "invisible", "invisible"), True),
        (("invisible", "visible", "invisible"), False),
        (("invisible", "unclear"), False),
        (("", "invisible"), False),
        (("invisible", "", ""), False),
    ],
)
def test_what_is_hidden(verdicts, expected):
    assert hidden(verdicts) is expected


def test_errors_of_weighted_jets():
    """Against toys: jets of weights 1 and 3, 30 % of which pass."""
    rng, parts, errors = np.random.default_rng(2), [], []
    for _ in range(400):
        weight, passed = rng.choice([1.0, 3.0], 200), rng.random(200) < 0.3
        values, variances = (np.array([0, (w * ~passed).sum(), (w * passed).sum(), 0]) for w in (weight, weight**2))
        part, error = passing(values, variances)
        parts.append(part[1])
        errors.append(error[1])
    assert np.mean(errors) == pytest.approx(np.std(parts), rel=0.1)


def test_table_and_figure(toy, tmp_path):
    rows = residuals(toy, statistics(toy, ["ttbar"]))
    assert {row.region for row in rows} == {"ttbar"}
    assert {row.working_point for row in rows} == {"loose", "medium"}  # too few light jets for a tight one
    write_table(tmp_path / "residual.csv", Residual, rows)
    with (tmp_path / "residual.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert len(read) == len(rows) == 2 * 2 * 3 * 3
    assert float(read[0]["shift"]) == pytest.approx(rows[0].shift, rel=1e-5)
    jobs = list(residual_figures(rows, tmp_path, "Simulation"))
    assert [job.path for job in jobs] == [tmp_path / "ttbar" / "residual.png"]
    assert jobs[0].about.region == "ttbar"
    assert jobs[0].run().is_file()


def test_every_attack_is_drawn():
    rows = list(table().values())
    figure = residual_figure(rows, true={("b", "loose", "nominal"): [0.03]})
    panel = figure.axes[0]
    heights = [float(line.get_ydata()[0]) for line in panel.lines if len(line.get_ydata()) == 1]
    assert sorted(heights) == pytest.approx(sorted(row.shift for row in rows if row.flavour == "b"))
    assert [0.03, 0.03] in [list(line.get_ydata()) for line in panel.lines]


def test_nothing_without_attacks(build_toy):
    rows = statistics(build_toy(300, inputs=("Jet_pt",)), ["ttbar"])
    assert residuals(build_toy(300, inputs=("Jet_pt",)), [row for row in rows if row.attack == "raw"]) == []


def test_unknown_discriminator(toy):
    with pytest.raises(AdvtagError, match=f"no discriminator 'BvsX'; this file has {', '.join(DISCRIMINATORS)}"):
        residuals(toy, [], discriminator="BvsX")
