"""`advtag study`: simulate, train, evaluate, measure, look at the truth, compare."""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import typer

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import RAW
from common.provenance import provenance
from configs.study import METHODS as FLAVOUR_OF
from configs.study import Study
from models.tagger import load_tagger
from study import measure as measuring
from study.agreement import Agreement, agreement
from study.conclude import CLOSURE, TRUE, Key, by_selection, comparisons, rows, sentences
from study.counts import Array, Bootstrap
from study.jets import FLAVOURS, Floats, Jets, read_jets
from study.measure import Sample, Selections, measure, working_points
from study.negative import negative_scores
from study.samples import (
    EVALUATED,
    MC,
    data_name,
    evaluate_sample,
    evaluation_analysis,
    make_samples,
    training_analysis,
)
from study.truth import true_efficiencies, true_flavours

TABLE, NUMBERS = "study.csv", "study.json"
Files = dict[str, dict[str, list[Path]]]


@dataclass(frozen=True)
class Outcome:
    """Numbers of a study."""

    selections: Selections
    results: dict[Key, Array]
    """Scale factors, [replicas]."""
    efficiencies: dict[Key, tuple[float, float]]
    agreements: list[Agreement]


def run_study(study: Study, *, progress: bool = True) -> Path:
    """Run a study; return its folder, with `study.csv`, `study.json` and the figures.

    What is there already is used: simulated files, trained taggers, evaluated samples.

    Raises:
        AdvtagError: bad input, or a stage failed
    """
    files = make_samples(study, progress=progress)
    taggers = find_taggers(study, files, progress=progress)
    for name in files:
        if name != "train":
            evaluate_sample(evaluation_analysis(study, name, files[name], taggers), progress=progress)
    return finish(study, compare(study, files, taggers))


def find_taggers(study: Study, files: Files, *, progress: bool = True) -> dict[str, Path]:
    """Files of all taggers, after training those that are trained here.

    Raises:
        AdvtagError: no such file, or the training failed
    """
    paths = dict(study.taggers)
    for path in paths.values():
        if not path.is_file():
            raise AdvtagError(f"{path}: no such tagger file; make it with `advtag train`, or use the key `training`")
    if study.training:
        from processors.jobs import make_columns
        from training.train import train_all

        analysis = training_analysis(study, files["train"])
        if not (analysis.output / "columns" / "manifest.json").is_file():
            make_columns(analysis, progress=progress)
        trained = train_all(analysis, progress=progress)
        paths |= {path.stem: path for path in trained}
    return {name: paths[name] for name in study.names}


def compare(study: Study, files: Files, taggers: dict[str, Path]) -> Outcome:
    """All numbers, from the evaluated samples.

    Raises:
        AdvtagError: see the rooms
    """
    bootstrap = Bootstrap(study.bootstrap, study.seed)
    read = {process: read_sample(study, MC, process, taggers) for process in study.mc.events}
    light = read[next(iter(read))][0]
    assert light.flavour is not None  # noqa: S101 - for the type checker
    chosen = (light.flavour == FLAVOURS.index("light")) & (light.weights["jets"] > 0)
    scores = {name: light.scores[name, RAW][chosen] for name in study.names}
    selections = working_points(study, scores, light.weights["jets"][chosen])
    mc = {process: sample(study, selections, MC, process, *both) for process, both in read.items()}
    outcome = Outcome(selections, {}, {}, [])
    paired = None
    # the closure first: variants of the detector are compared with its events
    for variant in sorted(study.variants, key=lambda name: name != CLOSURE):
        data = {
            process: sample(
                study, selections, variant, process, *read_sample(study, data_name(variant), process, taggers)
            )
            for process in study.data.events
        }
        for method, measured in measure(study, bootstrap, mc, data).items():
            _add(outcome, (variant, measuring.METHODS[method][1], method), measured)
        for tagger in study.names:
            for process in data:
                pair = data[process].jets, mc[process].jets
                both = pair[0].scores[tagger, RAW], pair[1].scores[tagger, RAW]
                outcome.agreements.append(agreement((variant, process, tagger), *pair, study.pt_bins, both))
        # from here on the truth is known
        known = {process: with_truth(each, files[data_name(variant)][process]) for process, each in data.items()}
        for process, each in known.items():
            nominal = (
                paired[process] if paired is not None and paired[process].generated == each.generated else mc[process]
            )
            counts = (other.inside(study, bootstrap, "jets") for other in (each, nominal))
            flavour = FLAVOUR_OF[process]
            _add(outcome, (variant, flavour, TRUE), true_efficiencies(*counts, flavour))
        if variant == CLOSURE:
            paired = known
    return outcome


