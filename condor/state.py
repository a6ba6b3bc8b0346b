"""How a job is."""

from dataclasses import dataclass, replace

DONE, FAILED, REMOVED, WAITING, IDLE, RUNNING, ENDING, HELD, LOST = (
    "done", "failed", "removed", "waiting", "idle", "running", "ending", "held", "lost",
)  # fmt: skip
ENDED = (DONE, FAILED, REMOVED, LOST)
"""Of which the batch system knows no more."""


@dataclass(frozen=True)
class State:
    """How a job is, and why."""

    word: str
    number: str = ""
    """Of the batch system."""
    reason: str = ""

    def because(self, reason: str) -> "State":
        """The same, for a reason."""
        return replace(self, reason=reason)
