"""What an analysis measures on one sample of data. Nothing here knows a flavour of the data."""

from dataclasses import dataclass

import numpy as np

from common.errors import AdvtagError
from configs.study import Study
from simulation.detector.reconstruct import MAX_EVENTS
from study.counts import Array, Bootstrap, Counts, Ints, count, like_data
from study.fit import Templates, fit, histograms
from study.jets import Bools, Floats, Jets
from study.methods import Measured, negative_tags, probes, subtracted
from study.samples import MC

METHODS = {
    "tag-and-probe": ("ttbar-dilepton", "b"),
    "W+c, OS-SS": ("wc", "c"),
    "W+c, vertex mass": ("wc", "c"),
    "negative tags": ("qcd", "light"),
    "multijet, vertex mass": ("qcd", "b"),
}
"""Process and flavour of each measurement."""
W_PLUS_C, W_JETS = ("wc_mu", "wc_e"), ("w_mu", "w_e")


@dataclass(frozen=True)
class Selections:
    """Taggers and working points, in the order of the axis `selections`."""

    keys: tuple[tuple[str, str], ...]
    """tagger, working point"""
    cuts: tuple[float, ...]
    tag: tuple[str, float]
    """Tagger and cut that tag in tag-and-probe."""

    def passed(self, scores: dict[str, Floats]) -> Bools:
        """Which jets pass, [selections, jets], given the scores by tagger."""
        return np.stack([scores[tagger] > cut for (tagger, _), cut in zip(self.keys, self.cuts, strict=True)])


def working_points(study: Study, light: dict[str, Floats], weight: Floats) -> Selections:
    """Cuts that keep the configured fractions of light jets.

    Args:
        study: names of taggers and working points
        light: scores of light jets by tagger
        weight: their weights

    Raises:
        AdvtagError: there are none
    """
    if not weight.sum() > 0:
        raise AdvtagError(
            f"no light jets of {next(iter(study.mc.events))} in the sample {MC!r}, which define the working points; "
            "simulate more events (the key `mc.events`)"
        )
    cuts = {
        (tagger, name): _quantile(light[tagger], weight, 1 - fraction)
        for tagger in study.names
        for name, fraction in study.working_points.items()
    }
    tightest = min(study.working_points, key=lambda name: study.working_points[name])
    return Selections(tuple(cuts), tuple(cuts.values()), (study.first, cuts[study.first, tightest]))


def _quantile(values: Floats, weight: Floats, fraction: float) -> float:
    order = np.argsort(values)
    below = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(below, fraction)), len(order) - 1)])


@dataclass(frozen=True)
class Sample:
    """Jets of one process in a sample, what passes, and how its events fluctuate."""

    jets: Jets
    passed: Bools
    """[selections, jets]"""
    negative: Bools | None
    """The same for the flipped jets, where they were asked for."""
    tagged: Bools
    """Passes the tag of tag-and-probe, [jets]."""

    @property
    def generated(self) -> int:
        """Which generated events these are: variants of the detector share them."""
        return int(self.jets.event[0]) // MAX_EVENTS if len(self.jets) else -1

    def counts(self, study: Study, bootstrap: Bootstrap, rows: Ints, weight: Floats, passed: Bools) -> Counts:
        """Counts of some of the jets, given their rows, and weights and decisions of all."""
        jets = self.jets
        replicas = bootstrap.weights(jets.event[rows])
        flavour = None if jets.flavour is None else jets.flavour[rows]
        return count(jets.pt[rows], study.pt_bins, flavour, weight[rows], passed[:, rows], replicas)

    def probes(self, study: Study, bootstrap: Bootstrap) -> Counts:
        """Jets whose partner in e mu ttbar is tagged."""
        weight = self.jets.weights["emu"]
        rows = probes(self.jets, weight != 0, self.tagged)
        return self.counts(study, bootstrap, rows, weight, self.passed)

    def inside(self, study: Study, bootstrap: Bootstrap, *regions: str, negative: bool = False) -> Counts:
        """Jets of regions that do not overlap; `negative`: passing where the flipped jet passes."""
        weight = self.jets.inside(regions)
        passed = self.negative if negative else self.passed
        assert passed is not None  # noqa: S101 - for the type checker
        return self.counts(study, bootstrap, np.flatnonzero(weight), weight, passed)

    def templates(self, study: Study, bootstrap: Bootstrap, regions: tuple[str, ...], factor: Array) -> Templates:
        """Histograms of the vertex mass, with a factor for each pt bin."""
        jets = self.jets
        weight = jets.inside(regions) * factor[np.searchsorted(study.pt_bins, jets.pt, side="right")]
        rows = np.flatnonzero(weight)
        replicas = bootstrap.weights(jets.event[rows])
        flavour = None if jets.flavour is None else jets.flavour[rows]
        return histograms(jets.vertex_mass[rows], flavour, weight[rows], self.passed[:, rows], replicas)


def measure(study: Study, bootstrap: Bootstrap, mc: dict[str, Sample], data: dict[str, Sample]) -> dict[str, Measured]:
    """Scale factors by method, from one sample of data.

    Args:
        study: its settings
        bootstrap: replicas
        mc: simulation by process, with flavours
        data: the same processes, without
    """
    found = {}
    if "ttbar-dilepton" in data:
        both = (data["ttbar-dilepton"].probes(study, bootstrap), mc["ttbar-dilepton"].probes(study, bootstrap))
        found["tag-and-probe"] = subtracted(*both, "b")
    if "wc" in data:
        signed, expected = (sample["wc"].inside(study, bootstrap, *W_PLUS_C) for sample in (data, mc))
        found["W+c, OS-SS"] = subtracted(signed, expected, "c")
        found["W+c, vertex mass"] = _fitted(study, bootstrap, mc["wc"], data["wc"], W_JETS, "c")
    if "qcd" in data:
        positive, negative = (
            [sample["qcd"].inside(study, bootstrap, "jets", negative=flip) for sample in (data, mc)]
            for flip in (False, True)
        )
        found["negative tags"] = negative_tags(positive[0], negative[0], positive[1], negative[1])
        found["multijet, vertex mass"] = _fitted(study, bootstrap, mc["qcd"], data["qcd"], ("jets",), "b")
    return found


def _fitted(
    study: Study, bootstrap: Bootstrap, mc: Sample, data: Sample, regions: tuple[str, ...], flavour: str
) -> Measured:
    """Fit of the vertex mass; simulation has the pt spectrum of the data, that of the sample itself in all replicas."""
    observed, expected = (sample.inside(study, Bootstrap(0, 0), *regions) for sample in (data, mc))
    scaled = like_data(expected, observed).all.sum(axis=-1)[0]
    before = expected.all.sum(axis=-1)[0]
    factor = np.divide(scaled, before, out=np.zeros_like(scaled), where=before > 0)
    templates = mc.templates(study, bootstrap, regions, factor)
    return fit(data.templates(study, bootstrap, regions, np.ones_like(factor)), templates, flavour)
