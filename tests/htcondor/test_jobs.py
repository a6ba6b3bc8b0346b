"""Batch jobs on a real HTCondor pool: submitted, evicted, failing, rescued, held, collected."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import AdvtagError
from condor import bindings
from condor.again import logs, remove, resubmit
from condor.collect import collect_training, done_parts
from condor.events import read_events
from condor.htcondor import submit_description
from condor.job import Item, Job
from condor.ledger import read_ledger
from condor.pool import queue
from condor.process import submit_parts
from condor.state import DONE, FAILED, HELD, IDLE, REMOVED, RUNNING
from condor.status import states, why_idle
from condor.train import Sweep, submit_training
from configs.load import load_analysis
from configs.sites import load_site
from processors.jobs import make_columns, make_histograms
from processors.parts import expected, parts_of, put_together
from tests.batch import check_columns, check_histograms, ended, small_analysis, uninterrupted, wait_until
from tests.condor.conftest import odd_place  # noqa: F401 - a fixture

pytestmark = pytest.mark.htcondor
SMALL = [f"python={sys.executable}", "memory=1GB", "disk=100MB"]

SAVE_ONCE = """\
( [ -e out/saved ] || {
    while [ ! -s out/taggers/adversarial.history.jsonl ]; do sleep 0.1; done
    touch out/saved; kill -TERM $$
} ) &"""


DIE = """\
( while [ ! -e out/taggers/checkpoints/adversarial/last.safetensors ]; do sleep 0.05; done
kill -KILL "$(pgrep -P $$ -f advtag.py)" ) &"""


@pytest.fixture
def submit(pool, odd_place):  # noqa: F811
    """Submits trainings; returns the folder and the ledger. What is left in the queue is removed."""
    made = []

    def go(*options, overrides=(), site="generic", **sweep):
        found = load_site(site, [*SMALL, *options])
        submit_training(odd_place.folder / "analysis.yaml", overrides, site, found, Sweep(**sweep))
        folder = max((odd_place.folder / "out/jobs").iterdir(), key=lambda path: path.stat().st_mtime)
        made.append(folder)
        return folder, read_ledger(folder)

    yield go
    for folder in made:
        remove(folder, read_ledger(folder))


def test_submit_run_collect(submit):
    """From the command line, in a folder with blanks, quotes and dollars; GPUs are matched; nothing stays behind."""
    folder, ledger = submit("gpus=1", "gpu_capability=8.0", "gpu_memory=40GB", trainings=("adversarial",), seeds=(1, 2))
    found = ended(folder, ledger)
    assert {state.word for state in found.values()} == {DONE}, found
    target, missing = collect_training(folder, ledger)
    assert missing == []
    for label in ("adversarial-seed1", "adversarial-seed2"):
        assert (target / "taggers" / f"{label}.safetensors").stat().st_size > 10_000
        assert "epoch 2 of 2: BvsL raw 0." in (target / "logs" / f"{label}.err").read_text()
        assert "GPUs = 1" in (target / "logs" / f"{label}.log").read_text()
    page = json.loads((target / "jobs.json").read_text())
    assert page["adversarial-seed2"]["epoch"]["auc"]["fgsm"]["BvsL"] > 0.7
    (one, two) = (target / "taggers" / f"adversarial-seed{seed}.safetensors" for seed in (1, 2))
    assert one.read_bytes() != two.read_bytes()


def test_an_evicted_training_ends_in_the_same_tagger(submit, tmp_path):
    """It saves after its first epoch, as if its time were up, goes on, and is then evicted under way."""
    folder, ledger = submit(
        "directives={hold: 'true'}", trainings=("adversarial",), overrides=["training.adversarial.epochs=8"]
    )
    script = (folder / "train.sh").read_text()
    (folder / "train.sh").write_text(script.replace("\nrun train", f"\n{SAVE_ONCE}\nrun train"))
    subprocess.run(["condor_release", "-all"], check=True, capture_output=True)
    log = folder / "items/adversarial/job.log"
    wait_until(lambda: "Finished transferring output files" in log.read_text(), 120)
    running = wait_until(lambda: [state for state in queue(ledger).values() if state.word == RUNNING])
    subprocess.run(["condor_vacate_job", "-fast", running[0].number], check=True, capture_output=True)
    found = ended(folder, ledger, 180)
    (folder / "train.sh").write_text(script)
    assert found["train/adversarial"].word == DONE, (found, logs(folder, ledger))
    assert read_events(log).evictions == 1
    place = folder / "items/adversarial"
    for epoch in range(1, 9):  # none twice: it went on where it had saved
        assert (place / "job.err").read_text().count(f"epoch {epoch} of 8") == 1
    assert len((place / "out/hosts.txt").read_text().splitlines()) == 2  # the evicted run's line is gone with it
    tagger = place / "out/taggers/adversarial.safetensors"
    assert tagger.read_bytes() == uninterrupted(folder, "adversarial", tmp_path / "here").read_bytes()


def test_a_job_that_died_goes_on_with_what_came_back(submit, tmp_path):
    """Killed under way, as where its memory does not suffice; its checkpoints travel when it is submitted again."""
    epochs = ["training.adversarial.epochs=6"]
    folder, ledger = submit("directives={hold: 'true'}", "retries=0", trainings=("adversarial",), overrides=epochs)
    script = (folder / "train.sh").read_text()
    (folder / "train.sh").write_text(script.replace("\nrun train", f"\n{DIE}\nrun train"))
    subprocess.run(["condor_release", "-all"], check=True, capture_output=True)
    state = ended(folder, ledger)["train/adversarial"]
    assert state.word == FAILED
    assert state.reason.startswith("exit code 137")
    (folder / "train.sh").write_text(script)
    subprocess.run(["sed", "-i", "s/^hold.*//", folder / "train.sub"], check=True)
    resubmit(folder, ledger)
    assert ended(folder, ledger)["train/adversarial"].word == DONE, logs(folder, ledger)
    place = folder / "items/adversarial"
    assert "epoch 1 of 6" not in (place / "job.err").read_text()
    assert "epoch 6 of 6" in (place / "job.err").read_text()
    tagger = place / "out/taggers/adversarial.safetensors"
    assert tagger.read_bytes() == uninterrupted(folder, "adversarial", tmp_path / "here").read_bytes()


def test_a_failing_job_is_tried_again_and_says_why(submit):
    """A loss that diverges; its fellow succeeds. Then it is submitted again, alone, with what was wrong put right."""
    folder, ledger = submit(
        "retries=1",
        "at_once=2",
        trainings=("nominal",),
        settings=("training.learning_rate=0.003,1e38",),
    )
    found = ended(folder, ledger)
    bad = next(place for place, state in found.items() if state.word == FAILED)
    assert [state.word for state in found.values()] == [DONE, FAILED]
    assert "exit code 1: advtag: training." in found[bad].reason
    assert "the loss is nan" in found[bad].reason or "the loss is inf" in found[bad].reason
    place = folder / "items" / bad.partition("/")[2]
    assert place.joinpath("job.log").read_text().count("Job executing on host") == 2
    with pytest.raises(AdvtagError, match=r"1 of 2 results are missing, the first: .* failed .*--resubmit"):
        collect_training(folder, ledger)
    target, missing = collect_training(folder, ledger, allow_missing=True)
    assert len(missing) == 1
    assert len(list((target / "taggers").glob("*.safetensors"))) == 1
    config = place / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 1.0e+38", "learning_rate: 0.001"))
    assert "1 job submitted again" in resubmit(folder, ledger)
    assert {state.word for state in ended(folder, ledger).values()} == {DONE}


def test_a_dag_is_rescued(submit):
    """The last node fails twice; what is done stays done, and only that node runs again."""
    folder, ledger = submit(
        "retries=1", trainings=("nominal",), seeds=(1, 2), evaluate="quick", overrides=["training.nominal.epochs=1"]
    )
    script = (folder / "evaluate.sh").read_text()
    (folder / "evaluate.sh").write_text(
        script.replace("set -u\n", "set -u\nmkdir out; echo no such luck >&2; exit 7\n")
    )
    found = ended(folder, ledger, 180)
    assert found["train/nominal-seed1"].word == found["train/nominal-seed2"].word == DONE
    assert found["evaluate/evaluate"].word == FAILED
    assert found["evaluate/evaluate"].reason == "exit code 7: no such luck"
    assert (folder / "jobs.dag.rescue001").exists()
    starts = [(path / "job.log").read_text().count("Job submitted") for path in sorted((folder / "items").iterdir())]
    assert starts == [2, 1, 1]
    (folder / "evaluate.sh").write_text(script)
    resubmit(folder, ledger)
    assert {state.word for state in ended(folder, ledger, 180).values()} == {DONE}
    starts = [(path / "job.log").read_text().count("Job submitted") for path in sorted((folder / "items").iterdir())]
    assert starts == [3, 1, 1]
    target, _ = collect_training(folder, ledger)
    assert sorted(path.name for path in (target / "evaluation").iterdir()) == ["nominal-seed1", "nominal-seed2"]
    assert (target / "evaluation/nominal-seed1/evaluation.json").exists()


def test_parts_of_files_give_what_one_process_does(pool, simulated, taggers, write_config, tmp_path):
    """Columns, histograms and scores; a part that fails is missed, and put right."""

    here, there = (
        load_analysis(small_analysis(write_config, name, simulated, taggers, 60, scores=True))
        for name in ("here", "there")
    )
    make_columns(here, progress=False)
    make_histograms(here, progress=False)
    sites = {"columns": load_site("generic", [*SMALL, "shared=true"])}
    sites["histograms"] = load_site("generic", [*SMALL, "shared=true", "retries=0", "directives={hold: 'true'}"])
    with pytest.raises(AdvtagError, match=r"_000.root: a file of this machine, which jobs at this site do not see"):
        submit_parts(there, "columns", parts := parts_of(there, "columns", 1), {}, "x", load_site("generic", SMALL))
    assert [part.events for part in parts] == [150, 150]
    folders = {}
    for verb, site in sites.items():
        submit_parts(there, verb, parts_of(there, verb, 1, progress=False), expected(parts), "generic", site)
        folders[verb] = there.output / "jobs" / f"{verb}-1"
    broken = folders["histograms"] / "items/ttbar-0001/part.json"
    whole = broken.read_text()
    broken.write_text(whole.replace("root", "tree"))
    subprocess.run(["condor_release", "-all"], check=True, capture_output=True)
    for verb, folder in folders.items():
        ledger = read_ledger(folder)
        found = ended(folder, ledger)
        if verb == "histograms":
            assert [state.word for state in found.values()] == [DONE, FAILED]
            assert ".tree" in found["histograms/ttbar-0001"].reason
            with pytest.raises(AdvtagError, match="1 of 2 results are missing"):
                done_parts(folder, ledger)
            outputs, _ = done_parts(folder, ledger, allow_missing=True)
            with pytest.raises(AdvtagError, match="150 events are missing"):
                put_together(verb, outputs, there.output, ledger.expected)
            broken.write_text(whole)
            subprocess.run(["sed", "-i", "s/^hold.*//", folder / "histograms.sub"], check=True)
            resubmit(folder, ledger)
            assert {state.word for state in ended(folder, ledger).values()} == {DONE}
        put_together(verb, done_parts(folder, ledger)[0], there.output, ledger.expected)
    check_columns(here.output, there.output)
    check_histograms(here.output, there.output)
    pages = [json.loads((output / "scores/manifest.json").read_text()) for output in (here.output, there.output)]
    assert pages[0]["datasets"] == pages[1]["datasets"]
    assert {path.name for path in (here.output / "scores/ttbar").iterdir()} == {
        path.name for path in (there.output / "scores/ttbar").iterdir()
    }


@pytest.mark.parametrize("module", [True, False])
def test_two_hundred_jobs_in_one_call_and_removed(submit, monkeypatch, module):
    """Through HTCondor's Python module and through condor_submit."""
    if module:
        pytest.importorskip("htcondor2")
    else:
        monkeypatch.setitem(sys.modules, "htcondor2", None)
    assert bindings.fits() is module
    folder, ledger = submit("cpus=4", trainings=("nominal",), seeds=range(200))
    assert len(ledger.numbers) == 1
    found = queue(ledger)
    assert len(found) == 200
    assert len({state.number for state in found.values()}) == 200
    remove(folder, ledger)
    wait_until(lambda: not queue(ledger))
    assert {state.word for state in states(folder, ledger).values()} == {REMOVED}


