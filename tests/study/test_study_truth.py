"""True shifts in the spectrum of the jets that are attacked, by hand."""

import numpy as np
import pytest

from study.counts import Counts
from study.truth import true_shift


def light(jets, passed):
    """Counts of light jets alone: one replica, two pt bins, one selection."""
    everything, passing = np.zeros((1, 2, 3)), np.zeros((1, 1, 2, 3))
    everything[0, :, 2], passing[0, 0, :, 2] = jets, passed
    return Counts(everything, passing)


def test_shift_has_the_spectrum_of_the_attacked_jets():
    """Data and MC have as many jets at high pt as at low pt, the attacked ones a tenth of them there."""
    data, mc = light([100, 100], [20, 60]), light([200, 200], [20, 40])
    # at low pt 0.2 - 0.1, at high pt 0.6 - 0.2
    assert true_shift(data, mc, light([90, 10], [0, 0]), "light")[0, 0] == pytest.approx(0.9 * 0.1 + 0.1 * 0.4)
    assert true_shift(data, mc, light([1, 1], [1, 1]), "light")[0, 0] == pytest.approx(0.25)
    assert np.isnan(true_shift(data, mc, light([1, 1], [1, 1]), "b")[0, 0])
