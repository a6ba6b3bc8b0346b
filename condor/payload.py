"""The configuration of one training as it travels: only what a training reads, and no path of this machine."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.errors import AdvtagError
from condor.sweep import Point
from configs.attacks import Budgeted
from configs.schema import Analysis


@dataclass
class Payload:
    """Files that travel beside the configuration, by the name that they have there."""

    files: dict[str, Path] = field(default_factory=dict)

    def add(self, path: Path) -> str:
        """Take a file along; return its name there, which its contents decide.

        Raises:
            AdvtagError: it cannot be read
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise AdvtagError(f"{path}: cannot be read ({error.strerror}), and the jobs need it") from error
        ending = re.search(r"(\.json)?\.\w+$", path.name, re.ASCII)  # .json.gz is known by both
        name = hashlib.sha256(content).hexdigest()[:16] + (ending[0] if ending else "")
        self.files[name] = path
        return name


def training_configuration(point: Point, payload: Payload) -> str:
    """YAML of a point of a sweep; its one training has the label as name. Files that it names are added to the payload.

    Raises:
        AdvtagError: such a file cannot be read
    """
    analysis, training = point.analysis, point.training
    wanted = set(training.evaluate_with) | ({training.attack} if isinstance(training.attack, str) else set())
    settings = training.model_dump(mode="json")
    if isinstance(training.attack, Budgeted):
        settings["attack"] = _attack(training.attack, payload)
    page = {
        "name": analysis.name,
        "output": "work",
        "features": features(analysis, payload),
        "datasets": {"columns": {"files": "columns"}},  # read long ago: training only looks at the columns
        "attacks": {name: _attack(attack, payload) for name, attack in analysis.attacks.items() if name in wanted},
        "training": {point.item.label: settings},
    }
    return yaml.safe_dump(page, sort_keys=False)


def features(analysis: Analysis, payload: Payload) -> str:
    """The feature card: a name, or a file that travels."""
    return payload.add(Path(analysis.features)) if analysis.features.endswith((".yaml", ".yml")) else analysis.features


def _attack(attack: Budgeted, payload: Payload) -> dict[str, Any]:
    written = attack.model_dump(mode="json")
    if isinstance(attack.scale, Path):
        written["scale"] = payload.add(attack.scale)
    return written
