"""Write aside, then rename: an output is whole or it is not there."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import AdvtagError


@contextmanager
def whole_file(path: Path, *, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it if not.

    With `make_folder`, the folder is made where it is missing.

    Raises:
        AdvtagError: the folder cannot be written, or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.aside")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        aside.unlink(missing_ok=True) if path.parent.is_dir() else None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it replaces `path` if the block succeeds, else it is deleted.

    An earlier `path` stays untouched until the new one is complete.

    Raises:
        AdvtagError: the folder cannot be written, or the disk is full.
    """
    path = path.resolve()  # a link to a folder on another disk stays a link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file of that name is in the way")
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".aside", dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield aside
        aside.chmod(0o755)
        _swap(aside, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Put a folder in the place of another, or leave the other there."""
    if not path.exists():
        new.rename(path)
        return
    old = new.with_suffix(".old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)  # the new one is in place, come what may


def cannot_write(path: Path, error: OSError) -> AdvtagError:
    """Say which output could not be written and why."""
    return AdvtagError(
        f"cannot write {path}: {error.strerror or error}; nothing was left there. "
        "Choose another output folder or free some space."
    )
