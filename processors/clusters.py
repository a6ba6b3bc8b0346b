"""A Dask client of the configured workers: of this machine, of a batch system, or of a scheduler that runs already."""

import logging
import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.security import Security
from rich.table import Table

from common.environment import MALLOC, ONE_THREAD
from common.errors import AdvtagError
from common.interrupts import children_without_interrupts
from configs.clusters import Cluster
from configs.schema import Run
from processors.batch import CERTIFICATE, KEY, Keeper, job_options, number, remove_all
from processors.proxy import find_proxy
from processors.travel import send_package

PATIENCE = 60
"""Seconds to wait for the first worker of a scheduler that the user names."""
SELDOM = {"distributed.worker.profile.interval": "100ms", "distributed.admin.tick.interval": "500ms"}
"""Dask looks into the stack of a task every 10 ms otherwise, and wakes each process every 20: a tenth of the time."""


@contextmanager
def dask_client(run: Run) -> Iterator[Client]:
    """A client of the scheduler, or of workers that are started here and stopped again, also on Ctrl-C.

    `client.dashboard_link` is the address of the dashboard, on loopback for workers that are started here.

    Raises:
        AdvtagError: no scheduler answers, no worker comes, or none is left for too long
    """
    if run.scheduler is not None:
        with _foreign(run.scheduler) as client:
            yield client
        return
    cluster = run.cluster or Cluster(kind="local", workers=run.workers)
    with dask.config.set(SELDOM), _local(cluster) if cluster.kind == "local" else _batch(cluster) as client:
        yield client


@contextmanager
def _local(cluster: Cluster) -> Iterator[Client]:
    environment = worker_environment(cluster)
    # before the process starts, where glibc reads it; and again after, over what this machine's shell exports
    early = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.items()}
    with dask.config.set(early), ExitStack() as stack:
        with children_without_interrupts():
            workers = LocalCluster(
                n_workers=cluster.workers,
                threads_per_worker=1,
                memory_limit="auto" if cluster.memory is None else cluster.memory,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,  # a failure is told once, by its error
                env=environment,
            )
        stack.enter_context(workers)
        yield stack.enter_context(Client(workers))


@contextmanager
def _foreign(address: str) -> Iterator[Client]:
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a failure is told once, by its error
    try:
        client = Client(address, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise AdvtagError(f"run.scheduler: no Dask scheduler answers at {address}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise AdvtagError(f"run.scheduler: {address} has had no worker for {PATIENCE} s; start some") from error
        _refuse_other_python(client)
        _warn_of_slow_workers(client, address)
        send_package(client)
        yield client


@contextmanager
def _batch(cluster: Cluster) -> Iterator[Client]:
    """Workers as batch jobs. All traffic is encrypted, with a key of this run: a Dask port runs any code it is sent."""
    name = f"advtag-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        credentials = stack.enter_context(_credentials(cluster))
        # an evicted job waits in the queue to run again: not for Dask to remove it
        stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "365d"}))
        workers = _scheduler(cluster, name, credentials)
        stack.callback(_remove, workers, cluster.kind, name)
        client = stack.enter_context(Client(workers))
        send_package(client)
        _submit(workers, cluster.workers)
        keeper = Keeper(cluster, workers, client, name)
        keeper.start()
        stack.callback(keeper.stop)
        _refuse_other_python(client)
        try:
            yield client
        except Exception as error:
            if keeper.problem is not None:
                raise AdvtagError(keeper.problem) from error
            raise


def _submit(workers: Any, jobs: int) -> None:
    """Submit the jobs; as long as one was taken, the others are tried again later."""
    for _ in range(jobs):
        workers.worker_spec.update(workers.new_worker_spec())
    try:
        workers.sync(workers._correct_state)  # `scale` keeps the errors of condor_submit to itself
    except RuntimeError as error:
        if not any(number(job) for job in workers.workers.values()):
            said = " ".join(str(error).partition("stderr:")[2].split()).replace("sbatch: error: ", "")
            raise AdvtagError(f"run.cluster: the jobs cannot be submitted: {said or error}") from error


