"""The vertex fit and the vertex finder, on synthetic decays."""

from collections.abc import Callable

import numpy as np
import pytest

from simulation.detector.association import JetTracks
from simulation.detector.impact import TrackVariables, track_variables
from simulation.detector.jets import Jets
from simulation.detector.tracks import PrimaryVertices
from simulation.detector.vertexing import find_vertices, fit

N_JETS, N_TRACKS = 400, 4
SIGMA_D0, SIGMA_DZ = 0.002, 0.004  # cm


@pytest.fixture
def jets(make_jets: Callable[..., Jets]) -> Jets:
    """Jets along x, slightly upwards."""
    return make_jets(np.full(N_JETS, 60.0), np.full(N_JETS, 0.3), np.zeros(N_JETS))


@pytest.fixture
def make_decays(
    jets: Jets, make_jet_tracks: Callable[..., JetTracks], make_primary: Callable[[int], PrimaryVertices]
) -> Callable[..., TrackVariables]:
    """Tracks of straight flight from a point `length` cm along the jet; the first `n_prompt` from the origin."""

    def make(length: float, smearing: float, n_prompt: int = 0, n_tracks: int = N_TRACKS) -> TrackVariables:
        rng = np.random.default_rng(7)
        shape = (N_JETS, n_tracks)
        eta = 0.3 + rng.normal(0, 0.08, shape)
        # azimuths on both sides of the axis: well-defined vertices
        phi = np.tile([0.09, -0.08, 0.05, -0.12, 0.02, -0.03], (N_JETS, 1))[:, :n_tracks] + rng.normal(0, 0.01, shape)
        x, z = length / np.cosh(0.3), length * np.tanh(0.3)
        displaced = np.arange(n_tracks) >= n_prompt
        # transverse path from the perigee to the decay is x cos(phi)
        d0 = np.where(displaced, -x * np.sin(phi), 0.0)
        dz = np.where(displaced, z - x * np.cos(phi) * np.sinh(eta), 0.0)
        measured = make_jet_tracks(
            eta=eta,
            phi=phi,
            d0=d0 + smearing * SIGMA_D0 * rng.normal(size=shape),
            dz=dz + smearing * SIGMA_DZ * rng.normal(size=shape),
            sigma_d0=np.full(shape, SIGMA_D0),
            sigma_dz=np.full(shape, SIGMA_DZ),
        )
        return track_variables(jets, measured, make_primary(N_JETS))

    return make


def decay_point(jets: Jets, length: float) -> np.ndarray:
    return jets.direction * length


def test_fit_of_exact_tracks_is_exact(jets: Jets, make_decays: Callable[..., TrackVariables]) -> None:
    tracks = make_decays(length=1.0, smearing=0.0)
    start = decay_point(jets, 1.1)
    position, _, weight = fit(tracks, tracks.good, start)
    assert position == pytest.approx(decay_point(jets, 1.0), abs=1e-4)
    assert np.all(weight > 0.98)


def test_covariance_is_the_spread_of_the_fit(jets: Jets, make_decays: Callable[..., TrackVariables]) -> None:
    tracks = make_decays(length=1.0, smearing=1.0)
    position, covariance, _ = fit(tracks, tracks.good, decay_point(jets, 1.0))
    residual = position - decay_point(jets, 1.0)
    pull = residual / np.sqrt(covariance[:, [0, 1, 2], [0, 1, 2]])
    assert np.abs(pull.mean(axis=0)) == pytest.approx(np.zeros(3), abs=0.2)
    assert pull.std(axis=0) == pytest.approx(np.ones(3), abs=0.15)
    # the flight direction is the worst measured one
    assert residual[:, 0].std() > 3 * residual[:, 1].std()


def test_fit_minimises_chi2(jets: Jets, make_decays: Callable[..., TrackVariables]) -> None:
    """One jet, against a scan of the weighted chi2 over small steps in every direction."""
    tracks = make_decays(length=1.0, smearing=1.0)
    position, _, weight = fit(tracks, tracks.good, decay_point(jets, 1.0))

    def chi2(point: np.ndarray) -> float:
        total = 0.0
        for slot in range(N_TRACKS):
            difference = point - tracks.point[0, slot]
            for normal, sigma in ((tracks.normal_1, tracks.sigma_1), (tracks.normal_2, tracks.sigma_2)):
                total += weight[0, slot] * (difference @ normal[0, slot] / sigma[0, slot]) ** 2
        return total

    best = chi2(position[0])
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.01:
        assert chi2(position[0] + step) > best


@pytest.mark.parametrize("length", [0.3, 1.0, 2.0])
def test_displaced_vertex_is_found(
    jets: Jets,
    make_decays: Callable[..., TrackVariables],
    make_primary: Callable[[int], PrimaryVertices],
    length: float,
) -> None:
    tracks = make_decays(length=length, smearing=1.0)
    first, second = find_vertices(jets, tracks, make_primary(N_JETS))
    assert first.found.mean() > 0.9
    found = first.found
    pull = (first.distance_3d[found] - length) / first.error_3d[found]
    assert 0.5 < np.abs(pull).mean() < 1.1  # 0.8 for a Gaussian
    assert np.median(first.distance_3d[found]) == pytest.approx(length, rel=0.05)
    assert np.median(first.distance_2d[found]) == pytest.approx(length / np.cosh(0.3), rel=0.05)
    assert first.tracks[tracks.good & found[:, None]].mean() > 0.9
    assert second.found.mean() < 0.02


def test_prompt_tracks_stay_out(
    jets: Jets, make_decays: Callable[..., TrackVariables], make_primary: Callable[[int], PrimaryVertices]
) -> None:
    tracks = make_decays(length=1.0, smearing=1.0, n_prompt=2, n_tracks=6)
    first, _ = find_vertices(jets, tracks, make_primary(N_JETS))
    assert first.found.mean() > 0.9
    prompt = np.abs(tracks.ip2d) < 3 * SIGMA_D0
    assert first.tracks[prompt].mean() < 0.1
    assert first.tracks[~prompt & first.found[:, None]].mean() > 0.9


def test_no_vertex_of_prompt_tracks(
    jets: Jets, make_decays: Callable[..., TrackVariables], make_primary: Callable[[int], PrimaryVertices]
) -> None:
    first, second = find_vertices(jets, make_decays(length=0.0, smearing=1.0), make_primary(N_JETS))
    assert first.found.mean() < 0.05
    assert not second.found.any()


def test_one_track_makes_no_vertex(
    jets: Jets, make_decays: Callable[..., TrackVariables], make_primary: Callable[[int], PrimaryVertices]
) -> None:
    first, second = find_vertices(jets, make_decays(length=1.0, smearing=1.0, n_tracks=1), make_primary(N_JETS))
    assert not first.found.any()
    assert not second.found.any()
