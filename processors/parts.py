"""Jobs without a scheduler: the files of an analysis in parts, and what was made of the parts put together again.

A part holds files of one dataset, as a fileset whose records the job need not look up again.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from attacks.build import build_attacks
from common.errors import AdvtagError
from common.files import whole_folder
from configs.regions import Region
from configs.schema import Analysis
from models.features import load_features
from models.tagger import load_tagger
from processors.corrections import Corrections
from processors.fileset import Also, File
from processors.merge import Books, added_book, merge, missing_of
from processors.preselection import preselection
from processors.scores import SCORES
from processors.shared import branches_of_selection, open_files
from processors.write_fileset import dataset_page

SUMS = ("expected_events", "events", "jets", "sum_weights")


@dataclass(frozen=True)
class Part:
    """Files that one job processes."""

    dataset: str
    fileset: dict[str, Any]
    """In coffea's format."""
    files: tuple[str, ...]
    """Where they are read."""
    events: int


def parts_of(
    analysis: Analysis, verb: Literal["columns", "histograms"], files_per_job: int, *, progress: bool = True
) -> list[Part]:
    """Divide the files of a processor; all of them are opened, or known from a fileset, and checked.

    Raises:
        AdvtagError: the configuration lacks the section, a tagger or attack is wrong, or a file is not as it should be
    """
    wanted = analysis.columns if verb == "columns" else analysis.histograms
    if wanted is None:
        raise AdvtagError(f"configuration: `advtag {verb}` needs the key `{verb}`")
    features = load_features(analysis.features)
    datasets = {name: analysis.datasets[name] for name in wanted.datasets}
    regions: tuple[Region, ...] = ()
    also: Also = {}
    if verb == "histograms" and analysis.histograms is not None:
        build_attacks({name: analysis.attacks[name] for name in analysis.histograms.attacks})
        for path in analysis.histograms.taggers.values():
            load_tagger(path, features)
        regions = tuple(analysis.histograms.regions.values())
        chosen = {name: preselection(name, dataset) for name, dataset in datasets.items()}
        corrections = Corrections(analysis.corrections, {name: dataset.data for name, dataset in datasets.items()})
        also = branches_of_selection(regions, chosen, corrections)
    files = open_files(analysis, datasets, features, regions, also, progress=progress)
    found, chunksize = [], analysis.run.chunksize
    for name, dataset in datasets.items():
        mine = [file for file in files if file.dataset == name]
        for start in range(0, len(mine), files_per_job):
            found.append(
                _part(name, dataset_page(dataset, some := mine[start : start + files_per_job], chunksize), some)
            )
    return found


def _part(name: str, page: dict[str, Any], files: Sequence[File]) -> Part:
    places = tuple(place for file in files for place in (file.path, *file.replicas))
    return Part(name, {name: page}, places, sum(file.events for file in files))


def expected(parts: Sequence[Part]) -> dict[str, dict[str, int]]:
    """Events of every file by dataset: what the jobs together must have processed."""
    found: dict[str, dict[str, int]] = {}
    for part in parts:
        entries = part.fileset[part.dataset]["files"]
        found.setdefault(part.dataset, {}).update({path: entry["num_entries"] for path, entry in entries.items()})
    return found


def put_together(
    verb: str, outputs: Sequence[Path], target: Path, whole: Mapping[str, Any], *, allow_missing: bool = False
) -> Path:
    """Put what jobs made of the parts together, and check that every event is there once.

    Args:
        verb: `columns` or `histograms`
        outputs: output folder of each job that is done
        target: output folder of the analysis
        whole: what the jobs together should have made: `files` (see `expected`), `config`, and whether `scores`
        allow_missing: write it although events are missing

    Raises:
        AdvtagError: see `merge_rows` and `processors.merge.merge`
    """
    files, config = whole["files"], whole["config"]
    folders = [output / verb for output in outputs]
    if verb == "columns":
        return merge_rows(folders, target / verb, files, config, allow_missing=allow_missing)
    if whole["scores"]:
        scores = [output / SCORES for output in outputs]
        merge_rows(scores, target / SCORES, files, config, allow_missing=allow_missing)
    return merge(folders, target / verb, allow_missing=allow_missing, expected=files, config=config)


