"""Measured tracks of generated particles: resolution, pulls, efficiency, and common random numbers of the variants."""

import numpy as np
import pytest

from simulation.detector.tracks import PrimaryVertices, Tracks, efficiency, reconstruct
from simulation.generation.events import GeneratedEvents, VisibleParticles, take
from simulation.kinematics import electric_charge
from simulation.knobs import Detector
from simulation.variants import VARIANTS

GAUSSIAN = Detector(tail_fraction=0, fake_fraction=0)


@pytest.fixture(scope="module")
def prompt(generated: GeneratedEvents) -> VisibleParticles:
    """Charged particles from the collision: their true impact parameters are zero."""
    particles = generated.particles
    from_origin = (np.hypot(particles.x, particles.y) < 1e-4) & (np.abs(particles.z) < 1e-4)
    return take(particles, from_origin & (electric_charge(particles.pdg_id) != 0))


def measured(particles: VisibleParticles, detector: Detector) -> Tracks:
    """Tracks with respect to the true vertices, always with the same random numbers."""
    n_events = int(particles.event.max()) + 1
    exact = PrimaryVertices(np.zeros((n_events, 3)), np.zeros(n_events), np.zeros(n_events))
    intact = np.ones(len(particles), dtype=bool)
    return reconstruct(particles, intact, exact, detector, np.random.default_rng(1))


def core(values: np.ndarray) -> float:
    """Half of the width that holds 68 %."""
    low, high = np.quantile(values, [0.1587, 0.8413])
    return float(high - low) / 2


def core_error(n: int) -> float:
    """Relative statistical error of `core`, for a Gaussian: sqrt(0.1587 x 0.683 / 2 n) / density at one sigma."""
    return float(np.sqrt(0.1587 * 0.683 / (2 * n)) / 0.242)


@pytest.mark.parametrize("eta", [(0, 1), (1, 2.5)])
@pytest.mark.parametrize("pt", [(0.75, 1), (1, 2), (2, 5), (5, 100)])
def test_resolution_in_bins(prompt: VisibleParticles, pt: tuple[float, float], eta: tuple[float, float]) -> None:
    tracks = measured(prompt, GAUSSIAN)
    absolute = np.abs(tracks.eta)
    bins = (tracks.pt > pt[0]) & (tracks.pt < pt[1]) & (absolute > eta[0]) & (absolute < eta[1])
    sin_theta = 1 / np.cosh(tracks.eta[bins])
    expected_d0 = np.hypot(14, 75 / (tracks.pt[bins] * np.sqrt(sin_theta))) * 1e-4  # cm
    expected_dz = np.hypot(30 * (1 + 0.25 * tracks.eta[bins] ** 2), 90 / (tracks.pt[bins] * sin_theta**1.5)) * 1e-4
    assert np.count_nonzero(bins) > 2500
    tolerance = 4 * core_error(np.count_nonzero(bins)) + 0.005  # and what a log-normal spread of 15 % does to the core
    assert core(tracks.d0[bins] / expected_d0) == pytest.approx(1, abs=tolerance)
    assert core(tracks.dz[bins] / expected_dz) == pytest.approx(1, abs=tolerance)


def test_pulls(prompt: VisibleParticles) -> None:
    exact, nominal, worse = (
        measured(prompt, detector) for detector in (GAUSSIAN, Detector(), VARIANTS["ip-resolution"].detector)
    )
    assert core(exact.d0 / exact.sigma_d0) == pytest.approx(1, abs=4 * core_error(len(exact.d0)))
    pull = nominal.d0 / nominal.sigma_d0
    # 2 to 4 % tails and about 1 % fakes put as many of all tracks outside, which moves the quantiles by 3 to 6 %
    assert 1.02 < core(pull) < 1.07
    dialled = VARIANTS["ip-resolution"].detector.resolution_scale
    assert core(worse.d0 / worse.sigma_d0) / core(pull) == pytest.approx(dialled, abs=0.005)  # paired
    assert 0.01 < np.mean(np.abs(pull) > 5) < 0.02
    assert np.mean(np.abs(exact.d0 / exact.sigma_d0) > 5) < 1e-4


@pytest.mark.parametrize("name", ["ip-tails", "fakes"])
def test_tails_grow_with_what_fills_them(prompt: VisibleParticles, name: str) -> None:
    """Paired: some tracks enter the tails, practically none leaves them."""
    before, after = Detector(), VARIANTS[name].detector
    nominal, changed = measured(prompt, before), measured(prompt, after)
    assert np.array_equal(nominal.sigma_d0, changed.sigma_d0)
    assert np.array_equal(nominal.phi, changed.phi)
    moved = nominal.d0 != changed.d0
    soft = 1 + 2 * np.exp(-nominal.pt)  # fakes are three times as frequent at the lowest pt
    more_tails = (after.tail_fraction - before.tail_fraction) * np.mean(1 - before.fake_fraction * soft)
    more_fakes = (after.fake_fraction - before.fake_fraction) * soft.mean()
    expected = more_tails + more_fakes
    assert expected > 0
    assert moved.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / len(moved)))
    far, still_far = (np.abs(tracks.d0 / tracks.sigma_d0) > 5 for tracks in (nominal, changed))
    gained, lost = np.count_nonzero(still_far & ~far), np.count_nonzero(far & ~still_far)
    assert gained > 0.1 * np.count_nonzero(moved)
    assert lost < 0.1 * gained


def test_fewer_tracks_are_a_subset(prompt: VisibleParticles) -> None:
    nominal, fewer = measured(prompt, Detector()), measured(prompt, VARIANTS["track-efficiency"].detector)
    assert set(zip(fewer.event, fewer.pt, fewer.d0, fewer.dz, fewer.eta, fewer.sigma_dz, strict=True)) < set(
        zip(nominal.event, nominal.pt, nominal.d0, nominal.dz, nominal.eta, nominal.sigma_dz, strict=True)
    )
    lost = 1 - len(fewer.pt) / len(nominal.pt)
    expected = 1 - VARIANTS["track-efficiency"].detector.track_efficiency / Detector().track_efficiency
    assert lost == pytest.approx(expected, abs=4 * np.sqrt(expected / len(nominal.pt)))


def test_efficiency_is_the_fraction_of_tracks(generated: GeneratedEvents) -> None:
    """Of all charged particles, displaced ones included."""
    particles = take(generated.particles, electric_charge(generated.particles.pdg_id) != 0)
    tracks, probability = measured(particles, Detector()), efficiency(particles, Detector())
    error = np.sqrt((probability * (1 - probability)).sum())
    assert len(tracks.pt) == pytest.approx(probability.sum(), abs=4 * error)
    assert 0.8 < probability.mean() < 0.93
    identified = np.abs(tracks.pdg_id)
    assert set(identified) == {11, 13, 211}
    assert np.array_equal(np.sign(tracks.charge), np.where(identified == 211, 1, -1) * np.sign(tracks.pdg_id))
