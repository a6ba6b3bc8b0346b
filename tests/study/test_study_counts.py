"""Counts of jets in replicas of the bootstrap."""

import numpy as np

from simulation.detector.reconstruct import MAX_EVENTS
from study.counts import Bootstrap, Counts, count, like_data

EDGES = (40.0, 70.0)


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    pt, flavour, weight = rng.uniform(30, 100, 60), rng.integers(0, 3, 60).astype(np.int8), rng.normal(size=60)
    passed, replicas = rng.random((2, 60)) < 0.4, rng.integers(0, 4, (5, 60)).astype(float)
    found = count(pt, EDGES, flavour, weight, passed, replicas)
    for r in range(5):
        everything, passing = np.zeros((3, 3)), np.zeros((2, 3, 3))
        for jet in range(60):
            place = sum(pt[jet] >= edge for edge in EDGES)
            everything[place, flavour[jet]] += weight[jet] * replicas[r, jet]
            for k in range(2):
                passing[k, place, flavour[jet]] += weight[jet] * replicas[r, jet] * passed[k, jet]
        np.testing.assert_allclose(found.all[r], everything, atol=1e-12)
        np.testing.assert_allclose(found.passed[:, r], passing, atol=1e-12)


def test_data_have_one_flavour():
    found = count(np.array([35.0, 90.0]), EDGES, None, np.ones(2), np.array([[True, False]]), np.ones((1, 2)))
    assert found.all.shape == (1, 3, 1)
    assert found.all[0, :, 0].tolist() == [1, 0, 1]
    assert found.passed[0, 0, :, 0].tolist() == [1, 0, 0]


def test_weights_are_of_events_and_poisson():
    event = 7 * MAX_EVENTS + np.repeat(np.arange(20_000), 2)
    weights = Bootstrap(20, seed=3).weights(event)
    assert (weights[0] == 1).all()
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    drawn = weights[1:, ::2]
    # 400,000 draws: the mean is known to 0.0016, the variance to sqrt(3/4e5) = 0.0027
    assert abs(drawn.mean() - 1) < 0.008
    assert abs(drawn.var() - 1) < 0.014
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.04


def test_an_event_has_its_weight_whichever_others_have_jets():
    bootstrap, event = Bootstrap(8, seed=3), 7 * MAX_EVENTS + np.arange(1000)
    some = np.array([3, 17, 500])
    assert np.array_equal(bootstrap.weights(event)[:, some], bootstrap.weights(event[some]))
    assert np.array_equal(bootstrap.weights(event), Bootstrap(8, seed=3).weights(event))
    for other in (Bootstrap(8, seed=4).weights(event), bootstrap.weights(event + MAX_EVENTS)):
        assert np.mean(other[1:] == bootstrap.weights(event)[1:]) < 0.5


def test_no_jets():
    assert Bootstrap(4, seed=1).weights(np.zeros(0, np.int64)).shape == (5, 0)


def test_mc_gets_the_spectrum_of_data():
    mc = Counts(np.array([[[10.0, 30.0], [5.0, 5.0], [0.0, 0.0]]]), np.ones((1, 1, 3, 2)))
    data = Counts(np.array([[[20.0], [30.0], [7.0]]]), np.ones((1, 1, 3, 1)))
    scaled = like_data(mc, data)
    assert scaled.all[0].tolist() == [[5, 15], [15, 15], [0, 0]]
    assert scaled.passed[0, 0, :, 0].tolist() == [0.5, 3, 0]
