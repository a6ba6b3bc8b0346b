"""The table of `advtag jobs`: how each job is, how far its training, and why it did not go well."""

import json
import re
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from condor import local, pool, slurm
from condor.events import read_events
from condor.job import OUT, Item
from condor.ledger import Ledger
from condor.state import DONE, ENDED, ENDING, FAILED, IDLE, LOST, REMOVED, RUNNING, WAITING, State

LOOKS = 20
"""Running jobs that are asked how far they are; each costs a connection to its machine."""
UNTRIED = "not started yet"


def queue(folder: Path, ledger: Ledger) -> dict[str, State]:
    """State of every job that the batch system knows, by STAGE/LABEL."""
    if ledger.kind == "htcondor":
        return pool.queue(ledger)
    return slurm.queue(folder, ledger) if ledger.kind == "slurm" else local.queue(folder, ledger)


def states(folder: Path, ledger: Ledger) -> dict[str, State]:
    """State of every job of a submission, by STAGE/LABEL.

    Raises:
        AdvtagError: the batch system does not answer
    """
    known = queue(folder, ledger)
    tasks = slurm.tasks(folder, ledger) if ledger.kind == "slurm" else {}
    found = {}
    for stage, item in ledger.items():
        place = f"{stage}/{item.label}"
        # Slurm's queue has all that have not ended; HTCondor's DAG and max_materialize submit some later
        now, left = known.get(place), ended(folder / "items" / item.label, alive=bool(known) and not tasks)
        if place in tasks:
            left = slurm.explained(left, tasks[place], "\n".join(last_lines(tasks[place].log)))
        # a spooled job stays in the queue after its end
        found[place] = left if now is None or (now.word == ENDING and left.word in (DONE, FAILED)) else now
    return found


def ended(place: Path, *, alive: bool) -> State:
    """State of a job that is not in the queue, by what it left; `alive`: others of its submission are there."""
    result, events = place / OUT / "exit_code", read_events(place / "job.log")
    if events.ended:
        return State(REMOVED, events.number, events.ended)
    if result.exists():
        code = result.read_text().strip()
        return State(DONE, events.number) if code == "0" else State(FAILED, events.number, failure(place, code))
    if events.exit_code is not None:
        return State(FAILED, events.number, failure(place, str(events.exit_code)))
    if alive and not events.number:
        return State(WAITING, "", UNTRIED)
    left = (place / "job.err").exists() or (place / OUT).exists() or events.number
    return State(LOST, events.number, "ended without a result" if left else "never started")


def failure(place: Path, code: str) -> str:
    """Why a job failed: the last thing it said."""
    said = last_words(place / "job.err")
    return f"exit code {code}: {said}" if said else f"exit code {code}"


def last_words(path: Path) -> str:
    """The last line of a text that is not empty."""
    return next(reversed(last_lines(path)), "")[:300]


def last_lines(path: Path) -> list[str]:
    """The last lines of a text, without empty ones."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def progress(folder: Path, ledger: Ledger, item: Item, state: State, *, ask: bool) -> str:
    """How far a training is: its epoch and areas, as it says itself."""
    history = folder / "items" / item.label / OUT / "taggers" / f"{item.label}.history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    if lines and (state.word != RUNNING or ledger.settings().in_place):
        return in_words(json.loads(lines[-1]))
    if ledger.kind != "htcondor" or not ask:
        return ""
    said = re.findall(r": (epoch \d+ of \d+: .*)", pool.tail(state.number))
    return said[-1] if said else ""


def in_words(epoch: dict[str, object]) -> str:
    """An epoch of a history."""
    auc = epoch.get("auc")
    areas = {name: area.get("BvsL") for name, area in auc.items()} if isinstance(auc, dict) else {}
    said = ", ".join(f"{name} {area:.4f}" for name, area in areas.items() if isinstance(area, float))
    return f"epoch {epoch['epoch']}: BvsL {said}" if said else f"epoch {epoch['epoch']}"


def table(folder: Path, ledger: Ledger, found: dict[str, State]) -> Table:
    """One row for each job."""
    shown = Table("job", "state", "number", "how far, or why", title=f"{ledger.name}: {summary(found)}")
    looks = 0
    for stage, item in ledger.items():
        state = found[f"{stage}/{item.label}"]
        words = state.reason
        if state.word in (RUNNING, DONE) and stage == "train":
            looks += state.word == RUNNING
            words = progress(folder, ledger, item, state, ask=looks <= LOOKS) or words
        shown.add_row(item.label, state.word + tries(folder / "items" / item.label), state.number, words)
    return shown


def tries(place: Path) -> str:
    """How often a job was evicted or failed before, in words."""
    events = read_events(place / "job.log")
    said = [f"{events.evictions} x evicted"] if events.evictions else []
    again = events.starts - events.evictions - 1
    said += [f"{again} x again"] if again > 0 else []
    return f" ({', '.join(said)})" if said else ""


def show(console: Console, folder: Path, ledger: Ledger) -> None:
    """Print the table, and why nothing runs if HTCondor knows."""
    if ledger.kind == "htcondor" and ledger.site["spool"]:
        pool.fetch(ledger, folder)
    found = states(folder, ledger)
    console.print(table(folder, ledger, found))
    if reason := why_idle(ledger, found):
        console.print(f"no machine takes them: {reason}", soft_wrap=True)


def summary(found: dict[str, State]) -> str:
    """How many jobs are in which state."""
    counted = Counter(state.word for state in found.values())
    return ", ".join(f"{number} {word}" for word, number in counted.most_common())


def why_idle(ledger: Ledger, found: dict[str, State]) -> str:
    """If all jobs that are left are idle: which requirement no machine meets, as far as HTCondor knows."""
    left = [state for state in found.values() if state.word not in ENDED]
    idle = [state for state in left if state.word == IDLE and state.number]
    if ledger.kind != "htcondor" or not idle or len(idle) < len(left):
        return ""
    return pool.why_idle(idle[0].number)
