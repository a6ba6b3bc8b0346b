"""Histograms made apart and added up: as if they had been made at once, or refused."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from processors.jobs import make_histograms
from processors.merge import merge


@pytest.fixture(scope="module")
def made(simulated, taggers, tmp_path_factory):
    """Folders: `first` and `second` of one file each, `both` of both."""
    import yaml

    folder = tmp_path_factory.mktemp("merge")
    sections = {
        "name": "job",
        "output": "out",
        "features": "deepcsv",
        "datasets": {"ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0}},
        "histograms": {
            "datasets": ["ttbar"],
            "taggers": {"nominal": str(taggers["nominal"])},
            "attacks": [],
            "correlations": True,
        },
        "run": {"executor": "iterative"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(sections))
    first, second = sorted(simulated.glob("ttbar_mc_11_*.root"))
    files = {"first": first, "second": second, "both": simulated / "ttbar_mc_11_*.root"}
    for name, path in files.items():
        analysis = load_analysis(folder / "job.yaml", [f"output={name}", f"datasets.ttbar.files={path}"])
        make_histograms(analysis, progress=False)
    return {name: folder / name / "histograms" for name in files}


def changed(folder, to, **changes):
    """A copy of a folder's histograms whose page of the dataset is another."""
    file = read_histograms(folder)
    dataset = replace(file.datasets["ttbar"], **{key: value for key, value in changes.items() if key != "provenance"})
    to.mkdir()
    provenance = {**file.provenance, **changes.get("provenance", {})}
    replace(file, datasets={"ttbar": dataset}, provenance=provenance).write(to / "ttbar.zip")
    return to


def test_two_halves_are_the_whole(made, tmp_path):
    merged = read_histograms(merge([made["first"], made["second"]], tmp_path / "merged"))
    whole = read_histograms(made["both"])
    ours, theirs = merged.datasets["ttbar"], whole.datasets["ttbar"]
    assert (ours.events, ours.jets, ours.cutflow) == (theirs.events, theirs.jets, theirs.cutflow)
    assert ours.sum_weights == pytest.approx(theirs.sum_weights, rel=1e-12)
    assert {path: book["ranges"] for path, book in ours.files.items()} == {
        path: book["ranges"] for path, book in theirs.files.items()
    }
    for name, histogram in whole.histograms.items():
        for part in ("value", "variance"):
            np.testing.assert_allclose(
                merged.histograms[name].view(flow=True)[part], histogram.view(flow=True)[part], rtol=1e-12
            )
    raw = ("inclusive", "", "raw")
    block = whole.correlations["ttbar"][raw]
    assert block.any()
    np.testing.assert_allclose(merged.correlations["ttbar"][raw], block, rtol=1e-9, atol=1e-9)


def test_events_in_two_of_them(made, tmp_path):
    with pytest.raises(AdvtagError, match=r"events 0 to 150 were processed twice; leave this file out"):
        merge([made["first"], made["both"]], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_events_in_none_of_them(made, tmp_path):
    """Named and refused; allowed, named in the output; and forgotten when another part brings them."""
    (path, book), *_ = read_histograms(made["first"]).datasets["ttbar"].files.items()
    cut = {path: {**book, "events": 100, "ranges": [[0, 100]]}}
    rest = {path: {**book, "events": 50, "ranges": [[100, 150]]}}
    lost = {"dataset": "ttbar", "file": path, "start": 100, "stop": 150}
    begun = changed(made["first"], tmp_path / "begun", files=cut, provenance={"missing": [lost]})
    with pytest.raises(AdvtagError, match=r"50 events are in none of the files, the first are 100 to 150 of .*\.root"):
        merge([begun, made["second"]], tmp_path / "merged")
    allowed = merge([begun, made["second"]], tmp_path / "merged", allow_missing=True)
    assert read_histograms(allowed).provenance["missing"] == [lost]
    ended = changed(made["first"], tmp_path / "ended", files=rest)
    complete = merge([begun, made["second"], ended], tmp_path / "complete")
    assert read_histograms(complete).provenance["missing"] == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_in_which_nothing_was_processed(made, tmp_path, order):
    (path, book), *_ = read_histograms(made["second"]).datasets["ttbar"].files.items()
    nothing = {path: {"expected_events": book["expected_events"], "events": 0}}
    changes = {"files": nothing, "events": 0, "jets": 0, "sum_weights": 0.0, "cutflow": {}}
    empty = changed(made["second"], tmp_path / "empty", **changes)
    merged = read_histograms(merge([made["first"], empty][::order], tmp_path / "merged", allow_missing=True))
    assert merged.datasets["ttbar"].cutflow == read_histograms(made["first"]).datasets["ttbar"].cutflow
    assert merged.datasets["ttbar"].events == 150


def test_a_file_that_changed_in_between(made, tmp_path):
    (path, book), *_ = read_histograms(made["first"]).datasets["ttbar"].files.items()
    other = {path: {**book, "expected_events": 200, "ranges": [[150, 200]]}}
    with pytest.raises(AdvtagError, match="had 200 events, and 150 for another"):
        merge([made["first"], changed(made["first"], tmp_path / "longer", files=other)], tmp_path / "merged")


@pytest.mark.parametrize(
    ("changes", "words"), [({"provenance": {"job": "x"}}, "of another job"), ({"cross_section": 1.0}, "cross-section")]
)
def test_parts_that_do_not_belong_together(made, tmp_path, changes, words):
    with pytest.raises(AdvtagError, match=words):
        merge([made["first"], changed(made["second"], tmp_path / "other", **changes)], tmp_path / "merged")
