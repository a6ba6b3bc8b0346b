"""Association of tracks to jets, impact parameters and the approach to the jet axis."""

from collections.abc import Callable

import numpy as np
import pytest

from simulation.detector.association import MAX_TRACKS, JetTracks, associate
from simulation.detector.impact import approach_to_axis, track_variables
from simulation.detector.jets import Jets
from simulation.detector.tracks import PrimaryVertices, Tracks


def tracks_at(event: np.ndarray, pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> Tracks:
    ones = np.ones(len(pt))
    return Tracks(event, 211 * ones, pt, eta, phi, 0 * ones, 0 * ones, ones, ones, ones)


def test_association_agrees_with_a_double_loop(make_jets: Callable[..., Jets]) -> None:
    rng = np.random.default_rng(1)
    n_jets, n_tracks = 30, 900
    jets = make_jets(np.full(n_jets, 50.0), rng.normal(0, 0.5, n_jets), rng.uniform(-np.pi, np.pi, n_jets))
    jets = jets.take(np.arange(n_jets))
    event = rng.integers(0, n_jets, n_tracks)
    tracks = tracks_at(
        event, rng.exponential(3, n_tracks), rng.normal(0, 0.5, n_tracks), rng.uniform(-np.pi, np.pi, n_tracks)
    )
    found = associate(jets, tracks, n_jets)
    for jet in range(n_jets):
        expected = []
        for track in np.flatnonzero(event == jet):
            turn = abs(tracks.phi[track] - jets.phi[jet])
            distance = np.hypot(tracks.eta[track] - jets.eta[jet], min(turn, 2 * np.pi - turn))
            if distance < 0.4:
                expected.append((-tracks.pt[track], distance))
        present = found.present[jet]
        assert found.pt[jet][present].tolist() == [-pt for pt, _ in sorted(expected)]
        assert tracks.pt[found.track[jet][present]].tolist() == found.pt[jet][present].tolist()
        assert np.all(found.track[jet][~present] == -1)
        assert found.delta_r[jet][present] == pytest.approx([distance for _, distance in sorted(expected)])


def test_softest_tracks_are_dropped(make_jets: Callable[..., Jets]) -> None:
    n = MAX_TRACKS + 10
    jets = make_jets(np.array([100.0]), np.zeros(1), np.zeros(1))
    pt = np.random.default_rng(2).permutation(np.arange(1.0, n + 1))
    found = associate(jets, tracks_at(np.zeros(n, dtype=int), pt, np.zeros(n), np.zeros(n)), 1)
    assert found.pt[0].tolist() == list(range(n, 10, -1))


def test_sign_and_size_of_impact_parameters(
    make_jets: Callable[..., Jets],
    make_jet_tracks: Callable[..., JetTracks],
    make_primary: Callable[[int], PrimaryVertices],
) -> None:
    """Tracks of a decay 1 cm along the jet have positive impact parameters, those from behind negative ones."""
    jets = make_jets(np.array([50.0, 50.0]), np.zeros(2), np.zeros(2))
    phi = np.array([[0.1, -0.1], [0.1, -0.1]])
    decay = np.array([[1.0], [-1.0]])
    d0 = -decay * np.sin(phi)  # of a straight line through (decay, 0)
    tracks = track_variables(jets, make_jet_tracks(phi=phi, d0=d0), make_primary(2))
    assert tracks.ip2d[0] == pytest.approx([np.sin(0.1)] * 2)
    assert tracks.ip2d[1] == pytest.approx([-np.sin(0.1)] * 2)
    assert tracks.ip3d == pytest.approx(tracks.ip2d, abs=1e-6)
    assert tracks.sip2d[0] == pytest.approx(np.sin(0.1) / np.hypot(0.002, 0.001))
    assert tracks.decay_length == pytest.approx(np.ones((2, 2)))
    assert tracks.jet_distance == pytest.approx(np.zeros((2, 2)), abs=1e-9)
    assert tracks.pt_ratio == pytest.approx(np.full((2, 2), np.sin(0.1)))


def test_impact_parameter_in_space_is_the_distance_of_the_line() -> None:
    """Against a scan along the track, for a track that is not in the transverse plane."""
    direction = np.array([np.cos(0.4), np.sin(0.4), np.sinh(1.1)]) / np.cosh(1.1)
    d0, dz = 0.03, -0.05
    point = np.array([-d0 * np.sin(0.4), d0 * np.cos(0.4), dz])
    steps = np.linspace(-1, 1, 200_001)
    line = point + steps[:, None] * direction
    across = dz / np.cosh(1.1)
    assert np.hypot(d0, across) == pytest.approx(np.linalg.norm(line, axis=1).min(), abs=1e-6)

    axis = np.array([np.cos(0.6), np.sin(0.6), np.sinh(0.8)]) / np.cosh(0.8)
    distance = np.linalg.norm(np.cross(line, axis), axis=1)
    nearest = np.argmin(distance)
    decay_length, jet_distance = approach_to_axis(point[None, None], direction[None, None], axis[None, None])
    assert -jet_distance[0, 0] == pytest.approx(distance[nearest], abs=1e-6)
    assert decay_length[0, 0] == pytest.approx(np.linalg.norm(line[nearest]), abs=1e-4)


def test_3d_value_matches_that_distance(
    make_jets: Callable[..., Jets],
    make_jet_tracks: Callable[..., JetTracks],
    make_primary: Callable[[int], PrimaryVertices],
) -> None:
    one = np.ones((1, 1))
    jets = make_jets(np.array([50.0]), np.array([0.9]), np.array([0.5]))
    measured = make_jet_tracks(phi=0.4 * one, eta=1.1 * one, d0=0.03 * one, dz=-0.05 * one)
    tracks = track_variables(jets, measured, make_primary(1))
    assert abs(tracks.ip3d[0, 0]) == pytest.approx(np.hypot(0.03, 0.05 / np.cosh(1.1)), abs=1e-6)
    # the three directions are orthonormal, and the perigee has no component along n1 but d0
    frame = np.stack([tracks.direction[0, 0], tracks.normal_1[0, 0], tracks.normal_2[0, 0]])
    assert frame @ frame.T == pytest.approx(np.eye(3), abs=1e-12)
    assert tracks.point[0, 0] @ tracks.normal_1[0, 0] == pytest.approx(0.03)


def test_cuts_and_order(
    make_jets: Callable[..., Jets],
    make_jet_tracks: Callable[..., JetTracks],
    make_primary: Callable[[int], PrimaryVertices],
) -> None:
    jets = make_jets(np.array([50.0]), np.zeros(1), np.zeros(1))
    measured = make_jet_tracks(
        phi=np.array([[0.1, 0.1, 0.1, 0.1, 0.1]]),
        d0=np.array([[-0.001, -0.25, -0.004, -0.003, -0.002]]),
        pt=np.array([[5.0, 5.0, 0.9, 5.0, 5.0]]),
        delta_r=np.array([[0.1, 0.1, 0.1, 0.35, 0.1]]),
    )
    tracks = track_variables(jets, measured, make_primary(1))
    # d0 too large, pt too small: not good; outside the inner cone: good, not selected
    assert tracks.good[0].tolist() == [True, True, True, False, False]
    assert tracks.selected[0].tolist() == [False, True, True, False, False]
    assert tracks.ip2d[0, :3] == pytest.approx([0.003, 0.002, 0.001])
    assert tracks.track[0, :3].tolist() == [3, 4, 0]
