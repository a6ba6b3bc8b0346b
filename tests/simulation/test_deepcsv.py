"""Pieces of the DeepCSV variables that have a slow obvious counterpart, and leptons and trigger."""

from collections.abc import Callable

import numpy as np
import pytest

from simulation.detector.association import JetTracks
from simulation.detector.deepcsv import ABSENT, above_charm, k_short_veto, leading_slots, track_sums
from simulation.detector.impact import TrackVariables, track_variables
from simulation.detector.jets import Jets
from simulation.detector.leptons import Leptons
from simulation.detector.tracks import PrimaryVertices
from simulation.detector.trigger import trigger_decisions
from simulation.knobs import Detector
from simulation.rounding import round_mantissa

K_SHORT, PION = 0.4976, 0.13957


@pytest.fixture
def k_short_tracks(
    make_jets: Callable[..., Jets],
    make_jet_tracks: Callable[..., JetTracks],
    make_primary: Callable[[int], PrimaryVertices],
) -> TrackVariables:
    """Two pions of 2 GeV with the mass of a K0S: of opposite charge in jet 0, of the same charge in jet 1."""
    opening = 2 * np.arcsin(np.sqrt((K_SHORT**2 - 4 * PION**2) / 4) / 2)
    phi = np.tile([opening / 2, -opening / 2], (2, 1))
    measured = make_jet_tracks(
        phi=phi,
        pt=np.full((2, 2), 2.0),
        d0=np.tile([-0.01, 0.012], (2, 1)),
        charge=np.array([[1.0, -1.0], [1.0, 1.0]]),
    )
    return track_variables(make_jets(np.full(2, 50.0), np.zeros(2), np.zeros(2)), measured, make_primary(2))


def test_k_short_pair_is_vetoed(k_short_tracks: TrackVariables) -> None:
    assert k_short_tracks.selected.all()
    assert k_short_veto(k_short_tracks).tolist() == [[True, True], [False, False]]


def test_leading_slots() -> None:
    values = np.array([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]])
    used = np.array([[True, False, True], [False, False, False]])
    columns = leading_slots("x", values, used, 4)
    assert list(columns) == ["x_0", "x_1", "x_2", "x_3"]
    assert np.stack(list(columns.values()), axis=1).tolist() == [[5.0, 3.0, ABSENT, ABSENT], [ABSENT] * 4]


def test_sums_over_no_track_are_those_of_a_null_vector(
    make_jets: Callable[..., Jets],
    make_jet_tracks: Callable[..., JetTracks],
    make_primary: Callable[[int], PrimaryVertices],
) -> None:
    jets = make_jets(np.array([50.0, 50.0]), np.array([1.2, 0.0]), np.array([-0.5, 0.0]))
    measured = make_jet_tracks(pt=np.array([[0.5], [20.0]]))  # below and above the cut on pt
    tracks = track_variables(jets, measured, make_primary(2))
    sums = track_sums(jets, tracks, tracks.selected)
    assert sums["trackJetPt"] == pytest.approx([0, 20])
    assert sums["trackSumJetEtRatio"] == pytest.approx([0, 20 / np.hypot(50, 5)], rel=1e-3)
    assert sums["trackSumJetDeltaR"] == pytest.approx([np.hypot(1.2, 0.5), 0], abs=1e-9)


def test_first_track_above_the_charm_mass(
    make_jets: Callable[..., Jets],
    make_jet_tracks: Callable[..., JetTracks],
    make_primary: Callable[[int], PrimaryVertices],
) -> None:
    """Add tracks one by one, as the definition says."""
    rng = np.random.default_rng(3)
    n, n_tracks = 50, 4
    jets = make_jets(np.full(n, 60.0), np.zeros(n), np.zeros(n))
    shape = (n, n_tracks)
    measured = make_jet_tracks(
        eta=rng.normal(0, 0.15, shape),
        phi=rng.normal(0, 0.15, shape),
        d0=rng.normal(0, 0.01, shape),
        dz=rng.normal(0, 0.01, shape),
        pt=rng.uniform(1.1, 4, shape),
    )
    tracks = track_variables(jets, measured, make_primary(n))
    expected = []
    for jet in range(n):
        momentum, energy, value = np.zeros(3), 0.0, -1.0
        for slot in np.argsort(-tracks.sip3d[jet]):
            if tracks.jet_distance[jet, slot] <= -0.07 or tracks.decay_length[jet, slot] >= 5:
                continue
            momentum = momentum + tracks.momentum[jet, slot]
            energy += tracks.energy[jet, slot]
            if energy**2 - momentum @ momentum > 1.5**2:
                value = tracks.ip3d[jet, slot]
                break
        expected.append(value)
    found = above_charm(tracks)["trackSip3dValAboveCharm"]
    assert found == pytest.approx(expected)
    assert 5 < np.count_nonzero(found == -1) < 45


def test_rounding_keeps_ten_bits() -> None:
    values = np.random.default_rng(1).normal(0, 10, 1000).astype(np.float32)
    rounded = round_mantissa(values, 10)
    assert np.abs(rounded / values - 1).max() <= 2.0**-11
    assert len(np.unique(rounded)) < len(np.unique(values))
    for exact in (-999.0, -1.0, 0.0, 2.0):
        assert round_mantissa(np.array([exact]), 10)[0] == exact


def test_trigger(make_jets: Callable[..., Jets]) -> None:
    n = 2000
    jets = make_jets(np.tile([30.0, 80.0], n // 2), np.zeros(n), np.zeros(n))
    event = np.arange(n)
    # isolated in the first half of the events only; too soft in the last quarter
    isolation = np.where(event < n // 2, 0.05, 0.5)
    muons = Leptons(event, np.where(event < 3 * n // 4, 30.0, 20.0), *np.zeros((2, n)), np.ones(n), isolation)
    decisions = trigger_decisions(jets, muons, n, Detector(), np.random.default_rng(1))
    assert decisions["HLT_IsoMu24"][: n // 2].mean() == pytest.approx(0.92, abs=0.03)
    assert not decisions["HLT_IsoMu24"][n // 2 :].any()
    assert decisions["HLT_PFJet40"][1::2].all()
    assert decisions["HLT_PFJet40"][::2].mean() < 0.01
    assert not decisions["HLT_PFJet140"].any()
