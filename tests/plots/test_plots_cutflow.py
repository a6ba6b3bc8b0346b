"""Cutflows, against the numbers that were written."""

import dataclasses

import pytest

from plots.cutflow import cutflow, cutflows


@pytest.fixture
def file(toy):
    flows = {
        "ttbar": {"ttbar": {"all": (4000.0, 3000.0), "trigger": (300.0, 250.0), "two jets": (20.0, 10.0)}},
        "QCD": {"ttbar": {"all": (4000.0, 3000.0), "trigger": (0.0, 0.0), "two jets": (0.0, 0.0)}},
        "Run2018": {"ttbar": {"all": (900.0, 900.0), "trigger": (90.0, 90.0), "two jets": (5.0, 5.0)}},
    }
    datasets = {name: dataclasses.replace(toy.datasets[name], cutflow=flow) for name, flow in flows.items()}
    return dataclasses.replace(toy, datasets=datasets)


def test_scaled_to_the_luminosity(file) -> None:
    found = cutflows(file, "ttbar")
    factor = 0.024 * 41500 / 3000
    data, cuts = found["ttbar"]
    assert not data
    assert cuts["trigger"] == (300.0, pytest.approx(250 * factor))
    assert found["Run2018"] == (True, {"all": (900.0, 900.0), "trigger": (90.0, 90.0), "two jets": (5.0, 5.0)})
    assert cutflows(file, "dijet") == {}


def test_bars_and_points(file) -> None:
    figure = cutflow(cutflows(file, "ttbar"), luminosity=file.luminosity, region="ttbar")
    upper, lower = figure.axes
    factor = {"ttbar": 0.024 * 41500 / 3000, "QCD": 0.012 * 41500 / 3000}
    heights = [patch.get_height() for patch in upper.patches]
    expected = [3000 * factor["ttbar"], 250 * factor["ttbar"], 10 * factor["ttbar"], 3000 * factor["QCD"], 0, 0]
    assert heights == pytest.approx(expected)
    mc, data = (line.get_ydata() for line in lower.lines)
    assert data.tolist() == pytest.approx([1, 0.1, 5 / 900])
    total = 3000 * (factor["ttbar"] + factor["QCD"])
    assert mc.tolist() == pytest.approx([1, 250 * factor["ttbar"] / total, 10 * factor["ttbar"] / total])
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["all", "trigger", "two jets"]


def test_without_data(file) -> None:
    found = {name: flow for name, flow in cutflows(file, "ttbar").items() if name != "Run2018"}
    upper, lower = cutflow(found, luminosity=1.0).axes
    assert not upper.containers[2:]
    assert len(lower.lines) == 1
