"""A folder from a real xrootd server, byte by byte; and what is said if it is not there."""

import pytest

from common.errors import AdvtagError
from common.fetch import fetch


def test_a_folder_is_fetched_whole(xrootd, tmp_path):
    contents = {"manifest.json": b"{}", "tt/a.parquet": bytes(range(256)) * 5000, "tt/empty": b"", "x y/b'c": b"odd"}
    for name, content in contents.items():
        file = xrootd.served / "columns" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    fetch(f"{xrootd.url}/columns/", tmp_path / "here")
    found = {
        str(path.relative_to(tmp_path / "here")): path for path in (tmp_path / "here").rglob("*") if path.is_file()
    }
    assert {name: path.read_bytes() for name, path in found.items()} == contents


def test_what_is_not_there_is_said(xrootd, tmp_path):
    with pytest.raises(AdvtagError, match="none cannot be listed"):
        fetch(f"{xrootd.url}/none", tmp_path / "here")
    assert list(tmp_path.iterdir()) == []
