"""Vulnerability against the number of inputs: taggers trained on growing sets of them.

The study of the CMS thesis and of A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15 names it as a next step: more
inputs separate better, and give an attack more to move.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from common.errors import AdvtagError
from common.files import whole_file
from common.progress import progress_bar
from configs.schema import Analysis
from models.classes import DISCRIMINATORS
from models.features import FeatureSet
from training.cache import Cache, Stored, open_cache
from training.columns import Sample
from training.disk_array import Blocks
from training.distributed import world
from training.records import Records
from training.stopping import Stopping
from training.train import one_thread_on, train

RANKING_JETS = 100_000
"""Validation jets that the inputs are ranked with."""
LOWEST = np.finfo(np.float64).min
"""Score of an absent entry; no input is that low."""


def subset(features: FeatureSet, names: Sequence[str]) -> FeatureSet:
    """The card with these inputs only, in its own order; an entry that follows an input left out moves by itself.

    Raises:
        AdvtagError: no names, an input that the card does not have, or one twice
    """
    wrong = [name for name in names if name not in features.names or list(names).count(name) > 1]
    if wrong or not names:
        said = f"{wrong[0]!r} is none of its inputs, or is named twice" if wrong else "no input is left"
        raise AdvtagError(f"inputs of feature card {features.name!r}: {said}")
    inputs = [
        feature.model_copy(
            update={
                "same_as": tuple(name for name in feature.same_as if name in names),
                "proportional_to": feature.proportional_to if feature.proportional_to in names else None,
            }
        )
        for feature in features.inputs
        if feature.name in names
    ]
    return FeatureSet(name=f"{features.name}_{len(inputs)}", inputs=tuple(inputs))


def areas(sample: Sample, classes: Sequence[str]) -> list[float]:
    """Area under the ROC curve of b (and bb) against udsg for each input alone as the score, [features].

    Absent entries come lowest. The larger the input, the more like b: an area of 0.1 tells as much as one of 0.9.

    Raises:
        AdvtagError: b or light jets are missing
    """
    signal, background = (_is_any(sample, classes, names) for names in DISCRIMINATORS["BvsL"])
    if not signal.any() or not background.any():
        raise AdvtagError("ranking of the inputs: needs b and light jets among the validation jets")
    jets = signal | background
    truth, values, present = signal[jets].numpy(), sample.inputs.values[jets], sample.inputs.present[jets]
    scores = np.where(present.numpy(), values.numpy().astype(np.float64), LOWEST)
    return [float(roc_auc_score(truth, score)) for score in scores.T]


def ranking(sample: Sample, features: FeatureSet, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the inputs, those first that separate b from light jets best by themselves (see `areas`).

    Inputs that tell the same come one after another: the ranking knows nothing of correlations.

    Raises:
        AdvtagError: see `areas`
    """
    power = np.abs(np.array(areas(sample, classes)) - 0.5)
    return tuple(features.names[k] for k in np.argsort(-power, kind="stable"))


def growing(inputs: int, points: int = 10) -> tuple[int, ...]:
    """Numbers of inputs from 1 to all of them, in about equal ratios; at most `points`."""
    return tuple(np.unique(np.geomspace(1, inputs, points).round().astype(int)).tolist())


def scan_cards(
    features: FeatureSet, order: Sequence[str], numbers: Sequence[int] | None = None
) -> Iterator[tuple[int, FeatureSet]]:
    """Yield each number, and the card with the first so many inputs of the order.

    Args:
        features: the whole card
        order: names of its inputs, most important first: from `ranking`, or any other
        numbers: how many inputs; None: `growing`, up to the whole order

    Raises:
        AdvtagError: more inputs than the order has, none, or names that the card does not have
    """
    for number in growing(len(order)) if numbers is None else numbers:
        if not 1 <= number <= len(order):
            raise AdvtagError(f"scan of the inputs: {number} of them asked for; expected 1 to {len(order)}")
        yield number, subset(features, order[:number])


class SomeInputs(Stored):
    """Stored jets of which only some inputs are looked at."""

    def __init__(self, whole: Stored, columns: Sequence[int]) -> None:
        self.arrays = whole.arrays
        self.columns = torch.tensor(columns)

    def gather(self, blocks: Blocks) -> Sample:
        """See `Stored`."""
        sample = super().gather(blocks)
        values, present = (tensor[:, self.columns] for tensor in (sample.inputs.values, sample.inputs.present))
        return replace(sample, inputs=replace(sample.inputs, values=values, present=present))


def cache_of(cache: Cache, card: FeatureSet) -> Cache:
    """The same jets for a card from `subset`."""
    columns = [cache.features.names.index(name) for name in card.names]
    train_jets, validation = SomeInputs(cache.train, columns), SomeInputs(cache.validation, columns)
    return Cache(train_jets, validation, cache.classes, card, f"{cache.digest}-{card.digest}")


def scan(analysis: Analysis, name: str, numbers: Sequence[int] | None = None, *, progress: bool = True) -> Path:
    """Train on growing sets of inputs, the most important first; write `output/scan/scan.json` and return it.

    Beside it is the folder of each training: an interrupted scan goes on where it stopped.

    Args:
        analysis: the configuration
        name: the training in it whose settings hold; the first attack of its `evaluate_with` is the attack of the scan
        numbers: how many inputs; None: `growing`
        progress: show a progress bar

    Raises:
        AdvtagError: no such training, one without `evaluate_with`, and see `training.train.train`
        SystemExit: asked to leave; everything is saved
    """
    settings = analysis.training.get(name)
    if settings is None or not settings.evaluate_with:
        known = ", ".join(analysis.training) or "none"
        raise AdvtagError(f"scan of the inputs: needs a training with `evaluate_with`; no such {name!r} among: {known}")
    cache = open_cache(analysis.output / "columns")
    order = ranking(cache.validation.read(0, RANKING_JETS), cache.features, cache.classes)
    cards = list(scan_cards(cache.features, order, None if numbers is None else sorted(set(numbers))))
    folder, points = analysis.output / "scan", []
    with world() as here, Stopping() as stopping, progress_bar("trainings", show=progress) as bar:
        one_thread_on(here.device)
        task, before = bar.add_task(f"{name} on growing inputs", total=len(cards)), 0
        for number, card in cards:
            records = Records(folder, f"{name}_{number:04d}")
            train(cache_of(cache, card), settings, analysis, records, here, stopping)
            areas_of = records.history()[-1]["auc"]
            points.append({"inputs": number, "added": list(order[before:number]), "auc": areas_of})
            before = number
            bar.update(task, advance=1, description=f"{number} inputs")
        page = {"attack": settings.evaluate_with[0], "epochs": settings.epochs, "points": points}
        if here.writes:
            with whole_file(folder / "scan.json") as aside:
                aside.write_text(json.dumps(page, indent=1, allow_nan=False), encoding="utf-8")
    return folder / "scan.json"


def _is_any(sample: Sample, classes: Sequence[str], names: Sequence[str]) -> torch.Tensor:
    codes = torch.tensor([classes.index(name) for name in names if name in classes])
    return torch.isin(sample.target, codes)
