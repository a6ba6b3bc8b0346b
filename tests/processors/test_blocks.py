"""Blocks against hist: the same sums to the last bit, underflow, overflow, NaN and absent entries in."""

import hist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.blocks import Fill, Filler, Layout, as_histograms
from processors.jets import FLAVOURS

REGULAR = hist.axis.Regular(7, -1.3, 2.6, name="x")
INTEGER = hist.axis.Integer(-2, 5, name="n")
LAYOUT = Layout((REGULAR, INTEGER))


def categories(regions, variations):
    names = {
        "region": regions,
        "flavour": FLAVOURS,
        "variation": variations,
        "tagger": ["one", "two"],
        "attack": ["raw"],
    }
    return [hist.axis.StrCategory(list(values), name=name) for name, values in names.items()]


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_sums_are_those_of_hist(real):
    rng = np.random.default_rng(3)
    jets = 5000
    flavour = rng.integers(0, len(FLAVOURS), jets).astype(np.int8)
    x = rng.normal(0.5, 2, jets).astype(real)
    edges = REGULAR.edges.astype(real)
    x[:24] = [*edges, *np.nextafter(edges, real(9)), *np.nextafter(edges, real(-9))]
    x[24:27] = np.nan, np.inf, -np.inf
    n = rng.integers(-5, 9, jets).astype(real)
    there = [rng.random(jets) < 0.8, rng.random(jets) < 0.5]
    weights = {"nominal": rng.normal(1, 2, jets), "up": rng.normal(1, 2, jets)}
    regions = {"a": np.flatnonzero(rng.random(jets) < 0.5), "b": np.arange(jets), "none": np.zeros(0, np.int64)}
    fills = [
        Fill(name, rows, {variation: weight[rows] for variation, weight in weights.items()})
        for name, rows in regions.items()
    ]
    filler = Filler(LAYOUT, flavour, fills)
    filler.fill("one", "raw", [x, n], there, ["nominal", "up"])
    axes = categories(regions, weights)
    ours = as_histograms(LAYOUT, filler.blocks, axes, "tt", "*")
    for axis, values, present in zip((REGULAR, INTEGER), (x, n.astype(int)), there, strict=True):
        theirs = hist.Hist(hist.axis.StrCategory(["tt"], name="dataset"), *axes, axis, storage=hist.storage.Weight())
        for region, rows in regions.items():
            rows = rows[present[rows]]
            for variation, weight in weights.items():
                # integers: the axis would round infinity; absent entries hold anything
                theirs.fill(
                    dataset="tt", region=region, variation=variation, tagger="one", attack="raw", weight=weight[rows],
                    flavour=[FLAVOURS[code] for code in flavour[rows]], **{axis.name: values[rows]},
                )  # fmt: skip
        assert np.array_equal(ours[axis.name].view(flow=True)[:1, :3], theirs.view(flow=True)[:1, :3])


def test_what_holds_for_all_taggers_is_entered_under_each():
    filler = Filler(LAYOUT, np.zeros(1, np.int8), [Fill("r", np.zeros(1, np.int64), {"nominal": np.array([-2.0])})])
    filler.fill("*", "raw", [np.array([0.0]), np.array([9.0])], [np.array([True])] * 2, ["nominal"])
    made = as_histograms(LAYOUT, filler.blocks, categories(["r"], ["nominal"]), "tt", "*")
    for tagger in ("one", "two"):
        where = {
            "dataset": "tt",
            "region": "r",
            "flavour": "b",
            "variation": "nominal",
            "tagger": tagger,
            "attack": "raw",
        }
        assert made["x"][where].sum().value == -2
        assert made["x"][where].sum().variance == 4
        assert made["n"][where].view(flow=True)["value"][-1] == -2


@given(st.floats(width=32, allow_nan=True), st.integers(1, 50), st.floats(-5, 5), st.floats(0.01, 10))
@settings(max_examples=200, deadline=None)
def test_places_are_those_of_the_axis(value, bins, low, width):
    axis = hist.axis.Regular(bins, low, low + width, name="x")
    (place,) = Layout((axis,)).places(0, np.array([value], np.float32), np.array([True]))
    assert place == axis.index(float(np.float32(value))) + 1
