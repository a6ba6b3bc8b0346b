"""What a job has done so far, on disk: a killed or failed job goes on from there with `--resume`."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from common.errors import AdvtagError
from common.files import cannot_write, whole_file

EVERY = 60.0
"""Seconds between two writings, at least."""
COSTS = 20
"""A writing may take this part of the time: one that takes 6 s is followed by 2 minutes without."""


def digest(*parts: object) -> str:
    """Hash of what a job computes: texts, bytes, and whatever JSON holds."""
    whole = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()[:16]


class Store:
    """Accumulated output of a job in one file: arrays of numpy, and JSON for all else. No pickle.

    The file's name holds the digest of what is computed, so that another configuration never goes on with it.

    Args:
        output: folder that the job makes when it is complete
        key: `digest` of the job
    """

    def __init__(self, output: Path, key: str) -> None:
        self.output = output = output.resolve()  # a link to a folder on another disk: unfinished work lies there, too
        self.path = output.parent / f".{output.name}-{key}.unfinished" / "done.safetensors"
        self.next = time.monotonic() + EVERY

    def load(self) -> dict[str, Any] | None:
        """The accumulated output; None if there is none.

        Raises:
            AdvtagError: the file is damaged
        """
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, "np") as file:
                page = json.loads(file.metadata()["page"])
                arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise AdvtagError(f"{self.path}: damaged ({error}); delete it, or run without --resume") from error
        output: dict[str, Any] = page["rest"]
        for name, keys in page["arrays"].items():
            place = output
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = arrays[name]
        return output

    def save(self, output: dict[str, Any]) -> None:
        """Write the accumulated output, aside and then in place.

        Raises:
            AdvtagError: it cannot be written
        """
        start = time.monotonic()
        arrays: dict[str, Any] = {}
        keys: dict[str, list[str]] = {}
        rest = _split(output, [], arrays, keys)
        with whole_file(self.path) as aside:
            try:
                save_file(arrays, aside, {"page": json.dumps({"rest": rest, "arrays": keys})})
            except safetensors.SafetensorError as error:  # of a full disk, too
                raise OSError(str(error)) from error
        self.next = time.monotonic() + max(EVERY, COSTS * (time.monotonic() - start))

    def save_now_and_then(self, output: dict[str, Any]) -> None:
        """Write it if the last writing was long enough ago."""
        if time.monotonic() >= self.next:
            self.save(output)

    def parts(self, datasets: Iterable[str], *, resume: bool) -> Path:
        """Folder for the files that chunks write, with one for each dataset; emptied unless `resume`.

        Raises:
            AdvtagError: it cannot be made
        """
        if not resume:
            self.forget()
        folder = self.path.parent / "parts"
        try:
            for name in datasets:
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        return folder

    def forget(self) -> None:
        """Delete it all: the job is complete, or begins anew."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _split(output: dict[str, Any], place: list[str], arrays: dict[str, Any], keys: dict[str, list[str]]) -> Any:
    """Take the arrays out of nested dictionaries."""
    rest: dict[str, Any] = {}
    for key, value in output.items():
        if isinstance(value, np.ndarray):
            name = str(len(arrays))
            arrays[name], keys[name] = np.ascontiguousarray(value), [*place, key]
        elif isinstance(value, dict):
            rest[key] = _split(value, [*place, key], arrays, keys)
        else:
            rest[key] = value
    return rest


@contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """Hold the output folder: two jobs in one folder would mix their files. A killed job lets go of it.

    Raises:
        AdvtagError: another job holds it, or it cannot be written
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or path.stat().st_ino != os.fstat(lock.fileno()).st_ino:
                raise BlockingIOError  # it was let go, and deleted, and perhaps taken by a third, in between
        except BlockingIOError:
            raise AdvtagError(
                f"{folder}: another advtag job is writing there; wait for it, or choose another `output`"
            ) from None
        except OSError:
            pass  # a file system without locks: nothing to be done
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
