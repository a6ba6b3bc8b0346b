"""The progress bar of every long job."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Speed(ProgressColumn):
    """Speed in the bar's unit."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text(self.unit)
        return Text(f"{speed:.{0 if speed >= 10 else 1}f} {self.unit}/s")


def progress_bar(unit: str, *, show: bool) -> Progress:
    """A progress bar on stderr with speed and time left; nothing where stderr is not a terminal.

    Args:
        unit: what is counted, in the plural
        show: False hides it everywhere
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(unit),
        TimeRemainingColumn(),
        console=console,
        disable=not (show and console.is_terminal),
    )
