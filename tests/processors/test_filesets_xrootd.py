"""root:// URLs, from a real server: listed, looked into, read by jobs; and what happens when it dies."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.dataset as ds
import pytest
from typer.testing import CliRunner

import advtag
from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from configs.schema import Dataset
from models.features import load_features
from processors import remote
from processors.fileset import open_fileset
from processors.jobs import make_columns, make_histograms
from tests.conftest import NANO, make_tagger

CARD = load_features("nanoaod")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (1.2,))  # beyond XRD_STREAMERRORWINDOW


def open_urls(*urls, data=False, **options):
    return open_fileset({"d": Dataset(files=urls, data=data)}, CARD, (), **options)


def listed(server, entry):
    return [url.removeprefix(server.url) for url in remote.find(f"{server.url}{entry}")]


def test_folders_and_patterns_are_listed(xrootd):
    (xrootd.served / "crab" / "0000" / "failed").mkdir(parents=True)
    for place in ("crab/0000/a.root", "crab/0000/failed/b.root", "crab/0000/log.txt", "c.root", "d[1].root"):
        (xrootd.served / place).touch()
    everything = ["/c.root", "/crab/0000/a.root", "/d[1].root"]
    assert listed(xrootd, "") == listed(xrootd, "/") == listed(xrootd, "/**/*.root") == everything
    assert listed(xrootd, "/c*/*/*.root") == listed(xrootd, "/crab") == ["/crab/0000/a.root"]
    assert listed(xrootd, "/?.root") == ["/c.root"]
    assert listed(xrootd, "/x*.root") == []
    with pytest.raises(AdvtagError, match=r"root://localhost:\d+/.*/nowhere: cannot be listed .*no such file"):
        remote.find(f"{xrootd.url}/nowhere")
    with pytest.raises(AdvtagError, match=r"dataset 'd': no file matches root://.*x\*\.root"):
        open_urls(f"{xrootd.url}/x*.root")


def test_a_folder_that_may_not_be_read_is_not_passed_over(xrootd):
    if os.getuid() != 0:
        pytest.skip("the server runs as the user of the tests")
    xrootd.add(NANO / "nano_dy.root")
    (xrootd.served / "shut").mkdir(mode=0o700)
    with pytest.raises(AdvtagError, match=r"/shut: cannot be listed .*permission denied"):
        open_urls(xrootd.url)


def test_the_fileset_of_a_server_is_that_of_the_disk(xrootd, tmp_path):
    xrootd.add(NANO / "nano_dy.root", NANO / "nano_tt_v12.root")
    arguments = ["fileset", "--no-progress", "--output", str(tmp_path / "f.json"), "--mc", f"d={xrootd.url}"]
    assert CliRunner().invoke(advtag.app, arguments, catch_exceptions=False).exit_code == 0
    page = json.loads((tmp_path / "f.json").read_text())["d"]
    here = open_urls(str(NANO / "nano_dy.root"), str(NANO / "nano_tt_v12.root"))
    assert list(page["files"]) == [f"{xrootd.url}/nano_dy.root", f"{xrootd.url}/nano_tt_v12.root"]
    for file, found in zip(here, page["files"].values(), strict=True):
        assert (found["num_entries"], found["bytes"], found["modified"]) == (file.events, file.record.bytes, None)
        assert found["sum_weights_events"] == file.record.sum_weights_events
        assert found["sum_weights_runs"] == file.record.sum_weights_runs
    assert page["metadata"]["sum_weights"] == sum(file.sum_weights for file in here)


def test_what_the_server_refuses_is_told_at_once(xrootd, tmp_path, capsys):
    (good,) = xrootd.add(NANO / "nano_dy.root")
    half = tmp_path / "half.root"
    half.write_bytes((NANO / "nano_tt_v12.root").read_bytes()[:300_000])
    text = tmp_path / "text.root"
    text.write_text("not ROOT")
    cut, wrong = xrootd.add(half, text)
    start = time.perf_counter()
    with pytest.raises(AdvtagError, match="4 problems in 5 files"):
        open_urls(wrong, good, cut, f"{xrootd.url}/gone.root", f"root://localhost:{xrootd.port}//elsewhere/a.root")
    assert time.perf_counter() - start < 10
    told = capsys.readouterr().err
    assert "text.root: cannot be read as a ROOT file (dataset 'd'; OSError: expected Chunk" in told
    assert "half.root: cannot be read as a ROOT file (dataset 'd'; EOFError: 300000 bytes of 980772" in told
    assert "gone.root: no such file, or the server does not give it (dataset 'd': [3011] Unable to open" in told
    assert "elsewhere/a.root: no such file, or the server does not give it (dataset 'd': [3010] Opening path" in told
    with pytest.raises(AdvtagError, match=r"no host of that name \(dataset 'd': Invalid address\)"):
        open_urls("root://no.such.host.invalid//a.root")


def test_a_server_that_does_not_answer_is_named_and_asked_for_one_file_only(xrootd, capsys):
    urls = [f"{xrootd.url}/{index}.root" for index in range(200)]
    xrootd.kill()
    start = time.perf_counter()
    with pytest.raises(AdvtagError, match="200 problems in 200 files"):
        open_urls(*urls)
    assert time.perf_counter() - start < 30
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 200
    assert all(f"root://localhost:{xrootd.port} does not answer" in line for line in lines)
    with pytest.raises(AdvtagError, match=f"root://localhost:{xrootd.port}/.*: the server does not answer"):
        remote.find(xrootd.url)


def test_a_server_that_hangs_is_given_up(xrootd, monkeypatch):
    (url,) = xrootd.add(NANO / "nano_dy.root")
    monkeypatch.setattr(remote, "TIMEOUT", 1)
    monkeypatch.setattr(remote, "PAUSES", ())
    os.kill(xrootd.process.pid, signal.SIGSTOP)
    try:
        start = time.perf_counter()
        with pytest.raises(AdvtagError, match="does not answer"):
            open_urls(url)
        assert time.perf_counter() - start < 20
    finally:
        os.kill(xrootd.process.pid, signal.SIGCONT)


def test_a_replica_takes_over(xrootd, tmp_path):
    (url,) = xrootd.add(NANO / "nano_dy.root")
    entry = {"object_path": "Events", "replicas": [url]}
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"d": {"files": {f"{xrootd.url}/gone.root": entry}}}))
    (file,) = open_urls(str(path))
    assert (file.path, file.replicas) == (url, (f"{xrootd.url}/gone.root",))


def test_a_restarted_server_can_be_read_again(xrootd):
    """With uproot's default source it cannot: fsspec keeps the broken handle."""
    (url,) = xrootd.add(NANO / "nano_tt_v12.root")
    with remote.open_root(url) as file:
        expected = file["Events"]["Jet_pt"].array()
        tree = file["Events"]
        xrootd.kill()
        with pytest.raises(OSError, match=r"Connection error|Operation expired"):
            tree["Jet_eta"].array()
    xrootd.start()
    time.sleep(1.2)
    with remote.open_root(url) as file:
        assert file["Events"]["Jet_pt"].array().tolist() == expected.tolist()


