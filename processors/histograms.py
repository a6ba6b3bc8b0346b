"""Histograms of inputs and discriminators, nominal and attacked, filled in one pass over the events."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hist
import numpy as np
import torch
from coffea import processor
from numpy.typing import NDArray

from attacks import Attack
from common.histograms import RAW, TRANSFER
from configs.schema import Region, Selection
from models.classes import NODES, TAGGER_SCORES
from models.features import FeatureSet, Input
from models.inputs import Inputs
from models.keys import jet_keys
from models.tagger import worker_tagger
from processors.blocks import Block, Fill, Filler, Layout, as_histograms
from processors.columns import count
from processors.corrections import NOMINAL, Corrections
from processors.correlations import Correlator
from processors.evaluate import evaluate
from processors.jets import FLAVOURS, Jets, read_jets
from processors.preselection import Preselection
from processors.regions import select
from processors.scores import scores_table, write_scores

ALL = "*"
"""In the key of a block: it holds for every tagger, like the raw inputs."""
DISCRIMINATOR_BINS = 1000
"""Fine enough that ROC curves and AUCs can be read off the histogram."""


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
        preselections: golden JSON, filters and triggers, by dataset
        corrections: weights and shifts, with their variations
        transfer: taggers whose attacked jets the others are shown
        device: `cpu`, `cuda`, or `auto`: a GPU if the worker has one
        parts: folder for the scores of every jet, `parts/DATASET/UUID-START.parquet`; None: they are not written
        correlations: add up products of inputs, too, of nominal jets
    """

    def __init__(
        self,
        features: FeatureSet,
        selection: Selection,
        datasets: Mapping[str, bool],
        regions: Mapping[str, Region],
        taggers: Mapping[str, bytes],
        attacks: Mapping[str, Attack],
        precision: str,
        preselections: Mapping[str, Preselection] | None = None,
        corrections: Corrections | None = None,
        transfer: Sequence[str] = (),
        device: str = "cpu",
        parts: Path | None = None,
        *,
        correlations: bool = False,
    ) -> None:
        self.features = features
        self.selection = selection
        self.datasets = datasets
        self.regions = regions
        self.taggers = taggers
        self.attacks = attacks
        self.precision = precision
        self.preselections = preselections or {name: Preselection(data) for name, data in datasets.items()}
        self.corrections = corrections or Corrections({}, datasets)
        self.transfer = frozenset(transfer)
        self.device = device
        self.parts = parts
        self.correlations = correlations
        self.inputs = Layout(tuple(input_axis(feature) for feature in features.inputs))
        self.scores = Layout(tuple(score_axis(name) for name in TAGGER_SCORES))

    def process(self, events: Any) -> dict[str, Any]:
        """Fill a chunk; return its counts, cutflows `{"cutflow": {dataset: {region: {cut: [events, weights]}}}}`, and
        blocks by dataset and layout, `{"blocks": {dataset: {"inputs": ..., "scores": ...}}}` (see `histograms`), and
        with them `correlations` (see `common.correlations`); with `parts` also `{"parts": [name of the file]}`.

        The nominal jets are attacked; jets under variations of their energy are scored as they are.
        """
        torch.set_num_threads(1)  # one core per worker process; more would fight each other
        dataset = events.metadata["dataset"]
        data = self.datasets[dataset]
        output: dict[str, Any] = {}
        blocks: dict[str, dict[str, Block]] = {}
        for shift, shifted in self.corrections.shifts(events, data):
            jets = read_jets(shifted, self.features, self.selection, data=data)
            fills, cutflow = self._select(shifted, jets, shift, dataset)
            if shift == NOMINAL:
                output = {**count(events, jets, data), "cutflow": {dataset: cutflow}}
            attacks = self.attacks if shift == NOMINAL and not data else {}
            kept: dict[tuple[str, str], Any] | None = {} if self.parts is not None and shift == NOMINAL else None
            correlator = None
            if self.correlations and shift == NOMINAL:
                correlator = Correlator(self.inputs.axes, jets.present.T, fills, NOMINAL)
            for kind, filled in self._fill(jets, fills, attacks, kept, correlator).items():
                blocks.setdefault(kind, {}).update(filled)
            if self.parts is not None and kept is not None:
                table = scores_table(jets, fills, NOMINAL, kept)
                output["parts"] = write_scores(self.parts, events.metadata, table)
        return {**output, "blocks": {dataset: blocks}}

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing to do."""
        return accumulator

    def _select(
        self, events: Any, jets: Jets, shift: str, dataset: str
    ) -> tuple[list[Fill], dict[str, dict[str, NDArray[np.float64]]]]:
        """The jets of each region with their weights under every variation, and the cutflows."""
        fills, cutflows = [], {}
        for name, region in self.regions.items():
            selected = select(events, jets, region, self.preselections[dataset])
            weights = self.corrections.weights(events, jets, name, selected, shift)
            if shift == NOMINAL and not self.datasets[dataset]:  # a shift that leaves this dataset alone
                others = set(self.corrections.variations) - set(self.corrections.shifts_of(dataset))
                weights |= {variation: weights.get(variation, weights[NOMINAL]) for variation in others}
            rows = np.flatnonzero(selected.kept)
            sign = 1.0 if selected.sign is None else selected.sign[rows]
            # variations that are the nominal one stay the same array: they are filled once
            distinct = {id(weight): weight[rows] * sign for weight in weights.values()}
            fills.append(Fill(name, rows, {variation: distinct[id(weight)] for variation, weight in weights.items()}))
            cutflows[name] = {cut: np.array(left, np.float64) for cut, left in selected.cutflow.items()}
        return fills, cutflows

    def _fill(
        self,
        jets: Jets,
        fills: Sequence[Fill],
        attacks: Mapping[str, Attack],
        kept: dict[tuple[str, str], Any] | None,
        correlator: Correlator | None,
    ) -> dict[str, dict[str, Block]]:
        """Blocks of inputs, scores and correlations; the scores themselves go to `kept` by (tagger, attack)."""
        inputs, scores = Filler(self.inputs, jets.flavour, fills), Filler(self.scores, jets.flavour, fills)
        present, everywhere = jets.present.T, [np.ones(len(jets), np.bool_)] * len(TAGGER_SCORES)
        weights = tuple(dict.fromkeys(name for fill in fills for name in fill.weights))
        # the raw inputs are the same whatever the tagger: filled once, entered under each
        inputs.fill(ALL, RAW, jets.values.T, present, weights)
        if correlator is not None:
            correlator.fill("", RAW, jets.values.T)
        for found in self._evaluated(jets, attacks):
            variations = weights if found.attack == RAW else (NOMINAL,)
            for tagger, by_name in found.scores.items():
                attack = found.attack if tagger == found.tagger else f"{found.attack}{TRANSFER}{found.tagger}"
                scores.fill(tagger, attack, list(by_name.values()), everywhere, variations)
                if kept is not None:
                    kept[tagger, attack] = {score: values.astype(np.float32) for score, values in by_name.items()}
                if found.moved is not None:
                    inputs.fill(tagger, attack, found.moved, present, variations)
                    if correlator is not None and tagger == found.tagger:
                        correlator.fill(tagger, attack, found.moved, jets.values.T)
        blocks = {"inputs": inputs.blocks, "scores": scores.blocks}
        return blocks if correlator is None else {**blocks, "correlations": correlator.blocks}

    def _evaluated(self, jets: Jets, attacks: Mapping[str, Attack]) -> Any:
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        taggers = {name: worker_tagger(content, name, dtype).to(device) for name, content in self.taggers.items()}
        inputs = Inputs(
            torch.from_numpy(jets.values),
            torch.from_numpy(jets.present),
            jet_keys(jets.run, jets.lumi, jets.event, jets.index),
            torch.from_numpy(jets.weight),
        )
        return evaluate(taggers, attacks, self.transfer, inputs, jets.flavour)

    def histograms(self, dataset: str, blocks: Mapping[str, Mapping[str, Block]]) -> dict[str, hist.Hist]:
        """Histograms of a dataset's accumulated blocks (axes: see `common.histograms`)."""
        shown = [f"{attack}{TRANSFER}{tagger}" for attack in self.attacks for tagger in sorted(self.transfer)]
        axes = [
            hist.axis.StrCategory(list(self.regions), name="region"),
            hist.axis.StrCategory(list(FLAVOURS), name="flavour"),
            hist.axis.StrCategory(list(self.corrections.variations), name="variation"),
            hist.axis.StrCategory(list(self.taggers), name="tagger"),
            hist.axis.StrCategory([RAW, *self.attacks, *shown], name="attack"),
        ]
        return {
            **as_histograms(self.inputs, blocks.get("inputs", {}), axes, dataset, ALL),
            **as_histograms(self.scores, blocks.get("scores", {}), axes, dataset, ALL),
        }


def input_axis(feature: Input) -> hist.axis.AxesMixin:
    """Plot axis of an input: unit bins for integers."""
    number, low, high = feature.bins
    if feature.integer:
        return hist.axis.Integer(int(low), int(high), name=feature.name, label=feature.axis_label)
    return hist.axis.Regular(number, low, high, name=feature.name, label=feature.axis_label)


def score_axis(name: str) -> hist.axis.AxesMixin:
    """Axis of a discriminator or node output, [0, 1]; where it is undefined it is -1, in the underflow."""
    label = " + ".join(f"P({each})" for each in NODES[name][0]) if name in NODES else name
    return hist.axis.Regular(DISCRIMINATOR_BINS, 0, 1, name=name, label=label)
