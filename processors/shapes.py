"""Templates for CMS combine: a ROOT file of TH1, and the skeleton of a datacard that reads it.

combine (https://cms-analysis.github.io/HiggsAnalysis-CombinedLimit) finds them by
`shapes * * FILE $CHANNEL/$PROCESS $CHANNEL/$PROCESS_$SYSTEMATIC`. It ignores underflow and overflow, takes bins below
zero for mistakes, and wants every process to have a positive rate.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hist
import numpy as np
import uproot
from numpy.typing import NDArray

from common.errors import AdvtagError
from common.files import cannot_write, whole_file
from common.histograms import RAW, HistogramFile, read_histograms
from processors.corrections import NOMINAL
from processors.datacard import datacard
from processors.jets import FLAVOURS

DATA = "data_obs"
SHOWN_BINS = 20
"""Of a discriminator, which is filled in a thousand: combine needs bins with events."""


@dataclass(frozen=True)
class Wanted:
    """What is exported of every channel."""

    tagger: str | None = None
    """None: the only one"""
    attacks: Sequence[str] = ()
    by_flavour: bool = False
    """A process is a dataset's jets of one flavour."""
    bins: int | None = None
    """Neighbours are merged into this many; None: SHOWN_BINS for discriminators, all for inputs"""


@dataclass(frozen=True)
class Content:
    """Bin contents, float64 [bins]."""

    values: NDArray[np.float64]
    variances: NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """Templates of a region and variable."""

    observed: hist.Hist
    processes: dict[str, dict[str, hist.Hist]]
    """process -> its templates: the nominal one under "", and SYSTEMATICUp, SYSTEMATICDown"""

    def named(self) -> dict[str, hist.Hist]:
        """By the names that they have in the file: data_obs, PROCESS, PROCESS_SYSTEMATICUp, PROCESS_SYSTEMATICDown."""
        named = {DATA: self.observed}
        for process, templates in self.processes.items():
            for template, histogram in templates.items():
                name = f"{process}_{template}" if template else process
                if name in named:
                    raise AdvtagError(f"two templates would be called {name!r}; rename a dataset or a correction")
                named[name] = histogram
        return named


def write_shapes(
    histograms: Path,
    output: Path,
    regions: Sequence[str],
    variables: Sequence[str],
    wanted: Wanted,
    luminosity: float | None = None,
) -> Path:
    """Write the templates of every region and variable, and beside them the datacard, `output` with the suffix .txt.

    Args:
        histograms: folder of `advtag histograms`, or one of its files
        output: ROOT file
        regions: a channel is a region and a variable
        variables: inputs or discriminators
        wanted: what is exported
        luminosity: 1/pb; None: the one the histograms were made for

    Raises:
        AdvtagError: no such region, variable, tagger or attack; a process or systematic without a positive rate; data
            that are no counts; or the files cannot be read or written
    """
    if output.suffix != ".root":
        raise AdvtagError(f"{output}: expected a name that ends with .root; the datacard is written beside it, as .txt")
    file = read_histograms(histograms)
    file = file if luminosity is None else file.normalised(luminosity, {})
    channels: dict[str, Channel] = {}
    for region in regions:
        for variable in variables:
            name = safe(f"{region}_{variable}")
            if name in channels:
                raise AdvtagError(f"region {region!r}, variable {variable!r}: a second channel {name!r}; rename one")
            channels[name] = channel(file, region, variable, wanted)
    named = {name: templates.named() for name, templates in channels.items()}
    with whole_file(output.with_suffix(".txt")) as card, whole_file(output) as aside:
        card.write_text(datacard({name: found.processes for name, found in channels.items()}, output.name), "utf-8")
        try:
            with uproot.recreate(aside) as root:
                for name, templates in named.items():
                    for template, histogram in templates.items():
                        root[f"{name}/{template}"] = histogram
        except OSError as error:
            raise cannot_write(output, error) from error
    return output