def merge_rows(
    folders: Sequence[Path],
    output: Path,
    expected: Mapping[str, Mapping[str, int]],
    config: Mapping[str, Any],
    *,
    allow_missing: bool = False,
) -> Path:
    """Put folders of columns, or of scores, together; the files are linked where the disk can.

    Args:
        folders: of the parts
        output: folder to write
        expected: events of every file by dataset
        config: of the whole
        allow_missing: write it although events are missing; they are in the manifest

    Raises:
        AdvtagError: a part is of another configuration, two hold the same events, rows or events are missing, or it
            cannot be written
    """
    manifests = {folder: _manifest(folder) for folder in folders}
    if not manifests:
        raise AdvtagError(f"{output}: there is no part to put together")
    first = next(iter(manifests.values()))
    for folder, manifest in manifests.items():
        for key in ("features", "splits", "flavour_codes"):
            if manifest.get(key) != first.get(key):
                raise AdvtagError(f"{folder}: other {key} than the other parts: of another job")
    pages = _pages(manifests, expected)
    lost: list[dict[str, Any]] = [
        {"dataset": name, "file": path, "start": start, "stop": stop}
        for name, page in pages.items()
        for path, start, stop in missing_of(page["files"])
    ]
    if lost and not allow_missing:
        events = sum(entry["stop"] - entry["start"] for entry in lost)
        raise AdvtagError(
            f"{events} events are missing, the first of {lost[0]['file']}; --allow-missing leaves them out"
        )
    classes = [
        name for name in first.get("classes", ()) if all(name in other["classes"] for other in manifests.values())
    ]
    merged = {
        **first,
        **({"classes": classes} if "classes" in first else {}),
        "config": config,
        "datasets": pages,
        "missing": lost,
        "failed": [entry for manifest in manifests.values() for entry in manifest["failed"]],
        **{key: sum(manifest[key] for manifest in manifests.values()) for key in ("seconds", "bytes")},
    }
    with whole_folder(output) as aside:
        for name, page in pages.items():
            (aside / name).mkdir()
            rows = sum(
                _linked(path, aside / name) for folder in folders for path in sorted((folder / name).glob("*.parquet"))
            )
            if rows != page["jets"]:
                raise AdvtagError(f"dataset {name!r}: {page['jets']:.0f} jets were selected, {rows} rows came back")
        (aside / "manifest.json").write_text(json.dumps(merged, indent=1, allow_nan=False), encoding="utf-8")
    return output


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise AdvtagError(f"{folder}: no manifest there ({error}); the part is not complete") from error


def _pages(
    manifests: Mapping[Path, Mapping[str, Any]], expected: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    """The pages of all datasets, with empty books for files of parts that are not there."""
    pages: dict[str, dict[str, Any]] = {}
    for name, files in expected.items():
        books: dict[str, Any] = {}
        page: dict[str, Any] = {}
        for folder, manifest in manifests.items():
            if name not in manifest["datasets"]:
                continue
            part = manifest["datasets"][name]
            page = {**part, **{key: page.get(key, 0) + part[key] for key in SUMS}}
            for path, book in part["files"].items():
                books[path] = added_book(books.get(path), book, path, folder)
        absent = without_books(files, books)
        page = {**{key: page.get(key, 0) for key in SUMS}, **page, "files": {**books, **absent}}
        page["expected_events"] = sum(files.values())
        pages[name] = page
    return pages


def without_books(files: Mapping[str, int], books: Books) -> dict[str, dict[str, Any]]:
    """Books of files that no part has processed."""
    return {path: {"expected_events": events, "events": 0} for path, events in files.items() if path not in books}


def _linked(path: Path, folder: Path) -> int:
    """Put a file into a folder; return its rows."""
    if (folder / path.name).exists():
        raise AdvtagError(f"{path}: another part wrote a file of that name: the same events are in both")
    try:
        os.link(path, folder / path.name)
    except OSError:
        shutil.copyfile(path, folder / path.name)
    return int(pq.read_metadata(path).num_rows)
