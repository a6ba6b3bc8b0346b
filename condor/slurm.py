"""A job as an array of Slurm. Its disk is shared, so a checkpoint is where the next attempt looks for it."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import AdvtagError
from common.slurm import STUCK, plain
from condor.job import CHECKPOINTED, OUT, TO_OUTPUT, Job
from condor.ledger import Ledger
from condor.state import ENDING, FAILED, HELD, IDLE, LOST, REMOVED, RUNNING, State
from condor.tell import tell
from configs.sites import megabytes

STATES = {
    "PENDING": IDLE,
    "REQUEUED": IDLE,
    "CONFIGURING": IDLE,
    "RUNNING": RUNNING,
    "COMPLETING": ENDING,
    "REQUEUE_HOLD": HELD,
    "SPECIAL_EXIT": HELD,
}
"""Of those that have not ended (manual, squeue, JOB STATE CODES); others are shown as they are called."""
CAUSES = {"TIME LIMIT": "the wall time was over: submit with a longer --option walltime"}
"""Why Slurm ended a job."""
REFUSED = {
    "node configuration": "no node has that; see `sinfo -o '%P %c %m %G'` for partition, cpus, MB and GPUs",
    "job array": "it takes fewer jobs than that, see MaxArraySize of `scontrol show config`; split the sweep, "
    "--seeds 0-99, or change --files-per-job",
}
"""What sbatch does not say."""

TERMINATED = 143
"""Exit code after SIGTERM, as shells report it."""
WARNING = "USR1"
"""Not SIGTERM, which a job gets from scancel, too: then it must not go back into the queue."""
GRACE = 120
"""Seconds before the end of the wall time at which Slurm sends WARNING, and the training saves; less where that is
more than a quarter of the time."""


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
        "comment": job.identity,
        **_time(job),
        **({"gpus": str(site.gpus)} if site.gpus and "gres" not in site.directives else {}),
        **({"account": site.accounting_group} if site.accounting_group else {}),
        **site.directives,
    }
    container = (
        f'apptainer exec{" --nv" if site.gpus else ""} --bind "$(cd {TO_OUTPUT} && pwd -P)" --pwd "$(pwd -P)" '
        f"{shlex.quote(site.image)} "
        if site.image
        else ""
    )
    return (
        "\n".join(
            [
                "#!/bin/sh",
                *(f"#SBATCH --{key}" + (f"={shlex.quote(value)}" if value else "") for key, value in options.items()),
                "#SBATCH --requeue",
                f'item=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {items})',
                '[ -n "$item" ] && cd "items/$item" || exit 1',
                "attempt() {",
                "    child=",
                """    trap 'ended=yes; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null' TERM""",
                f"""    trap 'ended=yes again=yes; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null' {WARNING}""",
                f"    {container}/bin/sh ../../{job.stage}.sh >> job.out 2>> job.err &",
                "    child=$!",
                '    [ -z "$ended" ] || kill -TERM "$child"',
                '    wait "$child"; code=$?',
                '    while kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done',
                "}",
                f"ended= again= code={CHECKPOINTED} failures=0",
                f'while [ -z "$ended" ] && {{ [ "$code" = {CHECKPOINTED} ] || '
                f'{{ [ "$code" != 0 ] && [ "$failures" -le {site.retries} ]; }}; }}; do',
                "    attempt",
                f'    case "$code" in 0 | {CHECKPOINTED}) ;; *) failures=$((failures + 1)) ;; esac',
                "done",
                f'case "$again $code" in "yes {CHECKPOINTED}" | "yes {TERMINATED}")',
                f"    rm -f {OUT}/exit_code",
                '    exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" ;;',
                "esac",
                'exit "$code"',
            ]
        )
        + "\n"
    )


def _time(job: Job) -> dict[str, str]:
    """Wall time, and if the job can go on later, the warning before its end."""
    seconds = job.site.seconds
    if seconds is None:
        return {}
    warning = {"signal": f"B:{WARNING}@{min(GRACE, seconds // 4)}"} if job.checkpointed else {}
    return {"time": duration(seconds), **warning}


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
    try:
        for description in descriptions:
            after = [f"--dependency=afterany:{numbers[-1]}"] if numbers else []
            told = tell(["sbatch", "--parsable", *after, description], folder, what="the jobs cannot be submitted")
            numbers.append(told.strip().partition(";")[0])
    except AdvtagError as error:
        _cancel(numbers)
        hints = [hint for words, hint in REFUSED.items() if words in str(error)]
        raise AdvtagError(": ".join([str(error).replace("sbatch: error: ", ""), *hints])) from error
    return numbers


def queue(folder: Path, ledger: Ledger) -> dict[str, State]:
    """State of each task in the queue, by STAGE/LABEL.

    Raises:
        AdvtagError: Slurm does not answer
    """
    places = {task.number: place for place, task in tasks(folder, ledger).items()}
    found: dict[str, State] = {}
    for number, word, reason in _asked(ledger):
        if number in places:
            word = HELD if reason in STUCK else STATES.get(word, word.lower())
            found[places[number]] = State(word, number, plain(reason))
    return found


def _asked(ledger: Ledger) -> list[tuple[str, str, str]]:
    """Number, state and reason of all tasks of a submission that have not ended, as squeue tells them."""
    command = ["squeue", "--noheader", "--array", "--me", f"--name=advtag-{ledger.name}", "--format=%F_%K|%T|%k|%r"]
    lines = [line.split("|", 3) for line in tell(command, what="the queue cannot be asked").splitlines()]
    return [
        (number, word, reason)
        for number, word, comment, reason in lines
        if comment == ledger.identity or number.partition("_")[0] in ledger.numbers
    ]


@dataclass(frozen=True)
class Task:
    """Of an array."""

    number: str
    log: Path
    """What Slurm itself says of it."""
    removed: bool
    """With `advtag jobs --remove`."""


def tasks(folder: Path, ledger: Ledger) -> dict[str, Task]:
    """The last task of each job, by STAGE/LABEL."""
    found = {}
    for entry in ledger.submissions:
        turn = entry["items"].removesuffix(".items")
        for index, label in enumerate((folder / entry["items"]).read_text(encoding="utf-8").split()):
            log = folder / f"{turn}-{index}.slurm"
            found[f"{entry['stage']}/{label}"] = Task(f"{entry['number']}_{index}", log, "removed" in entry)
    return found


def explained(state: State, task: Task, said: str) -> State:
    """State of a task that has left the queue, with what Slurm said of it.

    Args:
        state: by what it left
        task: its last
        said: the last lines of its log
    """
    state = replace(state, number=task.number)
    killed = state.word == FAILED and state.reason.startswith(f"exit code {TERMINATED}")
    if task.removed and (killed or state.word == LOST):
        return State(REMOVED, task.number, "cancelled")
    if not said or not (killed or state.word == LOST):
        return state
    causes = re.findall(r"CANCELLED AT \S+ (?:DUE TO ([A-Z ]+) )?\*\*\*", said, re.IGNORECASE)
    if not causes or causes[-1].upper() == "JOB REQUEUE":  # that was not its end
        last = said.splitlines()[-1]
        return state.because(f"{state.reason}: {last}") if state.word == LOST else state
    if not causes[-1]:
        return State(REMOVED, task.number, "cancelled")
    return State(FAILED, task.number, CAUSES.get(causes[-1].upper(), causes[-1].lower()))


def remove(ledger: Ledger) -> None:
    """Cancel what is left of a submission, also what was taken before its number was known."""
    _cancel(sorted({number.partition("_")[0] for number, _, _ in _asked(ledger)}))


def _cancel(numbers: Sequence[str]) -> None:
    if numbers:
        tell(["scancel", *numbers], what="the jobs cannot be cancelled")
