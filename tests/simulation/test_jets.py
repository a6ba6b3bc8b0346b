"""Clustering with ghosts, and the resolution."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from simulation.jets import MAX_ETA, MIN_PT, Jets, cluster, measure
from simulation.particles import ParticleClasses, Particles
from simulation.variants import Detector


def event(with_b: bool) -> tuple[Particles, ParticleClasses]:
    """Two back-to-back jets of two pions each, a prompt muon, and a b hadron of 50 GeV inside the first jet."""
    pdg_id = np.array([211, -211, 211, -211, 13, 511])
    px = np.array([30.0, 20.0, -25.0, -24.0, 1.0, 50.0])
    py = np.array([1.0, -1.0, 2.0, -2.0, 40.0, 0.0])
    pz = np.array([5.0, 5.0, -3.0, -3.0, 0.0, 10.0])
    zero, n = np.zeros(6), np.zeros(6, dtype=int)
    energy = np.sqrt(px**2 + py**2 + pz**2 + 0.02)
    particles = Particles(1, n, pdg_id, np.ones(6), n, px, py, pz, energy, zero, zero, zero)
    muon, hadron = np.abs(pdg_id) == 13, (pdg_id == 511) & with_b
    return particles, ParticleClasses(pdg_id != 511, muon, muon, hadron, zero > 0)


def test_ghosts_label_jets_and_change_nothing_else() -> None:
    with_b, without = cluster(*event(True)), cluster(*event(False))
    assert np.sort(with_b.pt) == pytest.approx([49, 50], rel=0.01)
    assert np.sort(with_b.pt) == pytest.approx(np.sort(without.pt), rel=1e-9)
    leading = np.argmax(with_b.pt)
    assert np.flatnonzero(with_b.n_b_hadrons).tolist() == [leading]
    assert with_b.hadron_flavour[leading] == 5
    assert without.n_b_hadrons.tolist() == [0, 0]
    assert with_b.n_constituents.tolist() == [2, 2]


@pytest.mark.parametrize("pt", [40.0, 200.0])
def test_resolution_is_the_dialled_one(make_jets: Callable[..., Jets], pt: float) -> None:
    n, detector = 20_000, Detector(jet_energy_scale=0.97)
    true = replace(make_jets(np.full(n, pt), np.full(n, 0.5), np.full(n, 1.0)), event=np.zeros(n, dtype=int))
    measured = measure(true, detector, np.random.default_rng(1))
    response = measured.pt / measured.gen_pt
    expected = np.sqrt((3 / pt) ** 2 + 0.49 / pt + 0.0025)
    assert response.mean() == pytest.approx(0.97, abs=0.005)
    assert response.std() / response.mean() == pytest.approx(expected, rel=0.04)
    assert measured.eta.std() == pytest.approx(0.016 * np.sqrt(30 / pt), rel=0.04)
    assert measured.phi.mean() == pytest.approx(1.0, abs=0.002)
    assert np.all(np.diff(measured.pt) <= 0)


def test_acceptance(make_jets: Callable[..., Jets]) -> None:
    detector = Detector(jet_noise=0, jet_stochastic=0, jet_constant=0, jet_angle=0)
    true = make_jets(
        np.array([MIN_PT - 0.1, MIN_PT + 0.1, 50, 50]), np.array([0, 0, -MAX_ETA - 0.01, 2.4]), np.zeros(4)
    )
    measured = measure(true, detector, np.random.default_rng(1))
    assert measured.event.tolist() == [1, 3]
    single = replace(true, n_constituents=np.array([2, 1, 2, 2]))
    assert measure(single, detector, np.random.default_rng(1)).event.tolist() == [3]
