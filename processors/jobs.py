"""The two jobs of a processor: columns, histograms. A configuration in, a checked output on disk."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from attacks.build import build_attacks
from common.errors import AdvtagError
from common.files import whole_folder
from common.histograms import HISTOGRAMS, HistogramFile
from common.histograms import Dataset as HistogramDataset
from common.provenance import provenance
from configs.schema import Analysis
from models.classes import CLASSES
from models.features import load_features
from models.tagger import load_tagger, read_tagger
from processors.columns import SPLITS, ColumnsProcessor
from processors.fileset import File, open_fileset, read_list
from processors.histograms import HistogramProcessor
from processors.jets import FLAVOURS
from processors.run import run_processor

Counts = dict[str, dict[str, dict[str, float]]]


def make_columns(analysis: Analysis, *, progress: bool = True) -> Path:
    """Write the Parquet columns of the configured datasets; return their folder, `output/columns`.

    Raises:
        AdvtagError: bad input, lost events, no jet selected, or the folder cannot be written
    """
    wanted = analysis.columns
    if wanted is None:
        raise AdvtagError("configuration: `advtag columns` needs the key `columns`")
    features = load_features(analysis.features)
    datasets = {name: analysis.datasets[name] for name in wanted.datasets}
    files = open_fileset(datasets, features, ())
    mc = [file for file in files if not datasets[file.dataset].data]
    classes = truth_classes(mc)
    folder = analysis.output / "columns"
    with whole_folder(folder) as aside:
        for name in datasets:
            (aside / name).mkdir()
        is_data = {name: dataset.data for name, dataset in datasets.items()}
        job = ColumnsProcessor(features, analysis.selection, wanted.split, is_data, aside)
        output = run_processor(job, files, read_list(features, ()), analysis.run, progress=progress)
        counts: Counts = output["counts"]
        insist_on_jets(counts, analysis)
        insist_on_rows(aside, counts)
        manifest = {
            "config": json.loads(analysis.model_dump_json()),
            "provenance": provenance(),
            "features": json.loads(features.model_dump_json()),
            "classes": classes,
            "flavour_codes": FLAVOURS,
            "splits": SPLITS,
            "datasets": {name: summary(name, files, counts) for name in datasets},
        }
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")
    say_classes(mc, classes)
    return folder


def make_histograms(analysis: Analysis, *, progress: bool = True) -> Path:
    """Fill the configured histograms; return the file, `output/histograms.zip`.

    Raises:
        AdvtagError: bad input, a tagger of another feature card, lost events, no jet selected, or nowhere to write
    """
    wanted = analysis.histograms
    if wanted is None:
        raise AdvtagError("configuration: `advtag histograms` needs the key `histograms`")
    features = load_features(analysis.features)
    attacks = build_attacks({name: analysis.attacks[name] for name in wanted.attacks})
    for path in wanted.taggers.values():
        load_tagger(path, features)  # refuse a wrong one before any file is opened
    datasets = {name: analysis.datasets[name] for name in wanted.datasets}
    regions = list(wanted.regions.values())
    files = open_fileset(datasets, features, regions)
    job = HistogramProcessor(
        features,
        analysis.selection,
        {name: dataset.data for name, dataset in datasets.items()},
        wanted.regions,
        {name: read_tagger(path) for name, path in wanted.taggers.items()},
        attacks,
        wanted.precision,
    )
    output = run_processor(job, files, read_list(features, regions), analysis.run, progress=progress)
    counts: Counts = output["counts"]
    insist_on_jets(counts, analysis)
    totals = {name: total(counts[name]) for name in datasets}
    result = HistogramFile(
        histograms=output["histograms"],
        inputs=features.names,
        discriminators=tuple(name for name in output["histograms"] if name not in features.names),
        datasets={
            name: HistogramDataset(
                dataset.data,
                dataset.cross_section,
                totals[name]["sum_weights"],
                int(totals[name]["events"]),
                int(totals[name]["jets"]),
            )
            for name, dataset in datasets.items()
        },
        luminosity=analysis.luminosity,
        provenance={"config": json.loads(analysis.model_dump_json()), "versions": provenance()},
    )
    path = analysis.output / HISTOGRAMS
    result.write(path)
    mc = [file for file in files if not datasets[file.dataset].data]
    say_classes(mc, truth_classes(mc))
    return path


def truth_classes(files: list[File]) -> tuple[str, ...]:
    """The classes that all files can tell apart: without Jet_nBHadrons in one of them, bb counts as b."""
    return tuple(name for name in CLASSES if name != "bb" or all(file.splits_b for file in files))


def say_classes(files: list[File], classes: tuple[str, ...]) -> None:
    """Tell the user that bb is not among the classes, and why."""
    lacking = [file.path for file in files if not file.splits_b]
    if "bb" not in classes:
        print(
            f"{lacking[0]}: no Jet_nBHadrons, so bb cannot be told from b ({len(lacking)} of {len(files)} files): "
            f"classes {', '.join(classes)}",
            file=sys.stderr,
        )


def total(files: dict[str, dict[str, float]]) -> dict[str, float]:
    """Add up the counts of a dataset's files."""
    return {key: sum(counted[key] for counted in files.values()) for key in ("events", "jets", "sum_weights")}


def summary(name: str, files: list[File], counts: Counts) -> dict[str, Any]:
    """A dataset's page of the manifest: events expected and read, jets, weights, and the same per file."""
    return {
        "expected_events": sum(file.events for file in files if file.dataset == name),
        **total(counts[name]),
        "files": counts[name],
    }


def insist_on_rows(folder: Path, counts: Counts) -> None:
    """Insist that the rows on disk are the jets counted: workers write, and may see another disk than this process.

    Raises:
        AdvtagError: they differ
    """
    for name, files in counts.items():
        rows = sum(pq.read_metadata(path).num_rows for path in (folder / name).glob("*.parquet"))
        jets = total(files)["jets"]
        if rows != jets:
            raise AdvtagError(
                f"dataset {name!r}: {jets:.0f} jets were selected, {rows} rows are on disk. "
                "The workers must write to the same disk: choose an `output` that they share"
            )


def insist_on_jets(counts: Counts, analysis: Analysis) -> None:
    """Refuse an empty selection, unless there was no event to select from.

    Raises:
        AdvtagError: events were read and no jet passed
    """
    for name, files in counts.items():
        counted = total(files)
        if counted["events"] and not counted["jets"]:
            raise AdvtagError(
                f"dataset {name!r}: none of {counted['events']:.0f} events has a jet with pt in "
                f"{analysis.selection.pt} GeV and |eta| <= {analysis.selection.abs_eta}; see the key `selection`"
            )
