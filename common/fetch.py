"""Copy a folder behind an xrootd server to this machine.

python -m common.fetch root://host//path FOLDER
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import AdvtagError
from common.files import whole_folder

BLOCK = 1 << 24
"""Bytes that are read at once."""


def fetch(url: str, target: Path) -> None:
    """Copy all files below a URL; the folder is whole or it is not there.

    Raises:
        AdvtagError: nothing is there, it cannot be read, or nowhere to write
    """
    try:
        from XRootD import client
    except ImportError as error:
        raise AdvtagError(f"{url}: this Python has no xrootd; pip install advtag[xrootd]") from error
    place = client.URL(url)
    server = f"{place.protocol}://{place.hostid}"
    with whole_folder(target) as aside:
        for path, size in _files(client.FileSystem(server), place.path.rstrip("/"), url):
            file = aside / Path(path).relative_to(place.path.rstrip("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            _copy(client.File(), f"{server}/{path}", file, size)


def _files(system: Any, folder: str, url: str) -> Iterator[tuple[str, int]]:
    """Path and bytes of every file below a folder."""
    from XRootD.client.flags import DirListFlags, StatInfoFlags

    status, entries = system.dirlist(folder, DirListFlags.STAT)
    if not status.ok:
        raise AdvtagError(f"{url}: {folder} cannot be listed ({status.message.strip()})")
    for entry in entries:
        path = f"{folder}/{entry.name}"
        if entry.statinfo.flags & StatInfoFlags.IS_DIR:
            yield from _files(system, path, url)
        else:
            yield path, entry.statinfo.size


def _copy(remote: Any, url: str, target: Path, size: int) -> None:
    status, _ = remote.open(url)
    offset = 0
    with target.open("wb") as file:
        while status.ok and offset < size:
            status, block = remote.read(offset, BLOCK)
            if status.ok and not block:
                break
            if status.ok:
                file.write(block)
                offset += len(block)
    remote.close()
    if offset != size:
        raise AdvtagError(f"{url}: {offset} of {size} bytes could be read ({status.message.strip()})")


if __name__ == "__main__":
    try:
        fetch(sys.argv[1], Path(sys.argv[2]))
    except AdvtagError as error:
        sys.exit(f"advtag: {error}")
