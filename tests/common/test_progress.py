"""The progress bar, seen in a real terminal and out of one."""

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
from common.progress import progress_bar
with progress_bar("jets", show={show}) as bar:
    task = bar.add_task("work", total=3)
    for _ in range(3):
        bar.advance(task)
"""


def in_terminal(show: bool) -> str:
    """What a terminal shows of the bar's stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", CODE.format(show=show)]
    subprocess.run(command, cwd=ROOT, stderr=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # Linux: the other end is closed and everything was read
        pass
    os.close(ours)
    return seen.decode()


def test_a_terminal_shows_the_bar_with_its_unit() -> None:
    seen = in_terminal(show=True)
    assert "work" in seen
    assert "3/3" in seen
    assert "jets" in seen


def test_a_bar_can_be_switched_off() -> None:
    assert "3/3" not in in_terminal(show=False)


def test_nothing_is_written_where_nobody_looks() -> None:
    command = [sys.executable, "-c", CODE.format(show=True)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr == ""
    assert result.stdout == ""
