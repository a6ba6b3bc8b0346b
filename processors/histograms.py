"""Histograms of inputs and discriminators, nominal and attacked, filled in one pass over the events."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import boost_histogram as bh
import hist
import numpy as np
import torch
from coffea import processor
from numpy.typing import NDArray

from attacks import Attack
from common.histograms import RAW
from configs.schema import Region, Selection
from models.classes import CLASSES, DISCRIMINATORS
from models.discriminators import discriminators
from models.features import FeatureSet, Input
from models.inputs import Inputs
from models.keys import jet_keys
from models.tagger import Tagger, worker_tagger
from processors.columns import count
from processors.jets import FLAVOURS, NO_TRUTH, Jets, read_jets
from processors.regions import in_region

VARIATIONS = ("nominal",)
DISCRIMINATOR_BINS = 1000
"""Fine enough that ROC curves and AUCs can be read off the histogram."""
BATCH = 4096
"""Jets through the network at once: the activations of so many stay in the cache."""


class HistogramProcessor(processor.ProcessorABC):  # type: ignore[misc]
    """Evaluates every tagger on raw and attacked jets and fills histograms of both.

    Raw and attacked categories hold the same jets with the same weights. Data is never attacked. The taggers
    travel as bytes and are built once per worker process.

    Args:
        features: feature card, the same as the taggers'
        selection: which jets
        datasets: name to `is it data`
        regions: by name
        taggers: tagger files by name
        attacks: by name
        precision: `float32` or `float64`, of the network
    """

    def __init__(
        self,
        features: FeatureSet,
        selection: Selection,
        datasets: dict[str, bool],
        regions: dict[str, Region],
        taggers: dict[str, bytes],
        attacks: dict[str, Attack],
        precision: str,
    ) -> None:
        self.features = features
        self.selection = selection
        self.datasets = datasets
        self.regions = regions
        self.taggers = taggers
        self.attacks = attacks
        self.precision = precision

    def process(self, events: Any) -> dict[str, Any]:
        """Fill a chunk; return `{"counts": ..., "histograms": {variable: Hist}}`."""
        torch.set_num_threads(1)  # one core per worker process; more would fight each other
        dataset = events.metadata["dataset"]
        data = self.datasets[dataset]
        jets = read_jets(events, self.features, self.selection, data=data)
        filler = Filler(jets, {name: in_region(events, jets, region) for name, region in self.regions.items()})
        attacks = {} if data else self.attacks
        histograms = book(self.features, dataset, self.regions, self.taggers, (RAW, *self.attacks))
        for category, variable, values, there in self._distributions(jets, attacks):
            filler.fill(histograms[variable], category, values, there)
        return {"counts": count(events, jets, data), "histograms": histograms}

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing to do."""
        return accumulator

    def _distributions(
        self, jets: Jets, attacks: Mapping[str, Attack]
    ) -> Iterator[tuple[tuple[tuple[str, ...], str], str, NDArray[Any], NDArray[np.bool_] | None]]:
        """Yield ((taggers, attack), variable, values [jets], presence [jets] or None) of all that is filled."""
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        inputs = Inputs(
            torch.from_numpy(jets.values),
            torch.from_numpy(jets.present),
            jet_keys(jets.run, jets.lumi, jets.event, jets.index),
            torch.from_numpy(jets.weight),
        )
        # the raw inputs are the same whatever the tagger: filled once, entered under each
        for row, name in enumerate(self.features.names):
            yield (tuple(self.taggers), RAW), name, jets.values[:, row], jets.present[:, row]
        for tagger_name, content in self.taggers.items():
            tagger = worker_tagger(content, tagger_name, dtype)
            target = targets(tagger, jets.flavour)
            for attack_name, attack in {RAW: None, **attacks}.items():
                moved, scores = evaluate(tagger, attack, inputs, target, dtype)
                category = ((tagger_name,), attack_name)
                for name, score in scores.items():
                    yield category, name, score, None
                if attack is not None:
                    for row, name in enumerate(self.features.names):
                        yield category, name, moved[row], jets.present[:, row]


def targets(tagger: Tagger, flavour: NDArray[np.int8]) -> torch.Tensor:
    """True class of each jet among the tagger's outputs, int64 [jets]; bb is b to a tagger without bb, and data,
    which no attack sees, is class 0.
    """
    places = [tagger.classes.index("b" if name == "bb" and name not in tagger.classes else name) for name in CLASSES]
    return torch.from_numpy(np.array([*places, 0])[flavour])