def test_held_jobs_say_why(submit):
    folder, ledger = submit("directives={hold: 'true'}", trainings=("nominal",))
    state = states(folder, ledger)["train/nominal"]
    assert state.word == HELD
    assert state.reason == "submitted on hold at user's request"


REFUSED = [
    (["gpus=1", "gpu_memory=80GB"], "no machine .*: gpu_memory: 76294 MB asked for, 47661 MB is the most"),
    (["gpus=1", "gpu_capability=9.5"], "gpu_capability: 9.5 asked for, 8 is the most"),
    (["gpus=5"], "gpus: 5 asked for, 4 is the most"),
    (["cpus=400"], "cpus: 400 asked for"),
    (["image=/no/such/image.sif"], "there is no /no/such/image.sif"),
]
REFUSED_BY_HTCONDOR = [
    (["max_jobs=900"], "cannot be submitted: .* would exceed MAX_JOBS_PER_SUBMISSION"),
    (["directives={request_cpus: '(('}"], r"cannot be submitted: .*RequestCpus = \(\("),
]


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [(module, *case) for module in (True, False) for case in REFUSED_BY_HTCONDOR]
    + [(False, *case) for case in REFUSED],
)
def test_refused_and_nothing_left(submit, odd_place, monkeypatch, module, options, message):  # noqa: F811
    if not module:
        monkeypatch.setitem(sys.modules, "htcondor2", None)
    with pytest.raises(AdvtagError, match=message):
        submit(*options, trainings=("nominal",), seeds=range(301))
    assert not list((odd_place.folder / "out/jobs").glob("*"))


