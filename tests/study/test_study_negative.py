"""The flipped inputs of the negative tagger."""

import numpy as np
import pytest
import torch

from models.discriminators import discriminators
from models.features import load_features
from study.negative import ABOVE_CHARM, FLIGHT, NEEDED, flipped, negative_scores
from tests.conftest import make_tagger

CARD = load_features("deepcsv")
PLACE = {name: i for i, name in enumerate(CARD.names)}
SLOTS = ("DecayLenVal", "DeltaR", "JetDistVal", "PtRatio", "PtRel", "Sip2dSig", "Sip3dSig")


def jet(tracks, category, flight=0.0):
    """Inputs of one jet with so many tracks, track i with values 10 i + place of the variable."""
    values, present = np.full(len(CARD), 0.5, np.float32), np.ones(len(CARD), np.bool_)
    for k, name in enumerate(SLOTS):
        for slot in range(6):
            place = PLACE[f"track{name}_{slot}"]
            values[place], present[place] = (10 * slot + k + 1, True) if slot < tracks else (0, False)
    for name in FLIGHT:
        values[PLACE[name]], present[PLACE[name]] = (flight, True) if category == 0 else (0, False)
    values[PLACE["vertexCategory"]] = category
    return values, present


def flip(*jets):
    values, present = (np.stack(each) for each in zip(*jets, strict=True))
    return flipped(values, present, CARD)


@pytest.mark.parametrize("tracks", [0, 1, 3, 6])
def test_tracks_come_in_reversed_order(tracks):
    values, present = flip(jet(tracks, 2))
    for k, name in enumerate(SLOTS):
        sign = -1 if name.startswith("Sip") else 1
        slots = [PLACE[f"track{name}_{slot}"] for slot in range(6)]
        expected = [sign * (10 * slot + k + 1) for slot in reversed(range(tracks))]
        assert values[0, slots[:tracks]].tolist() == expected
        assert present[0, slots].tolist() == [True] * tracks + [False] * (6 - tracks)
    assert all(values[0, PLACE[name]] == -0.5 for name in ABOVE_CHARM)


def test_vertices_change_sides():
    values, present = flip(jet(4, 0, 2.0), jet(4, 0, -2.0), jet(4, 1), jet(4, 2))
    assert values[:, PLACE["vertexCategory"]].tolist() == [2, 0, 2, 2]
    assert values[1, PLACE["flightDistance3dSig"]] == 2
    assert present[:, PLACE["vertexMass"]].tolist() == [False, True, False, False]
    assert present[:, PLACE["trackEtaRel_0"]].tolist() == [False, True, False, False]
    for name in ("vertexNTracks", "jetNSecondaryVertices", "jetNTracksEtaRel"):
        assert values[:, PLACE[name]].tolist() == [0, 0.5, 0, 0]


def test_jet_and_sums_stay():
    before, after = jet(4, 0, 2.0), flip(jet(4, 0, 2.0))
    for name in ("eta", "pt", "trackJetPt", "trackSumJetDeltaR", "jetNSelectedTracks"):
        assert after[0][0, PLACE[name]] == before[0][PLACE[name]]


def test_tracks_flipped_twice_are_themselves():
    once = flip(jet(5, 2))
    twice = flipped(*once, CARD)
    tracks = [i for name, i in PLACE.items() if name.startswith("track") and not name.startswith("trackEtaRel")]
    assert np.array_equal(twice[0][0, tracks], jet(5, 2)[0][tracks])


def test_scores_are_those_of_the_flipped_jets():
    tagger = make_tagger()
    inputs = tuple(np.stack(each) for each in zip(jet(3, 0, 1.0), jet(6, 2), jet(0, 1), strict=True))
    values, present = (torch.from_numpy(each) for each in flipped(*inputs, CARD))
    with torch.no_grad():
        expected = discriminators(tagger(values, present).softmax(1), tagger.classes)["BvsL"].numpy()
    np.testing.assert_allclose(negative_scores(inputs, tagger, "BvsL", batch=2), expected, rtol=1e-5)


def test_the_inputs_that_are_flipped_are_those_of_the_card():
    assert set(NEEDED) <= set(CARD.names)
    assert not set(NEEDED) <= set(load_features("nanoaod").names)
