"""Job files: what a shell and HTCondor make of names and values that mean something to them."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condor.htcondor import dag, item_list, macro_free, quoted, submit_description
from condor.job import Item, Job
from condor.slurm import Task, array, duration, explained
from condor.state import DONE, FAILED, LOST, REMOVED, State
from condor.train import Sweep, submit_training
from condor.wrapper import wrapper
from configs.load import load_analysis
from configs.sites import load_site

ROOT = Path(__file__).parent.parent.parent
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=30)
STUB = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


def job(profile, options=(), **changes):
    keys = {"name": "n", "stage": "train", "identity": "abc", "commands": (), "items": (Item("one"), Item("two"))}
    if "site" not in changes:
        keys["site"] = load_site(profile, options)
    return Job(**{**keys, **changes})


def run_wrapper(folder, text, **options):
    (folder / "code").mkdir(exist_ok=True, parents=True)
    (folder / "code/advtag.py").write_text(STUB)
    environment = {"PATH": os.environ["PATH"], "ADVTAG_PYTHON": sys.executable}
    return subprocess.run(
        ["/bin/sh", "-c", text], cwd=folder, capture_output=True, text=True, env=environment, **options
    )


@settings(max_examples=20, deadline=None)
@given(words=st.lists(LINE, max_size=4), value=LINE)
def test_words_and_variables_reach_the_program_as_they_are(tmp_path_factory, words, value):
    folder = tmp_path_factory.mktemp("job dir $x")
    site = load_site("local").model_copy(update={"environment": {"MINE": value}})
    done = run_wrapper(folder, wrapper(job("local", site=site, commands=(tuple(words),))))
    assert done.returncode == 0, done.stderr
    found, environment = json.loads(done.stdout)
    assert found == words
    assert environment["MINE"] == value
    assert (folder / "out/exit_code").read_text().strip() == "0"


@settings(max_examples=20, deadline=None)
@given(LINE.filter(bool))
def test_any_python_is_called(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("job")
    text = wrapper(job("generic", (), site=load_site("generic", ["python=x"]).model_copy(update={"python": name})))
    line = next(line for line in text.split("\n") if line.startswith("python="))
    done = subprocess.run(["/bin/sh", "-c", f'{line}\nprintf %s "$python"'], cwd=folder, capture_output=True, env={})
    assert done.stdout.decode("utf-8") == name


@pytest.mark.parametrize(("code", "left"), [(0, "0"), (3, "3"), (85, None)])
def test_the_exit_code_is_the_jobs_own(tmp_path, code, left):
    text = wrapper(job("local", commands=(("x",), ("y",))))
    (tmp_path / "code").mkdir()
    (tmp_path / "code/advtag.py").write_text(f"import sys; print(sys.argv[1]); sys.exit({code})")
    environment = {"PATH": os.environ["PATH"], "ADVTAG_PYTHON": sys.executable}
    done = subprocess.run(["/bin/sh", "-c", text], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == code
    assert done.stdout.split() == (["x", "y"] if code == 0 else ["x"])  # a failure ends it
    path = tmp_path / "out/exit_code"
    assert (path.read_text().strip() if path.exists() else None) == left


def test_sigterm_reaches_the_program(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/advtag.py").write_text(
        "import signal, sys, time\nsignal.signal(15, lambda *_: (time.sleep(0.3), sys.exit(85)))\n"
        "print('up', flush=True)\ntime.sleep(30)"
    )
    environment = {"PATH": os.environ["PATH"], "ADVTAG_PYTHON": sys.executable}
    (tmp_path / "job.sh").write_text(wrapper(job("local", commands=(("x",),))))
    with subprocess.Popen(
        ["/bin/sh", "job.sh"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(timeout=60) == 85


def submit_file(text):
    lines = [line.partition(" = ") for line in text.splitlines() if " = " in line]
    return {key: value for key, _, value in lines}


def test_attributes_of_sites_are_strings():
    """HTCondor takes `+JobFlavour = workday` for the attribute `workday`, which is undefined."""
    cern = submit_file(submit_description(job("cern", ["image=/cvmfs/my image"]), "train.items"))
    assert cern["MY.JobFlavour"] == '"workday"'
    assert cern["MY.SingularityImage"] == '"/cvmfs/my image"'
    assert cern["universe"] == "vanilla"
    assert submit_file(submit_description(job("desy", ["image=/x"]), "i"))["MY.RequestRuntime"] == "28800"
    generic = submit_file(submit_description(job("generic", ["image=docker://x/y"]), "i"))
    assert (generic["universe"], generic["container_image"]) == ("container", "docker://x/y")


def test_a_checkpointed_job_lists_one_folder_and_no_other(tmp_path):
    lines = submit_file(submit_description(job("generic", ["python=p"], checkpointed=True), "i"))
    assert lines["transfer_output_files"] == lines["transfer_checkpoint_files"] == "out"
    assert lines["checkpoint_exit_code"] == "85"
    script = wrapper(job("generic", ["python=p"])).splitlines()
    commands = [line for line in script if not line.startswith(("#", "set"))]
    assert commands[0].startswith("mkdir -p out ")


def test_no_comment_at_the_end_of_a_line():
    for site in ("cern", "desy", "lpc", "generic"):
        text = submit_description(job(site, ["image=/x"], checkpointed=True, proxy=True), None)
        assert "#" not in text


@given(LINE)
def test_classad_strings(text):
    classad2 = pytest.importorskip("classad2")
    written = quoted(text, macros=True)
    assert classad2.ExprTree(written).eval() == text
    assert "$(" not in re.sub(r"\$\(DOLLAR\)", "", macro_free(text))


def test_a_dag_orders_its_stages():
    train = job("generic", ["python=p", "retries=4"])
    last = job("generic", ["python=p"], stage="evaluate", items=(Item("evaluate"),))
    text = dag([train, last]).splitlines()
    assert 'VARS train_one label="one"' in text
    assert "RETRY train_two 4" in text
    assert text[-1] == "PARENT train_one train_two CHILD evaluate_evaluate"
    assert item_list(train.items) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("codes", "attempts", "last"),
    [([0], 1, 0), ([85, 85, 0], 3, 0), ([1, 0], 2, 0), ([1, 85, 2, 3, 0], 4, 3)],
)
def test_an_array_of_slurm_goes_on_and_tries_again(tmp_path, codes, attempts, last):
    """Two retries: the third failure is the last. The script is run as Slurm would."""
    for name in ("one", "two"):
        (tmp_path / "items" / name).mkdir(parents=True)
    (tmp_path / "a.items").write_text("one\ntwo\n")
    (tmp_path / "train.sh").write_text(
        "mkdir -p out; echo x >> tries; n=$(wc -l < tries); set -- "
        + " ".join(map(str, codes))
        + '\neval "code=\\${$n}"; [ $code = 85 ] || echo $code > out/exit_code; exit $code\n'
    )
    (tmp_path / "a.sub").write_text(array(job("slurm", ["image=null", "python=p"]), "a.items"))
    environment = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(["/bin/sh", "a.sub"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (last, "")
    assert (tmp_path / "items/two/tries").read_text().count("x") == attempts
    assert not (tmp_path / "items/one/tries").exists()


def test_options_of_slurm():
    short = ["walltime=4m", "checkpoint=1m"]
    site = ["python=p", "gpus=2", "at_once=7", "accounting_group=cms", "directives={partition: gpu, qos: 'a b'}"]
    text = array(job("slurm", site), "i")
    for line in ("--array=0-1%7", "--gpus=2", "--account=cms", "--partition=gpu", "--qos='a b'", "--mem=3815M"):
        assert f"#SBATCH {line}\n" in text
    assert "--time=04:00:00" in text
    assert "--signal" not in text  # what cannot go on later is not put back into the queue
    assert "#SBATCH --signal=B:USR1@120\n" in array(job("slurm", site, checkpointed=True), "i")
    assert "#SBATCH --signal=B:USR1@60\n" in array(job("slurm", [*short, *site], checkpointed=True), "i")
    assert duration(90061) == "25:01:01"


SAID = "slurmstepd-vm: error: *** JOB 5 ON vm CANCELLED AT 2026-11-22T02:03:10 {}***"


@pytest.mark.parametrize(
    ("left", "said", "word", "reason"),
    [
        (State(DONE), SAID.format("DUE TO JOB REQUEUE "), DONE, ""),
        (State(LOST, "", "ended without a result"), SAID.format(""), REMOVED, "cancelled"),
        (State(FAILED, "", "exit code 143"), SAID.format(""), REMOVED, "cancelled"),
        (
            State(FAILED, "", "exit code 143"),
            SAID.format("DUE TO TIME LIMIT ") + "\nTerminated",
            FAILED,
            "the wall time",
        ),
        (State(FAILED, "", "exit code 1: no"), SAID.format("DUE TO JOB REQUEUE "), FAILED, "exit code 1: no"),
        (State(LOST, "", "ended without a result"), SAID.format("DUE TO NODE FAILURE "), FAILED, "node failure"),
        (State(LOST, "", "ended without a result"), "x\nKilled", LOST, "ended without a result: Killed"),
    ],
)
def test_what_slurm_said_of_the_end(left, said, word, reason):
    state = explained(left, Task("5_0", Path("train-0.slurm"), removed=False), said)
    assert (state.word, state.number) == (word, "5_0")
    assert state.reason.startswith(reason)


def test_condor_renders_without_training_and_processors():
    """Who may import whom: job files are made where neither torch nor coffea is."""
    for path in (ROOT / "condor").glob("*.py"):
        tree = ast.parse(path.read_text())
        for found in ast.walk(tree):
            names = (
                [found.module] if isinstance(found, ast.ImportFrom) else [a.name for a in getattr(found, "names", ())]
            )
            for name in names:
                assert str(name).partition(".")[0] not in ("training", "processors", "torch", "coffea"), path
    code = "import sys, condor.train, condor.process, condor.collect; print({'torch', 'coffea'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_no_path_of_this_machine_travels(odd_place, tmp_path, monkeypatch):
    """Job files, scripts, configuration: no path of here, and no proxy."""
    (odd_place.folder / "table.yaml").write_text("{lifetime: 0.1, mass: 0.1, noise: 0.1}")
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "my-proxy"))
    site = load_site("generic", ["python=python3"])
    config = odd_place.folder / "analysis.yaml"
    text = submit_training(
        config, ["attacks.fgsm.scale=table.yaml"], "generic", site, Sweep(seeds=(0, 1), evaluate="quick"), dry_run=True
    )
    for trace in (str(tmp_path), str(Path.home()), sys.prefix, "my-proxy", "out_"):
        assert trace not in text
    assert "table.yaml" not in text  # it has the name of its contents there


def test_what_travels_is_the_training(odd_place, tmp_path):
    from condor.payload import Payload, training_configuration
    from condor.sweep import points

    (odd_place.folder / "table.yaml").write_text("{lifetime: 0.1, mass: 0.1, noise: 0.1}")
    changed = ["attacks.fgsm.scale=table.yaml", "training.nominal.attack={kind: pgd, epsilon: 0.2, scale: table.yaml}"]
    payload = Payload()
    for point in points(odd_place.folder / "analysis.yaml", changed, seeds=[5], limit=10):
        (tmp_path / "config.yaml").write_text(training_configuration(point, payload))
        for name, path in payload.files.items():
            (tmp_path / name).write_bytes(path.read_bytes())
        there = load_analysis(tmp_path / "config.yaml")
        (training,) = there.training.values()
        moved = there.attacks["fgsm"]
        assert moved.scale.read_text() == (odd_place.folder / "table.yaml").read_text()
        assert moved.model_copy(update={"scale": "std"}) == point.analysis.attacks["fgsm"].model_copy(
            update={"scale": "std"}
        )
        without = {"attack"}
        assert training.model_dump(exclude=without) == point.training.model_dump(exclude=without)
        assert there.output == tmp_path / "work"
    assert len(payload.files) == 2  # the card, and one table for both
