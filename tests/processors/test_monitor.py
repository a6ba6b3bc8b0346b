"""Figures of a running job: on stderr, and on disk."""

import json

import pytest

from configs.schema import Dataset, Run
from processors.fileset import open_fileset
from processors.monitor import watched
from processors.run import run_processor
from processors.store import Store
from tests.processors.counting_job import READ, Adding, write_events


@pytest.fixture
def files(tmp_path):
    paths = [write_events(tmp_path / f"f{i}.root", size, first=1000 * i) for i, size in enumerate((40, 25))]
    return open_fileset({"d": Dataset(files=paths, cross_section=1.0)}, None, ())


def job(files, folder, processor=None, **run):
    store = Store(folder / "out" / "columns", "key")
    settings = Run(**{"chunksize": 10, "backoff": 0.01, **run})
    return run_processor(processor or Adding(), files, {"d": READ}, settings, store, progress=True)


def test_dask_tells_where_to_look_and_reports(files, tmp_path, capfd):
    output = job(files, tmp_path, executor="dask")
    _, errors = capfd.readouterr()
    assert "Dask dashboard: http://127.0.0.1:" in errors
    assert "events/s" in errors
    report = (tmp_path / "out" / "performance-columns.html").read_text()
    assert report.lower().startswith("<!doctype html>")
    assert "_call" in report  # the name of the tasks, in the stream
    assert sum(found["chunks"] for found in output["performance"]["workers"].values()) == 6


def test_figures_add_up(files, tmp_path):
    (tmp_path / "marks").mkdir()
    output = job(files, tmp_path, Adding("oserror 2", 12, str(tmp_path / "marks")), executor="iterative")
    written = json.loads((tmp_path / "out" / "performance-columns.json").read_text())
    of_files = written["files"]["d"]
    assert {path: found["events"] for path, found in of_files.items()} == {
        files[0].path: 40,
        files[1].path: 25,
    }
    assert [found["chunks"] for found in of_files.values()] == [4, 2]
    assert [found["tries"] for found in of_files.values()] == [6, 2]
    (worker,) = written["workers"].values()
    for key in ("events", "bytes", "chunks", "tries"):
        assert worker[key] == sum(found[key] for found in of_files.values())
    assert worker["bytes"] == output["bytes"] > 0
    assert worker["seconds"] == pytest.approx(sum(found["seconds"] for found in of_files.values()), abs=0.002)
    assert worker["seconds"] <= written["seconds"]
    assert worker["events_per_second"] == pytest.approx(65 / worker["seconds"], rel=0.05)
    assert not (tmp_path / "out" / "performance-columns.html").exists()


def test_figures_of_a_resumed_job_hold_all_of_it(files, tmp_path):
    (tmp_path / "marks").mkdir()
    job(files, tmp_path, Adding("bug", 35, str(tmp_path / "marks")), executor="iterative", allow_missing=True)
    before = json.loads((tmp_path / "out" / "performance-columns.json").read_text())
    assert before["files"]["d"][files[0].path]["events"] == 30
    job(files, tmp_path, executor="iterative", resume=True)
    after = json.loads((tmp_path / "out" / "performance-columns.json").read_text())
    assert after["files"]["d"][files[0].path]["events"] == 40


def test_a_report_that_fails_fails_no_job(tmp_path, capsys):
    """A scheduler without bokeh, or one that is gone."""

    with watched(object(), tmp_path / "report.html", progress=False):
        done = True
    assert done
    assert "advtag: no report.html: AttributeError" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
