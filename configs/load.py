"""Read a configuration: YAML, overrides from the command line, validation with one-line errors."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from common.errors import AdvtagError
from configs.attacks import Budgeted
from configs.clusters import choose_cluster, cluster_keys, expanded
from configs.corrections import Correction, FromFile, JetEnergy, JetWeight
from configs.fileset import with_fileset
from configs.schema import Analysis


def load_analysis(path: Path, overrides: Sequence[str] = ()) -> Analysis:
    """Load and validate an analysis.

    Args:
        path: YAML file; relative paths in it are relative to its folder
        overrides: `key.sub=value`, the value in YAML; each must name a key that the schema has

    Raises:
        AdvtagError: the file cannot be read or is not valid; the text names the key
    """
    written = read_yaml(path)
    folder = path.parent.absolute()
    configured = _cluster_of(written, folder)
    for override in overrides:
        set_key(written, override)
    if isinstance(written.get("fileset"), str):
        written = with_fileset(written, path.parent.absolute() / written["fileset"])
    try:
        analysis = Analysis.model_validate(written)
    except ValidationError as error:
        raise AdvtagError(f"{path}: {describe(error.errors()[0], Analysis)}") from error
    if analysis.run.cluster is not None:
        analysis.run.cluster.remember(configured, cluster_keys(written["run"]))
    return _absolute(analysis, folder)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of keys from a YAML file.

    Raises:
        AdvtagError: the file cannot be read, is not YAML, or holds something else
    """
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdvtagError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise AdvtagError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(written, dict):
        raise AdvtagError(f"{path}: expected a mapping of keys, found {type(written).__name__}")
    return written


def _cluster_of(written: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The keys of the cluster in a configuration; a relative path of a profile becomes absolute there."""
    run = written.get("run")
    if not isinstance(run, dict):
        return {}
    keys = expanded(run.get("cluster"))
    if str(keys.get("profile", "")).endswith((".yaml", ".yml")):
        keys["profile"] = str(folder / Path(keys["profile"]).expanduser())
        run["cluster"] = keys
    return cluster_keys(run)


def set_key(written: dict[str, Any], override: str) -> None:
    """Write `key.sub=value` into a configuration, the value in YAML.

    Raises:
        AdvtagError: it is not of that form
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise AdvtagError(f"override {override!r}: expected key.sub=value")
    *parents, last = key.split(".")
    place = written
    for parent in parents:
        if parent == "cluster" and place is written.get("run"):
            place[parent] = expanded(place.get(parent))
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise AdvtagError(f"override {override!r}: {parent!r} holds a value, not keys")
    try:
        chosen = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise AdvtagError(f"override {override!r}: the value is not YAML") from error
    if key == "run.cluster":
        choose_cluster(place, chosen)
    else:
        place[last] = chosen


def describe(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One line for one validation error: where, what, and the nearest known key."""
    location = [str(part) for part in error["loc"]]
    spoken = _spoken(location)
    where = ".".join(spoken) or "configuration"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    known = _known_keys(model, location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _spoken(location: list[str]) -> list[str]:
    """Without what pydantic adds: the kind of an attack, correction or scheme (attacks.mine.fgsm.epsilon), and which of
    the two forms the attack of a training has (training.mine.attack.section.fgsm.epsilon).
    """
    if location[:1] in (["attacks"], ["corrections"]):
        return [*location[:2], *location[3:]]
    if location[:1] == ["training"] and len(location) > 3 and location[2] in ("attack", "scheme"):
        return [*location[:3], *location[5 if location[2] == "attack" else 4 :]]
    return location


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys of the section at `location`: walks the schema's own JSON schema, where sections are references."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        if part == "section":  # one of the two forms of a training's attack
            continue
        kinds: dict[str, str] = next(
            (form["discriminator"]["mapping"] for form in _forms(node) if "discriminator" in form), {}
        )
        if part in kinds:
            node = schema["$defs"][kinds[part].rsplit("/", 1)[-1]]
            continue
        named: dict[str, Any] = node.get("additionalProperties") or next(
            iter(node.get("patternProperties", {}).values()), {}
        )
        inner = node.get("properties", {}).get(part) or named
        candidates = [inner, *inner.get("anyOf", ())]
        node = inner
        for candidate in candidates:
            if "$ref" in candidate:
                node = schema["$defs"][candidate["$ref"].rsplit("/", 1)[-1]]
    return list(node.get("properties", {}))


def _forms(node: dict[str, Any]) -> list[dict[str, Any]]:
    """A node, and all that it may be instead."""
    return [node, *(form for key in ("oneOf", "anyOf") for other in node.get(key, ()) for form in _forms(other))]


def _absolute(analysis: Analysis, folder: Path) -> Analysis:
    """Anchor relative paths at the configuration's folder, so that the working directory does not matter."""
    output = folder / analysis.output
    datasets = {
        name: dataset.model_copy(
            update={
                "files": tuple(file if "://" in file else str(folder / file) for file in dataset.files),
                "golden": folder / dataset.golden if dataset.golden else None,
            }
        )
        for name, dataset in analysis.datasets.items()
    }
    attacks = {name: _anchored(attack, folder) for name, attack in analysis.attacks.items()}
    training = {
        name: settings.model_copy(update={"attack": _anchored(settings.attack, folder)})
        if isinstance(settings.attack, Budgeted)
        else settings
        for name, settings in analysis.training.items()
    }
    update: dict[str, Any] = {"output": output, "datasets": datasets, "attacks": attacks, "training": training}
    update["fileset"] = folder / analysis.fileset if analysis.fileset else None
    update["corrections"] = {name: _found(correction, folder) for name, correction in analysis.corrections.items()}
    if analysis.run.cluster is not None:
        logs = output / analysis.run.cluster.logs.expanduser()
        cluster = analysis.run.cluster.model_copy(update={"logs": logs})
        update["run"] = analysis.run.model_copy(update={"cluster": cluster})
    if analysis.features.endswith((".yaml", ".yml")):
        update["features"] = str(folder / analysis.features)
    if analysis.histograms:
        taggers = {name: output / path for name, path in analysis.histograms.taggers.items()}
        update["histograms"] = analysis.histograms.model_copy(update={"taggers": taggers})
    return analysis.model_copy(update=update)


def _anchored(attack: Budgeted, folder: Path) -> Budgeted:
    """The attack, the path of its table of uncertainties absolute."""
    return attack.model_copy(update={"scale": folder / attack.scale}) if isinstance(attack.scale, Path) else attack


def _found(correction: Correction, folder: Path) -> Correction:
    """The correction, the paths of its files absolute."""
    update: dict[str, Any] = {}
    if isinstance(correction, FromFile | JetEnergy) and correction.file is not None:
        update["file"] = folder / correction.file
    if isinstance(correction, JetEnergy):
        update["text_files"] = tuple(folder / path for path in correction.text_files)
    if isinstance(correction, JetWeight) and correction.working_point is not None:
        efficiency = correction.working_point.efficiency
        efficiency = efficiency.model_copy(update={"file": folder / efficiency.file})
        update["working_point"] = correction.working_point.model_copy(update={"efficiency": efficiency})
    return correction.model_copy(update=update)
