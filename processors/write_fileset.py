"""`advtag fileset`: look into all files once, and keep what was seen as a fileset of coffea."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from common.errors import AdvtagError
from common.files import whole_file
from configs.fileset import Grid
from configs.schema import Analysis, Dataset, Run
from models.features import load_features
from processors.books import chunks_left
from processors.fileset import File, open_fileset
from processors.preflight import CACHE
from processors.records import to_json

SKIM = 1e-3
"""Relative difference of the sums of weights of `Runs` and `Events` above which a file is said to be skimmed: float32
weights added up differ by less."""


def make_fileset(
    analysis: Analysis | None,
    added: Mapping[str, Dataset],
    output: Path | None,
    *,
    chunksize: int | None = None,
    check: bool = False,
    progress: bool = True,
) -> Path:
    """Write the fileset of an analysis's datasets and others; return its path.

    Args:
        analysis: its datasets, with the branches that its feature card and regions need; None: `added` alone
        added: more datasets
        output: the JSON file; None: `fileset.json` in the analysis's output folder, or in the working directory
        chunksize: events in a step, at most; None: the analysis's
        check: open files that are known and look unchanged, too
        progress: show a progress bar, and a table at the end

    Raises:
        AdvtagError: no dataset, one is there twice, a file cannot be used, or the output cannot be written
    """
    datasets = {} if analysis is None else dict(analysis.datasets)
    for name, dataset in added.items():
        if name in datasets:
            raise AdvtagError(f"dataset {name!r}: is in the configuration, too; choose another name")
        datasets[name] = dataset
    if not datasets:
        raise AdvtagError("no datasets: give a configuration, --mc NAME=FILES or --data NAME=FILES")
    run = analysis.run if analysis else Run()
    regions = list(analysis.histograms.regions.values()) if analysis and analysis.histograms else []
    folder = analysis.output if analysis else Path.cwd()
    path = folder / "fileset.json" if output is None else output
    files = open_fileset(
        datasets,
        load_features(analysis.features) if analysis else None,
        regions,
        grid=analysis.grid if analysis else Grid(),
        run=run,
        cache=folder / CACHE if analysis else path.with_name(f".{path.stem}.{CACHE}"),
        check=check,
        progress=progress,
    )
    page = {
        name: dataset_page(dataset, [f for f in files if f.dataset == name], chunksize or run.chunksize)
        for name, dataset in datasets.items()
    }
    with whole_file(path) as aside:
        aside.write_text(json.dumps(page, indent=1, allow_nan=False), encoding="utf-8")
    if progress:
        _say(page)
    return path


def added_datasets(
    mc: Sequence[str], data: Sequence[str], cross_sections: Sequence[str], eras: Sequence[str]
) -> dict[str, Dataset]:
    """Datasets of the command line, each argument NAME=VALUE; a name of files may be there several times.

    Raises:
        AdvtagError: not NAME=VALUE, a value is not valid, or of a dataset that is not there
    """
    keys: dict[str, dict[str, Any]] = {}
    for option, entries in (("--mc", mc), ("--data", data)):
        for name, value in _pairs(option, entries):
            keys.setdefault(name, {"files": (), "data": option == "--data"})
            if keys[name]["data"] != (option == "--data"):
                raise AdvtagError(f"{option} {name}: is both --mc and --data; choose another name")
            keys[name]["files"] += (value if "://" in value else str(Path.cwd() / value),)
    for option, key, entries in (("--cross-section", "cross_section", cross_sections), ("--era", "era", eras)):
        for name, value in _pairs(option, entries):
            if name not in keys:
                raise AdvtagError(f"{option} {name}: no such dataset in --mc or --data")
            keys[name][key] = value
    datasets = {}
    for name, written in keys.items():
        try:
            datasets[name] = Dataset.model_validate(written)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise AdvtagError(f"dataset {name!r}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    return datasets


def _pairs(option: str, entries: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (re.fullmatch(r"\w[\w.-]*", name) and equals and value):
            raise AdvtagError(f"{option} {entry!r}: expected NAME=VALUE, the name of letters, digits, `_`, `-` and `.`")
        pairs.append((name, value))
    return pairs


def dataset_page(dataset: Dataset, files: Sequence[File], chunksize: int) -> dict[str, Any]:
    """One dataset, in the format of coffea.dataset_tools, and what coffea passes over: `branches`, and what a file's
    entry has beside `object_path`, `steps`, `num_entries` and `uuid`.

    What concerns one file is in its entry, not in `metadata`, which coffea sends along with every chunk.
    """
    branches: dict[str, list[str]] = {}
    entries = {}
    for file in files:
        assert file.record is not None  # noqa: S101 - open_fileset gives one
        steps = [[chunk.entrystart, chunk.entrystop] for chunk in chunks_left(file, {}, chunksize)]
        entries[file.path] = {
            "object_path": file.tree,
            "steps": steps,
            **to_json(file.record, branches),
            "replicas": list(file.replicas),
        }
    metadata = {
        "data": dataset.data,
        "cross_section": dataset.cross_section,
        "era": dataset.era,
        "events": sum(file.events for file in files),
        **({} if dataset.data else _weights(files)),
    }
    return {"files": entries, "metadata": metadata, "branches": branches}


def _weights(files: Sequence[File]) -> dict[str, Any]:
    """Both sums of weights of MC, and which one normalises it."""
    records = [file.record for file in files if file.record is not None]
    from_runs = [record.sum_weights_runs is not None for record in records]
    return {
        "sum_weights": sum(file.sum_weights for file in files),
        "sum_weights_from": "Runs" if all(from_runs) else "Runs and Events" if any(from_runs) else "Events",
        "sum_weights_events": sum(record.sum_weights_events or 0.0 for record in records),
        "sum_weights_runs": sum(record.sum_weights_runs or 0.0 for record in records) if all(from_runs) else None,
    }


def _say(page: dict[str, Any]) -> None:
    table = Table("dataset", "kind", "files", "events", "cross-section [pb]", "era", "sum of weights", "from")
    for name, dataset in page.items():
        known = dataset["metadata"]
        weights = f"{known['sum_weights']:.6g}" if "sum_weights" in known else ""
        table.add_row(
            name,
            "data" if known["data"] else "MC",
            f"{len(dataset['files']):,}",
            f"{known['events']:,}",
            "" if known["cross_section"] is None else f"{known['cross_section']:g}",
            known["era"] or "",
            weights,
            known.get("sum_weights_from", ""),
        )
    console = Console(stderr=True)
    console.print(table)
    for name, dataset in page.items():
        skimmed = [path for path, file in dataset["files"].items() if _is_skimmed(file)]
        if skimmed:
            print(
                f"{name}: {len(skimmed)} of {len(dataset['files'])} files are skimmed (genWeight and Runs differ), "
                f"the first: {skimmed[0]}; Runs normalises them",
                file=sys.stderr,
            )


def _is_skimmed(file: dict[str, Any]) -> bool:
    events, runs = file["sum_weights_events"], file["sum_weights_runs"]
    return runs is not None and events is not None and abs(runs - events) > SKIM * abs(runs)
