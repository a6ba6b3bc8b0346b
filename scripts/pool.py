"""What the batch systems for tests have in common: their programs are run, and installed, started and stopped."""

import argparse
import fcntl
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class PoolError(Exception):
    """A batch system cannot be installed or started."""


def run(*command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a command; return what it prints.

    Raises:
        PoolError: it is not there, or failed
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise PoolError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise PoolError(f"{command[0]} failed: {said[-1]}") from error
    return done.stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def command_line(
    text: str | None,
    install: Callable[[Path], None],
    start: Callable[[Path, Path], dict[str, str]],
    stop: Callable[[Path], None],
) -> None:
    """The verbs install, start and stop; start prints the variables for a shell."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, places in (("install", ("prefix",)), ("start", ("prefix", "local")), ("stop", ("local",))):
        command = verbs.add_parser(verb)
        for place in places:
            command.add_argument(place, type=Path)
    chosen = parser.parse_args()
    try:
        if chosen.verb == "install":
            install(chosen.prefix)
        elif chosen.verb == "start":
            for name, value in start(chosen.prefix, chosen.local).items():
                print(f"export {name}={shlex.quote(value)}")
        else:
            stop(chosen.local)
    except (PoolError, FileNotFoundError) as error:
        sys.exit(f"{parser.prog.removesuffix('.py')}: {error}")
