"""Submit: everything is checked and written first, then the batch system is asked once. Nothing is half-submitted."""

import os
import re
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from common.errors import AdvtagError
from common.files import whole_folder
from common.sources import archive
from condor import htcondor, local, pool, slurm
from condor.job import CODE, TO_ITEMS, Item, Job
from condor.ledger import Ledger
from condor.payload import Payload
from condor.wrapper import ENVIRONMENT, wrapper
from configs.sites import Site


def new_ledger(name: str, verb: str, site_name: str, site: Site, stages: Mapping[str, Sequence[Item]]) -> Ledger:
    """The ledger of jobs that are not submitted yet."""
    return Ledger(
        name,
        verb,
        uuid.uuid4().hex,
        datetime.now(UTC).isoformat(timespec="seconds"),
        site_name,
        site.model_dump(mode="json"),
        {stage: [asdict(item) for item in items] for stage, items in stages.items()},
        dag=site.kind == "htcondor" and len(stages) > 1,
    )


def new_folder(output: Path, name: str | None, verb: str) -> Path:
    """Where a submission goes: `OUTPUT/jobs/NAME`.

    Raises:
        AdvtagError: it exists, or is no name
    """
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise AdvtagError(f"--name {name!r}: expected letters, digits, _ . and -")
    jobs = output.resolve() / "jobs"
    if name is None:
        number = 1
        while (jobs / f"{verb}-{number}").exists():
            number += 1
        return jobs / f"{verb}-{number}"
    if (jobs / name).exists():
        raise AdvtagError(f"{jobs / name}: there is a submission of that name; choose another --name")
    return jobs / name


def write_submission(
    folder: Path,
    ledger: Ledger,
    stages: Sequence[Job],
    configurations: Mapping[str, Mapping[str, str]],
    payload: Payload,
) -> None:
    """Write the folder of a submission, whole or not at all.

    Args:
        folder: to be made
        ledger: of the submission
        stages: in their order
        configurations: files of each item, by its label
        payload: files that all jobs get

    Raises:
        AdvtagError: it cannot be written
    """
    site = stages[0].site
    with whole_folder(folder) as aside:
        (aside / "payload").mkdir()
        (aside / "payload" / CODE).write_bytes(archive(["advtag.py"]))
        for name, path in payload.files.items():
            shutil.copyfile(path, aside / "payload" / name)
        if site.archive is not None:
            shutil.copyfile(site.archive.expanduser(), aside / "payload" / ENVIRONMENT)
        for job in stages:
            _write_stage(aside, job, dag=ledger.dag)
            for item in job.items:
                place = aside / "items" / item.label
                place.mkdir(parents=True, exist_ok=True)
                for name, text in configurations.get(item.label, {}).items():
                    (place / name).write_text(text, encoding="utf-8")
                if site.in_place:
                    _link(place, job)
        if ledger.dag:
            (aside / "jobs.dag").write_text(htcondor.dag(stages), encoding="utf-8")
        ledger.write(aside)


def _write_stage(folder: Path, job: Job, *, dag: bool) -> None:
    files = {f"{job.stage}.sh": wrapper(job), f"{job.stage}.items": htcondor.item_list(job.items)}
    if job.site.kind == "htcondor":
        files[f"{job.stage}.sub"] = htcondor.submit_description(job, None if dag else f"{job.stage}.items")
    elif job.site.kind == "slurm":
        files[f"{job.stage}.sub"] = slurm.array(job, f"{job.stage}.items")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / f"{job.stage}.sh").chmod(0o755)


def _link(place: Path, job: Job) -> None:
    """Where the disk is shared, nothing is copied: relative links in the folder of the item."""
    for path in (f"{TO_ITEMS}payload/{CODE}", *job.inputs):
        link = place / Path(path).name
        if "/" in path and not link.is_symlink():
            link.symlink_to(path)


def launch(folder: Path, ledger: Ledger) -> None:
    """Hand a written submission to the batch system; if that does not take it, the folder is deleted again.

    Raises:
        AdvtagError: in the words of the batch system
    """
    try:
        start(folder, ledger)
    except BaseException:
        with suppress(AdvtagError):  # interrupted, perhaps after the jobs were taken
            if ledger.kind == "htcondor":
                pool.remove(ledger)
            elif ledger.kind == "slurm":
                slurm.remove(ledger)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def start(folder: Path, ledger: Ledger) -> None:
    """Submit what is in the folder, and note the numbers of the batch system."""
    if ledger.kind == "local":
        numbers = [local.submit(folder)]
    elif ledger.kind == "slurm":
        numbers = slurm.submit(folder, [f"{stage}.sub" for stage in ledger.stages])
    elif ledger.dag:
        numbers = [pool.submit_dag(folder, ledger, "jobs.dag")]
    else:
        numbers = [pool.submit(folder, ledger, f"{stage}.sub") for stage in ledger.stages]
    for number, stage in zip(numbers, ledger.stages, strict=False):
        ledger.submissions.append({"number": number, "stage": stage, "items": f"{stage}.items"})
    ledger.write(folder)


def watching(folder: Path, ledger: Ledger) -> str:
    """How to watch and to collect, for the reader."""
    place = os.path.relpath(folder)
    place = shlex.quote(str(folder) if place.startswith("..") else place)
    count = len(ledger.items())
    return "\n".join(
        [
            f"{count} job{'s' if count > 1 else ''} submitted ({ledger.kind} {', '.join(ledger.numbers)}), in {place}",
            f"  watch:    advtag jobs {place}",
            f"  collect:  advtag collect {place}",
        ]
    )


def dry_run_text(folder: Path) -> str:
    """What a batch system would be given, and one of the configurations."""
    files = [path for pattern in ("*.dag", "*.sub", "*.sh") for path in sorted(folder.glob(pattern))]
    items = sorted((folder / "items").iterdir())
    files += [path / "config.yaml" for path in items if (path / "config.yaml").exists()][:1]
    parts = [f"----- {path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}" for path in files]
    return "".join(parts) + f"----- {len(items)} jobs\n" + "\n".join(path.name for path in items)
