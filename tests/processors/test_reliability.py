"""The fault table of docs/reliability.md: real files, processes, workers and schedulers, broken while a job runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import dask
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import uproot

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from configs.schema import Dataset, Run
from processors.books import chunks_left
from processors.clusters import dask_client
from processors.executors import executor
from processors.fileset import open_fileset
from processors.jobs import make_columns, make_histograms
from processors.run import FAILED, run_processor
from processors.store import Store, only_job
from processors.work import Work
from tests.processors.counting_job import READ, Adding, write_events

ROOT = Path(__file__).parents[2]
EXECUTORS = ("iterative", "futures", "dask")


class Job:
    """Files, a store and the arguments of `run_processor`."""

    def __init__(self, folder, scheduler, *sizes):
        self.folder, self.scheduler = folder, scheduler
        self.paths = [write_events(folder / f"f{i}.root", size, first=1000 * i) for i, size in enumerate(sizes)]
        self.look_again()
        self.expected = sum(sum(range(1000 * i, 1000 * i + size)) for i, size in enumerate(sizes))
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.store = Store(folder / "out" / "result", "key")

    def look_again(self):
        self.files = open_fileset({"d": Dataset(files=self.paths, cross_section=1.0)}, None, ())

    def run(self, processor=None, executor="iterative", fault=None, **run):
        Ringing.fault = fault
        # workers of Dask take long to start: all tests have the same
        where = {"scheduler": self.scheduler()} if executor == "dask" else {"executor": executor}
        settings = Run(**{"chunksize": 10, "backoff": 0.05, **where, **run})
        return run_processor(processor or Adding(), self.files, {"d": READ}, settings, self.store, progress=False)

    def failed(self):
        return json.loads((self.folder / "out" / FAILED).read_text())


@pytest.fixture(scope="module")
def scheduler():
    """Starts a Dask cluster when it is called first; gives its address."""
    with ExitStack() as stack:

        @cache
        def address():
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 1}))  # of a worker; not 3
            client = stack.enter_context(dask_client(Run(executor="dask", workers=2)))
            return client.scheduler.address

        yield address


@pytest.fixture
def make_job(tmp_path, scheduler):
    return partial(Job, tmp_path, scheduler)


@pytest.fixture
def job(make_job):
    """65 events in two files."""
    return make_job(40, 25)


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
    output = job.run(Adding("oserror 3", 12, str(job.marks)), executor=kind)
    assert output["total"] == job.expected
    assert (output["missing"], output["failed"]) == ([], [])
    assert sum(book["events"] for book in output["counts"]["d"].values()) == 65
    assert not (job.folder / "out" / FAILED).exists()
    assert len(list(job.marks.iterdir())) == 3


@pytest.mark.parametrize("kind", EXECUTORS)
def test_bug_in_one_chunk(job, kind):
    with pytest.raises(AdvtagError, match=r"events \d+ to \d+: ValueError: a bug of this chunk; 23 of 65"):
        job.run(Adding("bug", 12, str(job.marks)), executor=kind)  # in both files, 10 and 13 events
    assert len(list(job.marks.iterdir())) == 2  # a bug is not tried again
    output = job.run(resume=True, executor=kind)
    assert output["total"] == job.expected


@pytest.mark.parametrize("kind", EXECUTORS)
def test_bug_in_every_chunk_stops_the_job(make_job, kind):
    job = make_job(1000)
    faulty = Adding("bug", 5, str(job.marks))
    faulty.process = None  # every call is a TypeError
    with pytest.raises(AdvtagError, match="1000 of 1000 events are missing"):
        job.run(faulty, executor=kind)
    assert 10 <= len(job.failed()["failed"]) < 20  # of 100


@pytest.mark.parametrize("kind", ["futures", "dask"])
def test_worker_killed_once(job, kind):
    assert job.run(Adding("die 1", 12, str(job.marks)), executor=kind)["total"] == job.expected
    assert len(list(job.marks.iterdir())) == 1


@pytest.mark.parametrize("kind", ["futures", "dask"])
def test_chunk_that_kills_every_worker(make_job, kind):
    """It is named, and no other chunk goes with it."""
    job = make_job(60)
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


def test_zero_event_files(make_job):
    job = make_job(0, 30, 0)
    output = job.run()
    assert output["total"] == job.expected
    assert len(output["counts"]["d"]) == 3


def test_a_resumed_job_refuses_a_file_that_was_made_anew(job):
    """As many events, under the same name: half of the old ones and half of the new ones would be both."""
    with pytest.raises(AdvtagError, match="a bug"):
        job.run(Adding("bug", 35, str(job.marks)))
    write_events(job.paths[0], 40, first=5000)
    job.look_again()
    with pytest.raises(AdvtagError, match=r"f0\.root: processed before, and another file now"):
        job.run(resume=True)


def test_the_next_job_reads_the_new_file(make_job):
    """A worker keeps its last file open; a long-lived one may be asked for another file of that name."""
    job = make_job(20)
    assert job.run()["total"] == job.expected
    write_events(job.paths[0], 30, first=5000)
    job.look_again()
    assert job.run()["total"] == sum(range(5000, 5030))


def test_damaged_replica(job):
    """What waiting does not cure at one place of a file may be whole at another."""
    whole = job.folder / "elsewhere.root"
    shutil.copyfile(job.paths[1], whole)
    job.files[1] = replace(job.files[1], replicas=(str(whole),))
    damaged = bytearray(whole.read_bytes())
    with uproot.open(whole) as file:
        for basket in file["Events"]["event"].member("fBasketSeek")[:3]:
            damaged[basket : basket + 60] = b"\xff" * 60
    Path(job.paths[1]).write_bytes(damaged)
    assert job.run(backoff=1000)["total"] == job.expected


class Ringing(np.ndarray):
    """While it is added to, Ctrl-C, or no memory: some of a chunk's output is in the sum, and some is not."""

    fault = None

    def __iadd__(self, other):
        fault, Ringing.fault = Ringing.fault, None
        if fault is not None:
            fault()
        return super().__iadd__(other)


