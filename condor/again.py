"""What can be done with a submission afterwards: logs, removal, and jobs that failed once more."""

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from common.errors import AdvtagError
from condor import htcondor, local, pool, slurm
from condor.job import OUT, Item
from condor.ledger import Ledger
from condor.state import DONE, ENDED
from condor.status import states

LINES = 30


def resubmit(folder: Path, ledger: Ledger) -> str:
    """Submit the jobs again that have ended without a result; say how many.

    A DAG goes on from its rescue file. Trainings go on from the checkpoints that are there: on a shared disk the last,
    on a pool those that came back; in a DAG they begin anew, and if their config.yaml was changed since.

    Raises:
        AdvtagError: there is none, some are still in the queue, or the batch system does not take them
    """
    found = states(folder, ledger)
    again = [place for place, state in found.items() if state.word in ENDED and state.word != DONE]
    alive = [place for place, state in found.items() if state.word not in ENDED]
    if not again:
        raise AdvtagError(f"{folder}: no job has ended without a result; see `advtag jobs {shlex.quote(str(folder))}`")
    for place in again:
        _forget_if_changed(folder / "items" / place.partition("/")[2])
    if ledger.kind == "local" or ledger.dag:
        if alive:
            raise AdvtagError(f"{folder}: {len(alive)} of {len(found)} jobs are still in the queue; wait, or --remove")
        number = (
            local.submit(folder) if ledger.kind == "local" else pool.submit_dag(folder, ledger, "jobs.dag", again=True)
        )
        ledger.submissions.append({"number": number, "stage": "", "items": ""})
    else:
        _some(folder, ledger, again)
    ledger.write(folder)
    return f"{len(again)} job{'s' if len(again) > 1 else ''} submitted again ({ledger.kind} {ledger.numbers[-1]})"


def _forget_if_changed(place: Path) -> None:
    """Delete what a training left if its configuration is newer: no other goes on from its checkpoint."""
    left = [path.stat().st_mtime for path in (place / OUT / "taggers/checkpoints").rglob("*.safetensors")]
    if left and (place / "config.yaml").stat().st_mtime > max(left):
        shutil.rmtree(place / OUT / "taggers")


def _some(folder: Path, ledger: Ledger, again: Sequence[str]) -> None:
    """Submit some jobs, each stage by a copy of its description that names another list of items."""
    turns: dict[str, str] = {}
    for stage, items in ledger.stages.items():
        chosen = [Item(**item) for item in items if f"{stage}/{item['label']}" in again]
        if chosen:
            turns[stage] = f"{stage}.{len(ledger.submissions) + 1}"
            _write_turn(folder, ledger, stage, turns[stage], chosen)
    if ledger.kind == "slurm":
        numbers = slurm.submit(folder, [f"{turn}.sub" for turn in turns.values()])
    else:
        numbers = [pool.submit(folder, ledger, f"{turn}.sub") for turn in turns.values()]
    for number, (stage, turn) in zip(numbers, turns.items(), strict=True):
        ledger.submissions.append({"number": number, "stage": stage, "items": f"{turn}.items"})


def _write_turn(folder: Path, ledger: Ledger, stage: str, turn: str, items: Sequence[Item]) -> None:
    (folder / f"{turn}.items").write_text(htcondor.item_list(items), encoding="utf-8")
    text = (folder / f"{stage}.sub").read_text(encoding="utf-8").replace(f"{stage}.items", f"{turn}.items")
    if ledger.kind == "slurm":
        count = len(ledger.stages[stage])
        text = text.replace(f"--array=0-{count - 1}", f"--array=0-{len(items) - 1}", 1)
        text = text.replace(f"--output={stage}-%a", f"--output={turn}-%a", 1)
    goes_on = "checkpoint_exit_code" in text
    if ledger.kind == "htcondor" and goes_on:  # what came back travels there again
        text = re.sub(r"^transfer_input_files = .*", rf"\g<0>, {OUT}", text, count=1, flags=re.MULTILINE)
    (folder / f"{turn}.sub").write_text(text, encoding="utf-8")
    for item in items:
        out = folder / "items" / item.label / OUT
        if ledger.kind == "htcondor" and not goes_on:  # what came back would be taken for its result
            shutil.rmtree(out, ignore_errors=True)
        elif ledger.kind == "htcondor":
            out.mkdir(exist_ok=True)
            (out / "exit_code").unlink(missing_ok=True)


def remove(folder: Path, ledger: Ledger) -> None:
    """Take all jobs out of the queue; what they left stays.

    Raises:
        AdvtagError: the batch system does not answer
    """
    if ledger.kind == "local":
        local.remove(folder)
    elif ledger.kind == "slurm":
        slurm.remove(ledger)
        ledger.submissions = [{**entry, "removed": "yes"} for entry in ledger.submissions]  # Slurm itself forgets it
        ledger.write(folder)
    else:
        pool.remove(ledger)


def logs(folder: Path, ledger: Ledger, label: str | None = None) -> str:
    """The last lines that each job wrote, or one; a running one is asked.

    Raises:
        AdvtagError: there is no such job
    """
    labels = [item.label for _, item in ledger.items()]
    if label is not None and label not in labels:
        raise AdvtagError(f"no job {label!r}; known: {', '.join(labels[:20])}")
    parts = []
    known = states(folder, ledger) if ledger.kind == "htcondor" else {}
    for stage, item in ledger.items():
        if label in (None, item.label):
            text = _text(folder / "items" / item.label)
            state = known.get(f"{stage}/{item.label}")
            if state is not None and state.word == "running":
                text = pool.tail(state.number) or text
            parts.append(f"----- {item.label}\n{text}")
    return "\n".join(parts)


def _text(place: Path) -> str:
    found = []
    for name in ("job.out", "job.err"):
        if (place / name).exists():
            found += (place / name).read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
    return "\n".join(found) or "nothing yet"
