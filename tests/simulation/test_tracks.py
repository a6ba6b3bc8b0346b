"""Helix, efficiency and resolution of tracks."""

import numpy as np
import pytest

from simulation.detector.helix import RADIUS_PER_PT, perigee
from simulation.detector.jets import Jets
from simulation.detector.tracks import (
    PrimaryVertices,
    efficiency,
    impact_resolution,
    measure,
    pileup_tracks,
    reconstruct,
    reconstruct_vertices,
)
from simulation.generation.events import VisibleParticles
from simulation.knobs import Detector

GAUSSIAN = {"tail_fraction": 0.0, "fake_fraction": 0.0}


def pions(n: int, pt: float, eta: float, **position: float) -> VisibleParticles:
    """One charged pion per event, produced at this place (mm)."""
    rng = np.random.default_rng(0)
    phi = rng.uniform(-np.pi, np.pi, n)
    none = np.full(n, -1)
    x, y, z = (np.full(n, position.get(axis, 0.0)) for axis in "xyz")
    pdg_id = rng.choice([-211, 211], n)
    return VisibleParticles(np.arange(n), none, none, pdg_id, np.full(n, pt), np.full(n, eta), phi, x, y, z)


def exact_vertices(n: int) -> PrimaryVertices:
    return PrimaryVertices(np.zeros((n, 3)), np.zeros(n), np.zeros(n))


@pytest.mark.parametrize("charge", [-1.0, 1.0])
@pytest.mark.parametrize("pt", [0.8, 3.0, 40.0])
def test_perigee_is_the_nearest_point_of_the_helix(charge: float, pt: float) -> None:
    """Walk along the helix in small steps, and take the point that is nearest to the beam line."""
    eta, phi = 0.7, 2.1
    start = np.array([4.0, -7.0, 11.0])  # mm
    radius = pt * RADIUS_PER_PT
    path = np.linspace(-30, 30, 600_001)
    angle = phi - charge * path / radius  # dphi/ds = -q/R in a field along +z
    x = start[0] - charge * radius * (np.sin(angle) - np.sin(phi))
    y = start[1] + charge * radius * (np.cos(angle) - np.cos(phi))
    nearest = np.argmin(np.hypot(x, y))
    assert 0 < nearest < len(path) - 1

    position = tuple(np.array([coordinate]) for coordinate in start)
    values = perigee(position, *(np.array([value]) for value in (pt, eta, phi, charge)))
    d_0, z_0, phi_0 = (float(value[0]) for value in values)
    assert abs(d_0) == pytest.approx(np.hypot(x[nearest], y[nearest]), abs=1e-4)
    assert (-d_0 * np.sin(phi_0), d_0 * np.cos(phi_0)) == pytest.approx((x[nearest], y[nearest]), abs=1e-3)
    assert z_0 == pytest.approx(start[2] + path[nearest] * np.sinh(eta), abs=1e-3)
    assert phi_0 == pytest.approx(angle[nearest], abs=1e-5)


def test_helix_starts_in_the_direction_of_the_momentum() -> None:
    """The walk of the test above does leave along phi."""
    radius, phi, step = RADIUS_PER_PT, 0.3, 1e-3
    for charge in (-1, 1):
        angle = phi - charge * step / radius
        dx = -charge * radius * (np.sin(angle) - np.sin(phi))
        dy = charge * radius * (np.cos(angle) - np.cos(phi))
        assert np.arctan2(dy, dx) == pytest.approx(phi, abs=1e-5)


@pytest.mark.parametrize(
    ("pt", "expected_um"),
    # quadrature of 14 um and 75 um GeV / pt, at eta = 0
    [(1.0, 76.3), (3.0, 28.7), (10.0, 15.9)],
)
def test_resolution_is_the_dialled_one(pt: float, expected_um: float) -> None:
    n = 20_000
    tracks = measure(pions(n, pt, 0.0), exact_vertices(n), Detector(**GAUSSIAN), np.random.default_rng(2))
    core = np.diff(np.quantile(tracks.d0, [0.1587, 0.8413]))[0] / 2 * 1e4
    assert core == pytest.approx(expected_um, rel=0.04)
    for value, sigma in ((tracks.d0, tracks.sigma_d0), (tracks.dz, tracks.sigma_dz)):
        pull = value / sigma
        assert pull.mean() == pytest.approx(0, abs=0.03)
        assert pull.std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("pt", [1.0, 4.0, 50.0])
def test_error_of_azimuth_turns_the_track_about_its_first_hit(pt: float) -> None:
    """The slope of d0 against phi is minus the radius of the first layer, 2.9 cm."""
    n = 50_000
    particles = pions(n, pt, 0.8)
    tracks = measure(particles, exact_vertices(n), Detector(**GAUSSIAN), np.random.default_rng(6))
    turn = (tracks.phi - particles.phi + np.pi) % (2 * np.pi) - np.pi
    assert turn.std() == pytest.approx(np.hypot(2e-4, 1.5e-3 / pt), rel=0.02)
    slope = (turn * tracks.d0).mean() / (turn**2).mean()
    unexplained = (tracks.d0 - slope * turn).std() / turn.std() / np.sqrt(n)
    assert slope == pytest.approx(-2.9, abs=4 * unexplained)
    assert abs((turn * tracks.dz).mean() / (turn.std() * tracks.dz.std())) < 4 / np.sqrt(n)