def channel(file: HistogramFile, region: str, variable: str, wanted: Wanted) -> Channel:
    """The templates of a region and variable, scaled to the file's luminosity.

    An attack is one-sided: Up is the attacked shape and Down its mirror image, twice the nominal one minus the
    attacked, so that the likelihood is smooth at the nominal one and pulls to both sides mean something.

    Raises:
        AdvtagError: see `write_shapes`
    """
    histogram = file.histograms[_known("variable", variable, file.variables)]
    _known("region", region, histogram.axes["region"])
    tagger = _tagger(histogram, wanted, variable in file.discriminators)
    for attack in wanted.attacks:
        _known("attack", attack, [name for name in histogram.axes["attack"] if name != RAW])
    reader = _Reader(file, variable, region, tagger, wanted)
    where = f"region {region!r}, variable {variable!r}"
    processes: dict[str, dict[str, Content]] = {}
    for process, (dataset, flavours) in _processes(file, wanted).items():
        nominal = reader.read(dataset, flavours, NOMINAL, RAW)
        rate = nominal.values.sum()
        if rate <= 0:
            print(f"{where}: process {process!r} is left out, its rate is {rate:.4g}", file=sys.stderr)
            continue
        found = {"": nominal}
        for name, variation in _systematics(histogram).items():
            found[name] = reader.read(dataset, flavours, variation, RAW)
        for attack in wanted.attacks:
            if f"{safe(attack)}Up" in found:
                raise AdvtagError(f"attack {attack!r}: a correction's variation has that name; rename one")
            up = reader.read(dataset, flavours, NOMINAL, attack)
            found[f"{safe(attack)}Up"] = up
            found[f"{safe(attack)}Down"] = Content(2 * nominal.values - up.values, up.variances)
        at = f"{where}, dataset {dataset!r}: process {process!r}"
        processes[process] = {name: _positive(content, f"{at}, {name or NOMINAL}") for name, content in found.items()}
    if not processes:
        raise AdvtagError(f"{where}: no simulation has a positive rate; combine needs at least one process")
    return Channel(
        reader.histogram(_observed(reader, file, [found[""] for found in processes.values()], where)),
        {
            process: {name: reader.histogram(content) for name, content in found.items()}
            for process, found in processes.items()
        },
    )


class _Reader:
    """Reads bin contents as combine sees them: without flow, merged, scaled.

    Underflow and overflow are added to the edge bins. The underflow of a discriminator, where it is undefined, is left
    out; its overflow is the value 1.
    """

    def __init__(self, file: HistogramFile, variable: str, region: str, tagger: str, wanted: Wanted) -> None:
        self.file = file
        self.discriminator = variable in file.discriminators
        self.contents = file.histograms[variable][{"region": region, "tagger": tagger}]
        self.axis = self.contents.axes[-1]
        bins = wanted.bins or (SHOWN_BINS if self.discriminator else self.axis.size)
        if self.axis.size % bins:
            divisors = [str(n) for n in range(1, self.axis.size + 1) if self.axis.size % n == 0]
            raise AdvtagError(
                f"variable {variable!r}: {self.axis.size} bins make no {bins}; choose from {', '.join(divisors)}"
            )
        self.merged = self.axis.size // bins

    def read(self, dataset: str, flavours: Iterable[str], variation: str, attack: str) -> Content:
        chosen = self.contents[{"dataset": dataset, "variation": variation, "attack": attack}]
        view = chosen.view(flow=True)[[chosen.axes["flavour"].index(name) for name in flavours]]
        scale = self.file.datasets[dataset].scale(self.file.luminosity)
        values, variances = (self._bins(view[part].sum(axis=0)) for part in ("value", "variance"))
        return Content(scale * values, scale**2 * variances)

    def _bins(self, content: NDArray[np.float64]) -> NDArray[np.float64]:
        traits = self.axis.traits
        start = int(traits.underflow)
        bins = content[start : start + self.axis.size].copy()
        if traits.overflow:
            bins[-1] += content[-1]
        if traits.underflow and not self.discriminator:
            bins[0] += content[0]
        merged: NDArray[np.float64] = bins.reshape(-1, self.merged).sum(axis=1)
        return merged

    def histogram(self, content: Content) -> hist.Hist:
        edges = np.asarray(self.axis.edges, np.float64)[:: self.merged]
        axis = hist.axis.Variable(edges, name=self.axis.name, label=self.axis.label)
        if np.allclose(np.diff(edges), edges[1] - edges[0]):
            axis = hist.axis.Regular(len(edges) - 1, edges[0], edges[-1], name=self.axis.name, label=self.axis.label)
        filled = hist.Hist(axis, storage=hist.storage.Weight())
        filled.view()["value"], filled.view()["variance"] = content.values, content.variances
        return filled


