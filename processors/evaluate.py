"""Taggers on raw and on attacked jets, batch by batch: what a processor fills."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from attacks import Attack
from attacks.gradient import CleanPass, shared
from common.histograms import RAW
from models.classes import CLASSES, TAGGER_SCORES
from models.discriminators import tagger_scores
from models.inputs import Inputs
from models.tagger import Tagger

BATCH = {"cpu": 4096, "cuda": 1 << 16}
"""Jets through the network at once: on a CPU the activations of so many stay in the cache."""

Scores = dict[str, NDArray[np.floating]]
"""discriminator or node output -> [jets]"""


@dataclass(frozen=True)
class Evaluated:
    """Jets after an attack, and what taggers say of them."""

    tagger: str
    """the attack was made on"""
    attack: str
    moved: NDArray[np.floating] | None
    """[features, jets]; None where nothing was moved"""
    scores: dict[str, Scores]
    """of each tagger that was shown them"""


def targets(tagger: Tagger, flavour: NDArray[np.int8]) -> torch.Tensor:
    """True class of each jet among the tagger's outputs, int64 [jets]; bb is b to a tagger without bb, and data,
    which no attack sees, is class 0.
    """
    places = [tagger.classes.index("b" if name == "bb" and name not in tagger.classes else name) for name in CLASSES]
    return torch.from_numpy(np.array([*places, 0])[flavour])


def evaluate(
    taggers: Mapping[str, Tagger],
    attacks: Mapping[str, Attack],
    transfer: frozenset[str],
    inputs: Inputs,
    flavour: NDArray[np.int8],
) -> Iterator[Evaluated]:
    """Score raw jets and those of each attack on each tagger, one after another, so that one is in memory at a time.

    Attacks that begin with the gradient at the clean jets (FGSM and its like, of all sizes) share it with each other,
    and its forward pass with the raw scores. Attacks that look at whole distributions get all jets at once.

    Args:
        taggers: by name, in evaluation mode, on one device and of one floating type
        attacks: by name
        transfer: taggers whose examples the other taggers are shown, too
        inputs: clean jets, on the CPU
        flavour: int8 [jets], index into FLAVOURS
    """
    whole = {name: attack for name, attack in attacks.items() if not attack.per_jet}
    each = {name: attack for name, attack in attacks.items() if attack.per_jet}
    for name, tagger in taggers.items():
        shown = taggers if name in transfer else {name: tagger}
        target = targets(tagger, flavour)
        yield from _in_batches(name, shown, each, inputs, target)
        for attack_name, attack in whole.items():
            moved = attack(tagger, inputs.to(tagger.mean.device, tagger.mean.dtype), target.to(tagger.mean.device))
            filled = _Filled(len(inputs), shown, inputs.values.shape[1])
            for batch, jets in _batches(moved, tagger):
                filled.put(batch, jets, {other: _scores(seen, jets) for other, seen in shown.items()})
            yield Evaluated(name, attack_name, filled.moved, filled.scores)


class _Filled:
    """Arrays that batches are put into."""

    def __init__(self, jets: int, shown: Mapping[str, Tagger], features: int) -> None:
        real = torch.empty(0, dtype=next(iter(shown.values())).mean.dtype).numpy().dtype
        self.moved = np.empty((features, jets), real)
        self.scores = {name: {score: np.empty(jets, real) for score in TAGGER_SCORES} for name in shown}

    def put(self, batch: slice, jets: Inputs | None, scores: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        if jets is not None:
            self.moved[:, batch] = jets.values.T.cpu().numpy()
        for tagger, found in scores.items():
            for name, score in found.items():
                self.scores[tagger][name][batch] = score.cpu().numpy()


def _in_batches(
    name: str, shown: Mapping[str, Tagger], attacks: Mapping[str, Attack], inputs: Inputs, target: torch.Tensor
) -> Iterator[Evaluated]:
    """Raw jets and attacks that treat each jet by itself."""
    tagger, features = shown[name], inputs.values.shape[1]
    raw = _Filled(len(inputs), {name: tagger}, 0)
    filled = {attack: _Filled(len(inputs), shown, features) for attack in attacks}
    for batch, jets in _batches(inputs, tagger):
        clean = CleanPass(tagger, jets, target[batch].to(tagger.mean.device))
        with shared(clean):
            for attack_name, attack in attacks.items():
                moved = attack(tagger, jets, clean.target)
                scores = {other: _scores(seen, moved) for other, seen in shown.items()}
                filled[attack_name].put(batch, moved, scores)
        raw.put(batch, None, {name: tagger_scores(clean.logits().softmax(1), tagger.classes)})
    yield Evaluated(name, RAW, None, raw.scores)
    while filled:
        attack_name = next(iter(filled))
        done = filled.pop(attack_name)
        yield Evaluated(name, attack_name, done.moved, done.scores)


def _batches(inputs: Inputs, tagger: Tagger) -> Iterator[tuple[slice, Inputs]]:
    device, dtype = tagger.mean.device, tagger.mean.dtype
    size = BATCH[device.type]
    for start in range(0, len(inputs), size):
        batch = slice(start, start + size)
        jets = inputs[batch].to(device, dtype)
        yield batch, replace(jets, values=jets.values.contiguous(), present=jets.present.contiguous())


def _scores(tagger: Tagger, jets: Inputs) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return tagger_scores(tagger(jets.values, jets.present).softmax(1), tagger.classes)
