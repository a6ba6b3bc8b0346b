"""Losses and areas on validation jets after each epoch, raw and under attacks."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from attacks import Attack
from attacks.attack import evaluation_mode
from configs.training import Training
from models.discriminators import discriminators
from models.tagger import Tagger
from training.cache import Stored
from training.columns import Sample
from training.losses import Loss
from training.metrics import RocHistogram, roc_histograms
from training.weights import PtEtaFlavourWeights

CHUNK = 8192
"""Jets that are evaluated at once: what they need stays in the cache of a CPU."""
EFFICIENCIES = tuple(i / 20 for i in range(1, 20))
"""Signal efficiencies at which ROC curves are written down."""
IN_MEMORY = 1 << 30
"""Bytes; more are read from disk again in each epoch."""


class Validation:
    """Evaluates a tagger on validation jets, chunk by chunk.

    Args:
        stored: the validation split
        settings: how many of its jets, which are a random part, and which loss
        weights: pt-eta-flavour weights of the training
        attacks: by name, each beside `raw`
        device: where the tagger is
    """

    def __init__(
        self,
        stored: Stored,
        settings: Training,
        weights: PtEtaFlavourWeights,
        attacks: Mapping[str, Attack],
        device: torch.device,
    ) -> None:
        self.stored = stored
        self.jets = min(len(stored), settings.validation_jets or len(stored))
        self.weights = weights
        self.loss = Loss(settings.loss.gamma, settings.loss.double_softmax)
        self.attacks: dict[str, Attack | None] = {"raw": None, **attacks}
        self.device = device
        small = stored.nbytes * self.jets < IN_MEMORY * len(stored)
        self.kept = list(self._read()) if small else None

    def _read(self) -> Iterable[tuple[Sample, Tensor]]:
        for start in range(0, self.jets, CHUNK):
            sample = self.stored.read(start, min(start + CHUNK, self.jets))
            yield sample.to(self.device), self.weights.of(sample).to(self.device)

    def __call__(self, tagger: Tagger) -> dict[str, Any]:
        """`validation_loss` by attack, and `auc` by attack and discriminator; None where a class has no jets.

        `mistag` has points of the ROC curves, by attack, discriminator and signal efficiency, "0.05" to "0.95".
        Losses carry the weights of the training, areas those of the generator.
        """
        sums = {name: torch.zeros((), dtype=torch.float64, device=self.device) for name in self.attacks}
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        curves: dict[str, dict[str, RocHistogram]] = {name: {} for name in self.attacks}
        with evaluation_mode(tagger):
            for sample, weight in self._read() if self.kept is None else self.kept:
                total += weight.abs().sum()
                for name, attack in self.attacks.items():
                    logits = logits_of(tagger, attack, sample)
                    sums[name] += (self.loss(logits, sample.target) * weight).sum()
                    scores = discriminators(logits.softmax(1), tagger.classes)
                    more = roc_histograms(scores, sample.target, tagger.classes, sample.inputs.weight)
                    curves[name] = {key: roc + curves[name][key] for key, roc in more.items()} if curves[name] else more
        return {
            "validation_loss": {name: float(loss / total.clamp(min=1e-6)) for name, loss in sums.items()},
            "auc": {name: {key: roc.auc() for key, roc in rocs.items()} for name, rocs in curves.items()},
            "mistag": {name: {key: points(roc) for key, roc in rocs.items()} for name, rocs in curves.items()},
        }


def points(roc: RocHistogram) -> dict[str, float | None]:
    """Mistag rate by signal efficiency, six digits."""
    found = {f"{efficiency:.2f}": roc.mistag_at_efficiency(efficiency) for efficiency in EFFICIENCIES}
    return {efficiency: None if mistag is None else float(f"{mistag:.6g}") for efficiency, mistag in found.items()}


def logits_of(tagger: Tagger, attack: Attack | None, sample: Sample) -> Tensor:
    """Logits of jets, float [jets, classes], raw or attacked."""
    inputs = sample.inputs if attack is None else attack(tagger, sample.inputs, sample.target)
    with torch.no_grad():
        logits: Tensor = tagger(inputs.values, inputs.present)
    return logits
