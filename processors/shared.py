"""What the jobs have in common: files that are opened, settings that make a digest, files that workers wrote."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from common.errors import AdvtagError
from configs.regions import Region
from configs.schema import Analysis, Dataset
from models.features import FeatureSet
from processors.books import total
from processors.corrections import Corrections
from processors.fileset import Also, File, open_fileset
from processors.preflight import CACHE
from processors.preselection import Preselection
from processors.run import Output
from processors.store import digest

ROOMS = ("attacks", "common", "configs", "models", "processors")
"""Packages whose code the numbers of a job depend on."""


def branches_of_selection(
    regions: Sequence[Region], preselections: Mapping[str, Preselection], corrections: Corrections
) -> Also:
    """What preselection and corrections read beside the regions and the feature card, by dataset."""
    return {
        name: [
            *corrections.branches(chosen.data, name),
            *(names for region in regions for names in chosen.branches(region)),
        ]
        for name, chosen in preselections.items()
    }


def settings_of_selection(analysis: Analysis, datasets: Mapping[str, Dataset]) -> tuple[object, ...]:
    """Of preselection and corrections, with the contents of their files: for the digest of a job."""
    events = {"era", "golden", "triggers", "met_filters", "veto_triggers"}
    settings = {
        **analysis.model_dump(mode="json", include={"corrections"}),
        **{name: dataset.model_dump(mode="json", include=events) for name, dataset in datasets.items()},
    }
    return without_paths(settings), contents(settings)


def open_files(
    analysis: Analysis,
    datasets: Mapping[str, Dataset],
    features: FeatureSet,
    regions: Sequence[Region],
    also: Also,
    *,
    progress: bool,
) -> list[File]:
    """The files of the datasets, checked; those that were looked into before, and have not changed, are not opened."""
    settings: dict[str, Any] = {"grid": analysis.grid, "run": analysis.run, "cache": analysis.output / CACHE}
    return open_fileset(datasets, features, regions, also=also, progress=progress, **settings)


def shared_settings(analysis: Analysis, features: FeatureSet, is_data: dict[str, bool]) -> tuple[object, ...]:
    """What every job's numbers depend on; neither the files nor how it runs are among it."""
    return sources(), features.digest, analysis.selection.model_dump(mode="json"), is_data


def sources() -> str:
    """Digest of the code that makes numbers, and of its tables: a commit says nothing of a checkout with edits."""
    root = Path(__file__).parents[1]
    files = [path for room in ROOMS for kind in ("*.py", "*.yaml") for path in sorted((root / room).rglob(kind))]
    return digest(*(path.read_bytes() for path in files))


def contents(settings: Any) -> list[str]:
    """Digests of the files that settings name: corrections, certified luminosity blocks."""
    if isinstance(settings, dict | list):
        parts = settings.values() if isinstance(settings, dict) else settings
        return [content for part in parts for content in contents(part)]
    is_file = (
        isinstance(settings, str) and settings.endswith((".json", ".json.gz", ".txt")) and Path(settings).is_file()
    )
    return [digest(Path(settings).read_bytes())] if is_file else []


def without_paths(settings: Any) -> Any:
    """Settings whose files are known by their contents alone: a batch job has them elsewhere."""
    if isinstance(settings, dict):
        return {key: without_paths(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [without_paths(value) for value in settings]
    return "" if contents(settings) else settings


def loss(output: Output) -> dict[str, Any]:
    """For a manifest: how it ran, and what is missing."""
    return {key: output[key] for key in ("seconds", "bytes", "missing", "failed")}


def link_parts(parts: Path, folder: Path, datasets: Iterable[str], output: Output) -> None:
    """Put the files that chunks wrote into a folder, with one for each dataset: the same files at two places where the
    disk can, copies elsewhere.
    """
    for name in datasets:
        (folder / name).mkdir()
    for name in output.get("parts", ()):
        try:
            os.link(parts / name, folder / name)
        except OSError:
            shutil.copyfile(parts / name, folder / name)


def insist_on_rows(folder: Path, output: Output) -> None:
    """Insist that the rows on disk are the jets counted: workers write, and may see another disk than this process.

    Raises:
        AdvtagError: they differ
    """
    for name, files in output["counts"].items():
        parts = [folder / part for part in output.get("parts", ()) if part.startswith(f"{name}/")]
        rows = sum(pq.read_metadata(path).num_rows for path in parts if path.exists())
        jets = total(files)["jets"]
        if rows != jets:
            raise AdvtagError(
                f"dataset {name!r}: {jets:.0f} jets were selected, {rows} rows are on disk. "
                "The workers must write to the same disk: choose an `output` that they share"
            )
