"""`advtag collect`: taggers, metrics and logs of a submission in one folder, and what is missing."""

import json
import os
import shlex
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from common.errors import AdvtagError
from common.files import whole_folder
from condor import pool
from condor.job import OUT
from condor.ledger import Ledger
from condor.state import DONE, ENDED, State
from condor.status import states

LOGS = ("job.out", "job.err", "job.log")
RESULTS = "results"


def collect_training(folder: Path, ledger: Ledger, *, allow_missing: bool = False) -> tuple[Path, list[str]]:
    """Gather what trainings left, laid out as `advtag train` and `advtag evaluate` do; return the folder, and a line
    for each job whose result is missing.

    taggers/        of all jobs, with histories and checkpoints
    evaluation/     one folder for each tagger, if they were evaluated
    logs/           of each job
    jobs.json       settings and state of each job, and the last epoch of its training

    Raises:
        AdvtagError: a result is missing and that is not allowed; or it cannot be written
    """
    found, missing = state_of_all(folder, ledger, allow_missing=allow_missing)
    target = folder / RESULTS
    with whole_folder(target) as aside:
        page: dict[str, dict[str, Any]] = {}
        for stage, item in ledger.items():
            place, state = folder / "items" / item.label, found[f"{stage}/{item.label}"]
            for name in LOGS:
                if (place / name).exists():
                    (aside / "logs").mkdir(exist_ok=True)
                    shutil.copyfile(place / name, aside / "logs" / f"{item.label}.{name.removeprefix('job.')}")
            if state.word == DONE:
                source = place / OUT / "taggers" if stage == "train" else place / OUT
                _copy(source, aside / ("taggers" if stage == "train" else "evaluation"))
            page[item.label] = {"stage": stage, "settings": item.settings, "state": state.word, "reason": state.reason}
            if stage == "train" and state.word == DONE:
                page[item.label]["epoch"] = last_epoch(place, item.label)
        (aside / "jobs.json").write_text(json.dumps(page, indent=1), encoding="utf-8")
    return target, missing


def _copy(source: Path, target: Path) -> None:
    """The same files at two places, where the disk can."""
    ignored = shutil.ignore_patterns("exit_code", "hosts.txt")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def last_epoch(place: Path, label: str) -> dict[str, Any]:
    """The record of the last epoch of a training; empty if there is none."""
    history = place / OUT / "taggers" / f"{label}.history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    return dict(json.loads(lines[-1])) if lines else {}


def read_spread(results: Path) -> Table:
    """Areas over the seeds and folds of each training, from `jobs.json`: mean and standard deviation."""
    page = json.loads((results / "jobs.json").read_text(encoding="utf-8"))
    areas: dict[tuple[str, str], list[float]] = {}
    for job in page.values():
        same = {key: value for key, value in job["settings"].items() if key not in ("training.seed", "training.fold")}
        name = ", ".join(f"{key.removeprefix('training.')}={value}" for key, value in same.items())
        for attack, area in job.get("epoch", {}).get("auc", {}).items():
            if area.get("BvsL") is not None:
                areas.setdefault((name, attack), []).append(area["BvsL"])
    table = Table("training", "attack", "jobs", "AUC BvsL")
    for (name, attack), values in areas.items():
        width = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        table.add_row(name, attack, str(len(values)), f"{mean(values):.4f}{width}")
    return table


def done_parts(folder: Path, ledger: Ledger, *, allow_missing: bool = False) -> tuple[list[Path], list[str]]:
    """What came back of the parts of a processor, and a line for each that has no result.

    Raises:
        AdvtagError: a result is missing and that is not allowed
    """
    found, missing = state_of_all(folder, ledger, allow_missing=allow_missing)
    labels = [item.label for stage, item in ledger.items() if found[f"{stage}/{item.label}"].word == DONE]
    return [folder / "items" / label / OUT for label in labels], missing


def state_of_all(folder: Path, ledger: Ledger, *, allow_missing: bool = False) -> tuple[dict[str, State], list[str]]:
    """State of every job, and a line for each that has no result; what was spooled is fetched first.

    Raises:
        AdvtagError: a result is missing and that is not allowed, or there is none at all
    """
    if ledger.kind == "htcondor" and ledger.site["spool"]:
        pool.fetch(ledger, folder)
    found = states(folder, ledger)
    missing = [
        f"{place.partition('/')[2]}: {state.word}" + (f" ({state.reason})" if state.reason else "")
        for place, state in found.items()
        if state.word != DONE
    ]
    place = shlex.quote(str(folder))
    if missing and not allow_missing:
        alive = sum(state.word not in ENDED for state in found.values())
        remedy = f"{alive} not done yet, wait" if alive else f"`advtag jobs {place} --resubmit` runs these again"
        raise AdvtagError(
            f"{len(missing)} of {len(found)} results are missing, the first: {missing[0]}. {remedy}; --allow-missing "
            "collects the others"
        )
    if len(missing) == len(found):
        raise AdvtagError(f"{folder}: no job is done yet; see `advtag jobs {place}`")
    return found, missing
