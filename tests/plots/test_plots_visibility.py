"""Whether a distortion is visible in data/MC: shifts of known size, against toys, and jets one by one."""

import numpy as np
import pytest
from scipy import stats

from plots.compare import Bins, chi2_test
from plots.visibility import any_movement, least_movement, power, shift

FLAT = np.full(10, 1000.0)
SIGNS = np.array([1.0, -1.0] * 5)


def asimov(found=(), variance=1e-3):
    return Bins(FLAT, FLAT.copy(), FLAT.copy(), np.full(10, variance), found)


def test_a_shift_of_known_size_by_hand():
    seen = shift(asimov(), FLAT + 40 * SIGNS, np.full(10, 1e-3))
    assert seen.chi2 == pytest.approx(10 * 40**2 / 1000, rel=1e-3)
    assert seen.ndf == 9
    assert seen.power == pytest.approx(stats.ncx2.sf(stats.chi2.isf(0.05, 9), 9, 16), rel=1e-3)


@pytest.mark.parametrize(("size", "verdict"), [(0, "invisible"), (20, "invisible"), (30, "visible"), (60, "visible")])
def test_a_shift_becomes_visible_where_it_must(size, verdict):
    # half of all experiments reject where the chi2 is 8.4, at a size of 29
    assert shift(asimov(), FLAT + size * SIGNS, np.full(10, 1e-3)).verdict == verdict


def test_the_power_is_that_of_toys():
    rng = np.random.default_rng(4)
    distorted = FLAT + 30 * SIGNS
    p = [chi2_test(Bins(d, d, distorted, np.full(10, 1e-3)), shape=True)[2] for d in rng.poisson(FLAT, (500, 10)) * 1.0]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(shift(asimov(), distorted, np.full(10, 1e-3)).power, abs=0.07)


def test_a_shift_inside_a_systematic_band_is_invisible():
    along, across = 40 * SIGNS, 40 * np.array([1.0, 1, -1, -1, 1, 1, -1, -1, 0, 0])
    variance = np.full(10, 1e-3)
    for found in (((along, -along),), ((along,),)):
        inside = shift(asimov(found), FLAT + along, variance)
        assert inside.chi2 == pytest.approx(16 / (1 + 16), rel=1e-3)  # Sherman-Morrison
        assert inside.verdict == "invisible"
        assert shift(asimov(found), FLAT + across, variance).verdict == "visible"


def test_normalisation_is_not_shape():
    assert shift(asimov(), 1.3 * FLAT, np.full(10, 1e-3)).chi2 == pytest.approx(0, abs=1e-6)


def test_the_data_do_not_decide_but_their_number_does():
    distorted, variance = FLAT + 30 * SIGNS, np.full(10, 1e-3)
    fluctuated = np.random.default_rng(1).permutation(FLAT + 100 * SIGNS)
    again = shift(Bins(fluctuated, fluctuated, FLAT, variance), distorted, variance)
    assert again == shift(asimov(), distorted, variance)
    assert shift(Bins(FLAT / 10, FLAT / 10, FLAT, variance), distorted, variance).verdict == "invisible"
    assert shift(Bins(None, None, FLAT, variance), distorted, variance) == again


def test_too_little_has_no_verdict():
    few = np.array([3.0, 4.0, 5.0])
    assert shift(Bins(few, few, few, few), few[::-1], few[::-1]).verdict == ""
    one = np.array([900.0])
    assert shift(Bins(one, one, one, one), one, one).verdict == ""
    assert shift(Bins(-one, one, one, one), one, one).verdict == ""


def test_least_movement_jet_by_jet():
    raw, distorted = np.array([3, 5, 0, 2]), np.array([1, 4, 4, 1])
    places = [np.repeat(np.arange(4), n) for n in (raw, distorted)]
    expected = np.zeros((4, 4))
    for i, j in zip(*places, strict=True):
        step = np.eye(4)[j] - np.eye(4)[i]
        expected += np.outer(step, step)
    np.testing.assert_allclose(least_movement(raw * 1.0, distorted * 1.0), expected, atol=1e-12)
    np.testing.assert_allclose(least_movement(raw * 0.49, distorted * 0.49), 0.49 * expected, atol=1e-12)
    np.testing.assert_array_equal(least_movement(raw * 1.0, raw * 1.0), np.zeros((4, 4)))
    np.testing.assert_array_equal(least_movement(np.zeros(4), raw * 1.0), np.zeros((4, 4)))


