"""Before any job starts: are the files readable, do they hold the branches, how many events are expected."""

import glob
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import uproot
from coffea.processor.executor import FileMeta, WorkItem

from common.errors import AdvtagError
from configs.schema import Dataset, Region
from models.features import FeatureSet
from processors.constituents import made_from
from processors.regions import needs_leptons

IDENTITY = ("run", "luminosityBlock", "event")
KINEMATICS = ("Jet_pt", "Jet_eta", "Jet_phi")
TRUTH = ("genWeight", "Jet_hadronFlavour")
CONSTITUENTS = ("PFCands_", "JetPFCands_", "JetSVs_")
LEPTON = ("pt", "eta", "phi", "charge")


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

    def chunks(self, chunksize: int) -> list[WorkItem]:
        """Ranges of at most about `chunksize` events, as coffea's Runner takes them."""
        metadata = {"numentries": self.events, "uuid": self.uuid}
        return list(FileMeta(self.dataset, self.path, self.tree, metadata).chunks(chunksize, False))


def required(features: FeatureSet, regions: Iterable[Region], *, data: bool) -> tuple[tuple[str, ...], ...]:
    """Branches that a job reads; each is a tuple of the names that it may have."""
    names: dict[tuple[str, ...], None] = {}
    for name in (*IDENTITY, *KINEMATICS, *(() if data else TRUTH)):
        names[(name,)] = None
    for feature in features.inputs:
        names |= dict.fromkeys(made_from(feature.branch))
        if feature.present is not None:
            names |= dict.fromkeys(made_from((feature.present.branch,)))
    for region in regions:
        if needs_leptons(region):
            for collection in ("Muon", "Electron"):
                for field in LEPTON:
                    names[(f"{collection}_{field}",)] = None
    return tuple(names)


def read_list(features: FeatureSet, regions: Sequence[Region]) -> list[str]:
    """Every name that a job may read, counters included: the only branches NanoEvents needs to build."""
    names = {name for names in required(features, regions, data=False) for name in names}
    names |= {"Jet_nBHadrons", "Jet_mass"}
    counters = {f"n{name.partition('_')[0]}" for name in names if "_" in name}
    return sorted(names | counters)


def open_fileset(datasets: Mapping[str, Dataset], features: FeatureSet, regions: Sequence[Region]) -> list[File]:
    """Open every file of the datasets and check it.

    Raises:
        AdvtagError: a pattern matches nothing; a file is there twice, cannot be read, or lacks a tree or branch
    """
    listed = [(name, path) for name, dataset in datasets.items() for path in _paths(name, dataset)]
    times = Counter(path for _, path in listed)
    for name, path in listed:
        if times[path] > 1:
            raise AdvtagError(f"dataset {name!r}: {path} is listed twice; its events would count twice")

    def check(entry: tuple[str, str]) -> File:
        name, path = entry
        dataset = datasets[name]
        return _check(name, path, dataset.tree, required(features, regions, data=dataset.data))

    with ThreadPoolExecutor(max_workers=8) as pool:
        files = list(pool.map(check, listed))
    first: dict[bytes, File] = {}
    for file in files:
        same = first.setdefault(file.uuid, file)
        if same is not file:
            raise AdvtagError(
                f"{file.path}: a copy of {same.path} (the files have one UUID); its events would count twice. Drop one"
            )
    return files


def _paths(name: str, dataset: Dataset) -> list[str]:
    paths: list[str] = []
    for pattern in dataset.files:
        # not Path.glob: a pattern may be absolute, or a URL
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
        if not found:
            raise AdvtagError(f"dataset {name!r}: no file matches {pattern}")
        paths += found
    return paths


def _check(dataset: str, path: str, tree: str, branches: tuple[tuple[str, ...], ...]) -> File:
    try:
        with uproot.open(path) as file:
            if tree not in {key.partition(";")[0] for key in file.keys(recursive=False)}:
                raise AdvtagError(f"{path}: no tree {tree!r}, so not NanoAOD; dataset {dataset!r}, key `tree`")
            events: Any = file[tree]
            held = set(events.keys(recursive=False))  # recursion into an RNTuple takes uproot 5.7 seconds
            for names in branches:
                if not held.intersection(names):
                    remedy = "choose another feature card, or drop the file"
                    if names[0].startswith(CONSTITUENTS):
                        remedy = (
                            "the feature card reads constituents: take PFNano files, simulate with `--constituents`, "
                            "or choose another card"
                        )
                    raise AdvtagError(
                        f"{path}: no branch {' or '.join(names)}, which dataset {dataset!r} needs; {remedy}"
                    )
            return File(dataset, path, tree, events.num_entries, file.file.uuid.bytes, "Jet_nBHadrons" in held)
    except AdvtagError:
        raise
    except ImportError as error:
        raise AdvtagError(f"{path}: needs `pip install advtag[xrootd]` to be read ({dataset!r}: {error})") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AdvtagError(f"{path}: no such file, or a folder (dataset {dataset!r})") from error
    except Exception as error:  # uproot raises many types for damaged files, OSError to struct.error
        reason = " ".join(str(error).split())[:150]
        raise AdvtagError(
            f"{path}: cannot be read as a ROOT file (dataset {dataset!r}; {type(error).__name__}: {reason}); "
            "it may be truncated: copy it again"
        ) from error
