"""Weights from files: per event, per counted lepton, per jet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from configs.corrections import Efficiency, EventWeight, FromFile, JetWeight, LeptonWeight
from processors.evaluator import Evaluator, Value, check_choice, load_evaluator
from processors.jets import Ints, Jets, numbers
from processors.objects import Leptons, supercluster_eta
from processors.regions import Selected, jet_places

Floats = NDArray[np.float64]

USUAL = {
    "pt": "pt",
    "abseta": "abseta",
    "phi": "phi",
    "flavor": "flavour",
    "NumTrueInteractions": "Pileup_nTrueInt",
}
"""Quantities that inputs of jsonPOG's names are; `eta` is none, because electrons' is that of the supercluster."""
QUANTITIES = {
    "event": (),
    "lepton": ("pt", "eta", "abseta", "phi", "sceta", "abssceta"),
    "jet": ("pt", "eta", "abseta", "phi", "flavour"),
}
"""What an input may be, beside a branch: of the event, of the collection, of the jets."""


@dataclass(frozen=True)
class Kept:
    """The jets that a region keeps, and their events."""

    events: Any
    jets: Jets
    selected: Selected
    index: Ints
    """[kept] into the chunk's jets."""
    rows: Ints
    """[rows] into the chunk's events: those of the kept jets."""
    back: Ints
    """[kept] into `rows`."""


@dataclass(frozen=True)
class Factor:
    """A factor from a file, with the sources of its uncertainty; ready to travel."""

    name: str
    config: EventWeight | LeptonWeight | JetWeight
    evaluator: Evaluator
    efficiency: Evaluator | None = None

    @property
    def variations(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f"{self._spoken(source)}_{side}" for source in self.config.sources for side in ("up", "down"))

    @property
    def branches(self) -> list[tuple[str, ...]]:
        """What is read beside the jets and leptons of the region, each a tuple of possible names."""
        asked = set(self._asked(self.evaluator, self.config).values())
        names = [name for name in asked if "_" in name]
        if isinstance(self.config, LeptonWeight):
            names += [f"{self.config.collection}_{part}" for part in ("pt", "eta", "phi", "charge")]
            names += ["Electron_deltaEtaSC"] if asked & {"sceta", "abssceta"} else []
        if isinstance(self.config, JetWeight):
            names.append("Jet_hadronFlavour")
            if self.config.working_point is not None and self.efficiency is not None:
                known = self._asked(self.efficiency, self.config.working_point.efficiency).values()
                names += [self.config.working_point.branch, *(name for name in known if "_" in name)]
        return [(name,) for name in dict.fromkeys(names)]

    def nominal(self, kept: Kept) -> Floats:
        """Nominal factor, float64 [kept]."""
        return self._factor(kept, self.config.nominal, None)

    def varied(self, kept: Kept) -> Iterator[tuple[str, Floats]]:
        """Name and factor, float64 [kept], of each variation."""
        for name, source in self.config.sources.items():
            for side, choice in (("up", source.up), ("down", source.down)):
                yield f"{self._spoken(name)}_{side}", self._factor(kept, choice, source.flavours)

    def check(self) -> None:
        """Insist that every input is given, and that the file knows every choice.

        Raises:
            AdvtagError: it does not
        """
        self._check(self.evaluator, self.config)
        if self.config.systematic is not None:
            choices = [self.config.nominal, *(c for s in self.config.sources.values() for c in (s.up, s.down))]
            for choice in choices:
                check_choice(self.evaluator, self.config.systematic, choice)
        if isinstance(self.config, JetWeight) and self.config.working_point and self.efficiency:
            self._check(self.efficiency, self.config.working_point.efficiency)

    def _check(self, evaluator: Evaluator, config: FromFile | Efficiency) -> None:
        where = f"corrections.{self.name}: {evaluator.key!r} of {evaluator.path}"
        names = dict(evaluator.inputs)
        for key in ("inputs", "constants", "clip"):
            for name in getattr(config, key, ()):
                if name not in names:
                    raise AdvtagError(f"{where} has no input {name!r} (key `{key}`); it has {', '.join(names)}")
        for name, value in config.constants.items():
            check_choice(evaluator, name, value)
        asked = self._asked(evaluator, config)
        given = {*asked, *config.constants, getattr(config, "systematic", None)}
        known = QUANTITIES[self.config.kind]
        prefix = {"lepton": f"{getattr(self.config, 'collection', '')}_", "jet": "Jet_", "event": ""}[self.config.kind]
        for name in names:
            if name not in given:
                raise AdvtagError(f"{where}: say what its input {name!r} is, by the key `inputs` or `constants`")
        for name, quantity in asked.items():
            if quantity not in known and not ("_" in quantity and quantity.startswith(prefix)):
                also = ", ".join([*known, f"a branch {prefix}..."])
                raise AdvtagError(f"{where}: input {name!r} cannot be {quantity!r}; known: {also}")

    def _spoken(self, source: str) -> str:
        return self.name if source == "total" else f"{self.name}_{source}"

    def _asked(self, evaluator: Evaluator, config: FromFile | Efficiency) -> dict[str, str]:
        """Quantity of each input that is neither constant nor the systematic."""
        fixed = {*config.constants, getattr(config, "systematic", None)}
        names = [name for name, _ in evaluator.inputs if name not in fixed]
        usual = {name: USUAL[name] for name in names if name in USUAL}
        return {**usual, **{name: config.inputs[name] for name in names if name in config.inputs}}

    def _factor(self, kept: Kept, choice: str, flavours: tuple[int, ...] | None) -> Floats:
        if isinstance(self.config, LeptonWeight):
            return self._of_leptons(kept, choice, self.config)[kept.back]
        if isinstance(self.config, JetWeight):
            return self._of_jets(kept, choice, flavours, self.config)

        def of_events(quantity: str) -> NDArray[Any]:
            return numbers(kept.events, quantity)[kept.rows]

        return self._evaluate(self.evaluator, self.config, of_events, choice, len(kept.rows))[kept.back]

    def _of_leptons(self, kept: Kept, choice: str, config: LeptonWeight) -> Floats:
        """Product over the counted leptons of each event, float64 [rows]."""
        product = np.ones(len(kept.rows))
        leptons = kept.selected.leptons.get(config.collection)
        if leptons is None:
            return product
        leptons = leptons[np.isin(leptons.owner, kept.rows)]
        if config.leptons == "leading":
            leptons = leptons[np.lexsort((-leptons.pt, leptons.owner))]
            leptons = leptons[np.unique(leptons.owner, return_index=True)[1]]

        def of_leptons(quantity: str) -> NDArray[Any]:
            return _of_leptons(kept.events, leptons, quantity)

        factor = self._evaluate(self.evaluator, config, of_leptons, choice, len(leptons))
        np.multiply.at(product, np.searchsorted(kept.rows, leptons.owner), factor)
        return product

    def _of_jets(self, kept: Kept, choice: str, flavours: tuple[int, ...] | None, config: JetWeight) -> Floats:
        """Factor of each jet, float64 [kept]."""
        places = jet_places(kept.events, kept.jets)[kept.index]
        flavour = numbers(kept.events, "Jet_hadronFlavour").astype(np.int64)[places]
        factor = np.ones(len(places))
        here = np.ones(len(places), np.bool_) if config.flavours is None else np.isin(flavour, config.flavours)
        concerned = here if flavours is None else here & np.isin(flavour, flavours)
        for which, chosen in ((concerned, choice), (here & ~concerned, config.nominal)):

            def of_jets(quantity: str, which: NDArray[np.bool_] = which) -> NDArray[Any]:
                return _of_jets(kept, quantity, flavour, places)[which]

            size = int(np.count_nonzero(which))
            found = self._evaluate(self.evaluator, config, of_jets, chosen, size)
            point = config.working_point
            if point is not None and self.efficiency is not None:
                rate = self._evaluate(self.efficiency, point.efficiency, of_jets, "", size)
                passed = numbers(kept.events, point.branch)[places][which] > point.threshold
                if ((rate >= 1) & ~passed).any():
                    raise AdvtagError(
                        f"corrections.{self.name}: {self.efficiency.key!r} of {self.efficiency.path} is 1 for a jet "
                        "that fails the working point"
                    )
                found = np.where(passed, found, (1 - found * rate) / np.where(passed, 1, 1 - rate))
            factor[which] = found
        return factor

    def _evaluate(
        self, evaluator: Evaluator, config: FromFile | Efficiency, read: Any, choice: str, size: int
    ) -> Floats:
        values: dict[str, Value] = dict(config.constants)
        for name, quantity in self._asked(evaluator, config).items():
            found = read(quantity)
            if isinstance(config, FromFile) and name in config.clip:
                found = np.clip(found, *config.clip[name])
            values[name] = found
        if isinstance(config, FromFile) and config.systematic is not None:
            values[config.systematic] = choice
        return evaluator.evaluate(values, size)


