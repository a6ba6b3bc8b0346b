"""`advtag columns|histograms --executor condor`: a job for some files of a dataset each; no scheduler must live on."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from common.environment import ONE_THREAD
from common.errors import AdvtagError
from condor.checks import check_site
from condor.job import TO_ITEMS, Item, Job, label_of
from condor.ledger import Ledger
from condor.payload import Payload
from condor.submit import dry_run_text, launch, new_folder, new_ledger, watching, write_submission
from configs.schema import Analysis
from configs.sites import Site

PART = "part.json"
UNUSED = {"training", "skim", "fileset", "run", "grid", "columns", "histograms"}
"""Of the configuration; the one section that is used is added."""


class Part(Protocol):
    """Files that one job processes; see `processors.parts`."""

    @property
    def dataset(self) -> str:
        """Name."""

    @property
    def fileset(self) -> dict[str, Any]:
        """In coffea's format."""

    @property
    def files(self) -> tuple[str, ...]:
        """Where they are read."""


def submit_parts(
    analysis: Analysis,
    verb: str,
    parts: Sequence[Part],
    expected: Mapping[str, Mapping[str, int]],
    site_name: str,
    site: Site,
    name: str | None = None,
    *,
    proxy: bool = False,
    anyway: bool = False,
    dry_run: bool = False,
) -> str:
    """Submit a job for each part; return how to watch them, or with `dry_run` only what would be submitted.

    Args:
        analysis: the configuration
        verb: `columns` or `histograms`
        parts: what each job processes
        expected: events of every file by dataset; kept for `advtag collect`
        site_name: where, as the user says
        site: where
        name: of the submission
        proxy: there is a grid proxy, which jobs get that read from a server
        anyway: do not compare the request with the machines of the pool
        dry_run: submit nothing

    Raises:
        AdvtagError: too many parts, files that jobs do not see, or the batch system does not take the jobs
    """
    if not 0 < len(parts) <= site.max_jobs:
        raise AdvtagError(
            f"{len(parts):,} jobs, and the site takes 1 to {site.max_jobs:,} (max_jobs): change --files-per-job"
        )
    refuse_unseen(parts, site)
    folder = new_folder(analysis.output, name, verb)
    payload, taken = Payload(), set[str]()
    labels = [label_of(f"{part.dataset}-{number:04}", taken) for number, part in enumerate(parts)]
    configurations = {
        label: {
            "config.yaml": yaml.safe_dump(configuration(analysis, verb, part, site, payload), sort_keys=False),
            PART: json.dumps(part.fileset),
        }
        for label, part in zip(labels, parts, strict=True)
    }
    items = [Item(label, {"dataset": part.dataset}) for label, part in zip(labels, parts, strict=True)]
    ledger = new_ledger(folder.name, verb, site_name, site, {verb: items})
    scores = verb == "histograms" and analysis.histograms is not None and analysis.histograms.scores
    ledger.expected = {"files": expected, "config": analysis.model_dump(mode="json"), "scores": scores}
    job = _job(ledger, verb, items, site, payload, parts, proxy)
    if dry_run:
        with tempfile.TemporaryDirectory() as aside:
            write_submission(Path(aside) / folder.name, ledger, [job], configurations, payload)
            return dry_run_text(Path(aside) / folder.name)
    check_site(site, folder, anyway=anyway)
    write_submission(folder, ledger, [job], configurations, payload)
    launch(folder, ledger)
    return watching(folder, ledger)


def _job(
    ledger: Ledger, verb: str, items: Sequence[Item], site: Site, payload: Payload, parts: Sequence[Part], proxy: bool
) -> Job:
    return Job(
        name=ledger.name,
        stage=verb,
        identity=ledger.identity,
        commands=((verb, "config.yaml", "--no-progress"),),
        items=tuple(items),
        site=site,
        environment=ONE_THREAD,
        inputs=("config.yaml", PART, *(f"{TO_ITEMS}payload/{file}" for file in payload.files)),
        proxy=proxy and any("://" in place for part in parts for place in part.files),
    )


def refuse_unseen(parts: Sequence[Part], site: Site) -> None:
    """Refuse files of this machine where the jobs do not see them.

    Raises:
        AdvtagError: there is one
    """
    for part in parts:
        for place in part.files:
            if "://" not in place and not site.shared:
                raise AdvtagError(
                    f"{place}: a file of this machine, which jobs at this site do not see; name it as root://..., or "
                    "--option shared=true if workers have this disk"
                )


def configuration(analysis: Analysis, verb: str, part: Part, site: Site, payload: Payload) -> dict[str, Any]:
    """The configuration of a part: files that it names travel, and its output is the folder that comes back."""
    page = analysis.model_dump(mode="json", exclude=UNUSED)
    page = {key: _moved(value, payload) for key, value in page.items() if key != "datasets"}
    dataset = analysis.datasets[part.dataset].model_dump(mode="json", exclude={"files"})
    page["datasets"] = {part.dataset: {"files": PART, **_moved(dataset, payload)}}
    page["output"] = "out"
    page[verb] = {**_moved(getattr(analysis, verb).model_dump(mode="json"), payload), "datasets": [part.dataset]}
    if "taggers" in page[verb]:  # relative to the output folder, unlike all others
        page[verb]["taggers"] = {name: f"../{path}" for name, path in page[verb]["taggers"].items()}
    corrections = {name: _only(correction, part.dataset) for name, correction in page["corrections"].items()}
    page["corrections"] = {name: correction for name, correction in corrections.items() if correction}
    run = analysis.run
    page["run"] = {
        "executor": "futures" if site.cpus > 1 else "iterative",
        "workers": site.cpus,
        "chunksize": run.chunksize,
        "retries": run.retries,
        "backoff": run.backoff,
        "device": run.device,
    }
    return page


def _only(correction: dict[str, Any], dataset: str) -> dict[str, Any] | None:
    """A correction of this dataset; None if it is of others."""
    if correction.get("datasets") is None:
        return correction
    return {**correction, "datasets": [dataset]} if dataset in correction["datasets"] else None


def _moved(settings: Any, payload: Payload) -> Any:
    """Settings whose files travel: they are named as they are there."""
    if isinstance(settings, dict):
        return {key: _moved(value, payload) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_moved(value, payload) for value in settings]
    is_file = isinstance(settings, str) and settings.startswith("/") and Path(settings).is_file()
    return payload.add(Path(settings)) if is_file else settings
