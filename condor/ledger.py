"""What was submitted, in one JSON file of the submission's folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.errors import AdvtagError
from common.files import whole_file
from condor.job import Item
from configs.sites import Site

LEDGER = "ledger.json"
FORMAT = 1


@dataclass
class Ledger:
    """A submission."""

    name: str
    verb: str
    """`train`, `columns` or `histograms`."""
    identity: str
    """Random; the batch system finds the jobs by it."""
    when: str
    """UTC."""
    site_name: str
    site: dict[str, Any]
    stages: dict[str, list[dict[str, Any]]]
    """Items of each stage: `label` and `settings`."""
    dag: bool = False
    expected: dict[str, Any] = field(default_factory=dict)
    """What the parts of a processor must add up to, see `condor.parts`."""
    submissions: list[dict[str, str]] = field(default_factory=list)
    """Each time that jobs were submitted: `number` of the batch system, `stage` and the file of its `items`; `removed`,
    if they were, from a Slurm."""
    format: int = FORMAT

    @property
    def kind(self) -> str:
        """Of the batch system."""
        return str(self.site["kind"])

    @property
    def numbers(self) -> list[str]:
        """Of the batch system."""
        return [entry["number"] for entry in self.submissions]

    def items(self) -> list[tuple[str, Item]]:
        """Stage and item of every job."""
        return [(stage, Item(**item)) for stage, items in self.stages.items() for item in items]

    def settings(self) -> Site:
        """The site as it was."""
        return Site.model_validate(self.site)

    def write(self, folder: Path) -> None:
        """Write it.

        Raises:
            AdvtagError: it cannot be written
        """
        with whole_file(folder / LEDGER) as aside:
            aside.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_ledger(folder: Path) -> Ledger:
    """The ledger of a submission's folder.

    Raises:
        AdvtagError: there is none, or it is not one
    """
    path = folder / LEDGER
    try:
        ledger = Ledger(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise AdvtagError(
            f"{path}: no submission there; name the folder that `advtag submit` printed, OUTPUT/jobs/NAME"
        ) from error
    except (ValueError, TypeError) as error:
        raise AdvtagError(f"{path}: not the ledger of a submission ({error})") from error
    if ledger.format != FORMAT:
        raise AdvtagError(f"{path}: a ledger of format {ledger.format}, this advtag reads {FORMAT}")
    return ledger


def find_submissions(place: Path) -> list[Path]:
    """The submission at a place, or all those in its `jobs`, the oldest first.

    Raises:
        AdvtagError: there is none
    """
    if (place / LEDGER).exists():
        return [place]
    found = [path.parent for pattern in (f"jobs/*/{LEDGER}", f"*/{LEDGER}") for path in place.glob(pattern)]
    if not found:
        raise AdvtagError(f"{place}: no submission there; name OUTPUT/jobs/NAME, or the output folder")
    return sorted(set(found), key=lambda folder: read_ledger(folder).when)