def _of_leptons(events: Any, leptons: Leptons, quantity: str) -> NDArray[Any]:
    if quantity in ("sceta", "abssceta"):
        eta = supercluster_eta(events)[leptons.place]
        return np.abs(eta) if quantity == "abssceta" else eta
    known = {"pt": leptons.pt, "eta": leptons.eta, "abseta": np.abs(leptons.eta), "phi": leptons.phi}
    return known[quantity] if quantity in known else numbers(events, quantity)[leptons.place]


def _of_jets(kept: Kept, quantity: str, flavour: Ints, places: Ints) -> NDArray[Any]:
    if quantity == "flavour":
        return flavour
    if quantity in ("pt", "eta", "phi", "abseta"):
        found: NDArray[Any] = getattr(kept.jets, quantity.removeprefix("abs"))[kept.index]
        return np.abs(found) if quantity == "abseta" else found
    return numbers(kept.events, quantity)[places]


def load_factor(name: str, section: EventWeight | LeptonWeight | JetWeight) -> Factor:
    """Read the files of a section and check them.

    Raises:
        AdvtagError: a file, a key, an input or a choice is missing
    """
    efficiency = None
    if isinstance(section, JetWeight) and section.working_point is not None:
        asked = section.working_point.efficiency
        efficiency = load_evaluator(name, asked.file, asked.key)
    factor = Factor(name, section, load_evaluator(name, section.file, section.key), efficiency)
    factor.check()
    return factor
