"""HTCondor's queue, through the programs of the site, whose version is always right."""

import json
import re
from pathlib import Path
from typing import Any

from common.errors import AdvtagError
from condor import bindings
from condor.ledger import Ledger
from condor.state import ENDING, HELD, IDLE, RUNNING, State
from condor.tell import tell

STATES = {1: IDLE, 2: RUNNING, 3: "removed", 4: ENDING, 5: HELD, 6: RUNNING, 7: "suspended"}
"""HTCondor's JobStatus (manual, Job ClassAd Attributes)."""
SPOOLING = 16
REASONS = {
    1: "you, or an administrator, held it",
    3: "its own policy",
    6: "its script could not be started there",
    12: "its output could not be brought back",
    13: "its input could not be brought there",
    14: "the submission's folder cannot be entered",
    26: "a rule of the site",
    34: "it needed more than it had asked for: submit with a larger --option memory",
}
"""HoldReasonCode in plain words (same place)."""
ATTRIBUTES = "ClusterId,ProcId,AdvtagItem,AdvtagStage,JobStatus,HoldReason,HoldReasonCode,RemoteHost"


def submit(folder: Path, ledger: Ledger, description: str) -> str:
    """Submit a description in a folder, with HTCondor's Python module or its program; return the number of the cluster.

    Raises:
        AdvtagError: HTCondor does not take the jobs; none of them is in the queue
    """
    if not ledger.site["spool"] and bindings.fits():
        return bindings.submit(folder, description)
    options = ["-spool"] if ledger.site["spool"] else []
    told = tell(["condor_submit", "-terse", *options, description], folder, what="the jobs cannot be submitted")
    match = re.search(r"^(\d+)\.\d+ - \d+\.\d+", told, re.MULTILINE)
    if match is None:
        raise AdvtagError(f"the jobs cannot be submitted: condor_submit says {' '.join(told.split())[:200]!r}")
    return match[1]


def submit_dag(folder: Path, ledger: Ledger, description: str, *, again: bool = False) -> str:
    """Start DAGMan on a DAG; return its number. `again`: what is done stays done, by its newest rescue file."""
    at_once = ledger.site["at_once"]
    command = [
        "condor_submit_dag",
        "-batch-name",
        f"advtag-{ledger.name}",
        "-append",
        f'MY.AdvtagSubmission = "{ledger.identity}"',
        *(["-maxjobs", str(at_once)] if at_once else []),
        *(["-update_submit", "-autorescue", "1"] if again else []),
        description,
    ]
    told = tell(command, folder, what="the DAG cannot be submitted")
    match = re.search(r"submitted to cluster (\d+)", told)
    if match is None:
        raise AdvtagError(f"the DAG cannot be submitted: condor_submit_dag says {' '.join(told.split())[:200]!r}")
    return match[1]


def queue(ledger: Ledger) -> dict[str, State]:
    """State of each job in the queue by STAGE/LABEL; DAGMan's own as "dag".

    Raises:
        AdvtagError: the schedd does not answer
    """
    mine = f'AdvtagSubmission == "{ledger.identity}"'
    command = ["condor_q", "-constraint", mine, "-json", "-attributes", ATTRIBUTES]
    told = tell(command, what="the queue cannot be asked")
    found: dict[str, State] = {}
    for ad in json.loads(told or "[]"):
        place = f"{ad['AdvtagStage']}/{ad['AdvtagItem']}" if "AdvtagItem" in ad else "dag"
        found[place] = _state(ad)
    return found


def _state(ad: dict[str, Any]) -> State:
    number = f"{ad['ClusterId']}.{ad['ProcId']}"
    code = ad.get("HoldReasonCode")
    word = STATES.get(ad["JobStatus"], "unknown")
    if word == HELD and code == SPOOLING:
        return State(IDLE, number, "its files are on their way to the schedd")
    if word == HELD:
        plain = REASONS.get(code or 0)
        said = " ".join(str(ad.get("HoldReason", "")).split())
        return State(HELD, number, f"{plain} ({said})" if plain else said)
    return State(word, number, ad.get("RemoteHost", "") if word == RUNNING else "")


def remove(ledger: Ledger) -> None:
    """Remove all jobs of a submission from the queue, if there are any; condor_rm fails if there are none."""
    if queue(ledger):
        tell(["condor_rm", "-constraint", f'AdvtagSubmission == "{ledger.identity}"'], what="no removal")


def fetch(ledger: Ledger, folder: Path) -> None:
    """Bring back what a submission with `spool` left with the schedd."""
    mine = f'AdvtagSubmission == "{ledger.identity}"'
    tell(["condor_transfer_data", "-constraint", mine], folder, what="the output cannot be fetched")


def tail(number: str) -> str:
    """Newest lines that a running job wrote to stderr; empty where the site does not let one look."""
    try:
        return tell(["condor_tail", "-no-stdout", "-stderr", "-maxbytes", "4000", number], what="no look")
    except AdvtagError:
        return ""


def why_idle(number: str) -> str:
    """Which requirement of an idle job no machine meets; empty where HTCondor does not know."""
    try:
        told = tell(["condor_q", "-better-analyze", number], what="no analysis")
    except AdvtagError:
        return ""
    unmet = re.search(r"^\[\d+\]\s+0\s+(.+)$", told, re.MULTILINE)
    if unmet is None:
        return ""
    terms = re.findall(r"^\s+((?:RequireGPUs|GPUsMin\w+|Request\w+) = .+)$", told, re.MULTILINE)
    named = [term for term in terms if term.split()[0] in _named(unmet[1], terms)]
    return f"{unmet[1]}, where {', '.join(named)}" if named else unmet[1]


def _named(condition: str, terms: list[str]) -> set[str]:
    """Names that a condition mentions, and those that their definitions mention."""
    known = {term.split()[0]: term for term in terms}
    direct = {name for name in known if name in condition}
    return direct | {name for name in known for other in direct if name in known[other]}