def test_any_movement_is_two_samples():
    raw, distorted = np.array([30.0, 70.0]), np.array([40.0, 60.0])
    expected = np.array([[70 - 24.0, -18 - 28.0], [-46.0, 130 - 84.0]])
    np.testing.assert_allclose(any_movement(raw, distorted), expected)
    np.testing.assert_allclose(any_movement(raw, distorted).sum(), 0, atol=1e-12)


@pytest.mark.parametrize(("jets", "verdicts"), [(2000, {"invisible"}), (60_000, {"visible"})])
def test_a_small_shift_of_the_same_jets_on_small_and_large_samples(jets, verdicts):
    """MC as large as the data. The noise of jets that cross bins must not make a shift visible that is not."""
    rng = np.random.default_rng(6)
    edges, found = np.linspace(0, 1, 31), []
    for _ in range(30):
        x = rng.beta(2, 5, jets)
        raw, moved = (np.histogram(values, edges)[0] * 1.0 for values in (x, x + 0.01))
        found.append(shift(Bins(None, None, raw, raw), moved, moved))
    assert {seen.verdict for seen in found} == verdicts


def test_the_noise_of_the_shift_is_subtracted():
    """The mean over samples of MC is the chi2 of the true shift, which one very large sample gives."""
    rng = np.random.default_rng(8)
    edges, jets = np.linspace(0, 0.6, 13), 5000

    def sample(n):
        x = rng.beta(2, 5, n)
        return [np.histogram(values.clip(0, 0.599), edges)[0] * jets / n for values in (x, x + 0.004)]

    raw, moved = sample(3_000_000)
    true = ((moved - raw) ** 2 / (2 * raw)).sum()  # data and MC have the error of `jets` jets
    found = [shift(Bins(None, None, raw, raw), moved, moved) for raw, moved in (sample(jets) for _ in range(60))]
    error = np.std([seen.chi2 for seen in found]) / np.sqrt(60)
    assert {seen.ndf for seen in found} == {11}
    assert np.mean([seen.noise for seen in found]) > 8 * error
    assert np.mean([seen.chi2 for seen in found]) == pytest.approx(true, abs=4 * error)


def test_jets_that_change_places_on_a_small_sample_are_not_called_visible():
    rng = np.random.default_rng(9)
    verdicts = []
    for _ in range(40):
        raw, moved = rng.multinomial(4000, np.full(60, 1 / 60), 2) * 1.0
        verdicts.append(shift(Bins(None, None, raw, raw), moved, moved).verdict)
    assert verdicts.count("visible") <= 2
    assert "unclear" in verdicts


@pytest.mark.parametrize("absent", [6.0, 500.0])  # merged with the next bin, or not
def test_absent_entries_do_not_move(absent):
    """By hand: chi2 against diag(2 raw) with free normalisation is the sum of shift^2 / (2 raw) here, and the bound is
    the same sum with the covariance of two samples of the 200 jets that have an entry."""
    raw, moved = np.array([absent, 100.0, 100.0]), np.array([absent, 140.0, 60.0])
    seen = shift(Bins(None, None, raw, raw, absent=1), moved, moved)
    joined = np.array([106.0, 100.0] if absent < 10 else [absent, 100.0, 100.0])
    movement = np.array([[100.0, -100.0], [-100.0, 100.0]])  # diag(100 + 140) - 2 * 100 * 140 / 200, ...
    inverse = np.diag(1 / (2 * joined)) - np.full((len(joined),) * 2, 1 / (2 * joined.sum()))
    difference = np.array([0.0, 40.0, -40.0])[-len(joined) :]
    measured = difference @ inverse @ difference
    most = np.sum(inverse[-2:, -2:] * movement)
    assert seen.ndf == len(joined) - 1
    assert seen.chi2 + seen.noise == pytest.approx(measured)
    assert seen.power_least == pytest.approx(power(measured - most, seen.ndf))
    everywhere = shift(Bins(None, None, raw, raw), moved, moved)
    assert everywhere.power_least < seen.power_least
    assert everywhere.power == pytest.approx(seen.power)


def test_power():
    assert power(0.0, 7) == pytest.approx(0.05)
    assert power(1000.0, 7) == pytest.approx(1.0)
