"""`advtag study`: simulate, train, evaluate, measure, look at the truth, compare."""

from pathlib import Path

import typer

from common.errors import AdvtagError
from configs.study import METHODS, Study
from models.features import load_features
from processors.jobs import make_columns
from study.compare import Files, compare
from study.conclude import comparisons, sentences
from study.jets import VERTEX_MASS
from study.negative import NEEDED
from study.output import write_outcome
from study.samples import evaluate_sample, evaluation_analysis, make_samples, missing, training_analysis
from training.train import train_all


def run_study(study: Study, *, progress: bool = True) -> Path:
    """Run a study; return its folder, with `study.csv`, `study.json` and the figures.

    What is there already is used: simulated files, trained taggers, evaluated samples.

    Raises:
        AdvtagError: bad input, or a stage failed
    """
    refuse(study)
    files = make_samples(study, progress=progress)
    taggers = find_taggers(study, files, progress=progress)
    for name in files:
        if name != "train":
            evaluate_sample(evaluation_analysis(study, name, files[name], taggers), progress=progress)
    outcome = compare(study, files, taggers)
    for line in sentences(comparisons(outcome.distances, study.first), study.first):
        typer.echo(line)
    return write_outcome(study, outcome)


def refuse(study: Study) -> None:
    """Refuse what cannot work, before anything is simulated.

    Raises:
        AdvtagError: no such tagger file, or a feature card without the inputs of the measurements
    """
    for path in study.taggers.values():
        if not path.is_file():
            raise AdvtagError(f"{path}: no such tagger file; make it with `advtag train`, or use the key `training`")
    card = load_features(study.features)
    flips = "light" in (METHODS[process] for process in study.mc.events)
    for name in (VERTEX_MASS, *(NEEDED if flips else ())):
        if name not in card.names:
            raise AdvtagError(
                f"features: card {card.name!r} has no input {name!r}, which the measurements need; "
                "use `features: deepcsv`"
            )


def find_taggers(study: Study, files: Files, *, progress: bool = True) -> dict[str, Path]:
    """Files of all taggers, after training those that are trained here.

    Raises:
        AdvtagError: the training failed
    """
    paths = dict(study.taggers)
    if study.training:
        analysis = training_analysis(study, files["train"])
        with missing(analysis, {"run", "attacks", "training"}) as wanted:
            if wanted:
                make_columns(analysis, progress=progress)
        paths |= {path.stem: path for path in train_all(analysis, restart=wanted, progress=progress)}
    return {name: paths[name] for name in study.names}
