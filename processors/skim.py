"""Skims: the events that pass any of some regions, with chosen branches, as ROOT files that normalise as before."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from coffea import processor

from common.errors import AdvtagError
from common.files import cannot_write, whole_file, whole_folder
from common.provenance import provenance
from configs.corrections import JetEnergy
from configs.schema import Analysis, Region, Selection
from models.features import FeatureSet
from processors.books import pages
from processors.columns import count
from processors.corrections import NOMINAL, Corrections
from processors.events_file import columns, counters, write_events
from processors.fileset import IDENTITY, File, read_list
from processors.jets import event_weights, numbers, read_jets
from processors.preselection import Preselection, preselection
from processors.regions import select
from processors.run import Output, run_processor
from processors.shared import (
    branches_of_selection,
    link_parts,
    loss,
    open_files,
    settings_of_selection,
    shared_settings,
)
from processors.store import Store, digest, only_job

SKIM = "skim"
"""Folder of the files, DATASET/*.root, in an output folder."""
NO_INPUTS = FeatureSet.model_construct(name="none", inputs=())
ALWAYS = frozenset((*IDENTITY, "genWeight"))


@dataclass(frozen=True)
class Whole:
    """What a chunk needs to know of its file."""

    names: frozenset[str]
    """Branches to keep."""
    events: int
    sum_weights_events: float
    """Sum of genWeight over the file's events."""
    sum_weights: float
    """Of all events generated for the file."""
    generated: int
    """Number of those events."""


class SkimProcessor(processor.ProcessorABC):  # type: ignore[misc]
    """Writes the events of a chunk that pass any of the regions to one ROOT file.

    The file's name is a function of the chunk, and it is renamed into place: a chunk tried twice counts once. A chunk
    of which no event passes gives a file, too: the weights of its events count in the normalisation.

    Args:
        selection: which jets the regions look at
        datasets: name to `is it data`
        regions: by name
        preselections: golden JSON, filters and triggers, by dataset
        corrections: shifts of jet energies; events that pass under any of them are kept
        files: by path
        folder: where the files go, `folder/DATASET/UUID-START.root`
    """

    def __init__(
        self,
        selection: Selection,
        datasets: Mapping[str, bool],
        regions: Mapping[str, Region],
        preselections: Mapping[str, Preselection],
        corrections: Corrections,
        files: Mapping[str, Whole],
        folder: Path,
    ) -> None:
        self.selection = selection
        self.datasets = datasets
        self.regions = regions
        self.preselections = preselections
        self.corrections = corrections
        self.files = files
        self.folder = folder

    def process(self, events: Any) -> dict[str, Any]:
        """Write the chunk; return what `count` does, cutflows, `{"parts": [name of the file]}` and
        `{"skimmed": {name of the file: {"events": 100, "bytes": 30000}}}`.

        Raises:
            AdvtagError: a branch cannot be written, or the disk is full
        """
        chunk = events.metadata
        dataset, data = chunk["dataset"], self.datasets[chunk["dataset"]]
        passed = np.zeros(len(events), np.bool_)
        output: dict[str, Any] = {}
        for shift, shifted in self.corrections.shifts(events, data):
            jets = read_jets(shifted, NO_INPUTS, self.selection, data=data)
            cutflow = {}
            for region_name, region in self.regions.items():
                selected = select(shifted, jets, region, self.preselections[dataset])
                passed |= selected.passed
                cutflow[region_name] = {cut: np.array(left, float) for cut, left in selected.cutflow.items()}
            if shift == NOMINAL:
                output = {**count(events, jets, data), "cutflow": {dataset: cutflow}}
        whole = self.files[chunk["filename"]]
        name = f"{dataset}/{chunk['fileuuid']}-{chunk['entrystart']}.root"
        with whole_file(self.folder / name, make_folder=False) as aside:
            try:
                write_events(aside, columns(events, whole.names, passed), runs(events, whole, data))
            except OSError as error:
                raise cannot_write(self.folder / name, error) from error
            size = aside.stat().st_size
        return {**output, "parts": [name], "skimmed": {name: {"events": int(passed.sum()), "bytes": size}}}

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing to do."""
        return accumulator


def runs(events: Any, whole: Whole, data: bool) -> dict[str, Any]:
    """Branches of the tree `Runs` of a chunk: its share of the file's generated events, so that the shares of all
    chunks add up to the file's.

    Args:
        events: the chunk, before any cut
        whole: its file
        data: for data the runs alone
    """
    run = np.unique(numbers(events, "run")).astype(np.uint32)
    if data:
        return {"run": run}
    start, stop = events.metadata["entrystart"], events.metadata["entrystop"]
    if whole.sum_weights_events:
        share = float(event_weights(events, data).sum()) / whole.sum_weights_events
    else:
        share = (stop - start) / whole.events if whole.events else 1.0
    generated = whole.generated * np.array([start, stop]) // whole.events if whole.events else (0, whole.generated)
    return {
        "run": run[:1] if len(run) else np.ones(1, np.uint32),
        "genEventCount": np.array([generated[1] - generated[0]], np.int64),
        "genEventSumw": np.array([whole.sum_weights * share]),
    }


def make_skim(analysis: Analysis, *, progress: bool = True) -> Path:
    """Write the configured skim; return its folder, `output/skim`.

    Raises:
        AdvtagError: bad input, a branch that cannot be written, lost events, or nowhere to write
    """
    wanted = analysis.skim
    if wanted is None:
        raise AdvtagError("configuration: `advtag skim` needs the key `skim`")
    datasets = {name: analysis.datasets[name] for name in wanted.datasets}
    is_data = {name: dataset.data for name, dataset in datasets.items()}
    regions = list(wanted.regions.values())
    preselections = {name: preselection(name, dataset) for name, dataset in datasets.items()}
    energies = {name: section for name, section in analysis.corrections.items() if isinstance(section, JetEnergy)}
    corrections = Corrections(energies, is_data)
    also = branches_of_selection(regions, preselections, corrections)
    files = open_files(analysis, datasets, NO_INPUTS, regions, also, progress=progress)
    wholes = {file.path: _whole(file, names) for file, names in kept(files, wanted.keep, wanted.drop)}
    key = digest(
        *shared_settings(analysis, NO_INPUTS, is_data),
        wanted.model_dump(mode="json", exclude={"datasets"}),
        *settings_of_selection(analysis, datasets),
    )
    read = read_list(NO_INPUTS, regions, is_data, also)
    for file in files:
        read[file.dataset] |= wholes[file.path].names
    folder = analysis.output / SKIM
    with only_job(analysis.output):
        store = Store(folder, key)
        parts = store.parts(datasets, resume=analysis.run.resume)
        job = SkimProcessor(analysis.selection, is_data, wanted.regions, preselections, corrections, wholes, parts)
        output = run_processor(job, files, read, analysis.run, store, progress=progress)
        insist_on_files(parts, output)
        with whole_folder(folder) as aside:
            link_parts(parts, aside, datasets, output)
            manifest = {
                "config": json.loads(analysis.model_dump_json()),
                "provenance": provenance(),
                "datasets": {name: _page(name, files, output) for name in datasets},
                **loss(output),
            }
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")
        if not output["missing"]:
            store.forget()
    return folder


def kept(files: Iterable[File], keep: Iterable[str], drop: Iterable[str]) -> Iterable[tuple[File, frozenset[str]]]:
    """Names of the branches to keep of each file.

    Raises:
        AdvtagError: a pattern of `keep` fits no branch of any file
    """
    known: dict[frozenset[str], frozenset[str]] = {}
    found = []
    for file in files:
        branches = file.record.branches if file.record is not None else frozenset[str]()
        if branches not in known:  # the files of a dataset hold the same thousand
            chosen = {name for name in branches if any(fnmatchcase(name, pattern) for pattern in keep)}
            dropped = {name for name in chosen if any(fnmatchcase(name, pattern) for pattern in drop)}
            names = frozenset(chosen - dropped) | (ALWAYS & branches)
            known[branches] = names | (counters(names) & branches)
        found.append((file, known[branches]))
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for branches in known for name in branches):
            raise AdvtagError(f"skim.keep: no branch of any file fits {pattern!r}")
    return found


def _whole(file: File, names: frozenset[str]) -> Whole:
    record = file.record
    weights = record.sum_weights_events if record is not None else None
    generated = record.generated if record is not None else None
    return Whole(names, file.events, weights or 0.0, file.sum_weights, file.events if generated is None else generated)


def insist_on_files(folder: Path, output: Output) -> None:
    """Insist that the files on disk are those that were written: workers may see another disk than this process.

    Raises:
        AdvtagError: one is missing, or of another size
    """
    for name, written in output.get("skimmed", {}).items():
        path = folder / name
        if not path.exists() or path.stat().st_size != written["bytes"]:
            raise AdvtagError(
                f"{path}: {written['bytes']} bytes were written, and they are not there. "
                "The workers must write to the same disk: choose an `output` that they share"
            )


def _page(name: str, files: list[File], output: Output) -> dict[str, Any]:
    """A dataset's page of the manifest."""
    skimmed = {path: part for path, part in output.get("skimmed", {}).items() if path.startswith(f"{name}/")}
    return {
        **pages(name, files, output["counts"]),
        "kept_events": sum(part["events"] for part in skimmed.values()),
        "cutflow": {
            region: {cut: [float(number) for number in left] for cut, left in cuts.items()}
            for region, cuts in output.get("cutflow", {}).get(name, {}).items()
        },
    }
