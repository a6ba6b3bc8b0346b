"""Safe writing: an output is whole or it is not there."""

from pathlib import Path

import pytest

from common.errors import AdvtagError
from common.files import whole_file, whole_folder


class Interruption(Exception):  # noqa: N818
    """Not an OSError, not an AdvtagError."""


def fail(writer, path: Path, error: BaseException | None) -> None:
    """Write half of an output, then raise."""
    with writer(path) as aside:
        (aside if writer is whole_file else aside / "half").write_text("half")
        if error is not None:
            raise error


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("old", [None, "old"])
def test_file_is_written(tmp_path, old) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    if old:
        path.parent.mkdir(parents=True)
        path.write_text(old)
    with whole_file(path) as aside:
        assert aside.parent == path.parent
        aside.write_text("new")
        assert path.exists() is bool(old)
        assert not old or path.read_text() == old
    assert content(tmp_path) == {"a/b/x.json": "new"}


@pytest.mark.parametrize("error", [Interruption, KeyboardInterrupt, ValueError, AdvtagError])
@pytest.mark.parametrize("old", [None, "old"])
def test_file_failure_leaves_nothing_behind(tmp_path, error, old) -> None:
    path = tmp_path / "x.json"
    if old:
        path.write_text(old)
    with pytest.raises(error):
        fail(whole_file, path, error("stop"))
    assert content(tmp_path) == ({"x.json": "old"} if old else {})


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(AdvtagError) as refused:
        fail(whole_file, path, OSError(28, "No space left on device"))
    assert f"cannot write {path}: No space left on device" in str(refused.value)
    assert content(tmp_path) == {"x.json": "old"}


def test_file_nobody_wrote(tmp_path) -> None:
    with pytest.raises(AdvtagError, match="cannot write"), whole_file(tmp_path / "x"):
        pass
    assert content(tmp_path) == {}


def test_folder_in_the_place_of_a_file(tmp_path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(AdvtagError, match="cannot write"):
        fail(whole_file, tmp_path / "x", None)
    assert content(tmp_path) == {}
    assert (tmp_path / "x").is_dir()


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
@pytest.mark.parametrize("below", ["x", "deep/er/x"])
def test_below_a_regular_file(tmp_path, writer, below) -> None:
    """What a read-only folder is to a user, for root too."""
    (tmp_path / "file").write_text("kept")
    path = tmp_path / "file" / below
    with pytest.raises(AdvtagError) as refused, writer(path):
        raise AssertionError("must not get here")
    text = str(refused.value)
    assert str(path) in text
    assert "\n" not in text
    assert content(tmp_path) == {"file": "kept"}


@pytest.mark.parametrize("old", [False, True])
def test_folder_is_written(tmp_path, old) -> None:
    path = tmp_path / "a" / "columns"
    if old:
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "stale").write_text("old")
    with whole_folder(path) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "fresh").write_text("new")
        assert path.exists() is old
        assert not old or content(path) == {"sub/stale": "old"}
    assert content(tmp_path) == {"a/columns/sub/fresh": "new"}
    assert [entry.name for entry in path.parent.iterdir()] == ["columns"]
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [Interruption, KeyboardInterrupt, ValueError, AdvtagError])
@pytest.mark.parametrize("old", [False, True])
def test_folder_failure_leaves_nothing_behind(tmp_path, error, old) -> None:
    path = tmp_path / "columns"
    if old:
        path.mkdir()
        (path / "kept").write_text("old")
    with pytest.raises(error):
        fail(whole_folder, path, error("stop"))
    assert content(tmp_path) == ({"columns/kept": "old"} if old else {})
    assert list(tmp_path.iterdir()) == ([path] if old else [])


def test_folder_full_disk(tmp_path) -> None:
    path = tmp_path / "columns"
    path.mkdir()
    (path / "kept").write_text("old")
    with pytest.raises(AdvtagError, match="No space left"):
        fail(whole_folder, path, OSError(28, "No space left on device"))
    assert content(tmp_path) == {"columns/kept": "old"}


def test_folder_that_is_a_link_to_scratch(tmp_path) -> None:
    """`output/columns` linked to a bigger disk: written anew, or refused with everything as it was."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "kept").write_text("old")
    home = tmp_path / "home"
    home.mkdir()
    path = home / "columns"
    path.symlink_to(scratch)
    try:
        with whole_folder(path) as aside:
            (aside / "fresh").write_text("new")
    except AdvtagError:
        assert content(path) == {"kept": "old"}
    else:
        assert content(path) == {"fresh": "new"}
    assert [entry.name for entry in home.iterdir()] == ["columns"]


def test_file_in_the_place_of_a_folder(tmp_path) -> None:
    """Replaced, or refused and kept; never an error message beside a finished output."""
    path = tmp_path / "columns"
    path.write_text("old")
    try:
        with whole_folder(path) as aside:
            (aside / "fresh").write_text("new")
    except AdvtagError:
        assert content(tmp_path) == {"columns": "old"}
    else:
        assert content(tmp_path) == {"columns/fresh": "new"}


def test_folder_survives_a_failing_rename(tmp_path, monkeypatch) -> None:
    """The old folder is not gone when the new one cannot take its place."""
    path = tmp_path / "columns"
    path.mkdir()
    (path / "kept").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if Path(target) == path and ".aside" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(AdvtagError, match="Input/output error"):
        fail(whole_folder, path, None)
    assert content(tmp_path) == {"columns/kept": "old"}
