"""The log that HTCondor keeps of a job: how often it started and was evicted, and how it ended."""

import re
from dataclasses import dataclass
from pathlib import Path

EVENT = re.compile(r"^(\d{3}) \((\d+)\.(\d+)\.\d+\) ", re.MULTILINE)


@dataclass
class Events:
    """Of the last job that a log tells of."""

    number: str = ""
    """Cluster and process."""
    starts: int = 0
    evictions: int = 0
    exit_code: int | None = None
    last: str = ""
    """Number of the newest kind of event."""
    ended: str = ""
    """Why it was removed, if it was."""


def read_events(path: Path) -> Events:
    """What a log tells; nothing, if there is none."""
    events = Events()
    if not path.exists():
        return events
    text = path.read_text(encoding="utf-8", errors="replace")
    for entry in re.split(r"^\.\.\.\n", text, flags=re.MULTILINE):
        match = EVENT.match(entry)
        if match is None:
            continue
        if match[1] == "000":
            events = Events(f"{int(match[2])}.{int(match[3])}")
        _count(events, match[1], entry)
        events.last = match[1]
    return events


def _count(events: Events, kind: str, entry: str) -> None:
    if kind == "001":
        events.starts += 1
    elif kind == "004":
        events.evictions += 1
    elif kind == "005":
        code = re.search(r"return value (-?\d+)", entry)
        signal = re.search(r"signal (\d+)", entry)
        events.exit_code = int(code[1]) if code else -int(signal[1]) if signal else None
    elif kind == "009":
        events.evictions -= events.last == "004"  # a running job that is removed is first evicted
        said = " ".join(entry.split("\n", 1)[-1].split())
        events.ended = "removed with its DAG" if "OtherJobRemoveRequirements" in said else said or "removed"
