"""Corrections of simulation: the weight of every jet, nominal and varied, and the shifts of jet energies."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from configs.corrections import Applied, Correction, EventWeight, JetEnergy, JetWeight, LeptonWeight
from processors.factors import Factor, Kept, load_factor
from processors.jetenergy import Energy, load_energy
from processors.jets import Ints, Jets
from processors.regions import Selected
from processors.theory import Theory

Floats = NDArray[np.float64]

NOMINAL = "nominal"


class Corrections:
    """All corrections of a configuration: files read and checked, ready to travel to workers without them.

    Args:
        config: sections by name
        datasets: name to `is it data`; data is never corrected

    Raises:
        AdvtagError: a file, a key, an input or the name of a systematic is missing
    """

    def __init__(self, config: Mapping[str, Correction], datasets: Mapping[str, bool]) -> None:
        self.datasets = dict(datasets)
        self.weighing: list[Factor | Theory] = []
        self.energies: list[Energy] = []
        for name, section in config.items():
            if isinstance(section, JetEnergy):
                self.energies.append(load_energy(name, section))
            elif isinstance(section, EventWeight | LeptonWeight | JetWeight):
                self.weighing.append(load_factor(name, section))
            else:
                self.weighing.append(Theory(name, section))
        for dataset in self.datasets:
            if len(self._energy(dataset)) > 1:
                raise AdvtagError(f"corrections: dataset {dataset!r} has two of kind `jets`; use their key `datasets`")
        twice = [name for name in self.variations if self._names().count(name) > 1 and name not in self._shapes()]
        if twice:
            raise AdvtagError(f"corrections: two sections give a variation {twice[0]!r}; rename one")

    @property
    def variations(self) -> tuple[str, ...]:
        """Names of all variations, `nominal` first, known before any event is read."""
        return tuple(dict.fromkeys(self._names()))

    def branches(self, data: bool, dataset: str | None = None) -> list[tuple[str, ...]]:
        """Branches that are read, as `processors.fileset.required` takes them; of one dataset, or of all."""
        if data:
            return []
        parts: list[Factor | Theory | Energy] = [*self.weighing, *self.energies]
        chosen = [part for part in parts if dataset is None or _applies(part.config, dataset, None)]
        return list(dict.fromkeys(names for part in chosen for names in part.branches))

    def shifts(self, events: Any, data: bool) -> Iterator[tuple[str, Any]]:
        """Name and events: the nominal ones, with corrected jets, then each shape variation.

        A dataset whose jets are not corrected has the nominal ones alone: its variations of shape are the nominal.

        Raises:
            AdvtagError: a jet is outside of what the corrections cover
        """
        energies = [] if data else self._energy(events.metadata["dataset"])
        if not energies:
            yield NOMINAL, events
            return
        yield from energies[0].shifted(events)

    def shifts_of(self, dataset: str) -> tuple[str, ...]:
        """Names of the shape variations that a dataset has, without `nominal`."""
        return tuple(name for energy in self._energy(dataset) for name in energy.shifts)

    def weights(
        self, events: Any, jets: Jets, region: str, selected: Selected, shift: str = NOMINAL
    ) -> dict[str, Floats]:
        """Full weight of each jet, float64 [jets], 0 for jets that the region does not keep.

        Args:
            events: of the shift
            jets: of these events, with their generator weights
            region: its name
            selected: what it selects of them
            shift: a name of `shifts`

        Returns:
            the weight by the name of the shift; for the nominal one also that of every variation of weights, which is
            the nominal weight itself, the same array, where a correction does not apply. Data has `nominal` alone.

        Raises:
            AdvtagError: a value is outside of what a file covers, or a factor is not finite
        """
        index = np.flatnonzero(selected.kept)
        rows, back = np.unique(jets.owner[index], return_inverse=True)
        kept = Kept(events, jets, selected, index, rows, back)
        dataset = events.metadata["dataset"]
        generator = jets.weight[index].astype(np.float64)
        data = self.datasets[dataset]
        here = [] if data else [part for part in self.weighing if _applies(part.config, dataset, region)]
        factors = [part.nominal(kept) if isinstance(part, Factor) else np.ones(len(index)) for part in here]
        found = {shift: _spread(generator * np.prod(factors, axis=0), index, len(jets))}
        if data or shift != NOMINAL:
            return found
        found |= dict.fromkeys((name for part in self.weighing for name in part.variations), found[shift])
        for place, part in enumerate(here):
            rest = generator * np.prod([factor for other, factor in enumerate(factors) if other != place], axis=0)
            for name, factor in _varied(part, kept):
                found[name] = _spread(rest * factor, index, len(jets))
        return found

    def _energy(self, dataset: str) -> list[Energy]:
        return [energy for energy in self.energies if _applies(energy.config, dataset, None)]

    def _names(self) -> list[str]:
        return [NOMINAL, *(name for part in self.weighing for name in part.variations), *self._shapes()]

    def _shapes(self) -> list[str]:
        return [name for energy in self.energies for name in energy.shifts]


def _applies(config: Applied, dataset: str, region: str | None) -> bool:
    named = config.datasets is None or dataset in config.datasets
    return named and (region is None or config.regions is None or region in config.regions)


def _varied(part: Factor | Theory, kept: Kept) -> Iterator[tuple[str, Floats]]:
    if isinstance(part, Factor):
        yield from part.varied(kept)
        return
    for name, factor in part.varied(kept.events, kept.rows):
        yield name, factor[kept.back]


def _spread(kept: Floats, index: Ints, jets: int) -> Floats:
    weight = np.zeros(jets)
    weight[index] = kept
    return weight
