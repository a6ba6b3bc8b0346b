"""Measured jets: resolution, energy scale and acceptance."""

import numpy as np
import pytest

from simulation.detector.jets import MAX_ETA, MIN_PT, measure
from simulation.generation.events import GeneratedJets
from simulation.knobs import Detector


def generated_jets(event: np.ndarray, pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> GeneratedJets:
    n = len(pt)
    zero = np.zeros(n, dtype=int)
    return GeneratedJets(event, pt, eta, phi, np.full(n, 5.0), zero, zero, np.full(n, 10))


@pytest.mark.parametrize("pt", [40.0, 200.0])
def test_resolution_is_the_dialled_one(pt: float) -> None:
    n, detector = 20_000, Detector(jet_energy_scale=0.97)
    true = generated_jets(np.zeros(n, dtype=int), np.full(n, pt), np.full(n, 0.5), np.full(n, 1.0))
    measured = measure(true, detector, np.random.default_rng(1))
    response = measured.pt / measured.gen_pt
    expected = np.sqrt((3 / pt) ** 2 + 0.49 / pt + 0.0025)
    assert response.mean() == pytest.approx(0.97, abs=0.005)
    assert response.std() / response.mean() == pytest.approx(expected, rel=0.04)
    assert measured.mass / measured.pt == pytest.approx(np.full(len(measured), 5 / pt))
    assert measured.eta.std() == pytest.approx(0.016 * np.sqrt(30 / pt), rel=0.04)
    assert measured.phi.mean() == pytest.approx(1.0, abs=0.002)
    assert np.all(np.diff(measured.pt) <= 0)


def test_acceptance() -> None:
    detector = Detector(jet_noise=0, jet_stochastic=0, jet_constant=0, jet_angle=0)
    pt = np.array([MIN_PT - 0.1, MIN_PT + 0.1, 50, 50])
    true = generated_jets(np.arange(4), pt, np.array([0, 0, -MAX_ETA - 0.01, 2.4]), np.zeros(4))
    measured = measure(true, detector, np.random.default_rng(1))
    assert measured.event.tolist() == [1, 3]


def test_jets_point_back_to_the_generated_ones() -> None:
    """After smearing and sorting, with several jets in each event."""
    rng = np.random.default_rng(2)
    n = 3000
    event = np.sort(rng.integers(0, 500, n))
    true = generated_jets(event, 15 + rng.exponential(20, n), rng.normal(0, 1, n), rng.uniform(-np.pi, np.pi, n))
    measured = measure(true, Detector(), rng)
    assert 0.4 * n < len(measured) < n
    assert len(np.unique(measured.generated)) == len(measured)
    assert not np.array_equal(measured.generated, np.sort(measured.generated))
    assert np.array_equal(true.event[measured.generated], measured.event)
    assert np.array_equal(true.pt[measured.generated], measured.gen_pt)
    same_event = np.diff(measured.event) == 0
    assert np.all(np.diff(measured.event) >= 0)
    assert np.all(np.diff(measured.pt)[same_event] <= 0)
