"""Sweeps: the product of trainings, seeds, folds and settings, each point a configuration of its own, checked."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import AdvtagError
from condor.job import Item, label_of
from configs.load import load_analysis
from configs.schema import Analysis
from configs.training import Training


@dataclass(frozen=True)
class Point:
    """One training of a sweep."""

    item: Item
    training: Training
    analysis: Analysis
    """The configuration that its attack and attacks are looked up in."""


def numbers(text: str) -> list[int]:
    """`0-4` or `1,3,7-9` as numbers.

    Raises:
        AdvtagError: it is none of these
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise AdvtagError(f"--seeds {text!r}: expected numbers such as 0-4 or 1,3,7-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= 1_000_000:
            raise AdvtagError(f"--seeds {text!r}: {first}-{last} is no range")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise AdvtagError(f"--seeds {text!r}: a seed is named twice")
    return found


def values_of(setting: str) -> tuple[str, list[Any]]:
    """`key=v1,v2` as a key and its values, each in YAML: lists and mappings in brackets are one value.

    Raises:
        AdvtagError: it is not of this form
    """
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise AdvtagError(f"--set {setting!r}: expected key=value,value,...")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise AdvtagError(f"--set {setting!r}: the values are not YAML, separated by commas") from error
    if len({repr(value) for value in values}) < len(values):
        raise AdvtagError(f"--set {setting!r}: a value is named twice")
    return key, values


def points(
    config: Path,
    overrides: Sequence[str],
    *,
    trainings: Sequence[str] = (),
    seeds: Sequence[int] = (),
    folds: int | None = None,
    settings: Sequence[str] = (),
    limit: int,
) -> Iterator[Point]:
    """The points of a sweep; the configuration of each is validated.

    Args:
        config: the analysis
        overrides: `key.sub=value`, for all
        trainings: names in the configuration; none: all of them
        seeds: of the training; none: as configured
        folds: their number, K: K trainings that each leave another part out, see `configs.training.Fold`
        settings: `key=v1,v2,...`; `training.KEY` is KEY of whichever training it is
        limit: points there may be, at most

    Raises:
        AdvtagError: no point, too many, or a configuration that is not valid
    """
    base = load_analysis(config, overrides)
    for name in trainings:
        if name not in base.training:
            raise AdvtagError(f"--training {name}: no such training; known: {', '.join(base.training) or 'none'}")
    asked = list(map(values_of, settings))
    if seeds:
        asked.append(("training.seed", list(seeds)))
    if folds is not None:
        asked.append(("training.fold", [{"number": number, "of": folds} for number in range(folds)]))
    axes: dict[str, list[Any]] = {"training": list(trainings) or list(base.training)}
    for key, values in asked:
        if key in axes:
            raise AdvtagError(
                f"--set {key}: given twice (--seeds and --folds are settings, too); write all values in one"
            )
        axes[key] = values
    size = math.prod(len(values) for values in axes.values())
    if not size:
        empty = next(key for key, values in axes.items() if not values)
        raise AdvtagError(f"a sweep of no job: {empty} has no value; does the configuration have the key `training`?")
    if size > limit:
        raise AdvtagError(
            f"a sweep of {size:,} jobs ({' x '.join(f'{len(values)} {key}' for key, values in axes.items())}): more "
            f"than the {limit:,} of the site; split it, or raise --option max_jobs"
        )
    taken: set[str] = set()
    for place in itertools.product(*axes.values()):
        yield _point(config, overrides, base, dict(zip(axes, place, strict=True)), taken)


def _point(config: Path, overrides: Sequence[str], base: Analysis, place: Mapping[str, Any], taken: set[str]) -> Point:
    name = place["training"]
    settings = {key: yaml.safe_dump(value, default_flow_style=True, width=math.inf) for key, value in place.items()}
    settings = {key: value.removesuffix("\n").removesuffix("\n...") for key, value in settings.items()}
    mine = [f"{_full(key, name, base)}={value}" for key, value in settings.items() if key != "training"]
    analysis = load_analysis(config, [*overrides, *mine]) if mine else base
    words = [name, *(_word(key, value) for key, value in place.items() if key != "training")]
    item = Item(label_of("-".join(words), taken), settings)
    return Point(item, analysis.training[name], analysis)


def _full(key: str, name: str, base: Analysis) -> str:
    """`training.KEY` is of the training at hand, unless KEY is the name of one."""
    first, _, rest = key.partition(".")
    if first == "training" and rest and rest.partition(".")[0] not in base.training:
        return f"training.{name}.{rest}"
    return key


def _word(key: str, value: Any) -> str:
    """A setting in a label."""
    if key == "training.fold":
        return f"fold{value['number']}"
    last = key.rpartition(".")[2]
    return f"seed{value}" if key == "training.seed" else f"{last}_{value}"
