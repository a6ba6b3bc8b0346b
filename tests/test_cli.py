"""The command line as its user meets it: each mistake is one line, a non-zero exit, and no output."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml

from tests.conftest import NANO, make_tagger

ROOT = Path(__file__).parent.parent
VERBS = (
    "simulate",
    "fileset",
    "columns",
    "train",
    "scan",
    "shapes",
    "skim",
    "export",
    "evaluate",
    "inspect",
    "detect",
    "envelope",
    "histograms",
    "merge",
    "plot",
    "report",
    "study",
    "submit",
    "jobs",
    "collect",
    "demo",
)


def advtag(*arguments, file_size=None):
    """Run the command line in a process of its own."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        [sys.executable, ROOT / "advtag.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=None if file_size is None else limit,
    )


def assert_one_line_error(result, *words):
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("advtag: ")
    for word in words:
        assert word in lines[0]


def sections(**changes):
    base = {
        "features": "nanoaod",
        "datasets": {"v5": {"files": str(NANO / "nanov5_sample.root"), "cross_section": 1.0}},
        "columns": {"datasets": ["v5"]},
        "run": {"executor": "iterative"},
    }
    return {**base, **changes}


def leftovers(folder):
    """What could be taken for a result: all but the configuration and the inputs that a test put there, what the check
    of the files saw, what is known to be missing, how fast it was, and the hidden state that `--resume` goes on from.
    """
    known = ("out_analysis", "preflight.json", "failed.json", "performance-columns.json", "performance-histograms.json")
    paths = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(
        path.name
        for path in paths
        if path.suffix not in (".yaml", ".root", ".safetensors")
        and path.name not in known
        and not any(part.startswith(".") for part in path.parts)
    )


def test_help_names_every_verb_without_loading_torch():
    result = advtag("--help")
    assert result.returncode == 0
    for verb in VERBS:
        assert verb in result.stdout
    code = "import sys, advtag; sys.exit('torch' in sys.modules or 'coffea' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example(verb):
    assert "Example: advtag" in advtag(verb, "--help").stdout


def test_columns_run(write_config, tmp_path):
    result = advtag("columns", write_config(**sections()))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "out_analysis" / "columns")
    assert (tmp_path / "out_analysis" / "columns" / "manifest.json").exists()


def test_dry_run_prints_the_configuration_and_makes_nothing(write_config, tmp_path):
    result = advtag("columns", write_config(**sections()), "selection.pt=[30,200]", "--workers", "7", "--dry-run")
    assert result.returncode == 0
    resolved = yaml.safe_load(result.stdout)
    assert resolved["selection"]["pt"] == [30, 200]
    assert resolved["run"]["workers"] == 7
    assert leftovers(tmp_path) == []


def test_wrong_branch(write_config, tmp_path):
    card = {"name": "mine", "inputs": [{"name": "x", "branch": "Jet_pf", "label": "x", "bins": [5, 0, 1]}]}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    result = advtag("columns", write_config(**sections(features="card.yaml")))
    assert_one_line_error(result, "nanov5_sample.root", "Jet_pf")
    assert leftovers(tmp_path) == []


def test_unknown_key(write_config, tmp_path):
    result = advtag("columns", write_config(**sections(selction={"pt": [20, 30]})))
    assert_one_line_error(result, "selction", "did you mean 'selection'?")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "baskets"])
