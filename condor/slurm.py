"""A job as an array of Slurm. Its disk is shared, so a checkpoint is where the next attempt looks for it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.errors import AdvtagError
from condor.job import CHECKPOINTED, OUT, Job
from condor.ledger import Ledger
from condor.state import IDLE, RUNNING, State
from condor.tell import tell
from configs.sites import megabytes

STATES = {"PENDING": IDLE, "REQUEUED": IDLE, "RUNNING": RUNNING, "COMPLETING": RUNNING, "SUSPENDED": "suspended"}
"""Of those that have not ended (manual, squeue)."""

GRACE = 120
"""Seconds before the end of the wall time at which Slurm sends SIGTERM, and the training saves."""


def array(job: Job, items: str) -> str:
    """The batch script: one task of the array for each line of the file `items`.

    sbatch is called in the folder of the submission, which is the working directory of the script.
    """
    site = job.site
    options = {
        "job-name": f"advtag-{job.name}",
        "array": f"0-{len(job.items) - 1}" + (f"%{site.at_once}" if site.at_once else ""),
        "output": f"{job.stage}-%a.slurm",
        "open-mode": "append",
        "ntasks": "1",
        "cpus-per-task": str(site.cpus),
        "mem": f"{megabytes(site.memory)}M",
        "signal": f"B:TERM@{GRACE}",
        **({"time": duration(site.seconds)} if site.seconds is not None else {}),
        **({"gpus": str(site.gpus)} if site.gpus and "gres" not in site.directives else {}),
        **({"account": site.accounting_group} if site.accounting_group else {}),
        **site.directives,
    }
    container = (
        f"apptainer exec{' --nv' if site.gpus else ''} --bind ../.. {shlex.quote(site.image)} " if site.image else ""
    )
    return (
        "\n".join(
            [
                "#!/bin/sh",
                *(f"#SBATCH --{key}={shlex.quote(value)}" for key, value in options.items()),
                "#SBATCH --requeue",
                f'item=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {items})',
                '[ -n "$item" ] && cd "items/$item" || exit 1',
                "attempt() {",
                "    child=",
                """    trap 'ended=yes; [ -z "$child" ] || kill -TERM "$child"' TERM""",
                f"    {container}/bin/sh ../../{job.stage}.sh >> job.out 2>> job.err &",
                "    child=$!",
                '    [ -z "$ended" ] || kill -TERM "$child"',
                '    wait "$child"; code=$?',
                '    while kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done',
                "}",
                f"ended= code={CHECKPOINTED} failures=0",
                f'while [ -z "$ended" ] && {{ [ "$code" = {CHECKPOINTED} ] || '
                f'{{ [ "$code" != 0 ] && [ "$failures" -le {site.retries} ]; }}; }}; do',
                "    attempt",
                f'    case "$code" in 0 | {CHECKPOINTED}) ;; *) failures=$((failures + 1)) ;; esac',
                "done",
                f'[ -z "$ended" ] || [ -e {OUT}/exit_code ] || '
                'exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
                'exit "$code"',
            ]
        )
        + "\n"
    )


def duration(seconds: int) -> str:
    """Hours, minutes and seconds."""
    minutes, left = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{left:02}"


def submit(folder: Path, descriptions: Sequence[str]) -> list[str]:
    """Submit arrays, each to begin when the one before has ended; return their numbers.

    Raises:
        AdvtagError: Slurm does not take one; those before it are cancelled
    """
    numbers: list[str] = []
    for description in descriptions:
        after = [f"--dependency=afterany:{numbers[-1]}"] if numbers else []
        try:
            told = tell(["sbatch", "--parsable", *after, description], folder, what="the jobs cannot be submitted")
        except AdvtagError:
            remove(numbers)
            raise
        numbers.append(told.strip().partition(";")[0])
    return numbers


def queue(folder: Path, ledger: Ledger) -> dict[str, State]:
    """State of each task in the queue, by STAGE/LABEL.

    Raises:
        AdvtagError: Slurm does not answer
    """
    command = ["squeue", "--noheader", "--array", "--me", f"--name=advtag-{ledger.name}", "--format=%F|%K|%T|%r"]
    items = {entry["number"]: (folder / entry["items"]).read_text().split() for entry in ledger.submissions}
    stages = {entry["number"]: entry["stage"] for entry in ledger.submissions}
    found: dict[str, State] = {}
    for line in tell(command, what="the queue cannot be asked").splitlines():
        number, task, word, reason = line.strip().split("|", 3)
        if word in STATES and number in items:
            place = f"{stages[number]}/{items[number][int(task)]}"
            found[place] = State(STATES[word], f"{number}_{task}", reason.replace("None", ""))
    return found


def remove(numbers: Sequence[str]) -> None:
    """Cancel arrays."""
    if numbers:
        tell(["scancel", *numbers], what="the jobs cannot be cancelled")
