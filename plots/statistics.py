"""The table of data/MC statistics: every variable, region, tagger and attack, from a histogram file alone.

Each row compares data with raw MC, or with MC under an attack, and a row of an attack says whether the attack would be
seen: see `plots.compare` and `plots.visibility`. Inputs are compared in the bins of the feature card, with under- and
overflow as bins of their own; discriminators in the bins in which they are drawn, without the jets for which they are
undefined. The variations are those of the raw MC; where the MC is attacked they stay the same relative to the bin
content.

An attack that is invisible variable by variable can be visible in the correlations of the inputs. With
`histograms.correlations` the table has rows of the variable `correlations`, see `plots.correlations`: `shape_chi2` is
the sum of squared pulls of `shape_ndf` pairs, without a p-value, and `shift_chi2` that of the pair that moves most.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import hist
import numpy as np

from common.distances import js_distance
from common.errors import AdvtagError
from common.histograms import RAW, HistogramFile
from plots.compare import NAN, Bins, chi2_test, js_null, ks_test
from plots.correlations import Moved, Samples, attacked, attacks_in, compare, samples
from plots.pearson import Estimate
from plots.shapes import NOMINAL, absent, contents, filled, jets_in, regions_of, scaled, shown, varied, with_raw
from plots.style import Array
from plots.systematics import differences
from plots.visibility import Shift, shift

STATISTICS = "statistics.csv"
CORRELATIONS = "correlations"
"""Variable and kind of the rows that compare all pairs of inputs."""
SEED = 1


Both = tuple[Array, Array]
"""Values and variances."""


@dataclass(frozen=True)
class Row:
    """Data against MC; nan where there is nothing to compare, or too little for a test."""

    region: str
    variable: str
    kind: str
    """input, discriminator or correlations"""
    tagger: str
    """Empty for raw inputs, which are the same for every tagger."""
    attack: str
    data: float
    """Sum over the compared bins; nan without data."""
    mc: float
    """The same, scaled to the luminosity."""
    chi2: float
    """With the normalisation of the luminosity and all uncertainties; see `plots.compare.chi2_test`."""
    ndf: int
    p: float
    shape_chi2: float
    """With the normalisation left free."""
    shape_ndf: int
    shape_p: float
    ks: float
    """Of shapes, statistical errors alone; see `plots.compare.ks_test`."""
    ks_p: float
    js: float
    """Jensen-Shannon distance of shapes, base 2."""
    js_null: float
    """Its mean if data follow this MC, within statistical errors."""
    js_null_95: float
    """95 % quantile of the same."""
    shift_chi2: float
    """Attacked against raw MC, in units of the uncertainty of data/MC; see `plots.visibility.shift`. nan for raw."""
    shift_noise: float
    shift_ndf: int
    shift_power: float
    shift_power_least: float
    verdict: str
    """visible: a 95 % test of the shape rejects in at least half of all experiments; invisible; unclear; or empty."""
    largest_pull: float = NAN
    """Of correlations: |pull| of the pair of inputs that differs most between data and this MC."""
    largest_p: float = NAN
    """Its p-value, for so many pairs."""
    pairs_beyond: int = 0
    """Pairs whose pull alone is significant at 95 % among so many."""
    pair: str = ""
    """The pair with the largest pull; under an attack, the one that the attack moves most."""


def statistics(file: HistogramFile, regions: Iterable[str] | None = None) -> list[Row]:
    """Rows in the order of regions, inputs, discriminators, taggers, attacks; none for what was never filled.

    Args:
        file: the histograms; without data, verdicts are for the data expected at its luminosity.
        regions: all if not given.

    Raises:
        AdvtagError: an unknown region, a dataset that cannot be scaled.
    """
    chosen = regions_of(file) if regions is None else regions
    return [row for region in chosen for row in region_rows(file, region)]


def region_rows(file: HistogramFile, region: str) -> Iterator[Row]:
    """Rows of one region, those of correlations after those of inputs."""
    for variable in file.inputs:
        yield from variable_rows(file, region, variable)
    yield from correlation_rows(file, region)
    for variable in file.discriminators:
        yield from variable_rows(file, region, variable)


def correlation_rows(file: HistogramFile, region: str) -> Iterator[Row]:
    """Correlations of all pairs of inputs: data against raw MC, and against MC under each attack; none if not made."""
    raw = samples(file, region)
    if raw is None:
        return
    if raw.data is not None:
        yield correlation_row(file, raw, raw.mc, None, (region, "", RAW))
    for tagger, attack in attacks_in(file, region):
        found = attacked(file, region, raw, tagger, attack)
        if found is not None:
            yield correlation_row(file, raw, *found, (region, tagger, attack))


def correlation_row(
    file: HistogramFile, raw: Samples, mc: Estimate, moved: Moved | None, key: tuple[str, str, str]
) -> Row:
    """One row: data against MC, attacked or raw, and the verdict on the attack."""
    region, tagger, attack = key
    seen = None if raw.data is None else compare(raw.data, mc)
    pair = moved.pair if moved is not None else seen.pair if seen is not None else None
    nothing = dict.fromkeys(("chi2", "p", "shape_p", "ks", "ks_p", "js", "js_null", "js_null_95"), NAN)
    return Row(
        region=region,
        variable=CORRELATIONS,
        kind=CORRELATIONS,
        tagger=tagger,
        attack=attack,
        data=NAN if raw.data is None else raw.data.jets,
        mc=mc.jets,
        ndf=0,
        shape_chi2=NAN if seen is None else seen.squares,
        shape_ndf=0 if seen is None else seen.pairs,
        **nothing,
        shift_chi2=NAN if moved is None else moved.chi2,
        shift_noise=NAN if moved is None else moved.noise,
        shift_ndf=0 if moved is None else moved.pairs,
        shift_power=NAN if moved is None else moved.power,
        shift_power_least=NAN if moved is None else moved.power_least,
        verdict="" if moved is None else moved.verdict,
        largest_pull=NAN if seen is None else seen.largest,
        largest_p=NAN if seen is None else seen.p,
        pairs_beyond=0 if seen is None else seen.exceeding,
        pair="" if pair is None else " and ".join(file.inputs[k] for k in pair),
    )


def variable_rows(file: HistogramFile, region: str, variable: str) -> Iterator[Row]:
    """Rows of one variable in one region."""
    shapes, variations = scaled(file, variable, region), varied(file, variable, region)
    discriminator = variable in file.discriminators
    taggers = filled(shapes, "tagger")
    read = Content(file, region, {NOMINAL: shapes, **variations}, discriminator=discriminator)
    for group in [[name] for name in taggers] if discriminator else [taggers] if taggers else []:
        bins = raw_bins(read, group)
        pairs = [("" if not discriminator else group[0], RAW)]
        pairs += [(tagger, attack) for tagger in group for attack in filled(shapes, "attack") if attack != RAW]
        for tagger, attack in pairs:
            moved, variance = bins.mc, bins.mc_variance
            if attack != RAW:
                moved, variance = read(mc_of(shapes), tagger, attack)
            if variance.any() or (attack == RAW and bins.data is not None):
                kind = "discriminator" if discriminator else "input"
                yield compared(bins, moved, variance, (region, variable, kind, tagger, attack))


def compared(bins: Bins, moved: Array, variance: Array, key: tuple[str, str, str, str, str]) -> Row:
    """One row: data against MC that was moved, or raw, and the verdict on the move."""
    raw = key[-1] == RAW
    here = bins if raw else bins.distorted(moved, variance)
    seen = Shift() if raw else shift(bins, moved, variance)
    null, null_95 = js_null(here, seed=SEED)
    return Row(
        *key,
        NAN if here.data is None else float(here.data.sum()),
        float(moved.sum()),
        *chi2_test(here, shape=False),
        *chi2_test(here, shape=True),
        *ks_test(here),
        NAN if here.data is None else float(js_distance(here.data, moved)),
        null,
        null_95,
        seen.chi2,
        seen.noise,
        seen.ndf,
        seen.power,
        seen.power_least,
        seen.verdict,
    )


class Content:
    """Reads what is compared: an output of a tagger in the bins of the figures, without the undefined; an input in its
    own bins with under- and overflow, and absent entries as the first bin, if any are absent.

    Args:
        file: the histograms.
        region: of them.
        shapes: the variable in this region, by variation.
        discriminator: the variable is an output of the taggers.
    """

    def __init__(self, file: HistogramFile, region: str, shapes: dict[str, hist.Hist], *, discriminator: bool) -> None:
        self.shapes = shapes
        self.discriminator = discriminator
        self.jets = {}
        if not discriminator and file.discriminators:
            nominal, jets = shapes[NOMINAL], jets_in(file, region)
            every = [(names, tagger) for names in (["data"], mc_of(nominal)) for tagger in filled(nominal, "tagger")]
            if any(absent(nominal, jets, names, tagger, RAW)[1] for names, tagger in every):
                self.jets = {name: jets_in(file, region, name) for name in shapes}

    def __call__(self, flavours: Sequence[str], tagger: str, attack: str, variation: str = NOMINAL) -> Both:
        """Values and variances [bins], summed over flavours."""
        values, variances = contents(self.shapes[variation], flavours, tagger, attack)
        if self.discriminator:
            return shown(values, discriminator=True), shown(variances, discriminator=True)
        if self.jets:
            missing = absent(self.shapes[variation], self.jets[variation], flavours, tagger, attack)
            return np.concatenate([missing[:1], values]), np.concatenate([missing[1:], variances])
        return values, variances


def raw_bins(read: Content, taggers: Sequence[str]) -> Bins:
    """Data and raw MC of the first tagger that has them, and the variations of the MC."""
    nominal = read.shapes[NOMINAL]
    flavours = mc_of(nominal)
    tagger = with_raw(nominal, flavours, taggers)
    mc, mc_variance = read(flavours, tagger, RAW)
    data, data_variance = read(["data"], with_raw(nominal, ["data"], taggers), RAW)
    moved = {name: read(flavours, tagger, RAW, name)[0] for name in read.shapes if name != NOMINAL}
    there = bool(data_variance.any())
    bins = Bins(data, data_variance, mc, mc_variance, differences(mc, moved), absent=1 if read.jets else 0)
    return bins if there else replace(bins, data=None, data_variance=None)


def mc_of(shapes: hist.Hist) -> list[str]:
    """Flavours of simulated jets."""
    return [name for name in shapes.axes["flavour"] if name != "data"]


def read_statistics(path: Path) -> list[Row]:
    """Read the table of a folder of figures (`common.tables.write_table`).

    Raises:
        AdvtagError: it is no such table.
    """
    columns = fields(Row)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            if next(reader, None) != [column.name for column in columns]:
                raise ValueError("other columns")
            return [
                Row(*(_value(text, column.type) for text, column in zip(row, columns, strict=True))) for row in reader
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise AdvtagError(f"{path}: not a table of statistics ({error}); draw it again with `advtag plot`") from error


def _value(text: str, kind: Any) -> Any:
    return kind(text or "nan") if kind is float else kind(text)
