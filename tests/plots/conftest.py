"""A toy histogram file: two taggers, three attacks, three simulated datasets and data, seven variables."""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import hist
import numpy as np
import pytest

from common.histograms import AXES, Dataset, HistogramFile
from models.classes import DISCRIMINATORS

SHARES = {"b": 0.25, "bb": 0.05, "c": 0.2, "udsg": 0.5}
CENTRES = {"b": 0.72, "bb": 0.8, "c": 0.5, "udsg": 0.3}
ATTACKS = {"raw": 0.0, "noise": 0.3, "fgsm": 1.0, "pgd": 1.3}
TAGGERS = {"nominal": 0.16, "adversarial": 0.06}

INPUTS = ("Jet_pt", "Jet_nSelectedTracks", "trackSip2dSig_0", "vertexMass", "trackSip2dSig_9")
LUMINOSITY = 41500.0


def variable_axes() -> dict[str, hist.axis.AxesMixin]:
    axes = {
        "Jet_pt": hist.axis.Regular(40, 20, 220, name="Jet_pt", label="jet $p_T$ [GeV]"),
        "Jet_nSelectedTracks": hist.axis.Integer(0, 15, name="Jet_nSelectedTracks", label="selected tracks"),
        "trackSip2dSig_0": hist.axis.Regular(
            50, -10, 40, name="trackSip2dSig_0", label="2D IP significance of track 1"
        ),
        "vertexMass": hist.axis.Regular(30, 0, 6, name="vertexMass", label="secondary vertex mass [GeV]"),
        "trackSip2dSig_9": hist.axis.Regular(
            50, -10, 40, name="trackSip2dSig_9", label="2D IP significance of track 10"
        ),
    }
    return axes | {name: hist.axis.Regular(1000, 0, 1, name=name, label=name) for name in DISCRIMINATORS}


def toy_values(name: str, flavour: str, shift: float, rng: np.random.Generator, n: int) -> np.ndarray:
    heavy = {"b": 1.0, "bb": 1.5, "c": 0.5}.get(flavour, 0.0)
    if name == "Jet_pt":
        return 20 + rng.exponential(45, n) * (1 + 0.02 * shift)
    if name == "Jet_nSelectedTracks":
        return rng.poisson(4 + heavy, n)
    if name.startswith("trackSip"):
        return rng.standard_t(3, n) * 1.5 + rng.exponential(6 * heavy + 0.1, n) - 0.5 * shift * heavy
    if name == "vertexMass":
        return np.abs(rng.normal(0.8 + heavy, 0.6, n) - 0.15 * shift)
    values = np.clip(rng.normal(CENTRES[flavour] - shift * 1.3 * (CENTRES[flavour] - 0.45), 0.18, n), 0, 1)
    values[rng.random(n) < 0.03] = -1.0
    return values


def fill_toy(h: hist.Hist, name: str, dataset: str, region: str, n: int, rng: np.random.Generator) -> None:
    """Fill one dataset; the distorted jets are the raw jets, moved."""
    data = dataset.startswith("Run")
    for flavour, share in SHARES.items():
        jets = int(n * share)
        own = np.random.default_rng(crc32(f"{dataset} {region} {flavour}".encode()))  # every variable has these jets
        weights = np.ones(jets) if data else own.normal(2.0, 0.4, jets)
        seed = int(rng.integers(1 << 30))
        for tagger, strength in TAGGERS.items():
            for attack, size in ({"raw": 0.0} if data else ATTACKS).items():
                shift = size * strength / 0.16
                values = toy_values(name, flavour, shift, np.random.default_rng(seed), jets)
                h.fill(
                    **{name: values}, dataset=dataset, region=region, flavour="data" if data else flavour,
                    variation="nominal", tagger=tagger, attack=attack, weight=weights,
                )  # fmt: skip


def build(
    jets: int = 3000,
    *,
    data: bool = True,
    regions: tuple[str, ...] = ("ttbar", "dijet"),
    inputs: tuple[str, ...] = INPUTS,
    names: tuple[str, ...] = ("ttbar", "QCD"),
) -> HistogramFile:
    """Make the toy file; region `empty` and dataset-less categories exist but are never filled."""
    rng = np.random.default_rng(7)
    axes = variable_axes()
    sizes = dict.fromkeys(names, jets) | ({"Run2018": jets} if data else {})
    categories = {
        "dataset": list(sizes), "region": [*regions, "empty"], "flavour": [*SHARES, "data"],
        "variation": ["nominal", "up"], "tagger": ["ghost", *TAGGERS], "attack": [*ATTACKS, "unused"],
    }  # fmt: skip
    histograms = {}
    for name in (*inputs, *DISCRIMINATORS):
        h = hist.Hist(
            *[hist.axis.StrCategory(categories[axis], name=axis, growth=True) for axis in AXES], axes[name],
            storage=hist.storage.Weight(),
        )  # fmt: skip
        for dataset, region in [(d, r) for d in sizes for r in regions]:
            if name != "trackSip2dSig_9":
                fill_toy(h, name, dataset, region, sizes[dataset], rng)
        histograms[name] = h
    datasets = {
        name: Dataset(name.startswith("Run"), None if name.startswith("Run") else 0.024 / (i + 1), 3000.0, 4000, n)
        for i, (name, n) in enumerate(sizes.items())
    }
    provenance = {"version": "0.1.0", "config": {"seed": 7}}
    return HistogramFile(histograms, inputs, tuple(DISCRIMINATORS), datasets, LUMINOSITY, provenance)


@pytest.fixture(scope="session")
def build_toy() -> Callable[..., HistogramFile]:
    return build


@pytest.fixture(scope="session")
def toy() -> HistogramFile:
    """Treat as read-only."""
    return build()


@pytest.fixture
def written(toy: HistogramFile, tmp_path: Path) -> Path:
    path = tmp_path / "toy.zip"
    toy.write(path)
    return path


@pytest.fixture(scope="session")
def histories() -> dict[str, list[dict[str, object]]]:
    """Two taggers, 12 epochs, two attacks. Treat as read-only."""

    def areas(i: int, lost: float) -> dict[str, float]:
        return {name: 0.9 - 0.3 / i - lost - 0.05 * j for j, name in enumerate(DISCRIMINATORS)}

    def epochs(gain: float) -> list[dict[str, object]]:
        return [
            {
                "epoch": i, "learning_rate": 1e-3, "seconds": 2.0, "jets_per_second": 3e4,
                "loss": 1 / i, "validation_loss": {"raw": 1.1 / i, "fgsm": 1.5 / i - gain, "noise": 1.2 / i},
                "auc": {
                    "raw": areas(i, 0.0), "fgsm": areas(i, (1 - gain) * (0.2 + 0.01 * i)), "noise": areas(i, 0.02)
                },
            }
            for i in range(1, 13)
        ]  # fmt: skip

    return {"nominal": epochs(0.0), "adversarial": epochs(0.2)}


@pytest.fixture(scope="session")
def clear() -> Callable[[hist.Hist, str, str], None]:
    """Empty one category of a histogram."""

    def clear_category(h: hist.Hist, axis: str, name: str) -> None:
        place = [slice(None)] * len(h.axes)
        place[h.axes.name.index(axis)] = h.axes[axis].index(name)
        for field in ("value", "variance"):
            h.view(flow=True)[field][tuple(place)] = 0.0

    return clear_category
