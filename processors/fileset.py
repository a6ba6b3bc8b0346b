"""Before any job starts: are the files readable, do they hold the branches, how many events are expected."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from configs.fileset import Grid
from configs.schema import Dataset, Region, Run
from models.features import FeatureSet
from processors.constituents import made_from
from processors.find import find_files
from processors.preflight import Found, inspect, refuse
from processors.records import Record, finite
from processors.regions import branches

IDENTITY = ("run", "luminosityBlock", "event")
KINEMATICS = ("Jet_pt", "Jet_eta", "Jet_phi")
TRUTH = ("genWeight", "Jet_hadronFlavour")
SIMULATED = ("genWeight", "Generator_weight", "GenPart_pt", "GenJet_pt", "Jet_hadronFlavour", "Jet_genJetIdx")
"""Branches that only simulation has."""
CONSTITUENTS = ("PFCands_", "JetPFCands_", "JetSVs_")

Names = tuple[str, ...]
"""Of a branch: the names that it may have."""
Also = Mapping[str, Sequence[Names]]


@dataclass(frozen=True)
class File:
    """One input file, checked."""

    dataset: str
    path: str
    tree: str
    events: int
    uuid: bytes
    splits_b: bool
    """Has Jet_nBHadrons, so that bb can be told from b."""
    replicas: tuple[str, ...] = ()
    """Other places of the same file, in the order in which to try them."""
    sum_weights: float = 0.0
    """What normalises MC: of the tree `Runs` where there is one, else of genWeight in `Events`. Data: events."""
    record: Record | None = field(default=None, repr=False, compare=False)
    """All that opening the file told."""


def required(
    features: FeatureSet, regions: Iterable[Region], *, data: bool, also: Iterable[Names] = ()
) -> tuple[Names, ...]:
    """Branches that a job reads; each is a tuple of the names that it may have. `also`: those of triggers, filters and
    corrections of a dataset.
    """
    names: dict[tuple[str, ...], None] = {}
    for name in (*IDENTITY, *KINEMATICS, *(() if data else TRUTH)):
        names[(name,)] = None
    for feature in features.inputs:
        names |= dict.fromkeys(made_from(feature.branch))
        if feature.present is not None:
            names |= dict.fromkeys(made_from((feature.present.branch,)))
    for region in regions:
        names |= dict.fromkeys(branches(region))
    return (*names, *(more for more in also if more not in names))


def read_list(
    features: FeatureSet, regions: Sequence[Region], datasets: Mapping[str, bool], also: Also = MappingProxyType({})
) -> dict[str, frozenset[str]]:
    """Every name that a job may read, counters included, for each dataset (name to `is it data`): the only branches
    that NanoEvents needs to build.
    """
    reads = {}
    for dataset, data in datasets.items():
        names = {name for names in required(features, regions, data=data, also=also.get(dataset, ())) for name in names}
        names |= {"Jet_mass", *(() if data else ("Jet_nBHadrons",))}
        reads[dataset] = frozenset(names | {f"n{name.partition('_')[0]}" for name in names if "_" in name})
    return reads


def open_fileset(
    datasets: Mapping[str, Dataset],
    features: FeatureSet | None,
    regions: Sequence[Region],
    *,
    also: Also = MappingProxyType({}),
    grid: Grid | None = None,
    run: Run | None = None,
    cache: Path | None = None,
    check: bool = False,
    progress: bool = False,
) -> list[File]:
    """Find every file of the datasets, look into it, and check it; all problems are told at once.

    Args:
        datasets: by name
        features: feature card whose branches must be there; None: those of any job
        regions: selections whose branches must be there
        also: further branches that must be there, by dataset
        grid: where files of the grid are read
        run: with `executor: dask` many files are opened by the cluster's workers; else by threads of this process
        cache: JSON of what earlier calls saw, brought up to date; None: nothing is kept
        check: open files that are known and look unchanged, too
        progress: show a progress bar

    Raises:
        AdvtagError: a pattern matches nothing; a file is there twice, cannot be read, lacks a tree or branch, or is
            simulation among data or data among simulation
    """
    found, problems = find_files(datasets, Grid() if grid is None else grid)
    looks = inspect(found, run, cache=cache, check=check, progress=progress)
    needed = {name: _needed(features, regions, dataset.data, also.get(name, ())) for name, dataset in datasets.items()}
    verdicts: dict[tuple[str, frozenset[str]], str] = {}
    files = []
    for file, look in zip(found, looks, strict=True):
        if look.record is None:
            problems.append(look.problem)
            continue
        case = (file.dataset, look.record.branches)
        if case not in verdicts:  # the files of a dataset hold the same branches
            verdicts[case] = _lacks(
                file.dataset, datasets[file.dataset].data, look.record.branches, needed[file.dataset]
            )
        if verdicts[case] or not finite(look.record):
            problems.append(f"{look.place}: {verdicts[case] or _not_finite(file.dataset)}")
            continue
        files.append(_file(file, look.place, look.record, datasets[file.dataset].data))
    refuse([*problems, *_copies(files)], len(found))
    return files


def _needed(
    features: FeatureSet | None, regions: Sequence[Region], data: bool, also: Iterable[Names]
) -> tuple[Names, ...]:
    if features is not None:
        return required(features, regions, data=data, also=also)
    return tuple((name,) for name in (*IDENTITY, *KINEMATICS, *(() if data else TRUTH)))


def _lacks(dataset: str, data: bool, held: frozenset[str], branches: tuple[tuple[str, ...], ...]) -> str:
    """What is wrong with the branches of a file, or nothing."""
    simulated = sorted(held.intersection(SIMULATED))
    if data and simulated:
        return (
            f"has {simulated[0]}, so it is simulation, in the dataset {dataset!r} of data; drop the file, or "
            "`data: true`"
        )
    if not data and not simulated:
        return (
            f"no branch genWeight, nor any other of simulation, so it is data, in the dataset {dataset!r} of MC; "
            "drop the file, or set `data: true`"
        )
    for names in branches:
        if held.isdisjoint(names):
            remedy = "choose another feature card, or drop the file"
            if names[0].startswith(CONSTITUENTS):
                remedy = (
                    "the feature card reads constituents: take PFNano files, simulate with `--constituents`, "
                    "or choose another card"
                )
            return f"no branch {' or '.join(names)}, which dataset {dataset!r} needs; {remedy}"
    return ""


def _not_finite(dataset: str) -> str:
    return f"genWeight holds values that are not finite (dataset {dataset!r}); drop the file"


def _file(found: Found, place: str, record: Record, data: bool) -> File:
    return File(
        found.dataset,
        place,
        found.tree,
        record.events,
        uuid.UUID(record.uuid).bytes,
        "Jet_nBHadrons" in record.branches,
        replicas=tuple(other for other in found.places if other != place),
        sum_weights=float(record.events) if data or record.sum_weights is None else record.sum_weights,
        record=record,
    )


def _copies(files: Sequence[File]) -> list[str]:
    first: dict[bytes, File] = {}
    return [
        f"{file.path}: a copy of {same.path} (the files have one UUID); its events would count twice. Drop one"
        for file in files
        if (same := first.setdefault(file.uuid, file)).path != file.path
    ]
