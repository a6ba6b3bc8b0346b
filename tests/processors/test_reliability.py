"""The fault table of docs/reliability.md: real files, processes, workers and schedulers, broken while a job runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from coffea.processor import ProcessorABC

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from configs.schema import Dataset, Run
from processors.books import chunks_left
from processors.executors import executor
from processors.fileset import open_fileset
from processors.jobs import make_columns, make_histograms
from processors.run import FAILED, run_processor
from processors.store import Store, only_job
from processors.work import Work

ROOT = Path(__file__).parents[2]
EXECUTORS = ("iterative", "futures", "dask")
MC = {"genWeight": "float32", "run": "uint32", "luminosityBlock": "uint32", "event": "uint64"}


def write_events(path, number, *, first=0, branch="Jet_hadronFlavour", weight=1.0):
    """A small file of the card `nanoaod`'s kinematics: enough for a processor that counts."""
    jets = np.ones(number, np.int64) * 2
    flat = np.arange(2 * number, dtype=np.float32)
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree(
            "Events",
            {
                **MC,
                "Jet_pt": "var * float32",
                "Jet_eta": "var * float32",
                "Jet_phi": "var * float32",
                branch: "var * int32",
            },
        )
        for start in range(0, number, 10):  # several baskets
            stop = min(start + 10, number)
            some = ak.unflatten(flat[2 * start : 2 * stop], jets[start:stop])
            identity = np.arange(first + start, first + stop)
            tree.extend(
                {
                    "genWeight": np.full(stop - start, weight, np.float32),
                    "run": np.ones(stop - start, np.uint32),
                    "luminosityBlock": np.ones(stop - start, np.uint32),
                    "event": identity.astype(np.uint64),
                    "Jet_pt": some,
                    "Jet_eta": some * 0,
                    "Jet_phi": some * 0,
                    branch: ak.values_astype(some * 0, np.int32),
                }
            )
    return str(path)


class Adding(ProcessorABC):
    """Adds up the event numbers, so that each event shows; does what `fault` says on the way."""

    def __init__(self, fault="", where=0, marks=""):
        self.fault, self.where, self.marks = fault, where, marks

    def process(self, events):
        start, stop = events.metadata["entrystart"], events.metadata["entrystop"]
        if self.fault and start <= self.where < stop:
            self.strike()
        books = {
            "events": len(events),
            "jets": 0,
            "sum_weights": 0.0,
            "ranges": [[start, stop]] if stop > start else [],
        }
        total = int(np.asarray(events.event).sum()) + int(ak.sum(events.Jet_pt) * 0)
        return {"counts": {events.metadata["dataset"]: {events.metadata["filename"]: books}}, "total": total}

    def strike(self):
        fault, _, times = self.fault.partition(" ")
        before = len(list(Path(self.marks).iterdir()))
        if times and before >= int(times):
            return
        (Path(self.marks) / f"{before}-{os.getpid()}-{time.time_ns()}").touch()
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "oserror":
            raise OSError("the disk sleeps")
        raise ValueError("a bug of this chunk")

    def postprocess(self, accumulator):
        return accumulator


READ = frozenset(("event", "Jet_pt", "nJet"))


class Job:
    """Files, a store and the arguments of `run_processor`."""

    def __init__(self, folder, *sizes):
        self.folder = folder
        self.paths = [write_events(folder / f"f{i}.root", size, first=1000 * i) for i, size in enumerate(sizes)]
        dataset = Dataset(files=self.paths, cross_section=1.0)
        self.files = open_fileset({"d": dataset}, None, ())
        self.expected = sum(sum(range(1000 * i, 1000 * i + size)) for i, size in enumerate(sizes))
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.store = Store(folder / "out" / "result", "key")

    def run(self, processor=None, **run):
        settings = Run(**{"executor": "iterative", "chunksize": 10, "backoff": 0.05, **run})
        return run_processor(processor or Adding(), self.files, {"d": READ}, settings, self.store, progress=False)

    def failed(self):
        return json.loads((self.folder / "out" / FAILED).read_text())


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path, 40, 25)


@pytest.mark.parametrize("kind", EXECUTORS)
def test_nothing_wrong(job, kind):
    output = job.run(executor=kind)
    assert output["total"] == job.expected
    assert (output["missing"], output["failed"]) == ([], [])
    assert sum(book["events"] for book in output["counts"]["d"].values()) == 65
    assert not (job.folder / "out" / FAILED).exists()


