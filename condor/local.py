"""Jobs as processes of this machine, a few at a time, in the background: for laptops.

python -m condor.local FOLDER
"""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from condor.job import CHECKPOINTED, Item
from condor.ledger import Ledger, read_ledger
from condor.state import IDLE, RUNNING, State

STARTED = "local.pid"
"""Of the process that runs the jobs, with the time it started, since numbers are used again."""


def submit(folder: Path) -> str:
    """Start the runner, which outlives this process; return its number."""
    root = str(Path(__file__).parent.parent)
    log = (os.POSIX_SPAWN_OPEN, 1, str(folder / "local.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "condor.local", str(folder.resolve())],
        os.environ | {"PYTHONPATH": root},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
    )
    (folder / STARTED).write_text(f"{pid} {_started(pid)}")
    return str(pid)


def _started(pid: int) -> str:
    """When a process started, as the kernel counts; empty if there is none, or it has ended."""
    with suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    return ""


def runner(folder: Path) -> int | None:
    """The number of the runner; None if it has ended."""
    with suppress(OSError, ValueError):
        pid, started = (folder / STARTED).read_text().split()
        if _started(int(pid)) == started:
            return int(pid)
    return None


def queue(folder: Path, ledger: Ledger) -> dict[str, State]:
    """State of each job that has not ended, by STAGE/LABEL."""
    pid = runner(folder)
    if pid is None:
        return {}
    found = {}
    for stage, item in ledger.items():
        out = folder / "items" / item.label / "out"
        if not (out / "exit_code").exists():
            word = RUNNING if (folder / "items" / item.label / "running").exists() else IDLE
            found[f"{stage}/{item.label}"] = State(word, str(pid))
    return found


def remove(folder: Path) -> None:
    """End the runner and its jobs, which save where they can."""
    pid = runner(folder)
    if pid is not None:
        os.killpg(pid, signal.SIGTERM)


def run(folder: Path) -> None:
    """Run all jobs that have not succeeded, stage by stage."""
    ledger = read_ledger(folder)
    site = ledger.settings()
    for stage in ledger.stages:
        with ThreadPoolExecutor(site.at_once or 1) as pool:
            list(
                pool.map(
                    lambda item, stage=stage: attempt(folder, stage, Item(**item), site.retries), ledger.stages[stage]
                )
            )


def attempt(folder: Path, stage: str, item: Item, retries: int) -> None:
    """Run one job until it is done, or has failed too often."""
    place = folder / "items" / item.label
    result = place / "out/exit_code"
    if result.exists() and result.read_text().strip() == "0":
        return
    result.unlink(missing_ok=True)
    environment = {"ADVTAG_PYTHON": sys.executable, **os.environ}
    failures = 0
    (place / "running").touch()
    try:
        while failures <= retries:
            with (place / "job.out").open("a") as out, (place / "job.err").open("a") as err:
                code = subprocess.run(  # noqa: S603
                    ["/bin/sh", f"../../{stage}.sh"], cwd=place, env=environment, stdout=out, stderr=err, check=False
                ).returncode
            if code == 0:
                return
            failures += code != CHECKPOINTED
    finally:
        (place / "running").unlink(missing_ok=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
