"""Workers of this machine and of a running scheduler: their environment, and the package that travels to them."""

import os
import subprocess
import sys

import dask
import pytest

from common.environment import MALLOC, ONE_THREAD
from common.errors import AdvtagError
from common.interrupts import children_without_interrupts
from configs.schema import Run
from processors.batch import free_port, job_options, summary
from processors.clusters import SELDOM, dask_client, worker_environment
from processors.travel import send_package
from tests.htcondor.conftest import bare_python  # noqa: F401

with children_without_interrupts():  # importing it replaces the handler of SIGINT, for good
    from dask_jobqueue.slurm import SLURMJob

ENVIRONMENT = MALLOC | ONE_THREAD


@pytest.fixture
def start(tmp_path):
    """Starts a scheduler or worker of another installation; returns its process."""
    processes = []

    def run(python, program, *arguments, **environment):
        process = subprocess.Popen(
            [python, "-m", f"distributed.cli.dask_{program}", *arguments],
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if key not in ENVIRONMENT} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(start, tmp_path):
    address = f"tcp://127.0.0.1:{free_port('127.0.0.1', 20000, 30000)}"
    port = address.rpartition(":")[2]
    start(sys.executable, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return address


def test_local_workers_have_one_thread_and_the_malloc_settings_whatever_the_shell_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    run = Run.model_validate({"cluster": {"profile": "local", "workers": 1, "environment": {"MINE": "here"}}})
    with dask_client(run) as client:
        assert client.scheduler.address.startswith("tcp://127.0.0.1:")
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        assert list(client.nthreads().values()) == [1]
        for name, value in (ENVIRONMENT | {"MINE": "here"}).items():
            assert list(client.run(os.getenv, name).values()) == [value]
        assert list(client.run(lambda: {key: dask.config.get(key) for key in SELDOM}).values()) == [SELDOM]
        assert client.run_on_scheduler(lambda: {key: dask.config.get(key) for key in SELDOM}) == SELDOM


def test_the_package_travels_also_to_workers_that_come_later(start, scheduler, bare_python, capsys):  # noqa: F811
    def worker():
        return start(bare_python, "worker", scheduler, "--no-nanny", "--nthreads", "1", "--no-dashboard")

    def where():
        from common import errors

        return errors.__file__

    worker()
    with dask_client(Run(executor="dask", scheduler=scheduler)) as client:
        assert "would be faster if started with MALLOC_TRIM_THRESHOLD_" in capsys.readouterr().err
        worker()
        client.wait_for_workers(2, timeout=30)
        places = client.run(where)
        assert len(places) == 2
        for address, path in places.items():
            assert "/advtag-" in path  # not the checkout's
            task = client.submit(summary, {"1": ("idle", "")}, workers=[address], pure=False)
            assert task.result() == "1 idle"
        send_package(client)
        assert client.run(where) == places  # the same sources are unpacked once


def test_workers_with_the_settings_get_no_advice(start, scheduler, capsys):
    start(sys.executable, "worker", scheduler, "--no-nanny", "--nthreads", "1", **ENVIRONMENT)
    with dask_client(Run(executor="dask", scheduler=scheduler)):
        assert capsys.readouterr().err == ""


def test_without_a_batch_system_the_error_says_where_to_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    keys = {"profile": "slurm", "logs": str(tmp_path)}
    with pytest.raises(AdvtagError, match="there is no sbatch on this machine"):
        dask_client(Run.model_validate({"cluster": keys})).__enter__()
    assert not list(tmp_path.glob(".credentials*"))


def test_the_script_of_a_slurm_job(tmp_path, monkeypatch):
    proxy = tmp_path / "proxy"
    proxy.touch()
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    keys = {"profile": "slurm", "logs": str(tmp_path), "directives": {"partition": "short"}, "cores": 2}
    cluster = Run.model_validate({"cluster": keys}).cluster
    options = job_options(cluster, "advtag-test", worker_environment(cluster), tmp_path)
    del options["scheduler_options"]
    lines = SLURMJob("tls://submit.example.org:8786", name="worker", **options).job_script().splitlines()
    for line in (
        "#SBATCH -J advtag-test",
        "#SBATCH --partition=short",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --mem=2G",
        "#SBATCH -t 01:00:00",
        f"export X509_USER_PROXY={proxy}",
        *(f"export {name}={value}" for name, value in ENVIRONMENT.items()),
    ):
        assert line in lines
    assert lines[-1].startswith(f"exec {sys.executable} -m distributed.cli.dask_worker tls://submit.example.org:8786 ")
    for words in ("--nthreads 1", "--nworkers 2", "--lifetime 3300s", "--no-dashboard"):
        assert words in lines[-1]
    assert subprocess.run(["sh", "-n"], input="\n".join(lines), text=True).returncode == 0


def test_free_port_skips_what_is_taken():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port, port + 50) > port
        with pytest.raises(AdvtagError, match="all of"):
            free_port("127.0.0.1", port, port)
