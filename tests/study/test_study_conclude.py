"""Comparisons of taggers, by hand."""

import numpy as np
import pytest

from study.conclude import SHAPE, TRUE, comparisons, rows, sentences, spread

# [sample, three replicas]
VALUES = {
    ("mc", "nominal"): [1.5, 1.5, 1.5, 1.5],
    ("mc", "robust"): [1.0, 1.0, 1.0, 1.0],
    ("tails", "nominal"): [1.10, 1.12, 1.08, 1.10],
    ("tails", "robust"): [1.04, 1.06, 1.02, 1.04],
    ("data", "nominal"): [0.90, 0.92, 0.91, 0.93],
    ("data", "robust"): [0.92, 0.94, 0.93, 0.95],
}
RESULTS = {(variant, "b", TRUE, tagger, "loose"): np.array(v) for (variant, tagger), v in VALUES.items()}


def distances(results):
    return {key: np.abs(values - 1) for key, values in results.items()}


def test_comparison_by_hand():
    (found,) = comparisons(distances(RESULTS), "nominal")
    assert (found.tagger, found.variants, found.best) == ("robust", 2, 2)
    assert found.off_reference == pytest.approx(0.10)
    assert found.off == pytest.approx(0.06)
    assert found.gain == pytest.approx(0.04)
    # every replica has the same difference, (0.06 + 0.02)/2: what both taggers share drops out
    assert found.gain_error == pytest.approx(0, abs=1e-12)
    assert found.off_error == pytest.approx(np.std([0.06, 0.045, 0.045], ddof=1))
    assert found.verdict == "closer"


@pytest.mark.parametrize(
    ("off", "verdict"), [(0.07, "closer"), (0.09, "no difference"), (0.11, "no difference"), (0.13, "farther")]
)
def test_verdict_needs_two_errors(off, verdict):
    noise = np.array([0, 0.01, -0.01, 0])  # of standard deviation 0.01
    results = {
        ("tails", "b", TRUE, "nominal", "loose"): np.full(4, 1.1),
        ("tails", "b", TRUE, "robust", "loose"): 1 + off + noise,
    }
    (found,) = comparisons(distances(results), "nominal")
    assert found.gain_error == pytest.approx(0.01)
    assert found.verdict == verdict


def test_what_is_undefined_is_no_agreement():
    results = RESULTS | {("tails", "b", TRUE, "robust", "loose"): np.array([np.nan, 1.1, 1.1, 1.2])}
    (found,) = comparisons(distances(results), "nominal")
    assert found.verdict == "undefined"
    lines = sentences([found], "nominal")
    assert lines[0].endswith(": undefined (closer in 1 of 2 variants)")
    assert "farther in 0, no difference in 0, undefined in 1 of 1 pairs" in lines[1]


def test_sentences_are_computed():
    shapes = {
        (variant, "qcd", SHAPE, tagger, ""): np.array([0.05, 0.05, 0.05, 0.05]) + (tagger == "robust") * 0.01
        for variant in ("tails", "data")
        for tagger in ("nominal", "robust")
    }
    lines = sentences(comparisons(distances(RESULTS) | shapes, "nominal"), "nominal")
    assert lines[0].startswith("robust, b jets, loose: mean |SF - 1| over 2 variants is 0.0600, of nominal 0.1000")
    assert "+0.0400 ± 0.0000 (+40 %): closer (closer in 2 of 2 variants)" in lines[0]
    assert "robust, qcd: mean JS distance of data and MC over 2 variants is 0.0600, of nominal 0.0500" in lines[1]
    assert "scale factors closer to 1 in 1, farther in 0, no difference in 0 of 1 pairs" in lines[2]
    assert "discriminator of data closer to MC in 0, farther in 1, no difference in 0 of 1 processes" in lines[3]


def test_rows_have_the_error_of_the_difference():
    measured = {("data", "b", "tag-and-probe", "nominal", "loose"): np.array([0.95, 0.97, 0.96, 0.98])}
    true = {key: values for key, values in RESULTS.items() if key[0] == "data" and key[3] == "nominal"}
    both = measured | true
    found = {row.method: row for row in rows(both, dict.fromkeys(both, (0.7, 0.8)))}
    row = found["tag-and-probe"]
    assert row.scale_factor == 0.95
    assert row.minus_true == pytest.approx(0.05)
    assert row.error == pytest.approx(0.01)
    assert row.minus_true_error == pytest.approx(0, abs=1e-12)


def test_spread_is_undefined_if_replicas_are():
    values = np.arange(21.0)
    assert spread(values) == pytest.approx(np.std(np.arange(1, 21), ddof=1))
    values[[3, 4]] = np.nan
    assert np.isfinite(spread(values))
    values[5] = np.nan
    assert np.isnan(spread(values))
