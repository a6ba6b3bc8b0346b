"""The two jobs of a processor: columns, histograms. A configuration in, a checked output on disk."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from attacks.build import build_attacks
from common.errors import AdvtagError
from common.files import whole_folder
from common.histograms import HISTOGRAMS, HistogramFile
from common.histograms import Dataset as HistogramDataset
from common.provenance import provenance
from configs.regions import Region
from configs.schema import Analysis, Dataset
from models.classes import CLASSES, DISCRIMINATORS
from models.features import FeatureSet, load_features
from models.tagger import load_tagger, read_tagger
from processors.books import Counts, pages, total
from processors.columns import SPLITS, ColumnsProcessor
from processors.corrections import Corrections
from processors.fileset import Also, File, open_fileset, read_list
from processors.histograms import HistogramProcessor
from processors.jets import FLAVOURS
from processors.preflight import CACHE
from processors.preselection import preselection
from processors.run import Output, run_processor
from processors.store import Store, digest, only_job


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
    files = open_files(analysis, datasets, features, (), {}, progress=progress)
    mc = [file for file in files if not datasets[file.dataset].data]
    classes = truth_classes(mc)
    folder = analysis.output / "columns"
    is_data = {name: dataset.data for name, dataset in datasets.items()}
    key = digest(*_common(analysis, features, is_data), wanted.split.model_dump(mode="json"))
    with only_job(analysis.output):
        store = Store(folder, key)
        parts = store.parts(datasets, resume=analysis.run.resume)
        job = ColumnsProcessor(features, analysis.selection, wanted.split, is_data, parts)
        read = read_list(features, (), is_data)
        output = run_processor(job, files, read, analysis.run, store, progress=progress)
        counts: Counts = output["counts"]
        insist_on_jets(counts, analysis)
        insist_on_rows(parts, output)
        with whole_folder(folder) as aside:
            for name in datasets:
                (aside / name).mkdir()
            for name in output["parts"]:
                _link(parts / name, aside / name)
            manifest = {
                "config": json.loads(analysis.model_dump_json()),
                "provenance": provenance(),
                "features": json.loads(features.model_dump_json()),
                "classes": classes,
                "flavour_codes": FLAVOURS,
                "splits": SPLITS,
                "datasets": {name: pages(name, files, counts) for name in datasets},
                **_loss(output),
            }
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")
        if not output["missing"]:
            store.forget()
    say_classes(mc, classes)
    return folder


def make_histograms(analysis: Analysis, *, progress: bool = True) -> Path:
    """Fill the configured histograms; return their folder, `output/histograms`.

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
    is_data = {name: dataset.data for name, dataset in datasets.items()}
    regions = list(wanted.regions.values())
    preselections = {name: preselection(name, dataset) for name, dataset in datasets.items()}
    corrections = Corrections(analysis.corrections, is_data)
    also = {
        name: [
            *corrections.branches(data, name),
            *(names for region in regions for names in preselections[name].branches(region)),
        ]
        for name, data in is_data.items()
    }
    files = open_files(analysis, datasets, features, regions, also, progress=progress)
    taggers = {name: read_tagger(path) for name, path in wanted.taggers.items()}
    job = HistogramProcessor(
        features,
        analysis.selection,
        is_data,
        wanted.regions,
        taggers,
        attacks,
        wanted.precision,
        preselections,
        corrections,
        wanted.transfer,
        analysis.run.device,
    )
    settings = wanted.model_dump(mode="json", exclude={"datasets", "taggers"})
    attacked = {name: repr(attack) for name, attack in attacks.items()}
    events = {"era", "golden", "triggers", "met_filters", "veto_triggers"}
    corrected = {
        **analysis.model_dump(mode="json", include={"corrections"}),
        **{name: dataset.model_dump(mode="json", include=events) for name, dataset in datasets.items()},
    }
    key = digest(
        *_common(analysis, features, is_data),
        settings,
        attacked,
        corrected,
        _contents(corrected),
        *taggers,
        *taggers.values(),
    )
    folder = analysis.output / HISTOGRAMS
    with only_job(analysis.output):
        store = Store(folder, key)
        read = read_list(features, regions, is_data, also)
        output = run_processor(job, files, read, analysis.run, store, progress=progress)
        insist_on_jets(output["counts"], analysis)
        with whole_folder(folder) as aside:
            for name in datasets:  # one at a time: full histograms are large
                blocks = output["blocks"].get(name, {})
                one_dataset(analysis, job, name, files, output, key, blocks).write(aside / f"{name}.zip")
        if not output["missing"]:
            store.forget()
    mc = [file for file in files if not is_data[file.dataset]]
    say_classes(mc, truth_classes(mc))
    return folder


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


def one_dataset(
    analysis: Analysis,
    job: HistogramProcessor,
    name: str,
    files: list[File],
    output: Output,
    key: str,
    blocks: Mapping[str, Any],
) -> HistogramFile:
    """The histogram file of one dataset."""
    dataset, page = analysis.datasets[name], pages(name, files, output["counts"])
    return HistogramFile(
        histograms=job.histograms(name, blocks),
        inputs=job.features.names,
        discriminators=tuple(DISCRIMINATORS),
        datasets={
            name: HistogramDataset(
                dataset.data,
                dataset.cross_section,
                page["sum_weights"],
                int(page["events"]),
                int(page["jets"]),
                page["files"],
                {
                    region: {cut: (float(left[0]), float(left[1])) for cut, left in cuts.items()}
                    for region, cuts in output["cutflow"].get(name, {}).items()
                },
            )
        },
        luminosity=analysis.luminosity,
        provenance={
            "config": json.loads(analysis.model_dump_json()),
            "versions": provenance(),
            "job": key,
            **_loss(output),
        },
    )


def _common(analysis: Analysis, features: FeatureSet, is_data: dict[str, bool]) -> tuple[object, ...]:
    """What every job's numbers depend on; neither the files nor how it runs are among it."""
    versions = provenance()
    code = [versions["advtag"], versions["git"]]
    return code, features.digest, analysis.selection.model_dump(mode="json"), is_data


def _contents(settings: Any) -> list[str]:
    """Digests of the files that settings name: corrections, certified luminosity blocks."""
    if isinstance(settings, dict | list):
        parts = settings.values() if isinstance(settings, dict) else settings
        return [content for part in parts for content in _contents(part)]
    is_file = (
        isinstance(settings, str) and settings.endswith((".json", ".json.gz", ".txt")) and Path(settings).is_file()
    )
    return [digest(Path(settings).read_bytes())] if is_file else []


def _loss(output: Output) -> dict[str, Any]:
    """For a manifest: how it ran, and what is missing."""
    return {key: output[key] for key in ("seconds", "bytes", "missing", "failed")}


def _link(source: Path, target: Path) -> None:
    """The same file at two places, where the disk can; a copy elsewhere."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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


def insist_on_rows(folder: Path, output: Output) -> None:
    """Insist that the rows on disk are the jets counted: workers write, and may see another disk than this process.

    Raises:
        AdvtagError: they differ
    """
    for name, files in output["counts"].items():
        parts = [folder / part for part in output["parts"] if part.startswith(f"{name}/")]
        rows = sum(pq.read_metadata(path).num_rows for path in parts if path.exists())
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
