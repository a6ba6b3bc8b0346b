"""The files of a dataset: paths, globs, folders, lists, filesets, xrootd URLs, names of CMS datasets."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import AdvtagError
from configs.fileset import Grid, read_fileset
from configs.schema import Dataset
from processors import grid, remote
from processors.preflight import Found
from processors.records import from_json

LISTS = (".txt", ".list")


def find_files(datasets: Mapping[str, Dataset], sites: Grid) -> tuple[list[Found], list[str]]:
    """The files of all datasets, and the problems, one line each: what matches nothing, is missing or there twice."""
    found: list[Found] = []
    problems: list[str] = []
    for name, dataset in datasets.items():
        for entry in dataset.files:
            try:
                found += _of_entry(name, dataset, entry, sites)
            except AdvtagError as error:
                problems.append(str(error))
    times = Counter(file.places[0] for file in found)
    first = {file.places[0]: file.dataset for file in reversed(found)}
    problems += [
        f"dataset {first[path]!r}: {path} is listed twice; its events would count twice"
        for path, number in times.items()
        if number > 1
    ]
    return found, problems


def _of_entry(name: str, dataset: Dataset, entry: str, sites: Grid) -> list[Found]:
    """The files of one entry of `files`.

    Raises:
        AdvtagError: there are none, or they cannot be listed
    """
    if entry.endswith(".json"):
        return _of_fileset(name, Path(entry))
    if grid.is_dataset_name(entry):
        return [Found(name, places, dataset.tree) for places in grid.replicas(entry, sites)]
    if grid.is_lfn(entry) and sites.redirectors:
        return [Found(name, grid.at_redirectors(entry, sites), dataset.tree)]
    if entry.endswith(LISTS) and not remote.is_remote(entry):
        lines = _lines(name, Path(entry))
        return [file for line in lines for file in _of_entry(name, dataset, line, sites)]
    paths = _behind_server(name, entry) if remote.is_remote(entry) else _here(name, entry)
    return [Found(name, (path,), dataset.tree) for path in paths]


def _behind_server(name: str, url: str) -> list[str]:
    if url.endswith(".root") and not glob.has_magic(url):
        return [url]  # opened later, many at a time
    found = remote.find(url)
    if not found:
        raise AdvtagError(f"dataset {name!r}: no file matches {url}")
    return found


def _here(name: str, entry: str) -> list[str]:
    if glob.has_magic(entry):
        # not Path.glob: a pattern may be absolute
        found = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207
        found = [path for each in found for path in (_below(name, Path(each)) if Path(each).is_dir() else [each])]
        if not found:
            raise AdvtagError(f"dataset {name!r}: no file matches {entry}")
        return found
    return _below(name, Path(entry)) if Path(entry).is_dir() else [entry]


def _below(name: str, folder: Path) -> list[str]:
    """All ROOT files below a folder; the walk stops where a folder may not be read, which glob would pass over."""

    def refuse(error: OSError) -> None:
        raise AdvtagError(f"dataset {name!r}: {error.filename} cannot be listed ({error.strerror})") from error

    found = []
    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [each for each in folders if each != remote.FAILED]
        found += [str(Path(here) / file) for file in files if file.endswith(".root")]
    if not found:
        raise AdvtagError(f"dataset {name!r}: no ROOT file in {folder}")
    return sorted(found)


def _lines(name: str, path: Path) -> Iterator[str]:
    """Entries of a text list, one per line; `#` begins a comment; relative paths are relative to the list's folder."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AdvtagError(f"dataset {name!r}: cannot read the list {path} ({error})") from error
    entries = [line.partition("#")[0].strip() for line in lines]
    entries = [entry for entry in entries if entry]
    if not entries:
        raise AdvtagError(f"dataset {name!r}: the list {path} names no file")
    for entry in entries:
        if entry.endswith(LISTS):
            raise AdvtagError(f"dataset {name!r}: the list {path} names another list, {entry}; name that in `files`")
        yield entry if "://" in entry else str(path.parent / entry)


def _of_fileset(name: str, path: Path) -> list[Found]:
    page = read_fileset(path)
    if name not in page:
        raise AdvtagError(f"dataset {name!r}: not in the fileset {path}; there are: {', '.join(page)}")
    dataset = page[name]
    branches = {key: frozenset(names) for key, names in dataset.get("branches", {}).items()}
    found = []
    for place, entry in dataset["files"].items():
        entry = {"object_path": entry} if isinstance(entry, str) else entry
        try:
            known = from_json(entry, branches)
        except KeyError:  # a fileset of another tool: its files are opened
            known = None
        places = (place, *entry.get("replicas", ()))
        found.append(Found(name, places, entry["object_path"], known))
    return found