def _observed(reader: _Reader, file: HistogramFile, simulated: Sequence[Content], where: str) -> Content:
    """The data; without any, the sum of the simulation, for expected results."""
    held = list(reader.contents.axes["dataset"])
    names = [name for name, dataset in file.datasets.items() if dataset.data and name in held]
    if not names:
        print(f"{where}: no dataset of data; data_obs is the sum of the simulation", file=sys.stderr)
        parts = list(simulated)
    else:
        parts = [reader.read(name, ("data",), NOMINAL, RAW) for name in names]
    total = Content(sum(part.values for part in parts), sum(part.variances for part in parts))  # type: ignore[arg-type]
    if names and not np.array_equal(total.values, total.variances):
        raise AdvtagError(
            f"{where}, dataset {names[0]!r}: the data are a difference (os_minus_ss), not counts, and combine's "
            "likelihood is that of counts; fill a region without os_minus_ss"
        )
    return total


def _positive(content: Content, where: str) -> Content:
    """Bins below zero set to zero, the others scaled so that the rate stays; variances stay.

    Raises:
        AdvtagError: the rate is not positive
    """
    rate = content.values.sum()
    if rate <= 0:
        raise AdvtagError(f"{where}: the rate is {rate:.4g}, combine needs a positive one")
    below = content.values < 0
    if not below.any():
        return content
    kept = np.where(below, 0.0, content.values)
    lost = -content.values[below].sum() / rate
    print(f"{where}: {below.sum()} bins below zero ({lost:.1%} of the rate) are set to 0", file=sys.stderr)
    return Content(kept * (rate / kept.sum()), content.variances)


def _processes(file: HistogramFile, wanted: Wanted) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Dataset and flavours of each process."""
    truth = tuple(name for name in FLAVOURS if name != "data")
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for dataset, page in file.datasets.items():
        if page.data:
            continue
        parts = {f"{dataset}_{flavour}": (flavour,) for flavour in truth} if wanted.by_flavour else {dataset: truth}
        for name, flavours in parts.items():
            if safe(name) in found or safe(name) == DATA:
                raise AdvtagError(f"dataset {dataset!r}: the process name {safe(name)!r} is taken; rename the dataset")
            found[safe(name)] = (dataset, flavours)
    return found


def _systematics(histogram: hist.Hist) -> dict[str, str]:
    """Variation by the name that combine knows it by: pileupUp is `pileup_up`."""
    names = [name for name in histogram.axes["variation"] if name != NOMINAL]
    found = {}
    for name in names:
        stem, _, side = name.rpartition("_")
        if side not in ("up", "down") or not {f"{stem}_up", f"{stem}_down"}.issubset(names):
            raise AdvtagError(f"variation {name!r}: combine needs a pair that ends with _up and _down")
        found[f"{stem}{side.capitalize()}"] = name
    return found


def _tagger(histogram: hist.Hist, wanted: Wanted, discriminator: bool) -> str:
    taggers = list(histogram.axes["tagger"])
    if wanted.tagger is not None:
        return _known("tagger", wanted.tagger, taggers)
    if len(taggers) > 1 and (discriminator or wanted.attacks):
        raise AdvtagError(f"which tagger? choose one by --tagger: {', '.join(taggers)}")
    return str(taggers[0])  # raw inputs are the same under every tagger


def safe(name: str) -> str:
    """A name that RooFit takes: letters, digits and underscores."""
    return re.sub(r"\W", "_", name)


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    raise AdvtagError(f"no {kind} {name!r} in the histograms; {hint}")