class AddingArrays(Adding):
    def process(self, events):
        output = super().process(events)
        return {**output, "total": np.array([output["total"]]).view(Ringing)}


def no_memory():
    raise MemoryError


@pytest.mark.parametrize(
    ("fault", "error"), [(lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt), (no_memory, MemoryError)]
)
def test_broken_off_while_adding_up(make_job, fault, error):
    job = make_job(60)
    with pytest.raises(error):
        job.run(AddingArrays(), chunksize=20, fault=fault)
    if error is KeyboardInterrupt:  # it waited: the sum is whole, and kept
        assert job.store.load()["counts"]["d"][job.paths[0]]["events"] == 40
    assert int(job.run(AddingArrays(), resume=True)["total"][0]) == job.expected


def unaddable(item):
    return {"one": object(), "events": len(item)}


def unsendable(item):
    return {"one": lambda: item}


def test_outputs_that_dask_workers_cannot_add_up(job, scheduler):
    """Their chunks run again, each alone."""
    chunks = chunks_left(job.files[0], {}, 10)
    with executor(Run(scheduler=scheduler())) as results:
        assert sum(part["events"] for part in results(chunks, unaddable)) == 40


def test_output_that_cannot_be_sent(job):
    with executor(Run(executor="futures", workers=1)) as results:
        (part,) = results(chunks_left(job.files[0], {}, 40), unsendable)
    assert "pickle" in part["failed"][0]["error"]
    assert (part["failed"][0]["start"], part["failed"][0]["stop"]) == (0, 40)


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
            "correlations": True,
        },
    }
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(scope="module")
def whole(config):
    """What an undisturbed run gives."""
    analysis = load_analysis(config, ["output=whole", "run.executor=iterative"])
    return read_histograms(make_histograms(analysis, progress=False))


@contextmanager
def started(folder, *command):
    """A process in a group of its own, which a terminal would interrupt; nothing of the group outlives the block."""
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=folder,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def advtag(config, verb, name, *arguments):
    """The command line, with its outputs in the folder `name`."""
    return started(config.parent, ROOT / "advtag.py", verb, config, f"output={name}", *arguments, "--no-progress")


def resumed(config, job, name):
    """What is left, done in this process; return the folder of the output."""
    return job(load_analysis(config, [f"output={name}", "run.executor=iterative", "run.resume=true"]), progress=False)


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def wait_for_parts(config, name):
    """Until a job of columns is under way."""
    wait_for(lambda: len(list((config.parent / name).glob(".columns-*.unfinished/parts/*/*.parquet"))) > 5)


