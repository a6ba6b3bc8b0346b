"""The two jobs of a processor: columns, histograms. A configuration in, a checked output on disk."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attacks.build import build_attacks
from common.errors import AdvtagError
from common.files import whole_folder
from common.histograms import HISTOGRAMS, HistogramFile
from common.histograms import Dataset as HistogramDataset
from common.provenance import provenance
from configs.schema import Analysis
from models.classes import CLASSES, TAGGER_SCORES
from models.features import load_features
from models.tagger import load_tagger, read_tagger
from processors.books import Counts, pages, total
from processors.columns import SPLITS, ColumnsProcessor
from processors.corrections import Corrections
from processors.correlations import by_category
from processors.fileset import File, read_list
from processors.histograms import HistogramProcessor
from processors.jets import FLAVOURS
from processors.preselection import preselection
from processors.run import Output, run_processor
from processors.scores import SCORES
from processors.shared import (
    branches_of_selection,
    insist_on_rows,
    link_parts,
    loss,
    open_files,
    settings_of_selection,
    shared_settings,
)
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
    key = digest(*shared_settings(analysis, features, is_data), wanted.split.model_dump(mode="json"))
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
            link_parts(parts, aside, datasets, output)
            manifest = {
                "config": json.loads(analysis.model_dump_json()),
                "provenance": provenance(),
                "features": json.loads(features.model_dump_json()),
                "classes": classes,
                "flavour_codes": FLAVOURS,
                "splits": SPLITS,
                "datasets": {name: pages(name, files, counts) for name in datasets},
                **loss(output),
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
    also = branches_of_selection(regions, preselections, corrections)
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
        correlations=wanted.correlations,
    )
    key = digest(
        *shared_settings(analysis, features, is_data),
        wanted.model_dump(mode="json", exclude={"datasets", "taggers"}),
        {name: repr(attack) for name, attack in attacks.items()},
        *settings_of_selection(analysis, datasets),
        *taggers,
        *taggers.values(),
    )
    folder = analysis.output / HISTOGRAMS
    with only_job(analysis.output):
        store = Store(folder, key)
        if wanted.scores:
            job.parts = store.parts(datasets, resume=analysis.run.resume)
        read = read_list(features, regions, is_data, also)
        output = run_processor(job, files, read, analysis.run, store, progress=progress)
        insist_on_jets(output["counts"], analysis)
        with whole_folder(folder) as aside:
            for name in datasets:  # one at a time: full histograms are large
                blocks = output["blocks"].get(name, {})
                one_dataset(analysis, job, name, files, output, key, blocks).write(aside / f"{name}.zip")
            if job.parts is not None:
                put_scores(analysis, job.parts, files, output, key)
        if not output["missing"]:
            store.forget()
    mc = [file for file in files if not is_data[file.dataset]]
    say_classes(mc, truth_classes(mc))
    return folder


def put_scores(analysis: Analysis, parts: Path, files: list[File], output: Output, key: str) -> None:
    """Put the scores that the workers wrote into `output/scores`, with a manifest.

    Raises:
        AdvtagError: rows are missing, or the folder cannot be written
    """
    wanted = analysis.histograms
    assert wanted is not None  # noqa: S101 - for the type checker
    insist_on_rows(parts, output)
    with whole_folder(analysis.output / SCORES) as aside:
        link_parts(parts, aside, wanted.datasets, output)
        manifest = {
            "config": json.loads(analysis.model_dump_json()),
            "provenance": provenance(),
            "job": key,
            "flavour_codes": FLAVOURS,
            "datasets": {
                name: {"cross_section": analysis.datasets[name].cross_section, **pages(name, files, output["counts"])}
                for name in wanted.datasets
            },
            **loss(output),
        }
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False), encoding="utf-8")


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
        discriminators=tuple(TAGGER_SCORES),
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
            **loss(output),
        },
        correlations={name: by_category(blocks.get("correlations", {}))} if job.correlations else None,
    )


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
