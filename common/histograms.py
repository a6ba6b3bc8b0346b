"""The histogram file: a zip of UHI-serialised histograms and one JSON page of what they were filled from. A job writes
a folder of them, one file for each dataset. Sums for correlations of inputs, if there are any, lie beside them as .npy.

Every histogram has the category axes of `AXES`, in that order, and one variable axis named like the histogram,
with Weight storage. Flavour is one of b, bb, c, udsg, or `data`; attack `raw` is the undistorted input. No pickle
is read or written.
"""

import functools
import io
import json
import operator
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import hist
import numpy as np
import uhi.io.zip

from common.correlations import Category, Matrix
from common.errors import AdvtagError
from common.files import whole_file

AXES = ("dataset", "region", "flavour", "variation", "tagger", "attack")
PAGE = "advtag.json"
HISTOGRAMS = "histograms"
"""Folder of the files, DATASET.zip, in an output folder."""
CORRELATIONS = "correlations/{}.npy"
"""Blocks of sums in a histogram file, in the order of `correlations` in its page: [dataset, region, tagger, attack]."""
RAW = "raw"
"""The attack that is none."""
TRANSFER = "@"
"""Attack `fgsm@nominal`: examples that fgsm made on the tagger `nominal`, shown to another one."""
FORMAT = 1


@dataclass(frozen=True)
class Dataset:
    """What a dataset contributed, and what scales it."""

    data: bool
    """Collision data, or its stand-in: weight 1, never attacked, never scaled."""
    cross_section: float | None
    """pb; None for data."""
    sum_weights: float
    """Sum of generator weights over all events generated, skimmed away or not (data: number of events)."""
    events: int
    """Events read."""
    jets: int
    """Jets selected."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The books: for each file `expected_events`, `events`, `jets`, `sum_weights`, and `ranges` of events, [[0, N]]."""
    cutflow: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    """region -> cut -> events and sum of weights that are left after it, in the order of the cuts"""

    def scale(self, luminosity: float) -> float:
        """Factor that takes this dataset's histograms to `luminosity` (1/pb): sigma L / sum(w), or 1 for data."""
        if self.data or self.cross_section is None or self.events == 0:
            return 1.0
        return self.cross_section * luminosity / self.sum_weights