def running(group):
    """Processes of a group."""
    found = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def same(ours, theirs):
    for name, histogram in theirs.histograms.items():
        for place in histogram.axes["dataset"]:
            mine, other = (h[{"dataset": place}].view(flow=True) for h in (ours.histograms[name], histogram))
            np.testing.assert_allclose(mine["value"], other["value"], rtol=1e-12)
            np.testing.assert_allclose(mine["variance"], other["variance"], rtol=1e-12)
    for place, blocks in theirs.correlations.items():
        assert ours.correlations[place].keys() == blocks.keys()
        for key, block in blocks.items():
            np.testing.assert_allclose(ours.correlations[place][key], block, rtol=1e-9, atol=1e-9)


def rows(folder):
    """Every row of a folder of columns, sorted."""
    tables = [pq.read_table(path, columns=["event", "jet_index", "jet_pt"]) for path in folder.glob("*/*.parquet")]
    return sorted(tuple(row.values()) for table in tables for row in table.to_pylist())


@pytest.fixture(scope="module")
def whole_columns(config):
    analysis = load_analysis(config, ["output=plain", "run.executor=iterative"])
    return rows(make_columns(analysis, progress=False))


@pytest.mark.parametrize(("kind", "times"), [("futures", 1), ("futures", 2), ("dask", 2)])
def test_interrupted_and_resumed(config, whole_columns, kind, times):
    """Ctrl-C keeps what is done; a second one leaves at once. No process stays behind; columns come out the same."""
    name = f"interrupted_{kind}{times}"
    with advtag(config, "columns", name, f"run.executor={kind}", "run.chunksize=2") as process:
        wait_for_parts(config, name)
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        process.communicate(timeout=30)
        assert process.returncode != 0
        wait_for(lambda: not running(process.pid), 10)
    assert not (config.parent / name / "columns").exists()
    if times == 1:
        assert list((config.parent / name).glob(".columns-*.unfinished/done.safetensors"))
    folder = resumed(config, make_columns, name)
    assert rows(folder) == whole_columns
    assert not list(folder.parent.glob(".columns*"))


def test_killed_with_workers(config, whole_columns):
    """SIGKILL: the worker processes leave when they notice, after their chunk at most."""
    with advtag(config, "columns", "killed", "run.executor=futures", "run.chunksize=2") as process:
        wait_for_parts(config, "killed")
        assert len(running(process.pid)) >= 3
        process.kill()
        wait_for(lambda: not running(process.pid), 20)
    assert rows(resumed(config, make_columns, "killed")) == whole_columns


def test_killed_and_resumed(config, whole):
    """SIGKILL between two writings of the state: what was not written down runs again, nothing counts twice."""
    code = (
        "import processors.store as s; s.EVERY = 0.0; s.COSTS = 0; import advtag, sys; "
        f"sys.argv = ['advtag', 'histograms', {str(config)!r}, 'output=dead', 'run.executor=iterative', "
        "'run.chunksize=3', '--no-progress']; advtag.main()"
    )
    folder = config.parent / "dead"
    with started(config.parent, "-c", code) as process:
        wait_for(lambda: list(folder.glob(".histograms-*.unfinished/done.safetensors")))
        time.sleep(0.5)
        process.kill()
    assert not (folder / "histograms").exists()
    same(read_histograms(resumed(config, make_histograms, "dead")), whole)
    assert not list(folder.glob(".histograms*"))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_scheduler_killed_and_resumed(config, whole_columns):
    """The job ends with an error, and goes on elsewhere."""
    address = f"tcp://127.0.0.1:{free_port()}"
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard", "--port"]
    worker = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "20"]
    with (
        started(config.parent, *scheduler, address.rpartition(":")[2]) as head,
        started(config.parent, "-m", "distributed.cli.dask_worker", address, *worker),
        advtag(config, "columns", "lost", "--scheduler", address, "--chunksize", 1) as job,
    ):
        wait_for_parts(config, "lost")
        head.kill()
        _, errors = job.communicate(timeout=90)
        assert job.returncode == 1, errors
        assert "scheduler is gone" in errors
        assert len([line for line in errors.splitlines() if "would be faster" not in line]) == 1, errors
    assert rows(resumed(config, make_columns, "lost")) == whole_columns


def test_second_job_in_the_folder_of_a_running_one(config):
    """The second one says so, and leaves the first alone."""
    with advtag(config, "columns", "shared", "run.executor=iterative", "run.chunksize=10") as first:
        wait_for(lambda: (config.parent / "shared" / ".lock").exists())
        first.send_signal(signal.SIGSTOP)
        with advtag(config, "columns", "shared", "run.executor=iterative") as second:
            _, errors = second.communicate(timeout=90)
            assert second.returncode == 1
            assert "another advtag job is writing there" in errors
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=90)
        assert first.returncode == 0, errors


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
