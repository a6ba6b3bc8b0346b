"""From evaluated samples to numbers: every variant measured, then compared with its truth."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.histograms import RAW
from configs.study import METHODS as FLAVOUR_OF
from configs.study import Study
from models.tagger import load_tagger
from simulation.variants import get_variant
from study.agreement import Agreement, agreement
from study.conclude import CLOSURE, SHAPE, TRUE, Key
from study.counts import Array, Bootstrap
from study.jets import FLAVOURS, Floats, Jets, read_jets
from study.measure import METHODS, Sample, Selections, measure, working_points
from study.methods import Measured
from study.negative import negative_scores
from study.samples import CONTROL, EVALUATED, MC, data_name
from study.truth import true_efficiencies, true_flavours, true_shift

Files = dict[str, dict[str, list[Path]]]
"""sample -> process -> files"""


@dataclass(frozen=True)
class Outcome:
    """Numbers of a study."""

    selections: Selections
    results: dict[Key, Array] = field(default_factory=dict)
    """Scale factors, [replicas], the first one of the sample itself."""
    efficiencies: dict[Key, tuple[float, float]] = field(default_factory=dict)
    """In data and MC."""
    agreements: list[Agreement] = field(default_factory=list)
    shapes: dict[Key, Array] = field(default_factory=dict)
    """Jensen-Shannon distance of the discriminator, [replicas]; the process in the place of the flavour."""
    shifts: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    """Efficiency in data minus that in MC of all variants but the closure, by flavour, working point and tagger, in the
    pt spectrum of the jets that are attacked: see `study.truth.true_shift`."""

    @property
    def distances(self) -> dict[Key, Array]:
        """|SF - 1| of every scale factor, and the distances of shapes."""
        return {key: np.abs(factor - 1) for key, factor in self.results.items()} | self.shapes

    def add(self, key: tuple[str, str, str], measured: Measured) -> None:
        """Put in what was measured; the key is variant, flavour and method."""
        factors = measured.scale_factor
        for k, (tagger, point) in enumerate(self.selections.keys):
            self.results[*key, tagger, point] = factors[k]
            self.efficiencies[*key, tagger, point] = float(measured.data[k, 0]), float(measured.mc[k, 0])

    def add_shifts(self, flavour: str, shifts: Array) -> None:
        """Put in the true shifts of one variant, [selections, replicas]."""
        for (tagger, point), shift in zip(self.selections.keys, shifts, strict=True):
            self.shifts.setdefault((flavour, point, tagger), []).append(float(shift[0]))


def compare(study: Study, files: Files, taggers: dict[str, Path]) -> Outcome:
    """All numbers, from the evaluated samples.

    Raises:
        AdvtagError: see `study.jets` and `study.truth`
    """
    bootstrap = Bootstrap(study.bootstrap, study.seed)
    read = {process: read_sample(study, MC, process, taggers) for process in study.mc.events}
    selections = selections_of(study, read[next(iter(read))][0])
    mc = {process: sample(study, selections, *both) for process, both in read.items()}
    unweighted = {process: without_weights(each) for process, each in mc.items()}
    spectra = {process: each.inside(study, bootstrap, CONTROL[process]) for process, each in mc.items()}
    outcome = Outcome(selections)
    closure: dict[str, Sample] = {}
    # the closure first: variants of the detector are compared with its events
    for variant in sorted(study.variants, key=lambda name: name != CLOSURE):
        name = data_name(variant)
        read = {process: read_sample(study, name, process, taggers) for process in study.data.events}
        data = {process: sample(study, selections, *both) for process, both in read.items()}
        # as for the prescaled triggers of real multijets, simulation is made the way the data are
        alike = mc if get_variant(variant).is_data else unweighted
        for method, measured in measure(study, bootstrap, alike, data).items():
            outcome.add((variant, METHODS[method][1], method), measured)
        add_agreements(study, bootstrap, outcome, variant, (data, alike))
        # from here on the truth is known
        known = {process: with_truth(each, files[name][process]) for process, each in data.items()}
        for process, each in known.items():
            twin = closure.get(process)
            nominal = twin if twin is not None and twin.generated == each.generated else alike[process]
            counts = [other.inside(study, bootstrap, "jets") for other in (each, nominal)]
            flavour = FLAVOUR_OF[process]
            outcome.add((variant, flavour, TRUE), true_efficiencies(counts[0], counts[1], flavour))
            if variant != CLOSURE:
                outcome.add_shifts(flavour, true_shift(counts[0], counts[1], spectra[process], flavour))
        closure = known if variant == CLOSURE else closure
    return outcome


def selections_of(study: Study, jets: Jets) -> Selections:
    """Working points from the light jets of one process of the simulation."""
    assert jets.flavour is not None  # noqa: S101 - for the type checker
    chosen = (jets.flavour == FLAVOURS.index("light")) & (jets.weights["jets"] > 0)
    scores = {name: jets.scores[name, RAW][chosen] for name in study.names}
    return working_points(study, scores, jets.weights["jets"][chosen])


def add_agreements(
    study: Study,
    bootstrap: Bootstrap,
    outcome: Outcome,
    variant: str,
    samples: tuple[Mapping[str, Sample], Mapping[str, Sample]],
) -> None:
    """Data/MC of the discriminator, for each tagger and process."""
    data, mc = samples
    for tagger in study.names:
        for process in data:
            pair = data[process].jets, mc[process].jets
            scores = pair[0].scores[tagger, RAW], pair[1].scores[tagger, RAW]
            found, distances = agreement((variant, process, tagger), pair, study.pt_bins, scores, bootstrap)
            outcome.agreements.append(found)
            outcome.shapes[variant, process, SHAPE, tagger, ""] = distances


def read_sample(
    study: Study, name: str, process: str, taggers: dict[str, Path]
) -> tuple[Jets, dict[str, Floats] | None]:
    """Jets of a process, and, in multijets, the scores of the flipped jets by tagger.

    Raises:
        AdvtagError: see `read_jets`
    """
    flip = FLAVOUR_OF[process] == "light"
    jets = read_jets(study.output / EVALUATED / name, process, study.discriminator, study.features, inputs=flip)
    if jets.inputs is None:
        return jets, None
    scores = {
        tagger: negative_scores(jets.inputs, load_tagger(path), study.discriminator) for tagger, path in taggers.items()
    }
    return replace(jets, inputs=None), scores


def sample(study: Study, selections: Selections, jets: Jets, negative: dict[str, Floats] | None) -> Sample:
    """Jets with the decisions of the taggers."""
    scores = {tagger: jets.scores[tagger, RAW] for tagger in study.names}
    flipped = None if negative is None else selections.passed(negative)
    tagger, cut = selections.tag
    return Sample(jets, selections.passed(scores), flipped, np.asarray(scores[tagger] > cut))


def without_weights(mc: Sample) -> Sample:
    """The same without generator weights: jets of `qcd` with the bias to high pT that hidden samples of it have."""
    weights = {region: np.sign(weight) for region, weight in mc.jets.weights.items()}
    return replace(mc, jets=replace(mc.jets, weights=weights))


def with_truth(data: Sample, files: Iterable[Path]) -> Sample:
    """The same jets with their true flavours."""
    return replace(data, jets=replace(data.jets, flavour=true_flavours(files, data.jets)))
