"""Mean and widths against numpy, with absent entries as NaN, and against plain Python."""

import itertools
import math
import statistics

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import training.standardise
from models.inputs import Inputs
from training.cache import open_cache
from training.columns import Sample
from training.standardise import scales, standardisation


def inputs_of(values: np.ndarray, present: np.ndarray) -> Inputs:
    values = np.where(present, values, 0).astype(np.float32)
    return Inputs(torch.from_numpy(values), torch.from_numpy(present), torch.arange(len(values)))


@given(
    values=arrays(np.float32, (20, 4), elements=st.floats(-1000, 1000, width=32)),
    present=arrays(np.bool_, (20, 4)),
)
@settings(max_examples=150, deadline=None)
def test_is_nanmean_and_nanstd(values, present) -> None:
    mean, std = standardisation(inputs_of(values, present))
    assert mean.dtype == std.dtype == torch.float32
    for k in range(4):
        there = values[present[:, k], k].astype(np.float64)
        expected = (there.mean(), there.std()) if len(there) else (0.0, 1.0)
        np.testing.assert_allclose(float(mean[k]), expected[0], rtol=1e-5, atol=1e-4)
        if expected[1] > 1e-6:
            np.testing.assert_allclose(float(std[k]), expected[1], rtol=1e-5)
        elif len(set(there)) <= 1:
            assert float(std[k]) == 1


