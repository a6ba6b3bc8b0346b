#!/usr/bin/env python3
"""A real Slurm on this machine, for tests: daemons on loopback, no change to the system, no root needed.

    scripts/slurm_pool.py install .slurm-pool
    eval "$(scripts/slurm_pool.py start .slurm-pool /tmp/slurm)"
    sinfo
    scripts/slurm_pool.py stop /tmp/slurm

The packages are Debian's own, unpacked into PREFIX and bound to that path. One node of this machine has two partitions
and GPUs that are not there. There is no accounting (slurmdbd), and no memory is enforced (cgroups).
"""

import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from scripts import debian
from scripts.pool import PoolError, command_line, run

SLURM = debian.Programs(
    suite="trixie",  # what sites run is nearer to its 24.11 than to the 22.05 of Debian 12
    packages=("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge"),
    folders={f"{debian.LIBRARIES}/slurm-wlm": "lib/slurm", "sbin": "sbin"},
    commands=("s*", "*munge"),
)
DAEMONS = ("slurmd", "slurmctld", "munged")
"""In the order in which they are stopped."""
PATIENCE = 30
"""Seconds for the daemons to come up, or for the jobs to go."""
GPUS = ("null", "zero", "full", "random")
"""Devices that every machine has: to match, not to compute."""
AGAIN = 5
"""Seconds after which a job that was put back into the queue may start. Otherwise two minutes, as long as the
credential of its last start is valid; Slurm takes no less than this."""


def install(prefix: Path) -> None:
    """Install Slurm into `prefix`, if it is not there yet.

    Raises:
        PoolError: not on Debian, no package mirror, or no patchelf
    """
    debian.install(prefix, SLURM)


def start(prefix: Path, local: Path, cpus: int = 4, memory: int = 8000) -> dict[str, str]:
    """Start a Slurm whose state is in `local`.

    Args:
        prefix: where Slurm was installed
        local: a folder of its own
        cpus: cores that its node believes it has
        memory: MB, likewise

    Returns:
        the environment variables that make `sbatch` and the others talk to it

    Raises:
        PoolError: the daemons do not come up
    """
    prefix, local = prefix.absolute(), local.absolute()
    for folder, mode in (("", 0o755), ("state", 0o700), ("spool", 0o755), ("key", 0o700), ("log", 0o755)):
        (local / folder).mkdir(parents=True, exist_ok=True)
        (local / folder).chmod(mode)
    (local / "key/munge.key").write_bytes(secrets.token_bytes(128))
    (local / "key/munge.key").chmod(0o600)
    for name in ("slurmctld", "slurmd", "slurmstepd"):  # Debian's have another name, and each must see its own
        (local / name).unlink(missing_ok=True)
        (local / name).symlink_to(prefix / f"sbin/{name}-wlm")
    (local / "gres.conf").write_text("".join(f"Name=gpu Type=a100 File=/dev/{device}\n" for device in GPUS))
    (local / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (local / "slurm.conf").write_text(configuration(prefix, local, cpus, memory))
    environment = {
        "SLURM_CONF": str(local / "slurm.conf"),
        "PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    all_variables = os.environ | environment
    files = {"socket": "munge.socket", "key-file": "key/munge.key", "pid-file": "munged.pid"}
    files |= {"log-file": "log/munged", "seed-file": "key/seed"}
    try:
        # by force: it would like everyone to reach its socket, also below a folder of this user's own
        run(prefix / "sbin/munged", "--force", *(f"--{key}={local / file}" for key, file in files.items()))
        run(local / "slurmctld", environment=all_variables)
        run(local / "slurmd", "-d", local / "slurmstepd", environment=all_variables)
        end = time.monotonic() + PATIENCE
        while _told(prefix, local, "sinfo", "--noheader", "--Format=StateLong").strip() != "idle":
            if time.monotonic() > end:
                raise PoolError(f"the daemons did not come up; see {local / 'log'}")
            time.sleep(0.2)
    except BaseException:
        stop(local)
        raise
    return environment


def _told(prefix: Path, local: Path, command: str, *words: str) -> str:
    """What a command of Slurm prints; nothing if nobody answers."""
    variables = os.environ | {"SLURM_CONF": str(local / "slurm.conf")}
    return subprocess.run([prefix / "bin" / command, *words], env=variables, capture_output=True, text=True).stdout


def stop(local: Path) -> None:
    """Cancel all jobs and stop the daemons; a daemon that does not go is killed."""
    local = local.absolute()
    plugins = next(line for line in (local / "slurm.conf").read_text().splitlines() if line.startswith("PluginDir="))
    prefix = Path(plugins.partition("=")[2]).parent.parent
    end = time.monotonic() + PATIENCE
    if (local / "slurmctld.pid").exists():
        _told(prefix, local, "scancel", f"--user={os.geteuid()}", "--full")
        while _told(prefix, local, "squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.2)
    pids = []
    for name in DAEMONS:
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pids.append(int((local / f"{name}.pid").read_text()))
            os.kill(pids[-1], signal.SIGTERM)
    for pid in pids:
        with suppress(ProcessLookupError):
            while time.monotonic() < end:
                os.kill(pid, 0)
                time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def configuration(prefix: Path, local: Path, cpus: int, memory: int) -> str:
    """slurm.conf of one node on loopback, without cgroups and without systemd."""
    controller, daemon = _free_ports(2)
    host, user = socket.gethostname().partition(".")[0], str(os.geteuid())
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": controller,
        "SlurmdPort": daemon,
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={local}/munge.socket,cred_expire={AGAIN}",
        "CredType": "cred/munge",
        "PluginDir": prefix / "lib/slurm",
        "StateSaveLocation": local / "state",
        "SlurmdSpoolDir": local / "spool",
        **{f"{name}PidFile": local / f"{name.lower()}.pid" for name in ("Slurmctld", "Slurmd")},
        **{f"{name}LogFile": local / "log" / name.lower() for name in ("Slurmctld", "Slurmd")},
        "MailProg": "/bin/true",
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SchedulerParameters": "sched_interval=1,batch_sched_delay=0,bf_interval=1",
        "GresTypes": "gpu",
        "SlurmdParameters": "config_overrides",  # the node has what is written here, not what the machine has
        "ReturnToService": 2,
    }
    has = f"CPUs={cpus} RealMemory={memory} Gres=gpu:a100:{len(GPUS)}"
    node = f"NodeName={host} NodeAddr=127.0.0.1 {has} State=UNKNOWN"
    partitions = ["PartitionName=main Nodes=ALL Default=YES MaxTime=1-0", "PartitionName=short Nodes=ALL MaxTime=10"]
    return "\n".join([*(f"{key}={value}" for key, value in settings.items()), node, *partitions]) + "\n"


if __name__ == "__main__":
    command_line(__doc__, install, start, stop)