def test_without_a_schedd(submit, odd_place, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(AdvtagError, match="there is no condor_q on this machine; log in to one that submits"):
        submit(trainings=("nominal",))
    assert not list((odd_place.folder / "out/jobs").glob("*"))


def test_an_idle_job_that_nothing_matches(submit, odd_place):  # noqa: F811
    """--anyway: HTCondor itself says which requirement it is."""
    site = load_site("generic", [*SMALL, "gpus=1", "gpu_memory=80GB"])
    submit_training(odd_place.folder / "analysis.yaml", [], "generic", site, Sweep(("nominal",)), anyway=True)
    folder = odd_place.folder / "out/jobs/train-1"
    ledger = read_ledger(folder)
    try:
        found = states(folder, ledger)
        assert found["train/nominal"].word == IDLE
        reason = wait_until(lambda: why_idle(ledger, states(folder, ledger)), 20)
        assert reason.startswith("countMatches(MY.RequireGPUs")
        assert "RequireGPUs = GlobalMemoryMb >= GPUsMinMemory" in reason
        assert "GPUsMinMemory = 76294" in reason
    finally:
        remove(folder, ledger)


@pytest.mark.parametrize("name", ["cern", "desy", "lpc", "generic"])
@pytest.mark.parametrize("in_dag", [False, True])
def test_condor_submit_understands_every_line(name, in_dag, pool, tmp_path):
    odd = '/cvmfs/it\'s $(HOME) "here"'
    options = [f"image='{odd.replace(chr(39), 2 * chr(39))}'", "gpus=1", "gpu_capability=7.0", "gpu_memory=8GB"]
    site = load_site(name, [*options, "gpu_requirements='DeviceName == \"A100-SXM4-40GB\"'", "at_once=3"])
    job = Job("n", "train", "abc", (), (Item("one"),), site, checkpointed=True)
    (tmp_path / "items/one").mkdir(parents=True)
    (tmp_path / "train.items").write_text("one\n")
    (tmp_path / "train.sh").write_text("#!/bin/sh\n")
    text = submit_description(job, None if in_dag else "train.items")
    (tmp_path / "train.sub").write_text(("label = one\n" if in_dag else "") + text)
    told = subprocess.run(
        ["condor_submit", "-dry-run", "ad", "train.sub"], cwd=tmp_path, capture_output=True, text=True
    )
    said = told.stdout + told.stderr
    assert told.returncode == 0, said
    for complaint in ("WARNING", "unused", "not a valid submit keyword"):
        assert complaint not in said, said
    ad = dict(line.split("=", 1) for line in (tmp_path / "ad").read_text().splitlines() if "=" in line)
    image = ad[
        "ContainerImage" if name == "generic" else "MySingularityImage" if name == "desy" else "SingularityImage"
    ]
    assert image.endswith(r"""it's $(HOME) \"here\"" """.strip())
    assert ad["AdvtagItem"] == '"one"'
    assert ad["SuccessCheckpointExitCode" if "SuccessCheckpointExitCode" in ad else "CheckpointExitCode"] == "85"
    expected = {"cern": ("JobFlavour", '"workday"'), "desy": ("RequestRuntime", "28800")}
    if name in expected:
        assert ad[expected[name][0]] == expected[name][1]