@dataclass(frozen=True)
class HistogramFile:
    """Histograms by variable, and their page."""

    histograms: dict[str, hist.Hist]
    inputs: tuple[str, ...]
    """Names of the histograms of tagger inputs, in the order of the feature card."""
    discriminators: tuple[str, ...]
    """Names of the histograms of discriminators and node outputs, [0, 1]; undefined (-1) is in the underflow."""
    datasets: dict[str, Dataset]
    luminosity: float
    """1/pb"""
    provenance: dict[str, Any]
    correlations: dict[str, dict[Category, Matrix]] | None = None
    """Blocks of sums by dataset and category, see `common.correlations.Sums`; None if none were made."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the histograms."""
        return (*self.inputs, *self.discriminators)

    def normalised(self, luminosity: float, cross_sections: Mapping[str, float | None]) -> "HistogramFile":
        """The same histograms, to be scaled to another luminosity (1/pb) and other cross-sections (pb, by dataset)."""
        datasets = {
            name: replace(dataset, cross_section=cross_sections.get(name, dataset.cross_section))
            for name, dataset in self.datasets.items()
        }
        return replace(self, luminosity=luminosity, datasets=datasets)

    def write(self, path: Path) -> None:
        """Write the file aside and rename it into place."""
        page = {
            "format": FORMAT,
            "inputs": self.inputs,
            "discriminators": self.discriminators,
            "datasets": {name: asdict(dataset) for name, dataset in self.datasets.items()},
            "luminosity": self.luminosity,
            "provenance": self.provenance,
        }
        blocks = [
            ((dataset, *category), block)
            for dataset, found in (self.correlations or {}).items()
            for category, block in found.items()
        ]
        if self.correlations is not None:
            page["correlations"] = [where for where, _ in blocks]
        with whole_file(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(PAGE, json.dumps(page, indent=1))
            for name, histogram in self.histograms.items():
                uhi.io.zip.write(archive, name, histogram)
            for place, (_, block) in enumerate(blocks):
                with archive.open(CORRELATIONS.format(place), "w") as member:
                    np.lib.format.write_array(member, block, allow_pickle=False)


def read_histograms(path: Path) -> HistogramFile:
    """Read a histogram file, or a folder of them, whose datasets are put side by side.

    Raises:
        AdvtagError: there is no such file, it is not a histogram file of this format, or the files of the folder are
            of different jobs
    """
    if not path.is_dir():
        return _read_file(path)
    paths = sorted(path.glob("*.zip"))
    if not paths:
        raise AdvtagError(f"{path}: no histogram file in this folder; make them with `advtag histograms CONFIG`")
    files = [_read_file(path) for path in paths]
    for other, file in zip(paths[1:], files[1:], strict=True):
        if file.variables != files[0].variables:
            raise AdvtagError(f"{other}: other variables than {paths[0]}: they are of different jobs")
        if (file.correlations is None) != (files[0].correlations is None):
            has, lacks = (other, paths[0]) if file.correlations is not None else (paths[0], other)
            raise AdvtagError(f"{lacks}: no correlations, and {has} has them: they are of different jobs")
    try:
        histograms = {
            name: functools.reduce(operator.add, (file.histograms[name] for file in files))
            for name in files[0].variables
        }
    except ValueError as error:
        raise AdvtagError(f"{path}: its files have different axes: they are of different jobs") from error
    correlations: dict[str, dict[Category, Matrix]] = {}
    for file in files:
        correlations |= file.correlations or {}
    # one dataset is in one file
    datasets = {name: dataset for file in files for name, dataset in file.datasets.items()}
    whole = None if files[0].correlations is None else correlations
    return replace(files[0], histograms=histograms, datasets=datasets, correlations=whole)


def datasets_of(path: Path) -> tuple[str, ...]:
    """Names of the datasets of one histogram file, without reading its histograms.

    Raises:
        AdvtagError: it is not a histogram file
    """
    with _opened(path) as (_, page):
        return tuple(page["datasets"])


def _read_file(path: Path) -> HistogramFile:
    with _opened(path) as (archive, page):
        names = [*page["inputs"], *page["discriminators"]]
        return HistogramFile(
            {name: hist.Hist(uhi.io.zip.read(archive, name)) for name in names},
            tuple(page["inputs"]),
            tuple(page["discriminators"]),
            {name: Dataset(**dataset) for name, dataset in page["datasets"].items()},
            page["luminosity"],
            page["provenance"],
            _read_correlations(archive, page),
        )


def _read_correlations(archive: zipfile.ZipFile, page: Mapping[str, Any]) -> dict[str, dict[Category, Matrix]] | None:
    if "correlations" not in page:
        return None
    found: dict[str, dict[Category, Matrix]] = {name: {} for name in page["datasets"]}
    for place, (dataset, region, tagger, attack) in enumerate(page["correlations"]):
        block = io.BytesIO(archive.read(CORRELATIONS.format(place)))
        found[dataset][region, tagger, attack] = np.load(block, allow_pickle=False)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            page = json.loads(archive.read(PAGE))
            if page["format"] != FORMAT:
                raise AdvtagError(f"{path}: histogram format {page['format']}, this advtag reads {FORMAT}")
            yield archive, page
    except AdvtagError:
        raise
    except FileNotFoundError:
        raise AdvtagError(f"{path}: no such histogram file; make it with `advtag histograms CONFIG`") from None
    except Exception as error:  # a damaged zip or array fails in many ways, zlib.error to tokenize.TokenError
        reason = " ".join(str(error).split())[:150]
        raise AdvtagError(f"{path}: not a histogram file of advtag ({type(error).__name__}: {reason})") from error