def test_file_truncated_after_the_check(job):
    size = Path(job.paths[1]).stat().st_size
    os.truncate(job.paths[1], size // 2)
    with pytest.raises(AdvtagError, match=r"f1\.root.*25 of 65 events are missing"):
        job.run()
    assert {entry["file"] for entry in job.failed()["failed"]} == {job.paths[1]}
    assert job.failed()["missing"] == [{"dataset": "d", "file": job.paths[1], "start": 0, "stop": 25}]


def test_file_vanishes_and_comes_back(job):
    Path(job.paths[1]).rename(job.folder / "away")
    back = threading.Timer(0.5, (job.folder / "away").rename, [job.paths[1]])
    back.start()
    assert job.run(backoff=0.2)["total"] == job.expected
    back.join()


def test_file_vanishes_for_good_then_the_rest_is_resumed(job):
    Path(job.paths[1]).rename(job.folder / "away")
    with pytest.raises(AdvtagError, match=r"f1\.root.*No such file.*go on with --resume"):
        job.run(backoff=0.01)
    assert all(entry["tries"] == 5 for entry in job.failed()["failed"])
    (job.folder / "away").rename(job.paths[1])
    seen = Adding("bug", 35, str(job.marks))  # would strike in f0, if f0 ran again
    assert job.run(seen, resume=True)["total"] == job.expected
    assert not list(job.marks.iterdir())
    assert not (job.folder / "out" / FAILED).exists()


def test_what_is_missing_can_be_allowed(job):
    Path(job.paths[1]).unlink()
    output = job.run(backoff=0.01, allow_missing=True)
    assert output["total"] == sum(range(40))
    assert output["missing"] == [{"dataset": "d", "file": job.paths[1], "start": 0, "stop": 25}]
    assert job.failed()["missing"] == output["missing"]


def test_file_changed_after_the_check(job):
    write_events(job.paths[1], 25, first=7000)
    with pytest.raises(AdvtagError, match=r"f1\.root: the file has changed"):
        job.run()


@pytest.mark.parametrize("branch", ["event", "Jet_pt"])
def test_corrupt_basket(tmp_path, branch):
    path = write_events(tmp_path / "good.root", 400)
    with uproot.recreate(tmp_path / "f.root", compression=uproot.ZSTD(3)) as file, uproot.open(path) as source:
        arrays = source["Events"].arrays(how=dict)
        types = {name: array.type.content for name, array in arrays.items() if not name.startswith("n")}
        tree = file.mktree("Events", types)
        for start in (0, 200):
            tree.extend({name: arrays[name][start : start + 200] for name in types})
    with uproot.open(tmp_path / "f.root") as file:
        basket = file["Events"][branch].basket(1)
        place = basket.cursor.origin if hasattr(basket.cursor, "origin") else basket.cursor.index
        seek = int(file["Events"][branch].member("fBasketSeek")[1])
    with (tmp_path / "f.root").open("r+b") as file:
        file.seek(seek + 100)
        file.write(b"\xff" * 40)
    assert place is not None
    files = open_fileset({"d": Dataset(files=(str(tmp_path / "f.root"),), cross_section=1.0)}, None, ())
    store = Store(tmp_path / "out" / "result", "key")
    run = Run(executor="iterative", chunksize=100, backoff=0.01)
    with pytest.raises(AdvtagError, match=r"f\.root, events 200 to 300.*200 of 400 events are missing"):
        run_processor(Adding(), files, {"d": READ}, run, store, progress=False)


@pytest.mark.parametrize("kind", EXECUTORS)
def test_error_that_goes_away(job, kind):
    assert job.run(Adding("oserror 3", 12, str(job.marks)), executor=kind)["total"] == job.expected
    assert len(list(job.marks.iterdir())) == 3


@pytest.mark.parametrize("kind", EXECUTORS)
def test_bug_in_one_chunk(job, kind):
    with pytest.raises(AdvtagError, match=r"events 10 to 20: ValueError: a bug of this chunk; 20 of 65"):
        job.run(Adding("bug", 12, str(job.marks)), executor=kind)  # in both files
    assert len(list(job.marks.iterdir())) == 2  # a bug is not tried again
    output = job.run(resume=True, executor=kind)
    assert output["total"] == job.expected


@pytest.mark.parametrize("kind", EXECUTORS)
def test_bug_in_every_chunk_stops_the_job(tmp_path, kind):
    job = Job(tmp_path, 1000)
    job.files = [job.files[0]]

    faulty = Adding("bug", 5, str(job.marks))
    faulty.process = None  # every call is a TypeError
    with pytest.raises(AdvtagError, match="1000 of 1000 events are missing"):
        job.run(faulty, executor=kind)
    assert len(job.failed()["failed"]) == 10


@pytest.mark.parametrize("kind", ["futures", "dask"])
def test_worker_killed_once(job, kind):
    assert job.run(Adding("die 1", 12, str(job.marks)), executor=kind)["total"] == job.expected
    assert len(list(job.marks.iterdir())) == 1


@pytest.mark.parametrize("kind", ["futures", "dask"])
def test_chunk_that_kills_every_worker(tmp_path, kind):
    """It is named, and no other chunk goes with it."""
    job = Job(tmp_path, 60)
    with pytest.raises(AdvtagError, match=r"events 10 to 20: its worker was killed.*10 of 60 events"):
        job.run(Adding("die", 12, str(job.marks)), executor=kind)
    assert len(job.failed()["failed"]) == 1
    assert job.run(resume=True)["total"] == job.expected


def test_two_jobs_in_one_folder(tmp_path):
    refused = pytest.raises(AdvtagError, match="another advtag job is writing there")
    with only_job(tmp_path / "out"), refused, only_job(tmp_path / "out"):
        pass
    with only_job(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_resumed_job_refuses_files_that_are_gone(job):
    with pytest.raises(AdvtagError, match="a bug"):
        job.run(Adding("bug", 35, str(job.marks)))
    job.files = job.files[1:]
    with pytest.raises(AdvtagError, match=r"f0\.root: processed before, and not among the files now"):
        job.run(resume=True)


def test_a_resumed_job_takes_new_files_and_other_chunks(job):
    with pytest.raises(AdvtagError, match="a bug"):
        job.run(Adding("bug", 35, str(job.marks)))
    more = write_events(job.folder / "f2.root", 13, first=2000)
    job.files += open_fileset({"d": Dataset(files=(more,), cross_section=1.0)}, None, ())
    assert job.run(resume=True, chunksize=7)["total"] == job.expected + sum(range(2000, 2013))


def test_damaged_state(job):
    with pytest.raises(AdvtagError, match="a bug"):
        job.run(Adding("bug", 35, str(job.marks)))
    job.store.path.write_bytes(b"rubbish")
    with pytest.raises(AdvtagError, match="run without --resume"):
        job.run(resume=True)


def test_zero_event_files(tmp_path):
    job = Job(tmp_path, 0, 30, 0)
    output = job.run()
    assert output["total"] == job.expected
    assert len(output["counts"]["d"]) == 3


# -- the command line, on simulated events ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(simulated, taggers, tmp_path_factory):
    import yaml

    path = tmp_path_factory.mktemp("reliability") / "job.yaml"
    sections = {
        "name": "job",
        "output": "out",
        "features": "deepcsv",
        "datasets": {
            "ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0},
            "data": {"files": str(simulated / "ttbar_data_13_*.root"), "data": True},
        },
        "columns": {"datasets": ["ttbar", "data"]},
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
        "histograms": {
            "datasets": ["ttbar", "data"],
            "taggers": {"nominal": str(taggers["nominal"])},
            "attacks": ["fgsm"],
            "precision": "float64",
        },
    }
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(scope="module")
def whole(config):
    """What an undisturbed run gives."""
    analysis = load_analysis(config, ["output=whole", "run.executor=iterative"])
    return read_histograms(make_histograms(analysis, progress=False))


def start(config, *arguments):
    """The command line in a process of its own, in a group that a terminal would interrupt."""
    return subprocess.Popen(
        [sys.executable, ROOT / "advtag.py", *map(str, arguments), "--no-progress"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=config.parent,
    )


def wait_for(condition, seconds=90):
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def same(ours, theirs):
    for name, histogram in theirs.histograms.items():
        for place in histogram.axes["dataset"]:
            mine, other = (h[{"dataset": place}].view(flow=True) for h in (ours.histograms[name], histogram))
            np.testing.assert_allclose(mine["value"], other["value"], rtol=1e-12)
            np.testing.assert_allclose(mine["variance"], other["variance"], rtol=1e-12)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_and_resumed(config, times):
    """Ctrl-C keeps what is done; a second one leaves at once. Columns come out the same."""
    name = f"interrupted{times}"
    process = start(config, "columns", config, f"output={name}", "run.executor=futures", "run.chunksize=2")
    wait_for(lambda: len(list((config.parent / name).glob(".columns-*.unfinished/parts/*/*.parquet"))) > 5)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (config.parent / name / "columns").exists()
    resumed = start(config, "columns", config, f"output={name}", "run.executor=iterative", "--resume")
    _, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    folder = config.parent / name / "columns"
    rows = sum(pq.read_metadata(path).num_rows for path in folder.glob("*/*.parquet"))
    plain = make_columns(load_analysis(config, ["output=plain", "run.executor=iterative"]), progress=False)
    assert rows == sum(pq.read_metadata(path).num_rows for path in plain.glob("*/*.parquet"))
    assert not list(folder.parent.glob(".columns*"))


def test_killed_and_resumed(config, whole, monkeypatch):
    """SIGKILL between two writings of the state: what was not written down runs again, nothing counts twice."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = (
        "import processors.store as s; s.EVERY = 0.0; s.COSTS = 0; import advtag, sys; "
        f"sys.argv = ['advtag', 'histograms', {str(config)!r}, 'output=killed', 'run.executor=iterative', "
        "'run.chunksize=3', '--no-progress']; advtag.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    state = config.parent / "killed"
    wait_for(lambda: list(state.glob(".histograms-*.unfinished/done.safetensors")))
    time.sleep(1)
    process.kill()
    process.wait()
    resumed = start(config, "histograms", config, "output=killed", "run.executor=iterative", "--resume")
    _, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    same(read_histograms(state / "histograms"), whole)
    assert not list(state.glob(".histograms*"))


def test_scheduler_killed_and_resumed(config, whole):
    """The job ends with an error, and goes on with another scheduler."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--no-dashboard",
        "--port",
    ]

    def cluster(port):
        scheduler = subprocess.Popen([*command, str(port)], env=environment, stderr=subprocess.DEVNULL)
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1",
             "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "20"],
            env=environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return scheduler, worker

    ports = count(38000 + os.getpid() % 20000)
    one, other = next(ports), next(ports)
    scheduler, worker = cluster(one)
    job = start(config, "histograms", config, "output=lost", "--scheduler", f"tcp://127.0.0.1:{one}", "--chunksize", 2)
    try:
        time.sleep(12)
        scheduler.kill()
        _, errors = job.communicate(timeout=90)
        assert job.returncode == 1, errors
        assert "scheduler is gone" in errors
        assert len(errors.strip().splitlines()) == 1, errors
        second = cluster(other)
        job = start(config, "histograms", config, "output=lost", "--scheduler", f"tcp://127.0.0.1:{other}", "--resume")
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 0, errors
        same(read_histograms(config.parent / "lost" / "histograms"), whole)
    finally:
        for process in (scheduler, worker, *locals().get("second", ()), job):
            process.kill()


def test_second_job_in_the_folder_of_a_running_one(config):
    first = start(config, "columns", config, "output=shared", "run.executor=iterative", "run.chunksize=1")
    wait_for(lambda: (config.parent / "shared" / ".lock").exists())
    second = start(config, "columns", config, "output=shared", "run.executor=iterative")
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "another advtag job is writing there" in errors
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)


def test_data_recorded_twice(config, simulated, tmp_path):
    """Another file with the same events, and no common UUID."""
    (path,) = simulated.glob("ttbar_data_13_*.root")
    with uproot.open(path) as source, uproot.recreate(tmp_path / "again.root") as sink:
        arrays = source["Events"].arrays(entry_start=90, how=dict)
        types = {name: array.type.content for name, array in arrays.items() if not name.startswith("n")}
        sink.mktree("Events", types).extend({name: arrays[name] for name in types})
    files = json.dumps([str(path), str(tmp_path / "again.root")])
    analysis = load_analysis(
        config, [f"datasets.data.files={files}", f"output={tmp_path / 'o'}", "run.executor=iterative"]
    )
    with pytest.raises(AdvtagError, match=r"event \d+ of run \d+, lumi \d+ is also in .* and 9 more"):
        make_columns(analysis, progress=False)
    assert not (tmp_path / "o" / "columns").exists()


def test_disk_full_while_the_state_is_written(job):
    """The state of before stays; the error says where."""
    with pytest.raises(AdvtagError, match="a bug"):
        job.run(Adding("bug", 35, str(job.marks)))
    before = job.store.path.read_bytes()
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); import signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from pathlib import Path; from processors.store import Store;"
        f"Store(Path({str(job.folder / 'out' / 'result')!r}), 'key').save({{'counts': {{'d': {{}}}}}})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "AdvtagError: cannot write" in result.stderr
    assert job.store.path.read_bytes() == before


def test_work_gives_a_failure_and_nothing_else(job):
    Path(job.paths[0]).unlink()
    (item, *_) = chunks_left(job.files[0], {}, 10)
    output = Work(Adding(), {"d": READ}, {}, 1, 0.01)(item)
    assert set(output) == {"failed"}
    with executor(Run(executor="iterative")) as results:
        assert [set(part) for part in results([item], Work(Adding(), {"d": READ}, {}, 0, 0))] == [{"failed"}]
    shutil.rmtree(job.folder / "marks")
