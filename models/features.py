"""Feature cards: what each input of a tagger is, when it is present, how far it may move, how it is drawn.

Everything that needs to know an input reads the card: reader, standardisation, attack, plot. A card is YAML
(`configs/features/*.yaml`); here it is validated, its slots are expanded, and it is frozen.
"""

import hashlib
import math
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from common.errors import AdvtagError
from common.histograms import AXES
from models.classes import TAGGER_SCORES


class Frozen(BaseModel):
    """Immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Presence(Frozen):
    """An entry exists where `branch` is above a number (`slot`: the entry's own slot) or is one of a list."""

    branch: str
    above: float | Literal["slot"] | None = None
    one_of: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> "Presence":
        if (self.above is None) == (self.one_of is None):
            raise ValueError("give exactly one of `above` and `one_of`")
        return self


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _open_ended(value: Any) -> Any:
    low, high = value
    return (-math.inf if low is None else low, math.inf if high is None else high)


class Input(Frozen):
    """One input of a tagger: one number per jet."""

    name: str
    branch: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(min_length=1)
    """Names that the branch has had; the first that a file holds is read."""
    slot: int = 0
    present: Presence | None = None
    """None: present wherever finite and no sentinel."""
    sentinels: tuple[float, ...] = ()
    integer: bool = False
    bounds: Annotated[tuple[float, float], BeforeValidator(_open_ended)] = (-math.inf, math.inf)
    """Physical range, in the branch's unit; an attack stays inside."""
    cap: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Largest relative change by an attack, |dx| <= cap |x|; None: no cap."""
    group: str = "jet"
    """Inputs of one object, say of the tracks: attacks that normalise gradients do so within a group."""
    frozen: bool = False
    """No attack moves it: it is derived from inputs that move, by a rule that nobody can apply here."""
    pinned: tuple[float, ...] = ()
    """Values that follow from a definition (a ratio that is 1 when nothing is left out); such an entry stays."""
    same_as: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Inputs that may hold the very same quantity: where one has the same value, this entry moves with it."""
    proportional_to: str | None = None
    """Input that this one is a fixed multiple of in each jet: x' = x y'/y when y moves to y'."""
    absent_at: float = 0.0
    """Where an absent entry sits in standardised space."""
    label: str
    unit: str = ""
    bins: tuple[int, float, float]
    """Plot binning: number, low edge, high edge."""

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> "Input":
        for key, (low, high) in (("bounds", self.bounds), ("bins", self.bins[1:])):
            if not low < high:
                raise ValueError(f"{key} of {self.name!r}: {low} is not below {high}")
        if self.bins[0] < 1:
            raise ValueError(f"bins of {self.name!r}: needs at least one bin")
        if self.same_as and self.proportional_to:
            raise ValueError(f"{self.name!r}: give `same_as` or `proportional_to`, not both")
        return self

    def rule(self) -> dict[str, Any]:
        """What decides the numbers a tagger sees: everything but the drawing."""
        return self.model_dump(mode="json", exclude={"label", "unit", "bins"})

    @property
    def axis_label(self) -> str:
        """Label with its unit, for a plot axis."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def _sources(feature: Input) -> tuple[str, ...]:
    return feature.same_as or (() if feature.proportional_to is None else (feature.proportional_to,))


class FeatureSet(Frozen):
    """The inputs of a tagger, in the order of its first layer."""

    name: str
    inputs: tuple[Input, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "FeatureSet":
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"input {', '.join(sorted(twice))} appears twice")
        taken = {*AXES, *TAGGER_SCORES}.intersection(self.names)
        if taken:
            raise ValueError(f"input {taken.pop()!r}: histograms use that name; choose another")
        return self

    @model_validator(mode="after")
    def _sources_move_freely(self) -> "FeatureSet":
        sources = {feature.name: _sources(feature) for feature in self.inputs}
        for name, wanted in sources.items():
            for source in wanted:
                if source not in sources:
                    raise ValueError(f"input {name!r} follows {source!r}, which is no input")
                if sources[source]:
                    raise ValueError(f"input {name!r} follows {source!r}, which itself follows another")
        return self

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(feature.name for feature in self.inputs)

    @cached_property
    def pins(self) -> tuple[tuple[int, float], ...]:
        """Place and value of every pinned value."""
        return tuple((k, value) for k, feature in enumerate(self.inputs) for value in feature.pinned)

    @cached_property
    def followers(self) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        """Places of the inputs that may follow others, and for each the places of those that it may follow."""
        named = {k: _sources(feature) for k, feature in enumerate(self.inputs) if _sources(feature)}
        return tuple(named), tuple(tuple(map(self.names.index, names)) for names in named.values())

    @property
    def integer(self) -> NDArray[np.bool_]:
        """Bool [features]: True where the input is an integer."""
        return np.array([feature.integer for feature in self.inputs])

    @property
    def frozen(self) -> NDArray[np.bool_]:
        """Bool [features]: True where no attack moves the input."""
        return np.array([feature.frozen for feature in self.inputs])

    @property
    def bounds(self) -> NDArray[np.float64]:
        """float64 [features, 2]: physical low and high."""
        return np.array([feature.bounds for feature in self.inputs], dtype=np.float64)

    @property
    def caps(self) -> NDArray[np.float64]:
        """float64 [features]: relative cap, inf where there is none."""
        return np.array([math.inf if feature.cap is None else feature.cap for feature in self.inputs])

    @property
    def absent_at(self) -> NDArray[np.float32]:
        """float32 [features]: place of an absent entry in standardised space."""
        return np.array([feature.absent_at for feature in self.inputs], dtype=np.float32)

    @property
    def digest(self) -> str:
        """Hash of all that decides the numbers a tagger sees; labels and binnings do not count."""
        rules = repr([feature.rule() for feature in self.inputs])
        return hashlib.sha256(rules.encode()).hexdigest()[:16]


def expand(card: dict[str, Any]) -> dict[str, Any]:
    """Expand the slots of a card as written, and hand its defaults down to each input."""
    inputs: list[dict[str, Any]] = []
    slots_of = {
        entry["name"]: [f"{entry['name']}_{slot}" for slot in range(entry["slots"])]
        for entry in card.get("inputs", ())
        if entry.get("slots") is not None
    }
    defaults = {key: card[key] for key in ("sentinels", "cap", "absent_at") if key in card}
    for entry in card.get("inputs", ()):
        slots = entry.get("slots")
        common = {**defaults, **{key: value for key, value in entry.items() if key != "slots"}}
        if "same_as" in entry:
            common["same_as"] = [slot for name in _names(entry["same_as"]) for slot in slots_of.get(name, (name,))]
        if slots is None:
            inputs.append(common)
            continue
        for slot in range(slots):
            branches = tuple(f"{branch}_{slot}" for branch in _names(entry["branch"]))
            label = f"{entry['label']}, {entry.get('group', 'slot')} {slot + 1}"
            inputs.append(
                {**common, "name": f"{entry['name']}_{slot}", "branch": branches, "slot": slot, "label": label}
            )
    return {**{key: value for key, value in card.items() if key not in defaults}, "inputs": inputs}


def load_features(card: str) -> FeatureSet:
    """Load a feature card by name (`deepcsv`) or by the path of a YAML file.

    Raises:
        AdvtagError: there is no such card, or it is not valid.
    """
    shipped = files("configs") / "features"
    known = sorted(entry.name.removesuffix(".yaml") for entry in shipped.iterdir())
    source = shipped / f"{card}.yaml" if card in known else Path(card)
    try:
        written = yaml.safe_load(source.read_text(encoding="utf-8"))
        return FeatureSet.model_validate(expand(written))
    except OSError as error:
        raise AdvtagError(f"feature card {card!r}: no such card or file; shipped: {', '.join(known)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AdvtagError(f"feature card {card!r}: {where}: {first['msg']}") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise AdvtagError(f"feature card {card!r} is not a card: {' '.join(str(error).split())}") from error