def _add(outcome: Outcome, key: tuple[str, str, str], measured: Any) -> None:
    for (tagger, point), (factor, data, mc) in by_selection(measured, outcome.selections.keys).items():
        outcome.results[*key, tagger, point] = factor
        outcome.efficiencies[*key, tagger, point] = data, mc


def read_sample(
    study: Study, name: str, process: str, taggers: dict[str, Path]
) -> tuple[Jets, dict[str, Floats] | None]:
    """Jets of a process, and the scores of the flipped jets by tagger, in multijets.

    Raises:
        AdvtagError: see `read_jets`
    """
    flip = FLAVOUR_OF[process] == "light"
    folder = study.output / EVALUATED / name
    jets = read_jets(folder, process, study.discriminator, study.features, inputs=flip)
    if jets.inputs is None:
        return jets, None
    return jets, {
        tagger: negative_scores(jets.inputs[:2], load_tagger(path), study.discriminator)
        for tagger, path in taggers.items()
    }


def sample(
    study: Study, selections: Selections, variant: str, process: str, jets: Jets, negative: dict[str, Floats] | None
) -> Sample:
    """Jets with the decisions of the taggers."""
    scores = {tagger: jets.scores[tagger, RAW] for tagger in study.names}
    return Sample(
        jets,
        selections.passed(scores),
        None if negative is None else selections.passed(negative),
        scores[selections.tag[0]] > selections.tag[1],
    )


def with_truth(data: Sample, files: Iterable[Path]) -> Sample:
    """The same jets with their true flavours."""
    from dataclasses import replace

    return replace(data, jets=replace(data.jets, flavour=true_flavours(files, data.jets)))


def finish(study: Study, outcome: Outcome) -> Path:
    """Write tables and figures."""
    table = rows(outcome.results, outcome.efficiencies)
    found = comparisons(outcome.results, study.first)
    lines = sentences(found, study.first)
    write_csv(study.output / TABLE, table)
    numbers = {
        "config": json.loads(study.model_dump_json()),
        "versions": provenance(),
        "cuts": {
            f"{tagger} {point}": cut
            for (tagger, point), cut in zip(outcome.selections.keys, outcome.selections.cuts, strict=True)
        },
        "scale_factors": [asdict(row) for row in table],
        "agreement": [asdict(row) for row in outcome.agreements],
        "comparisons": [{**asdict(row), "verdict": row.verdict} for row in found],
        "conclusion": lines,
    }
    with whole_file(study.output / NUMBERS) as aside:
        aside.write_text(json.dumps(_finite(numbers), indent=1, allow_nan=False), encoding="utf-8")
    for line in lines:
        typer.echo(line)
    return study.output


def write_csv(path: Path, table: list[Any]) -> None:
    """Write dataclasses as CSV, whole or not at all; what is undefined is empty."""
    with whole_file(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(field.name for field in fields(table[0]))
        for row in table:
            cells = asdict(row).values()
            writer.writerow(
                cell if isinstance(cell, str) else "" if np.isnan(cell) else f"{cell:.6g}" for cell in cells
            )


def _finite(value: Any) -> Any:
    """Not-a-number as null, which JSON has."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
