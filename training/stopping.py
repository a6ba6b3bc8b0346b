"""When to leave a training before its end: a batch system asks for the machine, or the time of a job is up."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

TERMINATED = 143
"""Exit code after SIGTERM, as shells report it."""
CHECKPOINTED = 85
"""Exit code that HTCondor takes for "go on from the checkpoint" (`checkpoint_exit_code = 85` in the job)."""


class Stopping:
    """Asked by SIGTERM, or after a time; the loop looks at `wanted` after each step, saves and leaves.

    Args:
        minutes: until the job saves and leaves with exit code 85, to be started again by HTCondor; None: never. With
            it, SIGTERM leads to 85 too.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.exit_code = TERMINATED if minutes is None else CHECKPOINTED
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._asked = False
        self._before: Any = None

    @property
    def wanted(self) -> bool:
        """Time to leave."""
        return self._asked or (self._end is not None and time.monotonic() >= self._end)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # nobody else may touch signals
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
