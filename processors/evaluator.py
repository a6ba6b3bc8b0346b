"""Factors from correctionlib files: checked when they are loaded, and never a silent 1 when they are evaluated."""

import difflib
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import correctionlib
import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError

Floats = NDArray[np.float64]
Value = NDArray[Any] | str | int | float


@dataclass(frozen=True)
class Evaluator:
    """One correction of a file, or a compound one, ready to travel: the JSON of nothing else.

    Attributes:
        name: key of the configuration, told in errors
        path: file, told in errors
        key: name in the file
        inputs: names and types (real, int or string) of the inputs, in order
        content: JSON
        compound: whether it is a compound correction
    """

    name: str
    path: str
    key: str
    inputs: tuple[tuple[str, str], ...]
    content: str
    compound: bool

    def evaluate(self, values: Mapping[str, Value], size: int) -> Floats:
        """The factor, float64 [size], for arrays [size] and constants by the names of the inputs.

        Raises:
            AdvtagError: a value is outside of the file's bins or categories, or the factor is not finite
        """
        if size == 0:
            return np.ones(0)
        kinds = {"real": np.float64, "int": np.int64}
        args = [
            values[name]
            if isinstance(values[name], str)
            else np.broadcast_to(np.asarray(values[name], kinds[kind]), size)
            for name, kind in self.inputs
        ]
        try:
            found = _evaluator(self.content, self.key, self.compound).evaluate(*args)
        except (IndexError, RuntimeError, ValueError) as error:
            raise self._outside(error, values) from error
        factor: Floats = np.broadcast_to(np.asarray(found, np.float64), size)
        if not np.isfinite(factor).all():
            number = np.count_nonzero(~np.isfinite(factor))
            raise AdvtagError(
                f"corrections.{self.name}: {self.key!r} of {self.path} gives {number} of {size} factors that are not "
                "finite"
            )
        return factor

    def _outside(self, error: Exception, values: Mapping[str, Value]) -> AdvtagError:
        """Name the variable, its values and what the file covers."""
        where = f"corrections.{self.name}: {self.key!r} of {self.path}"
        place = re.search(r"input argument (\d+)", str(error))
        if place is None or self.compound:
            return AdvtagError(f"{where}: {' '.join(str(error).split())}")
        name = self.inputs[int(place[1])][0]
        value = values[name]
        given = repr(value) if isinstance(value, str) else f"values from {np.min(value):g} to {np.max(value):g}"
        low_high, keys = covered(json.loads(self.content), name)
        known = f"from {low_high[0]:g} to {low_high[1]:g}" if low_high else ", ".join(sorted(map(str, keys)))
        return AdvtagError(
            f"{where}: input {name!r}: {given}, but the file covers {known}; tighten the selection, or name the range "
            "to move values into by the key `clip`"
        )


@lru_cache(maxsize=256)
def _evaluator(content: str, key: str, compound: bool) -> Any:
    """The correction of this process, built at its first use: coffea rebuilds processors for every chunk."""
    corrections = correctionlib.CorrectionSet.from_string(content)
    return corrections.compound[key] if compound else corrections[key]


def covered(node: Any, name: str) -> tuple[tuple[float, float] | None, set[str | int]]:
    """What a file covers of an input: the outermost edges of its bins, and the keys of its categories."""
    edges: list[float] = []
    keys: set[str | int] = set()
    for found in _nodes(node):
        kind = found["nodetype"]
        if kind == "category" and found["input"] == name:
            keys |= {item["key"] for item in found["content"]}
        elif kind == "binning" and found["input"] == name:
            edges += _edges(found["edges"])
        elif kind == "multibinning" and name in found["inputs"]:
            edges += _edges(found["edges"][found["inputs"].index(name)])
    return ((min(edges), max(edges)) if edges else None), keys


def _edges(written: Any) -> list[float]:
    return [written["low"], written["high"]] if isinstance(written, dict) else [float(edge) for edge in written]


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "nodetype" in node:
            yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def load_evaluator(name: str, path: Path, key: str) -> Evaluator:
    """Read one correction of a file.

    Raises:
        AdvtagError: the file cannot be read, is not of correctionlib, or has no such key
    """
    written = _read(name, path)
    single = {correction["name"]: correction for correction in written.get("corrections", [])}
    compounds = {correction["name"]: correction for correction in written.get("compound_corrections") or []}
    chosen = single.get(key) or compounds.get(key)
    if chosen is None:
        near = difflib.get_close_matches(key, [*single, *compounds], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join([*single, *compounds][:10])}"
        raise AdvtagError(f"corrections.{name}: {path} has no correction {key!r}; {hint}")
    parts = [single[part] for part in chosen["stack"]] if key in compounds else [chosen]
    kept = {"schema_version": written["schema_version"], "corrections": parts}
    if key in compounds:
        kept["compound_corrections"] = [chosen]
    inputs = tuple((variable["name"], variable["type"]) for variable in chosen["inputs"])
    return Evaluator(name, str(path), key, inputs, json.dumps(kept), key in compounds)


@lru_cache(maxsize=8)
def _text(path: Path, changed: float) -> str:  # noqa: ARG001 - a file that changed is read again
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def _read(name: str, path: Path) -> dict[str, Any]:
    try:
        text = _text(path, path.stat().st_mtime)
        correctionlib.CorrectionSet.from_string(text)
        written: dict[str, Any] = json.loads(text)
    except OSError as error:
        reason = error.strerror or error
        raise AdvtagError(f"corrections.{name}: cannot read {path} ({reason})") from error
    except (RuntimeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:150]
        raise AdvtagError(f"corrections.{name}: {path} is not a file of correctionlib ({reason})") from error
    return written


def check_choice(evaluator: Evaluator, name: str, value: str | int | float) -> None:
    """Insist that a fixed value of an input is one that the file tells apart.

    Raises:
        AdvtagError: it is not
    """
    where = f"corrections.{evaluator.name}: {evaluator.key!r} of {evaluator.path}"
    if name not in dict(evaluator.inputs):
        raise AdvtagError(f"{where} has no input {name!r}; it has {', '.join(dict(evaluator.inputs))}")
    kind = dict(evaluator.inputs)[name]
    if (kind == "string") != isinstance(value, str):
        raise AdvtagError(f"{where}: input {name!r} is of type {kind}, not {value!r}")
    if kind == "real":
        return
    content = json.loads(evaluator.content)
    _, keys = covered(content, name)
    others = any(
        node["nodetype"] == "category" and node["input"] == name and node.get("default") is not None
        for node in _nodes(content)
    )
    if value not in keys and not (others and kind == "int"):
        known = ", ".join(sorted(map(str, keys))) or "none"
        raise AdvtagError(f"{where}: input {name!r} has no {value!r}; known: {known}")
