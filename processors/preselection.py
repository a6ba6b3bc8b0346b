"""Before any region looks at an event: certified luminosity blocks, filters against noise, triggers."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from configs.regions import Region
from configs.schema import Dataset
from processors.jets import numbers

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Golden:
    """Certified ranges of luminosity blocks, rising; `first` and `last`, both inclusive, are keys of `_key`.

    coffea's LumiMask gives the same and compiles for four seconds in every worker.
    """

    first: NDArray[np.uint64]
    last: NDArray[np.uint64]

    def certifies(self, run: NDArray[np.integer], lumi: NDArray[np.integer]) -> Mask:
        """Whether each (run, luminosity block) is certified, bool [events]."""
        key = _key(run, lumi)
        place = np.searchsorted(self.first, key, side="right")
        certified: Mask = key <= np.concatenate([np.zeros(1, np.uint64), self.last])[place]
        return certified


def _key(run: NDArray[np.integer], lumi: NDArray[np.integer]) -> NDArray[np.uint64]:
    return (run.astype(np.uint64) << np.uint64(32)) | lumi.astype(np.uint64)


@dataclass(frozen=True)
class Preselection:
    """What holds for all events of a dataset. It travels to the workers.

    Attributes:
        data: collision data
        triggers: HLT paths by group
        met_filters: branches of the filters against instrumental missing momentum, which must all be true
        veto_triggers: groups whose events are another primary dataset's
        golden: certified luminosity blocks; None: all are
    """

    data: bool = False
    triggers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    met_filters: tuple[str, ...] = ()
    veto_triggers: tuple[str, ...] = ()
    golden: "Golden | None" = None

    def branches(self, region: Region) -> list[tuple[str, ...]]:
        """Branches that `cuts` reads, as `processors.fileset.required` takes them."""
        names = [path for group in (*region.trigger, *self._vetoes(region)) for path in self.triggers[group]]
        return [(name,) for name in dict.fromkeys((*names, *(self.met_filters if region.met_filters else ())))]

    def cuts(self, events: Any, region: Region) -> Iterator[tuple[str, Mask]]:
        """Name and decision, bool [events], of each cut in its order.

        A veto concerns regions that ask for the group, or for no trigger at all: the other primary dataset holds
        nothing that would count in a region without its trigger.

        Raises:
            AdvtagError: the file lacks a branch
        """
        if self.golden is not None:
            yield "golden JSON", self.golden.certifies(numbers(events, "run"), numbers(events, "luminosityBlock"))
        if region.met_filters:
            yield "MET filters", _all(events, self.met_filters)
        if region.trigger:
            yield "trigger", self._any(events, region.trigger)
        if self._vetoes(region):
            yield "veto triggers", ~self._any(events, self._vetoes(region))

    def _vetoes(self, region: Region) -> tuple[str, ...]:
        return tuple(group for group in self.veto_triggers if not region.trigger or group in region.trigger)

    def _any(self, events: Any, groups: Iterable[str]) -> Mask:
        return ~_all(events, [path for group in groups for path in self.triggers[group]], inverted=True)


def _all(events: Any, names: Iterable[str], *, inverted: bool = False) -> Mask:
    passed = np.ones(len(events), np.bool_)
    for name in names:
        if name not in events.fields:
            chunk = events.metadata
            raise AdvtagError(
                f"{chunk['filename']}: no branch {name} (dataset {chunk['dataset']!r}); name those that the files "
                "hold by the dataset's keys `triggers` and `met_filters`"
            )
        decision = numbers(events, name).astype(np.bool_)
        passed &= ~decision if inverted else decision
    return passed


def preselection(name: str, dataset: Dataset) -> Preselection:
    """What holds for the events of a dataset.

    Raises:
        AdvtagError: its golden JSON cannot be read or is not one
    """
    golden = None if dataset.golden is None else read_golden(name, dataset.golden)
    return Preselection(
        dataset.data, dataset.trigger_groups, dataset.filters or (), tuple(dataset.veto_triggers), golden
    )


def read_golden(dataset: str, path: Path) -> Golden:
    """Read a JSON of certified luminosity blocks, {"RUN": [[first, last], ...]}, both inclusive.

    Raises:
        AdvtagError: the file is missing, or not of that form
    """
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdvtagError(f"{path}: cannot read the golden JSON of dataset {dataset!r} ({error.strerror})") from error
    except ValueError as error:
        raise AdvtagError(f"{path}: not JSON, so not the golden JSON of dataset {dataset!r} ({error})") from error
    if not isinstance(written, dict) or not written:
        raise AdvtagError(f'{path}: expected {{"RUN": [[first, last], ...]}}, found {type(written).__name__}')
    for run, ranges in written.items():
        if not run.isdigit() or not _are_ranges(ranges):
            raise AdvtagError(f"{path}: run {run!r}: expected rising ranges [first, last] of luminosity blocks")
    rows = sorted((int(run), first, last) for run, ranges in written.items() for first, last in ranges)
    run, first, last = np.array(rows, np.int64).reshape(-1, 3).T
    return Golden(_key(run, first), _key(run, last))


def _are_ranges(ranges: Any) -> bool:
    """Whether pairs of whole numbers rise, so that they can be searched by bisection."""
    if not isinstance(ranges, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in ranges):
        return False
    flat = [number for pair in ranges for number in pair]
    if not all(isinstance(number, int) and number > 0 for number in flat):
        return False
    inside = all(first <= last for first, last in ranges)
    return inside and all(before[1] < after[0] for before, after in pairwise(ranges))