@pytest.fixture
def configs(xrootd, tmp_path, write_config):
    """Configurations of the same datasets, here and behind the server."""
    paths = [NANO / "nano_tt_v12.root", NANO / "nano_dy.root"]
    make_tagger("nanoaod").save(tmp_path / "nominal.safetensors")

    def write(name, files, **run):
        return write_config(
            name,
            features="nanoaod",
            datasets={"ttbar": {"files": files, "cross_section": 500.0}},
            columns={"datasets": ["ttbar"]},
            histograms={
                "datasets": ["ttbar"],
                "taggers": {"nominal": str(tmp_path / "nominal.safetensors")},
                "precision": "float64",
            },
            run={"executor": "iterative", **run},
        )

    return lambda **run: (
        write("here", [str(path) for path in paths], **run),
        write("there", xrootd.add(*paths), **run),
    )


def rows(folder):
    keys = [(key, "ascending") for key in ("run", "event", "jet_index")]
    return ds.dataset(folder, format="parquet", exclude_invalid_files=True).to_table().sort_by(keys)


def same_histograms(first, second):
    first, second = read_histograms(first), read_histograms(second)
    for name, expected in first.histograms.items():
        np.testing.assert_array_equal(
            second.histograms[name].values(flow=True), expected.values(flow=True), err_msg=name
        )
    for name, dataset in first.datasets.items():
        assert replace(second.datasets[name], files=None) == replace(dataset, files=None)


def test_jobs_give_the_same_from_a_server(configs):
    here, there = (load_analysis(path) for path in configs())
    columns = rows(make_columns(here, progress=False))
    assert columns.num_rows > 200
    assert rows(make_columns(there, progress=False)).equals(columns)
    same_histograms(make_histograms(here, progress=False), make_histograms(there, progress=False))


def test_no_event_is_lost_when_the_server_dies_under_way(configs, xrootd, tmp_path):
    """Killed while chunks run, back some seconds later."""
    here, there = configs(chunksize=12)  # 21 chunks
    columns = rows(make_columns(load_analysis(here), progress=False))
    command = [sys.executable, "-m", "advtag", "columns", str(there), "--no-progress"]
    environment = os.environ | {"XRD_CONNECTIONWINDOW": "2"}
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        output = tmp_path / "out_there"
        deadline = time.monotonic() + 60
        while len(list(output.glob(".columns*/**/*.parquet"))) + len(list(output.glob("**/*.parquet"))) < 3:
            assert time.monotonic() < deadline
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.02)
        xrootd.kill()
        done = len(list(output.glob("**/*.parquet"))) + len(list(output.glob(".columns*/**/*.parquet")))
        assert done < 18, "the job was faster than the test"
        time.sleep(4)
        assert job.poll() is None, job.stderr.read()
        xrootd.start()
        _, told = job.communicate(timeout=120)
        assert job.returncode == 0, told
    finally:
        job.kill()
        job.wait()
    assert rows(output / "columns").equals(columns)
