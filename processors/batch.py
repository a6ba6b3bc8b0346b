"""Workers as jobs of HTCondor or Slurm: their job files, their queue, and lost ones submitted again."""

import json
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dask.utils import parse_timedelta

from common.errors import AdvtagError
from common.slurm import STUCK, plain
from configs.clusters import Cluster
from processors.proxy import find_proxy

CERTIFICATE, KEY = "dask.crt", "dask.key"
MARGIN = 300
"""Seconds before the end of the wall time at which a worker leaves, by itself, for another to take its place."""
INTERVAL = 10.0
"""Seconds between two looks at the queue: batch systems ask not to be asked more often."""
REPLACEMENTS = 10
"""Times that each job may be submitted again: a node that kills every job must not be fed for ever."""
STATES = {1: "idle", 2: "running", 3: "removed", 4: "completed", 5: "held", 6: "transferring", 7: "suspended"}
"""HTCondor's JobStatus (manual, Job ClassAd Attributes)."""
SPOOLING = 16
"""HoldReasonCode of a job whose input is still on its way to the schedd (same place): it goes on by itself."""


def job_options(cluster: Cluster, name: str, environment: dict[str, str], credentials: Path) -> dict[str, Any]:
    """Arguments of dask-jobqueue's cluster.

    Args:
        cluster: the configured cluster, of kind htcondor or slurm
        name: of the jobs, by which they are found again
        environment: of the workers
        credentials: folder of CERTIFICATE and KEY
    """
    python = cluster.python or ("python3" if cluster.image else shlex.quote(sys.executable))
    extra = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]  # what is left of it, too
    if cluster.ports is not None:
        ports = ":".join(map(str, cluster.ports))
        extra += ["--worker-port", ports, "--nanny-port", ports]
    if cluster.host is not None and cluster.host.startswith("127."):  # a pool on this machine
        extra += ["--host", cluster.host]
    if cluster.seconds is not None:
        extra += ["--lifetime", f"{max(cluster.seconds - MARGIN, cluster.seconds // 2)}s", "--lifetime-stagger", "60s"]
    options: dict[str, Any] = {
        "cores": cluster.cores,
        "processes": cluster.cores,
        "memory": cluster.memory,
        "python": f"exec {python}",  # so that the batch system's SIGTERM reaches the worker, not a shell
        "job_script_prologue": [f"export {key}={shlex.quote(value)}" for key, value in environment.items()],
        "worker_extra_args": extra,
        "log_directory": str(cluster.logs),
        "death_timeout": "120s",
        "scheduler_options": scheduler_options(cluster),
        "protocol": "tls://",
    }
    if cluster.kind == "htcondor":
        spooled = "-spool" in cluster.submit_options
        return options | {
            "disk": cluster.disk,
            "local_directory": ".",  # the job's own scratch folder
            "submit_command_extra": list(cluster.submit_options),
            "job_directives_skip": ["Stream_Output", "Stream_Error"] if spooled else [],
            "job_extra_directives": htcondor_directives(cluster, name, credentials),
        }
    if cluster.seconds is not None:
        minutes, seconds = divmod(cluster.seconds, 60)
        options["walltime"] = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    return options | {
        "job_name": name,
        "local_directory": "${TMPDIR:-/tmp}",
        "job_extra_directives": [
            f"--{key}={value}" if value else f"--{key}" for key, value in cluster.directives.items()
        ],
    }


def htcondor_directives(cluster: Cluster, name: str, credentials: Path) -> dict[str, str]:
    """Lines of the submit description beside those of dask-jobqueue."""
    proxy = find_proxy()
    lines = {
        "batch_name": name,
        "transfer_executable": "false",  # /bin/sh is everywhere
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT_OR_EVICT",
        "transfer_input_files": f"{credentials / CERTIFICATE}, {credentials / KEY}",
        "transfer_output_files": '""',
    }
    if proxy is not None:
        lines["x509userproxy"] = str(proxy)
    if cluster.image is not None:
        lines["MY.SingularityImage"] = f'"{cluster.image}"'
    if cluster.job_flavour is not None:
        lines["MY.JobFlavour"] = f'"{cluster.job_flavour}"'
    elif cluster.seconds is not None:
        lines["MY.MaxRuntime"] = str(cluster.seconds)
    return lines | cluster.directives


def scheduler_options(cluster: Cluster) -> dict[str, Any]:
    """Where the scheduler listens; its dashboard, which asks for no password, on loopback only."""
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    if cluster.host is not None:
        options["host"] = cluster.host
    if cluster.ports is not None:
        options["port"] = free_port(cluster.host or "", *cluster.ports)
    return options


def free_port(host: str, first: int, last: int) -> int:
    """A port of the range that nobody listens at.

    Raises:
        AdvtagError: there is none
    """
    for port in range(first, last + 1):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise AdvtagError(f"run.cluster.ports: all of {first} to {last} are taken on this machine; use another one")


