#!/usr/bin/env python3
"""A real HTCondor pool on this machine, for tests: daemons on loopback, no change to the system, no root needed.

    scripts/condor_pool.py install .condor-pool
    eval "$(scripts/condor_pool.py start .condor-pool /tmp/pool)"
    condor_status
    scripts/condor_pool.py stop /tmp/pool

The packages are Debian's own, unpacked into PREFIX and bound to that path (63 MB, 10 to 20 s). Everyone on this machine
may use the pool: it is for tests.
"""

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from scripts import debian
from scripts.pool import PoolError, command_line

HTCONDOR = debian.Programs(
    suite="forky",  # Debian 12 has no HTCondor
    packages=("condor",),
    folders={"libexec/condor": "libexec/condor", "lib/condor": "lib/condor", "sbin": "sbin"},
    commands=("condor_*",),
    loaded=(
        *("ssl", "crypto", "SciTokens", "vomsapi", "munge", "krb5", "gssapi_krb5", "k5crypto", "krb5support"),
        *("com_err", "nss_files", "nss_dns", "resolv"),
    ),
)
NOBODY = "65534"
COMMANDS = (
    *("submit", "submit_dag", "q", "rm", "status", "hold", "release", "vacate_job", "history", "version"),
    *("tail", "transfer_data"),
)
PATIENCE = 60
"""Seconds for the daemons to come up, or to go."""


def install(prefix: Path) -> None:
    """Install HTCondor into `prefix`, if it is not there yet.

    Raises:
        PoolError: not on Debian, no package mirror, or no patchelf
    """
    debian.install(prefix, HTCONDOR)


def start(prefix: Path, local: Path, cpus: int = 4, memory: int = 8000) -> dict[str, str]:
    """Start a pool whose state is in `local`.

    Args:
        prefix: where HTCondor was installed
        local: a folder of the pool's own; its jobs run below it
        cpus: cores that the pool believes it has
        memory: MB, likewise

    Returns:
        the environment variables that make `condor_submit` and the others talk to it

    Raises:
        PoolError: the daemons do not come up
    """
    prefix, local = prefix.absolute(), local.absolute()
    for folder in ["execute", "lock", "log", "run", "spool", "passwords.d", "tokens.d", "bin"]:
        (local / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("passwords.d", "tokens.d"):
        (local / folder).chmod(0o700)
    (local / "condor_config").write_text(configuration(prefix, local, cpus, memory))
    for command in COMMANDS:
        script = local / "bin" / f"condor_{command}"
        inner = shlex.join([*_as_user(), str(prefix / "bin" / script.name)])
        variables = (
            f'CONDOR_CONFIG={shlex.quote(str(local / "condor_config"))} PATH="$PATH":{shlex.quote(str(prefix / "bin"))}'
        )
        script.write_text(f'#!/bin/sh\n{variables} exec {inner} "$@"\n')
        script.chmod(0o755)
    environment = {
        "CONDOR_CONFIG": str(local / "condor_config"),
        "PATH": f"{local / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    master = [*_as_user(), str(prefix / "sbin/condor_master"), "-f"]
    output = (os.POSIX_SPAWN_OPEN, 1, str(local / "log/master"), os.O_WRONLY | os.O_CREAT, 0o644)
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)]
    pid = os.posix_spawnp(master[0], master, os.environ | environment, file_actions=actions, setsid=True)
    (local / "master.pid").write_text(str(pid))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG) == (0, 0):
        status = subprocess.run([local / "bin/condor_status", "-af", "Name"], capture_output=True, text=True)
        if status.stdout.strip():
            return environment
        time.sleep(0.3)
    stop(local)
    raise PoolError(f"the daemons did not come up; see {local / 'log'}")