def test_unreadable_file(write_config, tmp_path, damage):
    path = tmp_path / "bad.root"
    whole = (NANO / "nanov5_sample.root").read_bytes()
    if damage == "baskets":  # opens, and breaks under way: the middle of the file is gone
        path.write_bytes(whole[: len(whole) // 8] + bytes(len(whole) // 2) + whole[len(whole) * 5 // 8 :])
    elif damage != "missing":
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello" * 100, "empty": b""}[damage])
    good = {"files": [str(NANO / "nano_dy.root"), str(path)], "cross_section": 1.0}
    result = advtag("columns", write_config(**sections(datasets={"v5": good})))
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "Jet_nBHadrons" not in line]
    assert line.startswith("advtag: ")
    assert "bad.root" in line
    assert leftovers(tmp_path) == []


def test_tagger_of_another_card(write_config, tmp_path):
    make_tagger("deepcsv").save(tmp_path / "t.safetensors")
    histograms = {"datasets": ["v5"], "taggers": {"t": str(tmp_path / "t.safetensors")}}
    result = advtag("histograms", write_config(**sections(histograms=histograms)))
    assert_one_line_error(result, "t.safetensors", "'deepcsv'", "'nanoaod'")
    assert leftovers(tmp_path) == []


def test_not_a_tagger(write_config, tmp_path):
    (tmp_path / "t.safetensors").write_bytes(b"\x80\x04garbage that could be a pickle")
    histograms = {"datasets": ["v5"], "taggers": {"t": str(tmp_path / "t.safetensors")}}
    assert_one_line_error(advtag("histograms", write_config(**sections(histograms=histograms))), "t.safetensors")


def test_empty_selection(write_config, tmp_path):
    result = advtag("columns", write_config(**sections()), "selection.pt=[5000,6000]")
    assert result.returncode == 1
    assert "'v5': none of 1000 events has a jet" in result.stderr.splitlines()[-1]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("executor", ["iterative", "futures", "dask"])
def test_full_disk(write_config, tmp_path, executor):
    """Writing stops in mid-file, as on a full disk: here by the limit on file size."""
    config = write_config(**sections())
    result = advtag("columns", config, "--executor", executor, file_size=20_000)
    assert result.returncode == 1
    assert "cannot write" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert leftovers(tmp_path) == []


def test_folder_that_cannot_be_written(write_config, tmp_path):
    (tmp_path / "file.yaml").write_text("in the way")
    result = advtag("columns", write_config(**sections(output="file.yaml/out")))
    assert_one_line_error(result, "cannot write", "file.yaml/out")


def test_full_disk_keeps_the_earlier_histograms(write_config, tmp_path):
    make_tagger("nanoaod").save(tmp_path / "t.safetensors")
    histograms = {"datasets": ["v5"], "taggers": {"t": str(tmp_path / "t.safetensors")}}
    config = write_config(**sections(histograms=histograms))
    assert advtag("histograms", config).returncode == 0
    made = tmp_path / "out_analysis" / "histograms" / "v5.zip"
    before = made.read_bytes()
    result = advtag("histograms", config, file_size=20_000)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("advtag: cannot write")
    assert made.read_bytes() == before
    assert leftovers(tmp_path) == ["histograms", "v5.zip"]


def test_scheduler_that_does_not_answer(write_config, tmp_path):
    result = advtag("columns", write_config(**sections()), "--scheduler", "tcp://127.0.0.1:9")
    assert result.returncode == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_stages_out_of_order(write_config, tmp_path):
    training = {
        "training": {"t": {"evaluate_with": "fgsm"}},
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
    }
    config = write_config(**sections(**training))
    assert_one_line_error(advtag("train", config), "advtag columns")
    assert_one_line_error(advtag("histograms", config), "needs the key `histograms`")
    assert_one_line_error(advtag("plot", config), "advtag histograms")
    assert_one_line_error(advtag("report", config), "advtag histograms")


def test_demo_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    assert_one_line_error(advtag("demo", "--output", tmp_path), "not empty")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_simulation_without_the_extra(tmp_path):
    """A module of the same name that cannot be imported stands in for the missing package."""
    (tmp_path / "pythia8mc.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [
        sys.executable,
        ROOT / "advtag.py",
        "simulate",
        "--process",
        "ttbar",
        "--events",
        "10",
        "--output",
        "x",
    ]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert_one_line_error(result, "pip install advtag[simulation]")
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert not (tmp_path / "x").exists()


def interrupt(job):
    """Press Ctrl-C until the job ends, and return its stderr: Python drops one that arrives inside a `__del__`."""
    for _ in range(4):
        os.killpg(job.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return job.communicate(timeout=20)[1]
    raise AssertionError("the job goes on in spite of four interrupts")


@pytest.mark.parametrize("executor", ["iterative", "futures"])
def test_interrupt_leaves_no_result(write_config, tmp_path, executor):
    """Ctrl-C in a terminal reaches every process of the job."""
    config = write_config(**sections())
    command = [sys.executable, ROOT / "advtag.py", "columns", config, "--executor", executor, "--chunksize", "1"]
    # a test runner in the background ignores SIGINT, and would hand that down
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard)
    aside = tmp_path / "out_analysis"
    while not list(aside.glob(".columns-*/parts/v5/*.parquet")):  # it is under way
        assert job.poll() is None
        time.sleep(0.05)
    try:
        told = interrupt(job)
    finally:
        job.kill()
    assert job.returncode not in (0, None)
    assert "Traceback" not in told
    assert leftovers(tmp_path) == []


def test_termination_leaves_no_result(write_config, tmp_path):
    """Batch systems send SIGTERM."""
    config = write_config(**sections())
    job = subprocess.Popen([sys.executable, ROOT / "advtag.py", "columns", config, "--chunksize", "1"])
    while not list((tmp_path / "out_analysis").glob(".columns-*/parts/v5/*.parquet")):
        assert job.poll() is None
        time.sleep(0.05)
    job.terminate()
    assert job.wait(timeout=60) == 143
    assert leftovers(tmp_path) == []


def test_weight_that_is_not_a_number(write_config, tmp_path):
    """One NaN would silently turn every sum of weights into NaN."""
    with uproot.open(NANO / "nano_tree.root") as file:
        names = file["Events"].keys(filter_name=["run", "luminosityBlock", "event", "genWeight", "Jet_*"])
        arrays = {name: file["Events"][name].array() for name in names}
    arrays["genWeight"] = np.where(np.arange(10) == 3, np.nan, arrays["genWeight"])
    jets = {name[4:]: array for name, array in arrays.items() if name.startswith("Jet_")}
    chunk = {name: array for name, array in arrays.items() if not name.startswith("Jet_")}
    chunk["Jet"] = ak.zip(jets)
    with uproot.recreate(tmp_path / "nan.root") as file:
        file.mktree("Events", {name: ak.Array(array).type.content for name, array in chunk.items()}).extend(chunk)
    card = {"name": "pt", "inputs": [{"name": "pt", "branch": "Jet_pt", "label": "pt", "bins": [5, 0, 100]}]}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    datasets = {"v5": {"files": "nan.root", "cross_section": 1.0}}
    result = advtag("columns", write_config(**sections(datasets=datasets, features="card.yaml")))
    assert_one_line_error(result, "nan.root", "genWeight", "not finite")
    assert leftovers(tmp_path) == []


def test_demo_tells_a_wrong_option_before_it_simulates(tmp_path):
    result = advtag("demo", "--output", tmp_path / "d", "--executor", "drask")
    assert_one_line_error(result, "run.executor", "'dask'")
    assert not (tmp_path / "d").exists()
