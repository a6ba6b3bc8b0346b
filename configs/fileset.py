"""Filesets: where grid files are read, and the datasets of a fileset JSON as a configuration's."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from common.errors import AdvtagError
from configs.attacks import Section

Host = Annotated[str, Field(pattern=r"^[\w.-]+(:\d+)?$")]

KEYS = ("data", "cross_section", "era")
"""What `metadata` of a fileset and a dataset of a configuration have in common."""


class Grid(Section):
    """Where files are read that `datasets` names as a CMS dataset (/A/B/NANOAODSIM) or as /store/..."""

    allow_sites: tuple[str, ...] = ()
    """Sites of CMS, the preferred ones first; empty: all that Rucio knows, files spread over them."""
    block_sites: tuple[str, ...] = ()
    redirectors: tuple[Host, ...] = ("cms-xrd-global.cern.ch", "xrootd-cms.infn.it", "cmsxrootd.fnal.gov")
    """Hosts that find a file wherever it is: the places of /store/... in this order, and the last resort of CMS
    datasets. Empty: /store/... is a folder of this machine."""


def read_fileset(path: Path) -> dict[str, Any]:
    """Read a fileset in coffea's format, `{dataset: {"files": {path: {"object_path": ...}}, "metadata": {...}}}`.

    Raises:
        AdvtagError: it cannot be read, or is not one
    """
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdvtagError(
            f"{path}: cannot read the fileset ({error.strerror}); make it with `advtag fileset`"
        ) from error
    except ValueError as error:
        raise AdvtagError(f"{path}: not JSON ({error})") from error
    wanted = "a fileset is {dataset: {'files': {path: {'object_path': tree}}}}; make it with `advtag fileset`"
    if not isinstance(page, dict) or not page:
        raise AdvtagError(f"{path}: no datasets; {wanted}")
    for name, dataset in page.items():
        files = dataset.get("files") if isinstance(dataset, dict) else None
        if not isinstance(files, dict) or not files:
            raise AdvtagError(f"{path}: dataset {name!r} has no `files`; {wanted}")
        for place, entry in files.items():
            tree = entry.get("object_path") if isinstance(entry, dict) else entry
            if not isinstance(tree, str):
                raise AdvtagError(f"{path}: dataset {name!r}, {place}: no `object_path`; {wanted}")
    return page


def with_fileset(written: dict[str, Any], path: Path) -> dict[str, Any]:
    """The keys of a configuration, with the datasets of a fileset added to its `datasets`.

    A dataset that both have gets its files from the fileset; what else the configuration says of it holds.

    Raises:
        AdvtagError: the fileset cannot be read, or both name files for a dataset
    """
    given = written.get("datasets") or {}
    datasets = dict(given) if isinstance(given, dict) else {}
    for name, dataset in read_fileset(path).items():
        ours = datasets.get(name) or {}
        if not isinstance(ours, dict):
            continue  # not valid, and validation says why
        if "files" in ours:
            raise AdvtagError(f"datasets.{name}.files: its files are in the fileset {path}, too; keep one of them")
        metadata = dataset.get("metadata") or {}
        known = {key: metadata[key] for key in KEYS if metadata.get(key) is not None}
        datasets[name] = {"files": str(path), **known, **ours}
    return {**written, "datasets": datasets}
