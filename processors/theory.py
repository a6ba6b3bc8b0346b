"""Weights of the generator's own uncertainties: scales of the parton shower and matrix element, parton densities."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from configs.corrections import LHEPdf, LHEScale, PartonShower
from processors.jets import Ints

Floats = NDArray[np.float64]
Entries = tuple[tuple[float, float], ...]

NUMBER = r'\s*=\s*"?([\d.]+(?:[eEdD][+-]?\d+)?)"?'
FIRST = re.compile(r"(?:ISR|mur|renscfact)" + NUMBER, re.IGNORECASE)
SECOND = re.compile(r"(?:FSR|muf|facscfact)" + NUMBER, re.IGNORECASE)
"""The two scales of an entry in the title of its branch, over the generators and the versions of NanoAOD."""


@dataclass(frozen=True)
class Theory:
    """The variations of one section; its nominal factor is 1."""

    name: str
    config: PartonShower | LHEScale | LHEPdf

    @property
    def branch(self) -> str:
        """Name of the branch, one list of weights relative to the nominal one per event."""
        return {"ps": "PSWeight", "scale": "LHEScaleWeight", "pdf": "LHEPdfWeight"}[self.config.kind]

    @property
    def branches(self) -> list[tuple[str, ...]]:
        """What is read."""
        return [(self.branch,), (f"n{self.branch}",)]

    @property
    def variations(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f"{self.name}{source}_{side}" for source, _, _ in self._sources() for side in ("up", "down"))

    def varied(self, events: Any, rows: Ints) -> Iterator[tuple[str, Floats]]:
        """Name and factor, float64 [rows], of each variation for some of the events.

        Raises:
            AdvtagError: the branch does not hold the entries, or its title does not tell which they are
        """
        if len(rows) == 0:
            yield from ((name, np.ones(0)) for name in self.variations)
            return
        weights = self._weights(events)[rows]
        if isinstance(self.config, LHEPdf):
            spread = _spread(weights, self.config, self._where(events))
            yield from ((f"{self.name}_up", 1 + spread), (f"{self.name}_down", 1 - spread))
            return
        entries = self.config.entries or self._titled(events)
        if len(entries) != weights.shape[1]:
            raise AdvtagError(f"{self._where(events)} holds {weights.shape[1]} entries, not {len(entries)}")
        for source, up, down in self._sources():
            for side, asked, extreme in (("up", up, np.max), ("down", down, np.min)):
                chosen = weights[:, [self._entry(entries, scales, events) for scales in asked]]
                if len(asked) > 1:  # the envelope holds the nominal scales, too
                    chosen = np.column_stack([chosen, np.ones(len(chosen))])
                yield f"{self.name}{source}_{side}", extreme(chosen, axis=1)

    def _sources(self) -> list[tuple[str, Entries, Entries]]:
        """Name, and the entries of up and down; of several the largest, or smallest, counts."""
        if isinstance(self.config, PartonShower):
            return [("_isr", ((2, 1),), ((0.5, 1),)), ("_fsr", ((1, 2),), ((1, 0.5),))]
        if isinstance(self.config, LHEPdf):
            return [("", (), ())]
        if self.config.vary == "separate":
            return [
                ("_muR", ((2, 1),), ((0.5, 1),)),
                ("_muF", ((1, 2),), ((1, 0.5),)),
                ("_both", ((2, 2),), ((0.5, 0.5),)),
            ]
        six: Entries = ((0.5, 0.5), (0.5, 1), (1, 0.5), (1, 2), (2, 1), (2, 2))
        return [("", six, six)]

    def _where(self, events: Any) -> str:
        return f"corrections.{self.name}: {events.metadata['filename']}: {self.branch}"

    def _weights(self, events: Any) -> Floats:
        """All weights, float64 [events, entries]."""
        array = events[self.branch]
        number = ak.to_numpy(ak.num(array))
        if len(np.unique(number)) != 1 or number[0] < 2:
            found = ", ".join(map(str, np.unique(number)))
            raise AdvtagError(
                f"{self._where(events)} holds {found} entries per event, so no variations; "
                "leave this dataset out by the correction's key `datasets`"
            )
        weights = np.asarray(ak.to_numpy(ak.flatten(array)), np.float64).reshape(len(number), -1)
        if not np.isfinite(weights).all():
            raise AdvtagError(f"{self._where(events)} holds values that are not finite; drop the file")
        return weights

    def _titled(self, events: Any) -> Entries:
        title = getattr(events[self.branch], "__doc__", None) or ""
        told = {}
        for part in re.split(r"(?=\[\d+\] is )", title)[1:]:
            first, second, index = FIRST.search(part), SECOND.search(part), re.match(r"\[(\d+)\]", part)
            if first and second and index:
                told[int(index[1])] = (_number(first[1]), _number(second[1]))
        if not told or sorted(told) != list(range(len(told))):
            raise AdvtagError(
                f"{self._where(events)}: its title does not tell the scales of the entries ({title.strip()[:60]!r}); "
                "give them by the correction's key `entries`"
            )
        return tuple(told[index] for index in range(len(told)))

    def _entry(self, entries: Entries, scales: tuple[float, float], events: Any) -> int:
        if scales not in entries:
            raise AdvtagError(f"{self._where(events)} has no entry with scales {scales[0]:g} and {scales[1]:g}")
        return entries.index(scales)


def _number(text: str) -> float:
    return float(text.lower().replace("d", "e"))


def _spread(weights: Floats, config: LHEPdf, where: str) -> Floats:
    """Relative uncertainty of each event, float64 [rows] (PDF4LHC15, arXiv:1510.03865)."""
    last = max(config.members[1], *(config.alpha_s or (0, 0)), config.central or 0)
    if last >= weights.shape[1]:
        raise AdvtagError(f"{where} holds {weights.shape[1]} entries, the configuration asks for entry {last}")
    members = weights[:, config.members[0] : config.members[1] + 1]
    if config.method == "replicas":
        squared = members.var(axis=1, ddof=1)
    else:
        central = np.ones(len(weights)) if config.central is None else weights[:, config.central]
        squared = ((members - central[:, None]) ** 2).sum(axis=1)
    if config.alpha_s is not None:
        low, high = config.alpha_s
        squared = squared + ((weights[:, high] - weights[:, low]) / 2) ** 2
    spread: Floats = np.sqrt(squared)
    return spread
