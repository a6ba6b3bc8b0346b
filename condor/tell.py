"""Programs of a batch system: called with lists of words, their complaints in one line."""

import shutil
import subprocess
from pathlib import Path

from common.errors import AdvtagError

PATIENCE = 600
"""Seconds: a schedd with a full queue, or many files to spool, takes its time."""


def tell(command: list[str], folder: Path | None = None, *, what: str) -> str:
    """Run a program; return what it prints.

    Args:
        command: its words
        folder: where
        what: what could not be done, if it fails

    Raises:
        AdvtagError: it is not here, it failed, or it does not end
    """
    program = command[0]
    if shutil.which(program) is None:
        raise AdvtagError(f"{what}: there is no {program} on this machine; log in to one that submits jobs")
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise AdvtagError(f"{what}: {program} does not end; is the batch system well?") from error
    except OSError as error:
        raise AdvtagError(f"{what}: {program}: {error.strerror}") from error
    if done.returncode:
        raise AdvtagError(f"{what}: {_complaint(done.stderr or done.stdout) or f'{program} failed'}")
    return done.stdout


def _complaint(text: str) -> str:
    """What went wrong, in the program's own words, without what it did before."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if "error" in line.lower()), 0)
    return " ".join(lines[first:]).partition(" Extra Info:")[0][:500]