def test_masked_array_with_large_mean() -> None:
    """A one-pass variance in float32 would be all rounding here."""
    rng = np.random.default_rng(0)
    values = rng.normal([1e4, -1e4, 0.001], [1, 0.5, 1e-4], (5000, 3)).astype(np.float32)
    present = rng.random(values.shape) < 0.6
    masked = np.where(present, values.astype(np.float64), np.nan)
    mean, std = standardisation(inputs_of(values, present))
    np.testing.assert_allclose(mean, np.nanmean(masked, axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, np.nanstd(masked, axis=0), rtol=1e-6)


class InChunks:
    """Jets that come as those on disk do."""

    def __init__(self, inputs: Inputs, edges: list[int]) -> None:
        self.inputs, self.edges = inputs, edges

    def chunks(self):
        for start, stop in itertools.pairwise(self.edges):
            inputs = self.inputs[start:stop]
            yield Sample(inputs, *torch.zeros(3, len(inputs)))


@given(
    values=arrays(np.float32, (30, 3), elements=st.floats(-1000, 1000, width=32)),
    present=arrays(np.bool_, (30, 3)),
    cuts=st.lists(st.integers(0, 30), max_size=5),
    shift=st.sampled_from([0.0, 1e6]),
)
@settings(max_examples=100, deadline=None)
def test_chunks_are_the_whole(values, present, cuts, shift) -> None:
    inputs = inputs_of(values + np.float32(shift), present)
    whole = standardisation(inputs)
    for found, expected in zip(standardisation(InChunks(inputs, [0, *sorted(cuts), 30])), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-7, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(standardisation(InChunks(inputs, [0, 30])), whole, strict=True))


def test_a_large_mean_in_chunks() -> None:
    """Sums of squares would be all rounding here, even in double precision."""
    rng = np.random.default_rng(0)
    values = rng.normal(1e6, 1, (5000, 2)).astype(np.float32)
    values = np.concatenate([values, values + 2]).astype(np.float32)
    inputs = inputs_of(values, rng.random(values.shape) < 0.6)
    masked = np.where(inputs.present, values.astype(np.float64), np.nan)
    mean, std = standardisation(InChunks(inputs, list(range(0, 10_001, 100))))
    np.testing.assert_allclose(mean, np.nanmean(masked, axis=0), rtol=1e-7)
    np.testing.assert_allclose(std, np.nanstd(masked, axis=0), rtol=1e-7)


def test_jets_on_disk(shared_workplace, monkeypatch) -> None:
    """All of them for the mean, the first ones for the quantiles."""
    train = open_cache(shared_workplace.columns).train
    monkeypatch.setattr(type(train).chunks, "__defaults__", (100,))
    for found, expected in zip(standardisation(train), standardisation(train.read(0, 10**6).inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-7, atol=0)
    for number in (10**6, 500):
        monkeypatch.setattr(training.standardise, "SCALE_JETS", number)
        found, expected = scales(train), scales(train.read(0, number).inputs)
        assert all(torch.equal(found[name], expected[name]) for name in ("core", "quantile"))
    assert not torch.equal(scales(train)["core"], scales(train.read(0, 10**6).inputs)["core"])


def test_never_present_and_constant() -> None:
    values = np.array([[5.0, 0.1, 1.0, 3.0]] * 7)
    present = np.array([[False, True, True, False]] * 7)
    present[0, 3] = True
    inputs = inputs_of(values, present)
    for jets in (inputs, InChunks(inputs, [0, 1, 1, 3, 7])):
        mean, std = standardisation(jets)
        assert mean.tolist() == [0, np.float32(0.1), 1, 3]
        assert std.tolist() == [1, 1, 1, 1]


def test_what_an_absent_entry_holds_does_not_count() -> None:
    rng = np.random.default_rng(1)
    clean = inputs_of(rng.normal(size=(100, 3)), rng.random((100, 3)) < 0.5)
    dirty = clean.moved(torch.where(clean.present, clean.values, 7e31))
    for a, b in zip(standardisation(clean), standardisation(dirty), strict=True):
        assert torch.equal(a, b)


def test_standardised_inputs_have_mean_0_and_width_1() -> None:
    rng = np.random.default_rng(2)
    inputs = inputs_of(rng.normal(3, 7, (1000, 5)), rng.random((1000, 5)) < 0.7)
    mean, std = standardisation(inputs)
    z = np.where(inputs.present, (inputs.values - mean) / std, np.nan)
    np.testing.assert_allclose(np.nanmean(z, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(z, axis=0), 1, rtol=1e-6)


def quantile_of(sorted_values: list[float], q: float) -> float:
    """Between the two neighbours, linearly."""
    place = q * (len(sorted_values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (place - low) * (sorted_values[high] - sorted_values[low])


@given(
    values=arrays(np.float32, (20, 3), elements=st.floats(-1000, 1000, width=32)),
    present=arrays(np.bool_, (20, 3)),
)
@settings(max_examples=150, deadline=None)
def test_scales_are_the_slow_ones(values, present) -> None:
    found = scales(inputs_of(values, present))
    assert set(found) == {"core", "quantile"}
    assert all(width.dtype == torch.float32 for width in found.values())
    for k in range(3):
        there = sorted(float(x) for x in values[present[:, k], k])
        if not there:
            assert float(found["core"][k]) == float(found["quantile"][k]) == 0
            continue
        first, last = quantile_of(there, 0.2), quantile_of(there, 0.8)
        spread = quantile_of(there, 0.99) - quantile_of(there, 0.01)
        np.testing.assert_allclose(float(found["quantile"][k]), spread / 2, rtol=1e-5, atol=1e-9)
        edge = [x for x in there if 0 < min(abs(x - first), abs(x - last)) < 1e-9 * max(abs(first), abs(last))]
        if not edge:  # else rounding of the quantile decides which entries are inside
            inside = [x for x in there if first <= x <= last]
            core = statistics.pstdev(inside) if inside else 0.0
            np.testing.assert_allclose(float(found["core"][k]), core, rtol=1e-4, atol=1e-4)


def test_scales_of_a_normal_distribution() -> None:
    """Truncated at +-0.8416 sigma the normal is 0.4628 wide, and its 99 % quantile is at 2.326 sigma."""
    rng = np.random.default_rng(3)
    values = rng.normal([5, -3], [2, 0.1], (200_000, 2))
    found = scales(inputs_of(values, rng.random(values.shape) < 0.7))
    np.testing.assert_allclose(found["core"], [2 * 0.4628, 0.1 * 0.4628], rtol=0.01)
    np.testing.assert_allclose(found["quantile"], [2 * 2.326, 0.1 * 2.326], rtol=0.01)


def test_scales_do_not_know_absent_entries() -> None:
    rng = np.random.default_rng(4)
    clean = inputs_of(rng.normal(size=(200, 3)), rng.random((200, 3)) < 0.5)
    dirty = clean.moved(torch.where(clean.present, clean.values, torch.nan))
    for name, width in scales(clean).items():
        assert torch.equal(scales(dirty)[name], width)
        assert (width > 0).all()


def test_nothing_is_inside_the_core_of_two_entries() -> None:
    """A mean of nothing would be no number, and the tagger would be refused."""
    values, present = np.array([[1.0, 1], [2, 1], [7, 1]]), np.array([[True, True], [True, True], [False, False]])
    assert scales(inputs_of(values, present))["core"].tolist() == [0, 0]
    assert scales(inputs_of(values, np.ones_like(present)))["core"].tolist() == [0, 0]