def evaluate(
    tagger: Tagger, attack: Attack | None, inputs: Inputs, target: torch.Tensor, dtype: torch.dtype
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Attack jets and score them: batch by batch, unless the attack looks at all jets of the chunk.

    Returns:
        moved inputs, feature-major [features, jets], and discriminators by name, each [jets]
    """
    real = np.float64 if dtype == torch.float64 else np.float32
    moved = np.empty((0 if attack is None else inputs.values.shape[1], len(inputs)), real)
    scores = {name: np.empty(len(inputs), real) for name in DISCRIMINATORS}
    whole = None if attack is None or attack.per_jet else attack(tagger, inputs.to(dtype=dtype), target)
    for start in range(0, len(inputs), BATCH):
        batch = slice(start, start + BATCH)
        jets = (inputs if whole is None else whole)[batch].to(dtype=dtype)
        jets = replace(jets, values=jets.values.contiguous(), present=jets.present.contiguous())
        if attack is not None and whole is None:
            jets = attack(tagger, jets, target[batch])
        if attack is not None:
            moved[:, batch] = jets.values.T.numpy()
        with torch.no_grad():
            probabilities = tagger(jets.values, jets.present).softmax(1)
        for name, score in discriminators(probabilities, tagger.classes).items():
            scores[name][batch] = score.numpy()
    return moved, scores


def book(
    features: FeatureSet,
    dataset: str,
    regions: Mapping[str, object],
    taggers: Mapping[str, object],
    attacks: tuple[str, ...],
) -> dict[str, hist.Hist]:
    """Empty histograms of every input and discriminator (axes: see `common.histograms`)."""
    axes = (
        hist.axis.StrCategory([dataset], name="dataset", growth=True),
        hist.axis.StrCategory(list(regions), name="region"),
        hist.axis.StrCategory(list(FLAVOURS), name="flavour"),
        hist.axis.StrCategory(list(VARIATIONS), name="variation"),
        hist.axis.StrCategory(list(taggers), name="tagger"),
        hist.axis.StrCategory(list(attacks), name="attack"),
    )
    variables = [input_axis(feature) for feature in features.inputs]
    variables += [hist.axis.Regular(DISCRIMINATOR_BINS, 0, 1, name=name, label=name) for name in DISCRIMINATORS]
    return {axis.name: hist.Hist(*axes, axis, storage=hist.storage.Weight()) for axis in variables}


def input_axis(feature: Input) -> hist.axis.AxesMixin:
    """Plot axis of an input: unit bins for integers."""
    number, low, high = feature.bins
    if feature.integer:
        return hist.axis.Integer(int(low), int(high), name=feature.name, label=feature.axis_label)
    return hist.axis.Regular(number, low, high, name=feature.name, label=feature.axis_label)


class Filler:
    """Fills a chunk's jets region by region.

    A named category costs a string comparison per entry, so each fill goes into a small histogram with integer
    flavours, whose bins are then added to the one category of the large histogram.
    """

    def __init__(self, jets: Jets, regions: Mapping[str, NDArray[np.bool_]]) -> None:
        self.flavour = jets.flavour.astype(np.int32)
        self.weight = jets.weight
        self.regions = regions

    def fill(
        self,
        histogram: hist.Hist,
        category: tuple[tuple[str, ...], str],
        values: NDArray[Any],
        there: NDArray[np.bool_] | None,
    ) -> None:
        """Add values [jets], where they are present, under each of the category's taggers."""
        taggers, attack = category
        axis = histogram.axes[-1]
        for region, inside in self.regions.items():
            kept = inside if there is None else inside & there
            small = bh.Histogram(bh.axis.Integer(0, NO_TRUTH + 1), axis, storage=bh.storage.Weight())
            filled = values[kept].astype(np.int32) if isinstance(axis, bh.axis.Integer) else values[kept]
            small.fill(self.flavour[kept], filled, weight=self.weight[kept])
            bins = small.view(flow=True)[1:-1]
            for tagger in taggers:
                place = (
                    0,
                    histogram.axes["region"].index(region),
                    slice(0, len(FLAVOURS)),
                    0,
                    histogram.axes["tagger"].index(tagger),
                    histogram.axes["attack"].index(attack),
                )
                view = histogram.view(flow=True)[place]
                view["value"] += bins["value"]
                view["variance"] += bins["variance"]
