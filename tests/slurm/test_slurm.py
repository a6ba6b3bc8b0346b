"""Batch jobs and Dask workers on a real Slurm: submitted, warned, put back into the queue, cancelled, failing."""

import json
import subprocess
import sys

import pytest

from common.errors import AdvtagError
from condor import slurm as backend
from condor.again import logs, remove, resubmit
from condor.collect import collect_training
from condor.ledger import read_ledger
from condor.state import DONE, FAILED, HELD, IDLE, LOST, REMOVED, RUNNING
from condor.status import queue, states
from condor.train import Sweep, submit_training
from configs.load import load_analysis
from configs.schema import Run
from configs.sites import load_site
from processors.clusters import dask_client
from processors.jobs import make_histograms
from tests.batch import (
    advtag,
    check_histograms,
    ended,
    small_analysis,
    uninterrupted,
    wait_until,
)
from tests.condor.conftest import odd_place  # noqa: F401 - a fixture
from tests.htcondor.conftest import bare_python  # noqa: F401 - a fixture

pytestmark = pytest.mark.slurm
SMALL = [f"python={sys.executable}", "memory=1GB"]


def told(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def submit(slurm, odd_place):  # noqa: F811
    """Submits trainings; returns the folder and the ledger. What is left in the queue is removed."""
    made = []

    def go(*options, overrides=(), **sweep):
        found = load_site("slurm", [*SMALL, *options])
        submit_training(odd_place.folder / "analysis.yaml", overrides, "slurm", found, Sweep(**sweep))
        folder = max((odd_place.folder / "out/jobs").iterdir(), key=lambda path: path.stat().st_mtime)
        made.append(folder)
        return folder, read_ledger(folder)

    yield go
    for folder in made:
        remove(folder, read_ledger(folder))
    wait_until(lambda: not told("squeue", "--noheader"))


def epochs_done(folder, label):
    history = folder / "items" / label / "out/taggers" / f"{label}.history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


def test_submit_watch_collect(slurm, odd_place):  # noqa: F811
    """From the command line, in a folder with blanks, quotes and dollars; GPUs are matched."""
    options = [word for option in (*SMALL, "gpus=1") for word in ("--option", option)]
    config, folder = odd_place.folder / "analysis.yaml", odd_place.folder / "out/jobs/train-1"
    command = ["submit", "train", config, "--site", "slurm", *options, "--training", "adversarial", "--seeds", "1-2"]
    out, errors = advtag(*command).communicate(timeout=60)
    assert out.startswith("2 jobs submitted (slurm "), errors
    found = ended(folder, read_ledger(folder))
    assert {state.word for state in found.values()} == {DONE}, found
    number = found["train/adversarial-seed2"].number
    assert "TresPerJob=gres/gpu:1\n" in told("scontrol", "show", "job", number)
    out, _ = advtag("jobs", folder).communicate(timeout=60)
    assert "train-1: 2 done" in out
    assert number in out
    out, _ = advtag("jobs", folder, "--logs", "--job", "adversarial-seed2").communicate(timeout=60)
    assert "epoch 2 of 2: BvsL raw 0." in out
    out, errors = advtag("collect", folder).communicate(timeout=60)
    assert out.strip() == str(folder / "results"), errors
    one, two = (folder / "results/taggers" / f"adversarial-seed{seed}.safetensors" for seed in (1, 2))
    assert one.read_bytes() != two.read_bytes()
    page = json.loads((folder / "results/jobs.json").read_text())
    assert page["adversarial-seed1"]["epoch"]["auc"]["fgsm"]["BvsL"] > 0.7


def test_a_training_that_is_put_back_goes_on_to_the_same_tagger(submit):
    """One is warned as before the end of its wall time, the other is taken off its node without a warning."""
    folder, ledger = submit(trainings=("adversarial",), seeds=(1, 2), overrides=["training.adversarial.epochs=20"])
    labels = ["adversarial-seed1", "adversarial-seed2"]
    wait_until(lambda: all(epochs_done(folder, label) >= 2 for label in labels))
    told("scancel", "--batch", f"--signal={backend.WARNING}", f"{ledger.numbers[0]}_0")
    told("scontrol", "requeue", f"{ledger.numbers[0]}_1")
    here = uninterrupted(folder, labels[0], folder / "items/here")
    found = ended(folder, ledger)
    assert {state.word for state in found.values()} == {DONE}, (found, logs(folder, ledger))
    for label in labels:
        place = folder / "items" / label
        for epoch in range(1, 21):  # none twice: it went on where it had saved
            assert (place / "job.err").read_text().count(f"epoch {epoch} of 20") == 1
        assert len((place / "out/hosts.txt").read_text().splitlines()) == 2
    assert (folder / "items" / labels[0] / "out/taggers" / here.name).read_bytes() == here.read_bytes()


def test_what_was_cancelled_stays_so_and_can_go_on_later(submit):
    """One by `advtag jobs --remove`; one by scancel, whose configuration is changed then; one has not begun."""
    epochs = ["training.nominal.epochs=1000"]
    folder, ledger = submit("at_once=2", trainings=("nominal",), seeds=(1, 2, 3), overrides=epochs)
    running, by_hand, waiting = [f"nominal-seed{seed}" for seed in (1, 2, 3)]
    wait_until(lambda: epochs_done(folder, running) and epochs_done(folder, by_hand))
    found = states(folder, ledger)
    assert [state.word for state in found.values()] == [RUNNING, RUNNING, IDLE]
    assert found[f"train/{waiting}"].reason == "at_once others run (JobArrayTaskLimit)"
    told("scancel", found[f"train/{waiting}"].number, found[f"train/{by_hand}"].number)
    wait_until(lambda: len(queue(folder, ledger)) == 1)
    found = states(folder, ledger)
    assert found[f"train/{by_hand}"].word == REMOVED
    assert (found[f"train/{waiting}"].word, found[f"train/{waiting}"].reason) == (LOST, "never started")
    remove(folder, ledger)
    assert {state.word for state in ended(folder, ledger, 60).values()} == {REMOVED}
    before = epochs_done(folder, running)
    remove(folder, ledger)  # nothing is left, and that is no error
    config = folder / "items" / by_hand / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.003", "learning_rate: 0.001"))
    assert "3 jobs submitted again" in resubmit(folder, ledger)
    wait_until(lambda: epochs_done(folder, running) > before and epochs_done(folder, by_hand))
    for label, times in ((running, 1), (by_hand, 2)):  # no other configuration goes on from a checkpoint
        assert (folder / "items" / label / "job.err").read_text().count("epoch 1 of 1000") == times
    assert len((folder / "items" / running / "out/hosts.txt").read_text().splitlines()) == 2


LAST = """\
mkdir -p out
for tagger in *.safetensors; do [ -s "$tagger" ] || { echo no "$tagger" >&2; echo 7 > out/exit_code; exit 7; }; done
echo 0 > out/exit_code
"""


def test_a_failing_job_is_tried_again_and_says_why(submit):
    """A loss that diverges; its fellow succeeds. The last stage needs both, also when all is put right."""
    folder, ledger = submit(
        "retries=1",
        trainings=("nominal",),
        settings=("training.learning_rate=0.003,1e38",),
        evaluate="quick",
        overrides=["training.nominal.epochs=1"],
    )
    (folder / "evaluate.sh").write_text(LAST)
    wait_until(lambda: "until all trainings have ended" in states(folder, ledger)["evaluate/evaluate"].reason)
    found = ended(folder, ledger)
    assert [state.word for state in found.values()] == [DONE, FAILED, FAILED]
    bad = next(place for place, state in found.items() if state.word == FAILED)
    assert "exit code 1: advtag: training." in found[bad].reason
    assert "the loss is nan" in found[bad].reason or "the loss is inf" in found[bad].reason
    assert found["evaluate/evaluate"].reason.startswith("exit code 7: no nominal-learning_rate_")
    place = folder / "items" / bad.partition("/")[2]
    assert len((place / "out/hosts.txt").read_text().splitlines()) == 2
    with pytest.raises(AdvtagError, match=r"2 of 3 results are missing, the first: .* failed .*--resubmit"):
        collect_training(folder, ledger)
    config = place / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 1.0e+38", "learning_rate: 0.001"))
    assert "2 jobs submitted again" in resubmit(folder, ledger)
    assert {state.word for state in ended(folder, ledger).values()} == {DONE}
    target, missing = collect_training(folder, ledger)
    assert not missing
    assert len(list((target / "taggers").glob("*.safetensors"))) == 2


def test_why_jobs_wait(submit):
    long = ["directives={partition: short}", "walltime=30m", "checkpoint=5m"]
    for options, word, reason in [
        (["directives={hold: ''}"], HELD, "you held it; `scontrol release` lets it go (JobHeldUser)"),
        (long, HELD, "asks for more time than the partition gives"),
        (["directives={begin: now+1hour}"], IDLE, "its time has not come"),
    ]:
        folder, ledger = submit(*options, trainings=("nominal",))
        state = wait_until(lambda: [found for found in states(folder, ledger).values() if found.reason])[0]  # noqa: B023
        assert state.word == word
        assert state.reason.startswith(reason)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["directives={partition: nowhere}"], "invalid partition specified: nowhere"),
        (["gpus=9"], "node configuration is not available: no node has that; see `sinfo"),
        (["directives={gres: 'gpu:h100:1'}"], "node configuration is not available: no node has that; see `sinfo"),
        (["memory=900GB"], "Memory specification can not be satisfied"),
        (["directives={constraint: fast}"], "Invalid feature specification"),
        (["directives={array: 0-5000}"], "Invalid job array specification: .* MaxArraySize"),
        (["directives={memry: 1G}"], "unrecognized option '--memry=1G'"),
    ],
)
def test_refused_and_nothing_left(submit, odd_place, options, message):  # noqa: F811
    with pytest.raises(AdvtagError, match=f"^the jobs cannot be submitted: .*{message}[^\n]*$"):
        submit(*options, trainings=("nominal",))
    assert not list((odd_place.folder / "out/jobs").glob("*"))
    assert told("squeue", "--noheader") == ""


