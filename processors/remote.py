"""Files behind xrootd: opened so that a second try can succeed, listed, and given up after a bounded time."""

import fnmatch
import glob
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import uproot
from uproot.source.xrootd import XRootDSource

from common.errors import AdvtagError

SCHEME = "root://"
CLIENT = {
    "XRD_CONNECTIONWINDOW": "15",  # s to connect; a refused connection, too, is tried again when they are over
    "XRD_CONNECTIONRETRY": "2",
    "XRD_STREAMERRORWINDOW": "1",  # s in which a server that failed is not asked again
    "XRD_REQUESTTIMEOUT": "120",  # s
    "XRD_TIMEOUTRESOLUTION": "1",  # s
}
"""The client's own settings (120 s, 5, 1800 s, 1800 s, 15 s) wait 480 s for a server that is not there, and after that
fail every try of the next half hour at once. Set only where the environment does not."""
TIMEOUT = 60
"""Seconds that a server may take for one answer."""
PAUSES = (2.0, 5.0)
"""Seconds before the second and the third try."""
FAILED = "failed"
"""Folder where CRAB keeps the output of failed jobs, whose events are in the good files, too."""

T = TypeVar("T")


def is_remote(path: str) -> bool:
    """Whether a path is an xrootd URL."""
    return path.startswith(SCHEME)


def server(url: str) -> str:
    """The scheme, host and port of an xrootd URL."""
    return SCHEME + url.removeprefix(SCHEME).partition("/")[0]


def open_root(path: str) -> Any:
    """Open a ROOT file, local or behind xrootd.

    uproot's default way to xrootd goes through fsspec, which keeps the handle of a file for later: after a server has
    failed, every further try gets the broken handle ("I/O operation on closed file"), in a new `uproot.open`, too.
    uproot's own source opens anew.

    Raises:
        ImportError: the bindings of xrootd are missing
        FileNotFoundError: there is no such file, or the server does not give it
        OSError: a server failed, TimeoutError: it did not answer in time
    """
    if not is_remote(path):
        return uproot.open({path: None})
    prepare_client()
    return uproot.open({path: None}, handler=XRootDSource, timeout=TIMEOUT)


def prepare_client() -> None:
    """Give the xrootd client bounded patience; it reads the environment when it is first imported.

    At exit it looks at every object of the process, which wakes a warning of torch that concerns nobody.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"XRootD\.client\.finalize")
    for name, value in CLIENT.items():
        os.environ.setdefault(name, value)


def is_silent(error: BaseException) -> bool:
    """Whether a server failed or did not answer: not one that refuses, nor a file that is damaged."""
    said = any(word in str(error) for word in ("[FATAL]", "[ERROR]"))  # the client's words
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and said


def patiently(attempt: Callable[[], T]) -> T:
    """Try up to three times, as long as the server is silent.

    Raises:
        Exception: of the last try
    """
    for pause in PAUSES:
        try:
            return attempt()
        except OSError as error:
            if not is_silent(error):
                raise
            time.sleep(pause)
    return attempt()


def find(url: str) -> list[str]:
    """The URLs of a file, of all ROOT files below a folder, or of what matches a pattern (*, ?, [...], **), sorted.

    Files in folders named `failed` are left out.

    Raises:
        AdvtagError: the bindings are missing, a folder cannot be listed, or the server does not answer
    """
    host, path = server(url), "/" + url.removeprefix(server(url)).strip("/")
    try:
        prepare_client()
        from XRootD import client
    except ImportError as error:
        raise AdvtagError(f"{url}: needs `pip install advtag[xrootd]` to be read ({error})") from error
    files = client.FileSystem(host)
    if glob.has_magic(path):
        found = _matching(files, host, "", path.strip("/").split("/"))
    else:
        _, entry = _ask(host, path, lambda: files.stat(path, timeout=TIMEOUT))
        found = _below(files, host, path) if entry.flags & _directory() else iter([path])
    return sorted(f"{host}/{name}" for name in found)


def _directory() -> int:
    from XRootD.client.flags import StatInfoFlags

    return int(StatInfoFlags.IS_DIR)


def _ask(host: str, path: str, request: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """The answer of a server, that of the third try if it is silent.

    Raises:
        AdvtagError: it refuses, or does not answer
    """

    def attempt() -> tuple[Any, Any]:
        status, answer = request()
        refused = status.errno != 0 or "responded with an error" in status.message
        if status.ok or refused:
            return status, answer
        raise OSError(status.message.strip())

    try:
        status, answer = patiently(attempt)
    except OSError as error:
        raise AdvtagError(
            f"{host}/{path}: the server does not answer ({error}); check the name, or name a replica"
        ) from error
    if not status.ok:
        raise AdvtagError(f"{host}/{path}: cannot be listed ({' '.join(status.message.split())})")
    return status, answer


def _list(files: Any, host: str, folder: str) -> list[tuple[str, bool]]:
    """Path of each entry of a folder, and whether it is a folder."""
    from XRootD.client.flags import DirListFlags

    _, entries = _ask(host, folder or "/", lambda: files.dirlist(folder or "/", DirListFlags.STAT, TIMEOUT))
    return sorted((f"{folder}/{entry.name}", bool(entry.statinfo.flags & _directory())) for entry in entries)


def _below(files: Any, host: str, folder: str) -> Iterator[str]:
    for path, is_folder in _list(files, host, folder):
        if not is_folder and path.endswith(".root"):
            yield path
        elif is_folder and not path.endswith(f"/{FAILED}"):
            yield from _below(files, host, path)


def _matching(files: Any, host: str, folder: str, parts: list[str]) -> Iterator[str]:
    """Files below a folder whose further path matches the parts of a pattern."""
    part, *rest = parts
    if part != "**" and not glob.has_magic(part) and rest:
        yield from _matching(files, host, f"{folder}/{part}", rest)
        return
    if part == "**" and rest:
        yield from _matching(files, host, folder, rest)
    for path, is_folder in _list(files, host, folder):
        name = path.rpartition("/")[2]
        if is_folder and name != FAILED and part == "**":
            yield from _matching(files, host, path, parts)
        elif is_folder and name != FAILED and rest and fnmatch.fnmatchcase(name, part):
            yield from _matching(files, host, path, rest)
        elif not is_folder and not rest and fnmatch.fnmatchcase(name, "*" if part == "**" else part):
            yield path
