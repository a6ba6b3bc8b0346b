"""What is to be run, whatever runs it: the one model that the files of every batch system are rendered from.

The folder of a submission is `OUTPUT/jobs/NAME`. All paths in its files are relative:

ledger.json                  what was submitted, see `condor.ledger`
payload/                     what every job gets: the code, and a feature card or a table if the configuration names one
STAGE.sh, STAGE.sub          the script that a job runs, and its description for the batch system
items/LABEL/config.yaml      the configuration of one job
items/LABEL/out/             what comes back
items/LABEL/job.{out,err,log}
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from configs.sites import Site

CODE = "advtag.zip"
OUT = "out"
"""The one folder that comes back. A job makes it before anything else, for HTCondor holds a job for ever if something
that it should bring back does not exist."""
CHECKPOINTED = 85
"""Exit code of a training that has saved and wants to go on (`training.stopping`)."""
TO_ITEMS = "../../"
"""From the folder of an item to that of the submission."""
TO_OUTPUT = "../../../../"
"""From the folder of an item to the output folder of the analysis."""


@dataclass(frozen=True)
class Item:
    """One job of many."""

    label: str
    """Folder, file and node name: letters, digits, _ and -"""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What it has other than its fellows, for the reader."""


@dataclass(frozen=True)
class Job:
    """A stage of a submission: the same command in the folder of each item."""

    name: str
    """Of the submission."""
    stage: str
    """`train`, `columns`, `histograms` or `evaluate`."""
    identity: str
    """Random; the batch system finds the jobs by it."""
    commands: tuple[tuple[str, ...], ...]
    """Words after `advtag`, one command after another."""
    items: tuple[Item, ...]
    site: Site
    inputs: tuple[str, ...] = ()
    """What a job gets, relative to the folder of its item; there it has its last name."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links in the folder where it runs, to places in it."""
    shared_links: Mapping[str, str] = field(default_factory=dict)
    """Likewise, where the jobs see this disk."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables; those of the site win."""
    fetch: str | None = None
    """xrootd URL of the columns."""
    checkpointed: bool = False
    """It leaves with CHECKPOINTED now and then, and goes on from what is in OUT."""
    proxy: bool = False
    """It needs the user's grid proxy."""


def label_of(text: str, taken: set[str]) -> str:
    """A label for a text, that is not among those taken; it is added to them."""
    short = re.sub(r"[^\w-]+", "_", text, flags=re.ASCII).strip("_-")[:80] or "job"
    label, number = short, 2
    while label in taken:
        label, number = f"{short}_{number}", number + 1
    taken.add(label)
    return label
