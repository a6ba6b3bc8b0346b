"""Small samples, made once per test session, and builders of synthetic jets and tracks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulation.association import JetTracks
from simulation.jets import Jets
from simulation.run import simulate
from simulation.tracks import PrimaryVertices


@pytest.fixture(scope="session")
def mc_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 nominal ttbar events."""
    return simulate("ttbar", 300, tmp_path_factory.mktemp("mc"), progress=False)[0]


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 data-like dileptonic ttbar events."""
    folder = tmp_path_factory.mktemp("data")
    return simulate("ttbar-dilepton", 100, folder, variant="data", progress=False)[0]


@pytest.fixture
def make_jets() -> Callable[..., Jets]:
    """Jets of one event each, given pt, eta and phi."""

    def make(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> Jets:
        n = len(pt)
        zero = np.zeros(n, dtype=int)
        mass = np.full(n, 5.0)
        return Jets(np.arange(n), pt, eta, phi, mass, pt.copy(), zero, zero, np.full(n, 10))

    return make


@pytest.fixture
def make_jet_tracks() -> Callable[..., JetTracks]:
    """Padded tracks `[jet, slot]` with the given columns; the rest is harmless."""

    def make(**given: np.ndarray) -> JetTracks:
        shape = next(iter(given.values())).shape
        columns = {
            "present": np.ones(shape, dtype=bool),
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