def queue(kind: str, name: str) -> dict[str, tuple[str, str]] | None:
    """State and reason of every job of a name, by the number of the job; None if the batch system does not answer."""
    if kind == "htcondor":
        wanted = "ClusterId,JobStatus,HoldReason,HoldReasonCode"
        command = ["condor_q", "-constraint", f'JobBatchName == "{name}"', "-json", "-attributes", wanted]
    else:
        command = ["squeue", "--noheader", f"--name={name}", "--format=%i|%T|%r"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    if kind == "htcondor":
        jobs = json.loads(told or "[]")
        return {
            str(job["ClusterId"]): (
                "spooling" if job.get("HoldReasonCode") == SPOOLING else STATES[job["JobStatus"]],
                job.get("HoldReason", ""),
            )
            for job in jobs
        }
    fields = [line.split("|", 2) for line in told.splitlines()]
    return {number: ("held" if reason in STUCK else state.lower(), plain(reason)) for number, state, reason in fields}


def remove_all(kind: str, name: str) -> None:
    """Remove every job of a name, also one whose submission was interrupted before its number was known."""
    command = ["condor_rm", "-constraint", f'JobBatchName == "{name}"']
    if kind == "slurm":
        command = ["scancel", f"--name={name}"]
    subprocess.run(command, capture_output=True, check=False, timeout=120)  # noqa: S603 - nothing left is no failure


class Keeper:
    """Keeps the number of jobs, and knows when there is no hope.

    Dask's own `adapt` scales with the load and takes workers away; a job lost for good it does not replace.

    Args:
        settings: the configured cluster
        cluster: dask-jobqueue's
        client: its client, which is closed when there is no hope
        name: of the jobs
    """

    def __init__(self, settings: Cluster, cluster: Any, client: Any, name: str) -> None:
        self.settings = settings
        self.cluster = cluster
        self.client = client
        self.name = name
        self.problem: str | None = None
        self._left = REPLACEMENTS * settings.workers
        self._since = time.monotonic()
        self._said = ""
        self._refused: set[str] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Wait for the first worker, then replace lost jobs in the background.

        Raises:
            AdvtagError: no worker comes: no job is left, all are held, or it takes too long
        """
        while not self._workers():
            jobs = queue(self.settings.kind, self.name)
            problem = self._ended() if jobs is not None and not jobs else self._hopeless(jobs)
            if problem is not None:
                raise AdvtagError(problem)
            self._tell(jobs)
            try:
                self.client.wait_for_workers(1, timeout=INTERVAL / 5)
            except TimeoutError:
                continue
        self._thread.start()

    def stop(self) -> None:
        """Replace no more."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._done.wait(INTERVAL):
            jobs = queue(self.settings.kind, self.name)
            if self._workers():
                self._since = time.monotonic()
            elif (problem := self._hopeless(jobs)) is not None:
                self.problem = problem
                self.client.close(timeout=5)
                return
            if jobs is not None:
                self._replace(jobs)

    def _replace(self, jobs: dict[str, tuple[str, str]]) -> None:
        known = {name: number(job) for name, job in dict(self.cluster.workers).items()}
        refused = {name for name, job in known.items() if job is None}
        lost = [name for name, job in known.items() if job is not None and job not in jobs]
        lost = [*lost, *(refused & self._refused)][: self._left]  # seen twice: else it may be on its way
        self._refused = refused
        self._left -= len(lost)
        for name in lost:
            self.cluster.loop.add_callback(self.cluster.workers.pop, name, None)
        if lost:
            self.cluster.scale(jobs=self.settings.workers)

    def _workers(self) -> int:
        return len(self.cluster.scheduler_info["workers"])

    def _ended(self) -> str:
        return (
            f"run.cluster: all {self.settings.workers} jobs ended before their workers could connect to "
            f"{self.cluster.scheduler_address}; their logs are in {self.settings.logs}"
        )

    def _hopeless(self, jobs: dict[str, tuple[str, str]] | None) -> str | None:
        """Why there is no worker, if none will come."""
        reasons = [reason for state, reason in (jobs or {}).values() if state == "held"]
        if jobs and len(reasons) == len(jobs):
            return f"run.cluster: all {len(jobs)} jobs are held: {reasons[0]}"
        if time.monotonic() - self._since < parse_timedelta(self.settings.timeout):
            return None
        state = "the batch system does not answer" if jobs is None else f"jobs: {summary(jobs)}"
        return (
            f"run.cluster: no worker for {self.settings.timeout} ({state}); logs are in {self.settings.logs}. "
            "If the queue is long, set a longer run.cluster.timeout"
        )

    def _tell(self, jobs: dict[str, tuple[str, str]] | None) -> None:
        said = "no answer" if jobs is None else summary(jobs)
        if said != self._said:
            self._said = said
            print(f"{self.settings.kind} jobs {self.name}: {said}", file=sys.stderr)


def summary(jobs: dict[str, tuple[str, str]]) -> str:
    """How many jobs are in which state, in words."""
    counted = Counter(state for state, _ in jobs.values())
    return ", ".join(f"{number} {state}" for state, number in counted.most_common()) or "none yet"


def number(job: Any) -> str | None:
    """The number of a submitted job, which dask-jobqueue writes as 12.0 for HTCondor."""
    identity = getattr(job, "job_id", None)
    return None if identity is None else str(identity).partition(".")[0]
