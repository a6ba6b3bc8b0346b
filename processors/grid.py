"""Files on the grid: CMS datasets through Rucio by coffea's dataset tools, and /store/... through redirectors."""

import re
from collections.abc import Sequence

from common.errors import AdvtagError
from configs.fileset import Grid

DATASET = re.compile(r"/[\w.-]+/[\w.]+-[\w.-]+/(NANOAOD|NANOAODSIM|USER)")
"""Primary dataset, processed dataset (era-processing, or user-name-hash), tier: the names in DAS."""
STORE = "/store/"
PLACES = 4
"""Sites kept for a file: popular ones are at dozens."""


def is_dataset_name(entry: str) -> bool:
    """Whether an entry of `files` is the name of a dataset in DAS."""
    return DATASET.fullmatch(entry) is not None


def is_lfn(entry: str) -> bool:
    """Whether an entry is a logical file name, /store/..., the same at every site."""
    return entry.startswith(STORE) and entry.endswith(".root")


def at_redirectors(lfn: str, sites: Grid) -> tuple[str, ...]:
    """The URLs of a logical file name at the redirectors."""
    return tuple(f"root://{host}/{lfn}" for host in sites.redirectors)


def replicas(dataset: str, sites: Grid) -> list[tuple[str, ...]]:
    """The places of every file of a CMS dataset.

    Needs the client of Rucio, /cvmfs/cms.cern.ch and a VOMS proxy. coffea writes `.sites_map.json` into the working
    directory.

    Raises:
        AdvtagError: one of them is missing, Rucio does not know the dataset, or a file is at none of the sites
    """
    try:
        from coffea.dataset_tools import rucio_utils
    except ImportError as error:
        raise AdvtagError(
            f"{dataset}: needs `pip install rucio-clients` to be found ({error}); or list its files as /store/..."
        ) from error
    # coffea looks at only one of its two lists
    allowed = [site for site in sites.allow_sites if site not in sites.block_sites]
    if sites.allow_sites and not allowed:
        raise AdvtagError("grid: every site of `allow_sites` is in `block_sites`, too")
    try:
        client = rucio_utils.get_rucio_client()
        files, _, _ = rucio_utils.get_dataset_files_replicas(
            dataset, allowlist_sites=allowed, blocklist_sites=list(sites.block_sites), mode="full", client=client
        )
    except Exception as error:  # coffea raises Exception, Rucio dozens of its own, a missing /cvmfs OSError
        text = " ".join(str(error).split())[:200]
        raise AdvtagError(
            f"{dataset}: Rucio gives no files ({type(error).__name__}: {text}); it needs a VOMS proxy "
            "(voms-proxy-init -voms cms) and /cvmfs/cms.cern.ch; see the key `grid` for the sites"
        ) from error
    if not files:
        raise AdvtagError(f"{dataset}: Rucio knows no file of it; check the name in DAS")
    return places(files, sites)


def places(files: Sequence[Sequence[str]], sites: Grid) -> list[tuple[str, ...]]:
    """Where to read each file, in order: at sites, then through redirectors.

    Args:
        files: URLs of the replicas of each file, as coffea's `get_dataset_files_replicas(mode="full")` gives them
        sites: without `allow_sites` the first place goes round the sites of a file, so that not all jobs read at one

    Raises:
        AdvtagError: a file is nowhere
    """
    result = []
    for index, urls in enumerate(files):
        if not urls:
            raise AdvtagError(f"grid: file {index + 1} of {len(files)} is at none of the sites; allow more")
        turn = 0 if sites.allow_sites else index % len(urls)
        here = [*urls[turn:], *urls[:turn]]
        lfn = STORE + here[0].rpartition(STORE)[2]
        elsewhere = at_redirectors(lfn, sites) if STORE in here[0] else ()
        result.append((*here[:PLACES], *elsewhere))
    return result
