"""Mitigation: a second network that tells fooled jets from clean ones.

advtag detect COLUMNS TAGGER [TAGGER...]
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from attacks.attack import Attack
from attacks.build import build_attack
from attacks.success import is_right
from common.errors import AdvtagError
from common.files import whole_file
from configs.attacks import attack_config
from models.inputs import Inputs
from models.tagger import Tagger
from training.bench import load_taggers, logits_of, moved_by
from training.columns import Sample, read_splits, some_jets

MIN_FOOLED = 20


class Detector:
    """Clean (1) against fooled (0): the adversarial detector of the CONSERVAttack study (code of arXiv:2603.13970).

    Layers of 128, 64 and 32 with ReLU, Adam, early stopping and both kinds with the same total weight, as there; its
    batch normalisation and L1 term are not, scikit-learn has an L2 term. It sees what the tagger sees: standardised
    inputs, absent ones at their place.

    Args:
        tagger: its standardisation is used
        clean: jets as they are
        fooled: jets that an attack made the tagger wrong about
        seed: of the training

    Raises:
        AdvtagError: too few jets of a kind
    """

    def __init__(self, tagger: Tagger, clean: Inputs, fooled: Inputs, seed: int) -> None:
        if min(len(clean), len(fooled)) < MIN_FOOLED:
            raise AdvtagError(
                f"{len(fooled)} fooled and {len(clean)} clean jets; a detector needs {MIN_FOOLED} of each: "
                "take a stronger attack, or more jets"
            )
        self.tagger = tagger
        seen = np.concatenate([standardised(tagger, clean), standardised(tagger, fooled)])
        kind = np.concatenate([np.ones(len(clean)), np.zeros(len(fooled))])
        weight = np.where(kind == 1, len(kind) / len(clean), len(kind) / len(fooled)) / 2
        self.network = MLPClassifier(
            (128, 64, 32), alpha=3e-3, learning_rate_init=1e-3, early_stopping=True, max_iter=100, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped at max_iter: it is used as it is
            self.network.fit(seen, kind, sample_weight=weight)

    def finds(self, jets: Inputs) -> NDArray[np.bool_]:
        """Jets that it takes for fooled, bool [jets]."""
        if not len(jets):
            return np.zeros(0, dtype=bool)
        return np.asarray(self.network.predict(standardised(self.tagger, jets)) == 0)


def standardised(tagger: Tagger, jets: Inputs) -> NDArray[np.float32]:
    """What the tagger's network sees, float32 [jets, features]."""
    return np.asarray(tagger.standardise(jets.values, jets.present).cpu().numpy(), dtype=np.float32)


def fooled_jets(tagger: Tagger, attack: Attack, inputs: Inputs, target: Tensor) -> tuple[Inputs, Inputs]:
    """Jets that the tagger is right about, clean; and those of them that the attack makes it wrong about, moved."""
    right = is_right(logits_of(tagger, inputs), target, tagger.classes)
    clean, target = inputs[right], target[right]
    moved = moved_by(attack, tagger, clean, target)
    return clean, moved[~is_right(logits_of(tagger, moved), target, tagger.classes)]


def detector_study(
    taggers: Mapping[str, Tagger], attack: Attack, train: Sample, test: Sample, *, seed: int = 0
) -> dict[str, Any]:
    """Train a detector for each tagger, and show it what fools its own and the other taggers.

    Returns:
        by tagger whose jets were fooled: the fooling ratio (fooled of those that were right), and by detector the
        corrected fooling ratio (fooled and not found), the fraction of fooled jets found and the fraction of clean
        jets taken for fooled. A detector under its own name is the same-run figure of the study, another cross-run.

    Raises:
        AdvtagError: an attack that fools too few jets to train on
    """
    detectors, tested = {}, {}
    for name, tagger in taggers.items():
        clean, fooled = fooled_jets(tagger, attack, train.inputs, train.target)
        detectors[name] = Detector(tagger, clean, fooled, seed)
        tested[name] = fooled_jets(tagger, attack, test.inputs, test.target)
    study = {}
    for name, (clean, fooled) in tested.items():
        ratio = len(fooled) / len(clean) if len(clean) else None
        found = {}
        for maker, detector in detectors.items():
            seen = detector.finds(fooled)
            found[maker] = {
                "corrected_fooling_ratio": float((~seen).sum()) / len(clean) if len(clean) else None,
                "fooled_found": float(seen.mean()) if len(fooled) else None,
                "clean_taken_for_fooled": float(detector.finds(clean).mean()) if len(clean) else None,
            }
        study[name] = {"right": len(clean), "fooled": len(fooled), "fooling_ratio": ratio, "detectors": found}
    return study


def detect(columns: Path, files: list[Path], preset: str, jets: int, output: Path, seed: int) -> list[str]:
    """Run the study on columns: detectors learn from training jets and are tested on test jets; write JSON.

    Args:
        columns: folder of `advtag columns`
        files: taggers
        preset: name of the attack among the presets
        jets: at most so many to train on, and to test on
        output: JSON file
        seed: of the detectors, and of an attack that draws random numbers

    Returns:
        lines to print

    Raises:
        AdvtagError: files that cannot be read or do not fit together, no such preset, or too few fooled jets
    """
    samples, classes, features = read_splits(columns, ("train", "test"))
    attack = build_attack(attack_config({"preset": preset, "seed": seed}))
    taggers = load_taggers(files, classes, features)
    train, test = (some_jets(samples[split], jets) for split in ("train", "test"))
    study = detector_study(taggers, attack, train, test, seed=seed)
    with whole_file(output) as aside:
        aside.write_text(json.dumps({"attack": repr(attack), "taggers": study}, indent=1), encoding="utf-8")
    lines = []
    for name, found in study.items():
        lines.append(f"{name}: {found['fooled']} of {found['right']} jets fooled")
        for maker, figures in found["detectors"].items():
            lines.append(
                f"  detector of {maker}: finds {_part(figures['fooled_found'])} of them "
                f"(corrected fooling ratio {_part(figures['corrected_fooling_ratio'])}), "
                f"takes {_part(figures['clean_taken_for_fooled'])} of clean jets for fooled"
            )
    return [*lines, str(output)]


def _part(value: float | None) -> str:
    """A fraction; of no jets, none."""
    return "none" if value is None else f"{value:.1%}"
