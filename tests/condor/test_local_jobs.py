"""Jobs as processes of this machine, from the command line to what is collected; interrupted, and gone on with."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from condor import local
from condor.again import remove, resubmit
from condor.ledger import read_ledger
from condor.status import states

ROOT = Path(__file__).parent.parent.parent


def advtag(*arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "advtag.py", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def test_submit_watch_remove_resubmit_collect(odd_place):
    config, jobs = odd_place.folder / "analysis.yaml", odd_place.folder / "out/jobs"
    sweep = ["--training", "nominal", "--seeds", "0-1", "--set", "training.learning_rate=0.003"]
    code, out, errors = advtag("submit", "train", config, "--site", "local", *sweep, "training.nominal.epochs=10")
    assert code == 0, errors
    assert out.startswith("2 jobs submitted (local ")
    folder = jobs / "train-1"
    ledger = read_ledger(folder)
    labels = [item.label for _, item in ledger.items()]
    assert labels == ["nominal-learning_rate_0_003-seed0", "nominal-learning_rate_0_003-seed1"]
    history = folder / "items" / labels[0] / "out/taggers" / f"{labels[0]}.history.jsonl"
    wait_until(history.exists)
    code, out, _ = advtag("jobs", folder)
    assert code == 0
    assert "running" in out
    assert "epoch" in out
    remove(folder, ledger)
    wait_until(lambda: local.runner(folder) is None)
    before = len(history.read_text().splitlines())
    assert {state.word for state in states(folder, ledger).values()} <= {"failed", "lost"}
    code, _, errors = advtag("collect", folder)
    assert code == 1
    assert errors.startswith("advtag: 2 of 2 results are missing, the first: nominal-learning_rate_0_003-seed0: ")
    assert errors.count("\n") == 1
    resubmit(folder, ledger)
    wait_until(lambda: local.runner(folder) is None)
    assert {state.word for state in states(folder, ledger).values()} == {"done"}
    text = (folder / "items" / labels[0] / "job.err").read_text()
    assert text.count("epoch 1 of 10") == 1  # it went on where it was
    assert before < len(history.read_text().splitlines()) == 10
    code, out, errors = advtag("collect", folder)
    assert (code, out.strip()) == (0, str(folder / "results"))
    assert "± " in errors
    assert json.loads((folder / "results/jobs.json").read_text())[labels[1]]["settings"]["training.seed"] == "1"
    assert {path.stem for path in (folder / "results/taggers").glob("*.safetensors")} == set(labels)
    assert not (odd_place.folder / "out/taggers").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs", "{here}"], "no submission there"),
        (["submit", "train", "{config}", "--site", "crn"], "no site 'crn'; known: cern, desy"),
        (["submit", "train", "{config}", "--site", "cern"], "site cern: image: a job does not see the Python"),
        (["submit", "train", "{config}", "--site", "local", "--option", "memroy=1GB"], "did you mean 'memory'"),
        (["submit", "train", "{config}", "--site", "local", "--seeds", "4-0"], "--seeds '4-0': 4-0 is no range"),
        (["submit", "train", "{config}", "--site", "local", "output=elsewhere"], "elsewhere/columns: no columns there"),
        (["submit", "train", "{config}", "--site", "local", "--name", "a b"], "--name 'a b': expected letters"),
        (["columns", "{config}", "--site", "cern", "--workers", "3"], "batch jobs take --option, not another executor"),
        (["submit", "train", "{config}", "--site", "slurm", "--option", "python=p"], "there is no sbatch on this"),
    ],
)
def test_one_line_says_what_is_wrong(odd_place, arguments, message):
    places = {"here": odd_place.folder, "config": odd_place.folder / "analysis.yaml"}
    code, _, errors = advtag(*(argument.format(**places) for argument in arguments))
    assert code == 1
    assert errors.startswith("advtag: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert not list((odd_place.folder / "out").glob("jobs/*"))