def _scheduler(cluster: Cluster, name: str, credentials: Path) -> Any:
    """dask-jobqueue's cluster, still without jobs."""
    program = "condor_submit" if cluster.kind == "htcondor" else "sbatch"
    if shutil.which(program) is None:
        raise AdvtagError(f"run.cluster: there is no {program} on this machine; log in to one that submits jobs")
    try:
        with children_without_interrupts():  # importing it replaces the handler of SIGINT, for good
            from dask_jobqueue import HTCondorCluster, SLURMCluster
    except ImportError as error:
        raise AdvtagError("run.cluster: batch systems need `pip install advtag[condor]`") from error
    own = Security(
        require_encryption=True,
        tls_ca_file=(credentials / CERTIFICATE).read_text(),
        **{f"tls_{role}_cert": (credentials / CERTIFICATE).read_text() for role in ("scheduler", "client")},
        **{f"tls_{role}_key": (credentials / KEY).read_text() for role in ("scheduler", "client")},
    )
    # HTCondor brings the two files into the job's folder, Slurm's workers see them here
    folder = Path() if cluster.kind == "htcondor" else credentials
    place = {"tls_ca_file": str(folder / CERTIFICATE), "tls_worker_cert": str(folder / CERTIFICATE)}
    theirs = Security(require_encryption=True, **place, tls_worker_key=str(folder / KEY))

    class Encrypted(HTCondorCluster if cluster.kind == "htcondor" else SLURMCluster):  # type: ignore[misc]
        """Workers find the key under another name than the scheduler does."""

        def _get_worker_security(self, security: Security) -> Security:  # noqa: ARG002
            return theirs

    options = job_options(cluster, name, worker_environment(cluster), credentials)
    return Encrypted(name=name, security=own, silence_logs=logging.CRITICAL, **options)


def _remove(workers: Any, kind: str, name: str) -> None:
    with children_without_interrupts():
        try:
            workers._created.clear()  # it insists on having closed each itself, also one that was lost or refused
            workers.close()
        finally:
            remove_all(kind, name)


@contextmanager
def _credentials(cluster: Cluster) -> Iterator[Path]:
    """A folder with a certificate and its key, for this user's eyes and until the jobs are gone."""
    try:
        cluster.logs.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=".credentials-", dir=cluster.logs)
    except OSError as error:
        raise AdvtagError(f"run.cluster.logs: cannot write {cluster.logs} ({error.strerror})") from error
    made = Security.temporary()
    for file, text in ((CERTIFICATE, made.tls_client_cert), (KEY, made.tls_client_key)):
        with os.fdopen(os.open(Path(folder, file), os.O_WRONLY | os.O_CREAT, 0o600), "w") as target:
            target.write(text)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def worker_environment(cluster: Cluster) -> dict[str, str]:
    """Environment variables of every worker: one thread, malloc, Dask's settings, the grid proxy, the user's own."""
    seldom = {f"DASK_{key.upper().replace('.', '__')}": value for key, value in SELDOM.items()}
    passed = {name: os.environ[name] for name in ("X509_CERT_DIR", "X509_VOMS_DIR") if name in os.environ}
    if cluster.kind == "slurm" and (proxy := find_proxy()) is not None:  # HTCondor brings it and sets the variable
        passed["X509_USER_PROXY"] = str(proxy)
    return MALLOC | ONE_THREAD | seldom | passed | cluster.environment


def _refuse_other_python(client: Client) -> None:
    """Functions sent to another Python crash it, or worse."""
    here = platform.python_version_tuple()[:2]
    for worker, version in client.run(platform.python_version).items():
        if tuple(version.split(".")[:2]) != here:
            raise AdvtagError(
                f"the worker {worker} has Python {version}, this is {platform.python_version()}: run advtag in the "
                "container image of the workers, or give them an image with this Python"
            )


def _warn_of_slow_workers(client: Client, address: str) -> None:
    for name, value in (MALLOC | ONE_THREAD).items():
        if any(found != value for found in client.run(os.getenv, name).values()):
            wanted = " ".join(f"{key}={setting}" for key, setting in (MALLOC | ONE_THREAD).items())
            print(f"advtag: workers of {address} would be faster if started with {wanted}", file=sys.stderr)
            return


def cluster_table(cluster: Cluster) -> Table:
    """Every value of a cluster, and which layer it came from."""
    table = Table("key", "value", "from", title="Cluster")
    for key, origin in cluster.origins.items():
        value = getattr(cluster, key)
        if value not in (None, (), {}):
            shown = ", ".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else value
            table.add_row(key, str(shown), origin)
    return table
