"""Keys and counter-based random numbers: against pure Python, and as a generator."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from models.keys import jet_keys, mix, normal, reseed, uniform

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15
word = st.integers(0, WORD - 1)
int64 = st.integers(-(2**63), 2**63 - 1)


def finalise(z: int) -> int:
    """SplitMix64's finaliser on Python's unbounded integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def signed(z: int) -> int:
    return z - WORD if z >= 2**63 else z


def python_key(*parts: int) -> int:
    key = 0
    for part in parts:
        key = finalise((key + GOLDEN + part) % WORD)
    return key


def python_uniform(key: int, feature: int, stream: int) -> float:
    bits = finalise((finalise(key) + (feature + (stream << 32) + 1) * GOLDEN) % WORD)
    return ((bits >> 11) + 0.5) / 2**53


def keys(number: int, event: int = 0) -> torch.Tensor:
    jets = np.arange(number)
    return jet_keys(np.ones(number, int), jets // 500, event + jets // 7, jets % 7)


def test_splitmix64_of_the_literature() -> None:
    """The finaliser on the counter gives the published first outputs of SplitMix64 for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = 1234567
    for expected in published:
        state = (state + GOLDEN) % WORD
        assert finalise(state) == expected
        assert int(mix(torch.tensor(signed(state)))) % WORD == expected


@given(st.lists(int64, min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_mix_is_splitmix64(numbers) -> None:
    found = mix(torch.tensor(numbers, dtype=torch.int64)).tolist()
    assert [value % WORD for value in found] == [finalise(number % WORD) for number in numbers]


@given(run=st.integers(1, 2**32 - 1), lumi=st.integers(0, 2**32 - 1), event=word, jet=st.integers(0, 2**16 - 1))
@settings(max_examples=150, deadline=None)
def test_keys_are_the_chained_hash(run, lumi, event, jet) -> None:
    """The stored dtypes (uint32, uint64 up to 2**64 - 1, uint16) hash like unbounded integers."""
    found = jet_keys(
        np.array([run], np.uint32),
        np.array([lumi], np.uint32),
        np.array([event], np.uint64),
        np.array([jet], np.uint16),
    )
    assert found.dtype == torch.int64
    assert int(found[0]) % WORD == python_key(run, lumi, event, jet)


FROZEN_KEYS = [3705391937491829246, -8678054053192990359]
FROZEN_UNIFORM = [[0.41361593167039284, 0.8279403892646462], [0.024251086766606422, 0.9495719512194327]]


def test_frozen_keys() -> None:
    """These constants may never change: files and noise of earlier runs depend on them."""
    event = np.array([3, 2**64 - 1], np.uint64)
    found = jet_keys(np.array([1, 305040]), np.array([2, 77]), event, np.array([4, 0])).tolist()
    assert found == FROZEN_KEYS
    assert uniform(torch.tensor(found), 2, 0).tolist() == FROZEN_UNIFORM


def test_empty() -> None:
    nothing = np.array([], np.int64)
    assert jet_keys(nothing, nothing, nothing, nothing).shape == (0,)
    assert normal(jet_keys(nothing, nothing, nothing, nothing), 3, 0).shape == (0, 3)


def test_keys_differ() -> None:
    """Also for identities that only swap their parts."""
    assert len(set(keys(100_000).tolist())) == 100_000
    grid = np.array(np.meshgrid(*[np.arange(10)] * 4)).reshape(4, -1)
    assert len(set(jet_keys(*grid).tolist())) == 10_000


@given(key=int64, feature=st.integers(0, 200), stream=st.integers(0, 2**20))
@settings(max_examples=150, deadline=None)
def test_uniform_is_its_formula(key, feature, stream) -> None:
    found = uniform(torch.tensor([key]), feature + 1, stream)
    assert found.dtype == torch.float64
    assert float(found[0, feature]) == python_uniform(key % WORD, feature, stream)
    assert 0 < float(found[0, feature]) < 1


def test_uniform_is_uniform() -> None:
    u = uniform(keys(20_000), 10, 0)
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    for feature in range(10):
        assert kstest(u[:, feature].numpy(), "uniform").pvalue > 1e-4
    correlation = np.corrcoef(u.numpy().T) - np.eye(10)
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)
    neighbours = np.corrcoef(u[:-1, 0].numpy(), u[1:, 0].numpy())[0, 1]
    assert abs(neighbours) < 5 / math.sqrt(20_000)


def test_jets_features_streams_and_seeds_differ() -> None:
    key = keys(2000)
    numbers = [
        uniform(key, 20, 0),
        uniform(key, 20, 1),
        uniform(reseed(key, 0), 20, 0),
        uniform(reseed(key, 1), 20, 0),
    ]
    flat = torch.cat(numbers).flatten()
    assert len(flat.unique()) == len(flat)
    for first in range(4):
        for second in range(first):
            pair = np.corrcoef(numbers[first].flatten().numpy(), numbers[second].flatten().numpy())[0, 1]
            assert abs(pair) < 5 / math.sqrt(40_000)


@given(seed=st.integers(-(2**31), 2**31))
@settings(max_examples=50, deadline=None)
def test_reseed_is_a_reproducible_bijection(seed) -> None:
    key = keys(300)
    again = reseed(key, seed)
    assert torch.equal(again, reseed(key, seed))
    assert len(again.unique()) == 300
    assert not torch.equal(again, key)
    assert not torch.equal(again, reseed(key, seed + 1))


def test_normal_is_standard() -> None:
    x = normal(keys(20_000), 10, seed=3).numpy()
    assert abs(x.mean()) < 5 / math.sqrt(x.size)
    assert abs(x.std() - 1) < 5 / math.sqrt(2 * x.size)
    assert kstest(x.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(x.T) - np.eye(10)).max() < 5 / math.sqrt(20_000)


@given(seed=st.integers(0, 1000), key=int64)
@settings(max_examples=50, deadline=None)
def test_normal_is_box_and_muller(seed, key) -> None:
    other = finalise((key % WORD) ^ finalise((seed + 1) * GOLDEN % WORD))
    for feature, found in enumerate(normal(torch.tensor([key]), 3, seed)[0].tolist()):
        u, v = python_uniform(other, feature, 0), python_uniform(other, feature, 1)
        assert found == pytest.approx(math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 64, 999])
def test_numbers_do_not_know_their_chunk(chunk) -> None:
    """Bit by bit, float64: a jet alone gets what it gets among others, in any order and memory layout."""
    key = keys(999)
    whole = normal(key, 67, 5)
    parts = torch.cat([normal(key[start : start + chunk], 67, 5) for start in range(0, 999, chunk)])
    assert torch.equal(whole, parts)
    order = torch.from_numpy(np.random.default_rng(1).permutation(999))
    assert torch.equal(normal(key[order], 67, 5), whole[order])
    spread = torch.stack([key, key], 1)[:, 0]
    assert torch.equal(normal(spread, 67, 5), whole)
    assert torch.equal(normal(key, 13, 5), whole[:, :13])