def test_if_the_second_stage_is_refused_the_first_is_cancelled(slurm, tmp_path):
    (tmp_path / "good").write_text("#!/bin/sh\n#SBATCH --array=0-1 --hold\nsleep 100\n")
    (tmp_path / "bad").write_text("#!/bin/sh\n#SBATCH --partition=nowhere\n")
    with pytest.raises(AdvtagError, match="nowhere"):
        backend.submit(tmp_path, ["good", "bad"])
    wait_until(lambda: not told("squeue", "--noheader"), 10)


@pytest.fixture
def analyses(simulated, taggers, write_config):
    """Two times the same configuration, with other output folders."""
    return lambda chunksize: [
        small_analysis(write_config, name, simulated, taggers, chunksize) for name in ("here", "there")
    ]


def test_parts_of_files_give_what_one_process_does(slurm, analyses):
    """From the command line to the same histograms."""
    config, there = analyses(chunksize=60)
    here, output = load_analysis(config), load_analysis(there).output
    options = ["--site", "slurm", "--files-per-job", "1", *(word for key in SMALL for word in ("--option", key))]
    process = advtag("histograms", there, *options)
    make_histograms(here, progress=False)
    out, errors = process.communicate(timeout=60)
    assert out.startswith("2 jobs submitted (slurm "), errors
    folder = output / "jobs/histograms-1"
    found = ended(folder, read_ledger(folder))
    assert [state.word for state in found.values()] == [DONE, DONE], found
    process = advtag("collect", folder)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors
    check_histograms(here.output, output)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python": "/no/such/python"}, "all 2 jobs ended before their workers could connect .* logs are in"),
        ({"directives": {"hold": ""}}, r"all 2 jobs are held: you held it; .* \(JobHeldUser\)"),
        ({"directives": {"partition": "short"}}, r"all 2 jobs are held: asks for more time .* \(PartitionTimeLimit\)"),
        ({"directives": {"partition": "nowhere"}}, "cannot be submitted: .*invalid partition specified: nowhere"),
        ({"cores": 4, "memory": "7GB", "timeout": "3s", "directives": {"begin": "now+1hour"}}, "no worker for 3s"),
    ],
)
def test_no_dask_worker_comes(slurm, tmp_path, changes, message):
    keys = {"profile": "slurm", "workers": 2, "host": "127.0.0.1", "logs": str(tmp_path / "logs"), "memory": "1GB"}
    settings = Run.model_validate({"cluster": keys | changes})
    with pytest.raises(AdvtagError, match=message), dask_client(settings):
        pass
    wait_until(lambda: not told("squeue", "--noheader"), 10)


def test_dask_workers_of_slurm_one_of_which_is_lost(slurm, bare_python, analyses, tmp_path):  # noqa: F811
    """The shipped profile through dask-jobqueue; workers that cannot import advtag."""
    here, there = analyses(chunksize=15)
    logs = tmp_path / "logs"
    keys = {"workers": 2, "host": "127.0.0.1", "logs": str(logs), "memory": "1GB", "python": str(bare_python)}
    process = advtag("histograms", there, "--cluster", "slurm", *(f"run.cluster.{key}={keys[key]}" for key in keys))
    make_histograms(load_analysis(here), progress=False)

    def registered():
        return [path for path in logs.glob("*") if path.is_file() and "Registered to" in path.read_text()]

    wait_until(lambda: len(registered()) == 2)
    told("scancel", told("squeue", "--noheader", "--format=%i").split()[0])
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert told("squeue", "--noheader") == ""
    check_histograms(load_analysis(here).output, load_analysis(there).output)