def test_worse_resolution_than_uncertainty_and_tails() -> None:
    n = 20_000

    def pull(detector: Detector) -> np.ndarray:
        tracks = measure(pions(n, 5.0, 0.5), exact_vertices(n), detector, np.random.default_rng(2))
        return tracks.d0 / tracks.sigma_d0

    assert pull(Detector(resolution_scale=1.2, **GAUSSIAN)).std() == pytest.approx(1.2, abs=0.04)
    assert np.mean(np.abs(pull(Detector(**GAUSSIAN))) > 4) < 0.001
    assert np.mean(np.abs(pull(Detector())) > 4) > 0.01


def test_impact_parameter_of_a_displaced_particle() -> None:
    n = 2000
    particles = pions(n, 20.0, 0.0, x=1.0)
    tracks = measure(particles, exact_vertices(n), Detector(), np.random.default_rng(3))
    # a straight line through (1 mm, 0): d0 = -sin(phi) x 0.1 cm, up to resolution and curvature
    residual = tracks.d0 + np.sin(particles.phi) * 0.1
    assert np.quantile(np.abs(residual), 0.9) < 0.006


def test_primary_vertex_is_the_origin_of_tracks() -> None:
    n = 500
    position = np.tile([0.0, 0.0, 3.0], (n, 1))  # mm
    vertices = PrimaryVertices(position, np.zeros(n), np.zeros(n))
    tracks = measure(pions(n, 20.0, 0.0), vertices, Detector(fake_fraction=0), np.random.default_rng(3))
    assert np.median(tracks.dz) == pytest.approx(-0.3, abs=0.001)


def test_efficiency_falls_with_the_radius_of_production() -> None:
    n = 5000
    found = []
    for x in (0.0, 50.0, 130.0, 320.0):
        particles, intact = pions(n, 5.0, 0.0, x=x), np.ones(n, dtype=bool)
        tracks = reconstruct(particles, intact, exact_vertices(n), Detector(), np.random.default_rng(4))
        found.append(len(tracks.pt) / n)
    assert found[0] == pytest.approx(0.955, abs=4 * np.sqrt(0.955 * 0.045 / n))
    assert found[1] == pytest.approx(0.955 * 0.84, abs=0.03)
    assert 0.2 < found[2] < 0.6
    assert found[3] == 0


def test_no_tracks_outside_acceptance_or_of_destroyed_particles() -> None:
    assert not efficiency(pions(10, 0.69, 0.0), Detector()).any()
    assert not efficiency(pions(10, 5.0, -2.51), Detector()).any()
    assert efficiency(pions(10, 5.0, -2.4), Detector()).all()
    intact = np.arange(1000) % 2 == 1
    arguments = (exact_vertices(1000), Detector(), np.random.default_rng(4))
    assert set(reconstruct(pions(1000, 5.0, 0.0), intact, *arguments).event % 2) == {1}


def test_primary_vertex_improves_with_activity() -> None:
    n_charged = np.tile([10, 160], 2000)
    vertices = reconstruct_vertices(n_charged, Detector(), np.random.default_rng(5))
    few, many = vertices.position[::2, 0].std() * 0.1, vertices.position[1::2, 0].std() * 0.1
    assert few == pytest.approx(vertices.sigma_xy[0], rel=0.06)
    assert many == pytest.approx(vertices.sigma_xy[1], rel=0.06)
    assert few / many == pytest.approx(4, rel=0.1)


def test_pileup_tracks_lie_in_the_cones_of_their_jets() -> None:
    n, zero = 2000, np.zeros(2000, dtype=int)
    rng = np.random.default_rng(8)
    eta, phi = rng.normal(0, 1, n), rng.uniform(-np.pi, np.pi, n)
    jets = Jets(np.arange(n), np.arange(n), np.full(n, 50.0), eta, phi, zero, zero, zero, zero)
    pileup = np.tile([20, 60], n // 2)
    tracks = pileup_tracks(jets, n, pileup, Detector(), rng)
    turn = (tracks.phi - phi[tracks.event] + np.pi) % (2 * np.pi) - np.pi
    assert np.hypot(tracks.eta - eta[tracks.event], turn).max() < 0.4
    few, many = (np.count_nonzero(pileup[tracks.event] == number) for number in (20, 60))
    assert many == pytest.approx(3 * few, abs=4 * np.sqrt(many + 9 * few))
    assert np.abs(tracks.dz).max() <= 0.3
    assert np.std(tracks.d0 / tracks.sigma_d0) == pytest.approx(1, abs=4 / np.sqrt(2 * len(tracks.d0)))


def test_pileup_tracks_are_measured_like_others() -> None:
    n, zero = 20_000, np.zeros(20_000, dtype=int)
    jets = Jets(np.arange(n), np.arange(n), np.full(n, 50.0), np.full(n, 2.4), zero, zero, zero, zero, zero)
    detector = Detector(resolution_scale=1.3)
    tracks = pileup_tracks(jets, n, np.full(n, 60), detector, np.random.default_rng(1))
    assert np.abs(tracks.eta).max() < 2.5
    sigma_d0, sigma_dz = impact_resolution(tracks.pt, tracks.eta, detector)
    assert np.array_equal(tracks.sigma_d0, sigma_d0)
    assert np.array_equal(tracks.sigma_dz, sigma_dz)
    assert np.std(tracks.d0 / sigma_d0) == pytest.approx(1.3, abs=4 * 1.3 / np.sqrt(2 * len(sigma_d0)))
