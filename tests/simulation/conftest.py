"""Small samples, made once per test session, and builders of synthetic jets and tracks."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from simulation.block import Block
from simulation.detector.association import JetTracks
from simulation.detector.jets import Jets
from simulation.detector.reconstruct import Content
from simulation.detector.tracks import PrimaryVertices
from simulation.generation.events import GeneratedEvents
from simulation.generation.files import generated_block
from simulation.knobs import Generator
from simulation.processes import PROCESSES
from simulation.run import make_block, simulate

LARGE = (0, 2000)  # first event and number of events of the large sample
LARGE_SEED = 2


@pytest.fixture(scope="session")
def mc_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 nominal ttbar events."""
    return simulate("ttbar", 300, tmp_path_factory.mktemp("mc"), progress=False)[0]


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 data-like dileptonic ttbar events."""
    folder = tmp_path_factory.mktemp("data")
    return simulate("ttbar-dilepton", 100, folder, variant="data", progress=False)[0]


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the large sample of generated events lies."""
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(scope="session")
def generated(generator_folder: Path) -> GeneratedEvents:
    """2000 nominal ttbar events of stage A, from their file."""
    return generated_block(generator_folder, PROCESSES["ttbar"], Generator(), LARGE_SEED, *LARGE)


@pytest.fixture(scope="session")
def reconstructed(generator_folder: Path, generated: GeneratedEvents) -> Callable[[str], Block]:
    """The same events in a variant of the detector."""

    @cache
    def reconstruct(variant: str) -> Block:
        return make_block(generator_folder, "ttbar", variant, LARGE_SEED, Content(), *LARGE)

    return reconstruct


@pytest.fixture
def make_jets() -> Callable[..., Jets]:
    """Jets of one event each, given pt, eta and phi."""

    def make(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> Jets:
        n = len(pt)
        zero = np.zeros(n, dtype=int)
        return Jets(np.arange(n), np.arange(n), pt, eta, phi, np.full(n, 5.0), pt.copy(), zero, zero)

    return make


@pytest.fixture
def make_jet_tracks() -> Callable[..., JetTracks]:
    """Padded tracks `[jet, slot]` with the given columns; the rest is harmless."""

    def make(**given: np.ndarray) -> JetTracks:
        shape = next(iter(given.values())).shape
        columns = {
            "present": np.ones(shape, dtype=bool),
            "track": np.arange(np.prod(shape)).reshape(shape),
            "delta_r": np.full(shape, 0.1),
            "pt": np.full(shape, 5.0),
            "sigma_d0": np.full(shape, 0.002),
            "sigma_dz": np.full(shape, 0.004),
            "charge": np.ones(shape),
        }
        columns |= {name: np.zeros(shape) for name in ("eta", "phi", "d0", "dz")}
        return JetTracks(**(columns | given))

    return make


@pytest.fixture
def make_primary() -> Callable[[int], PrimaryVertices]:
    """Primary vertices measured to 10 and 15 um."""

    def make(n_events: int) -> PrimaryVertices:
        return PrimaryVertices(np.zeros((n_events, 3)), np.full(n_events, 0.0010), np.full(n_events, 0.0015))

    return make
