"""`advtag submit train`: one job for each point of a sweep, and one behind them that evaluates all taggers."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import AdvtagError
from condor.checks import check_site
from condor.job import TO_ITEMS, TO_OUTPUT, Item, Job
from condor.ledger import Ledger
from condor.payload import Payload, training_configuration
from condor.submit import dry_run_text, launch, new_folder, new_ledger, watching, write_submission
from condor.sweep import Point, points
from configs.sites import Site

EVALUATE = "evaluate"


@dataclass(frozen=True)
class Sweep:
    """What `advtag submit train` was told beside the configuration."""

    trainings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    folds: int | None = None
    settings: tuple[str, ...] = ()
    evaluate: str | None = None
    """Suite of attacks of a last job, in which all taggers are evaluated; None: there is none."""
    columns: str | None = None
    """xrootd URL of the columns; None: the folder in the output folder travels."""
    proxy: bool = False
    """There is a grid proxy, which the jobs get if they fetch the columns."""


def submit_training(
    config: Path,
    overrides: Sequence[str],
    site_name: str,
    site: Site,
    sweep: Sweep,
    name: str | None = None,
    *,
    anyway: bool = False,
    dry_run: bool = False,
) -> str:
    """Submit the jobs of a sweep; return how to watch them, or with `dry_run` only what would be submitted.

    Raises:
        AdvtagError: a configuration is wrong, there are no columns, or the batch system does not take the jobs
    """
    found = list(
        points(
            config,
            overrides,
            trainings=sweep.trainings,
            seeds=sweep.seeds,
            folds=sweep.folds,
            settings=sweep.settings,
            limit=site.max_jobs,
        )
    )
    output = found[0].analysis.output
    if any(point.analysis.output != output for point in found):
        raise AdvtagError("--set output: all jobs of a submission have one output folder")
    insist_on_columns(output, sweep.columns)
    if sweep.evaluate is not None and site.spool:
        raise AdvtagError("--evaluate: needs a folder that DAGMan can see, and the files of this site are spooled")
    folder = new_folder(output, name, "train")
    payload = Payload()
    configurations = {point.item.label: {"config.yaml": training_configuration(point, payload)} for point in found}
    ledger = new_ledger(folder.name, "train", site_name, site, _stages(found, sweep))
    jobs = _jobs(ledger, site, sweep, payload)
    if dry_run:
        with tempfile.TemporaryDirectory() as aside:
            write_submission(Path(aside) / folder.name, ledger, jobs, configurations, payload)
            return dry_run_text(Path(aside) / folder.name)
    check_site(site, folder, anyway=anyway)
    write_submission(folder, ledger, jobs, configurations, payload)
    launch(folder, ledger)
    return watching(folder, ledger)


def insist_on_columns(output: Path, url: str | None) -> None:
    """Insist that there is something to train on.

    Raises:
        AdvtagError: there is not
    """
    if url is None and not (output / "columns/manifest.json").is_file():
        raise AdvtagError(
            f"{output / 'columns'}: no columns there; make them with `advtag columns CONFIG`, or name a copy of them "
            "with --columns root://host//path"
        )
    if url is not None and not url.startswith(("root://", "xroot://", "roots://")):
        raise AdvtagError(f"--columns {url}: expected an xrootd URL, root://host//path")


def _stages(found: Sequence[Point], sweep: Sweep) -> dict[str, list[Item]]:
    stages = {"train": [point.item for point in found]}
    if sweep.evaluate is not None:
        stages[EVALUATE] = [Item(EVALUATE, {"suite": sweep.evaluate})]
    return stages


def _jobs(ledger: Ledger, site: Site, sweep: Sweep, payload: Payload) -> list[Job]:
    columns = () if sweep.columns else (f"{TO_OUTPUT}columns",)
    common = {"name": ledger.name, "identity": ledger.identity, "site": site, "fetch": sweep.columns}
    stages = {stage: tuple(Item(**item) for item in items) for stage, items in ledger.stages.items()}
    minutes = f"{site.minutes:g}"
    train = Job(
        stage="train",
        commands=(("train", "config.yaml", "--exit-after", minutes, "--no-progress"),),
        items=stages["train"],
        inputs=("config.yaml", *(f"{TO_ITEMS}payload/{file}" for file in payload.files), *columns),
        links={"work/columns": "columns", "work/taggers": "out/taggers"},
        shared_links={"work/cache": f"{TO_OUTPUT}cache"},
        checkpointed=True,
        proxy=sweep.proxy and sweep.columns is not None,
        **common,  # type: ignore[arg-type]
    )
    if sweep.evaluate is None:
        return [train]
    labels = [item.label for item in stages["train"]]
    evaluate = Job(
        stage=EVALUATE,
        commands=tuple(
            (
                "evaluate",
                f"{label}.safetensors",
                "columns",
                "--output",
                f"out/{label}",
                "--suite",
                sweep.evaluate,
                "--no-progress",
            )
            for label in labels
        ),
        items=stages[EVALUATE],
        inputs=(*(f"../{label}/out/taggers/{label}.safetensors" for label in labels), *columns),
        proxy=sweep.proxy and sweep.columns is not None,
        **common,  # type: ignore[arg-type]
    )
    return [train, evaluate]
