"""The jobs of `advtag plot` and `advtag report`: from a configuration to a folder."""

import dataclasses
import json
import os

import numpy as np
import pytest

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from plots.analysis import draw, report
from plots.figures import Style

AREAS = dict.fromkeys(("BvsL", "BvsC", "CvsL", "CvsB"), 0.9)
EPOCH = {"epoch": 1, "loss": 1.0, "validation_loss": {"raw": 1.0}, "auc": {"raw": AREAS}}
SCAN = {"attack": "pgd", "points": [{"inputs": 5, "auc": {"raw": AREAS, "pgd": AREAS}}]}


@pytest.fixture
def analysis(build_toy, tmp_path):
    """An analysis whose histograms are there, and a history of a tagger that it no longer has."""
    file = dataclasses.replace(build_toy(300, inputs=("Jet_pt",), regions=("ttbar",)), discriminators=("BvsL",))
    (tmp_path / "out" / "taggers").mkdir(parents=True)
    file.write(tmp_path / "out" / "histograms" / "all.zip")
    (tmp_path / "out" / "taggers" / "gone.history.jsonl").write_text(json.dumps(EPOCH))
    path = tmp_path / "toy.yaml"
    path.write_text(
        "{name: toy, output: out, features: deepcsv, luminosity: 12.0,"
        " datasets: {ttbar: {files: x.root, cross_section: 3.0}}, training: {t: {epochs: 1}}}"
    )
    return load_analysis(path)


def test_scaled_to_what_the_configuration_says_now(analysis):
    written = read_histograms(analysis.output / "histograms")
    now = written.normalised(12.0, {"ttbar": 3.0})
    ttbar, qcd = now.datasets["ttbar"], now.datasets["QCD"]
    assert now.luminosity == 12.0
    assert np.isclose(ttbar.scale(12.0), 3.0 * 12.0 / ttbar.sum_weights)
    assert qcd == written.datasets["QCD"]
    assert now.histograms is written.histograms
    draw(analysis, progress=False)
    page = report(analysis).read_text()
    assert "luminosity of 12 " in page


def test_histograms_newer_than_their_figures(analysis):
    folder, told = draw(analysis, progress=False), "The histograms are newer than the figures"
    assert told not in report(analysis).read_text()
    drawn = (folder / "statistics.csv").stat().st_mtime
    os.utime(analysis.output / "histograms" / "all.zip", (drawn + 10, drawn + 10))
    assert told in report(analysis).read_text()


def test_figures_take_the_place_of_earlier_ones(analysis):
    stale = analysis.output / "plots" / "old_region" / "Jet_pt.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"stale")
    folder = draw(analysis, progress=False)
    assert not stale.exists()
    assert (folder / "ttbar" / "Jet_pt.png").stat().st_size > 1000
    assert not (folder / "training").exists()  # the only history is of a tagger that is not configured


def test_a_selection_leaves_the_others(analysis):
    folder = draw(analysis, progress=False)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    draw(analysis, only="Jet_pt", regions=["ttbar"], style=Style(area=True), progress=False)
    after = {path: path.read_bytes() for path in folder.rglob("*.*")}
    assert {path.name for path in before if before[path] != after[path]} == {"Jet_pt.png", "Jet_pt.pdf"}
    assert before.keys() == after.keys()


def test_histograms_and_trainings(analysis):
    (analysis.output / "taggers" / "t.history.jsonl").write_text(json.dumps(EPOCH))
    folder = draw(analysis, progress=False)
    assert (folder / "training" / "auc_vs_epoch_BvsL.png").exists()
    assert (folder / "ttbar" / "Jet_pt.png").exists()
    assert not (folder / "training" / "scan.png").exists()


def test_trainings_without_histograms(analysis):
    (analysis.output / "histograms" / "all.zip").unlink()
    with pytest.raises(AdvtagError, match="make them with `advtag histograms"):
        draw(analysis, progress=False)
    (analysis.output / "taggers" / "t.history.jsonl").write_text(json.dumps(EPOCH))
    folder = draw(analysis, progress=False)
    assert {path.name for path in folder.iterdir()} == {"training", "figures.json"}
    names = {path.name for path in (folder / "training").iterdir()}
    assert names > {"auc_vs_epoch_BvsL.png", "auc_vs_epoch_CvsB.png", "loss_vs_epoch.png"}
    assert not (folder / "ttbar").exists()
    assert 'data-file="training/loss_vs_epoch.png"' in report(analysis).read_text()


def test_a_scan_alone(analysis):
    (analysis.output / "histograms" / "all.zip").unlink()
    (analysis.output / "scan").mkdir()
    (analysis.output / "scan" / "scan.json").write_text(json.dumps(SCAN))
    folder = draw(analysis, progress=False)
    assert {path.name for path in (folder / "training").iterdir()} == {"scan.png", "scan.pdf"}
    assert 'data-file="training/scan.png"' in report(analysis).read_text()