def stop(local: Path) -> None:
    """Stop the pool and all its jobs."""
    pid = int((local / "master.pid").read_text())
    for how in (signal.SIGQUIT, signal.SIGKILL):
        try:
            os.kill(pid, how) if how == signal.SIGQUIT else os.killpg(pid, how)
            end = time.monotonic() + PATIENCE / 4
            while time.monotonic() < end:
                with suppress(ChildProcessError):  # started by another process
                    os.waitpid(pid, os.WNOHANG)
                os.kill(pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return


def _as_user() -> list[str]:
    """Root runs no jobs: HTCondor then sees the unprivileged user `nobody`, in a user namespace."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]


def configuration(prefix: Path, local: Path, cpus: int, memory: int) -> str:
    """Configuration of a pool on loopback that negotiates every second or two."""
    folders = {
        "RELEASE_DIR": prefix,
        "BIN": prefix / "bin",
        "SBIN": prefix / "sbin",
        "LIB": prefix / "lib/condor",
        "LIBEXEC": prefix / "libexec/condor",
        "LOCAL_DIR": local,
        **{name.upper(): local / name for name in ("run", "log", "lock", "spool", "execute")},
        "SEC_PASSWORD_DIRECTORY": local / "passwords.d",
        "SEC_TOKEN_SYSTEM_DIRECTORY": local / "tokens.d",
        "SEC_TOKEN_DIRECTORY": local / "tokens.d",
        **{f"{name}_ADDRESS_FILE": local / f"log/.{name.lower()}" for name in ("COLLECTOR", "SCHEDD", "MASTER")},
    }
    network = {
        "CONDOR_HOST": "127.0.0.1",
        "NETWORK_INTERFACE": "127.0.0.1",
        "BIND_ALL_INTERFACES": "false",
        "ENABLE_IPV6": "false",
        "COLLECTOR_HOST": "127.0.0.1:0",
        "SHARED_PORT_PORT": "0",
        "UID_DOMAIN": "test.local",
        "FILESYSTEM_DOMAIN": "test.local",
        "TRUST_UID_DOMAIN": "true",
        "SEC_DEFAULT_AUTHENTICATION": "REQUIRED",
        "SEC_DEFAULT_AUTHENTICATION_METHODS": "FS",
        **{
            f"ALLOW_{who}": "*"
            for who in ["READ", "WRITE", "DAEMON", "NEGOTIATOR", "ADMINISTRATOR", "ADVERTISE_STARTD"]
        },
    }
    slots = {
        "NUM_CPUS": cpus,
        "MEMORY": memory,
        "NUM_SLOTS": 1,
        "NUM_SLOTS_TYPE_1": 1,
        "SLOT_TYPE_1": "100%",
        "SLOT_TYPE_1_PARTITIONABLE": "true",
        "RUNBENCHMARKS": 0,
    }
    intervals = {
        **{
            f"{name}_INTERVAL": 2
            for name in ["UPDATE", "POLLING", "NEGOTIATOR", "SCHEDD", "PERIODIC_EXPR", "STARTER_UPDATE"]
        },
        "NEGOTIATOR_MIN_INTERVAL": 1,
        "NEGOTIATOR_CYCLE_DELAY": 1,
        "SCHEDD_MIN_INTERVAL": 1,
        "SHADOW_QUEUE_UPDATE_INTERVAL": 2,
        "STARTER_INITIAL_UPDATE_INTERVAL": 1,
        "JOB_START_DELAY": 0,
    }
    tools = {
        "DISCARD_SESSION_KEYRING_ON_STARTUP": "false",
        "MAIL": "/bin/true",
        "SENDMAIL": "/bin/true",
        "SINGULARITY": "/bin/false",
        "GPU_DISCOVERY_EXTRA": "-extra -simulate:4,4",  # four A100 that are not there: to match, not to compute
        "MAX_JOBS_PER_SUBMISSION": 300,
        "DAGMAN_USE_STRICT": 0,
        "DAGMAN_USER_LOG_SCAN_INTERVAL": 1,
    }
    # the role comes after the folders, which its defaults name, and before what is set differently here
    lines = [f"{key} = {value}" for key, value in (folders | network).items()]
    lines += ["use ROLE: Personal"]
    lines += [f"{key} = {value}" for key, value in (network | slots | intervals | tools).items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line(__doc__, install, start, stop)
