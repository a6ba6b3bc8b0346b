"""Batches from memory and from disk: every jet once, in an order that an epoch can begin anywhere in."""

import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import training.batches
from common.errors import AdvtagError
from training.batches import BLOCK, POOL, Batch, Resident, Stream, batches_of, free_memory
from training.cache import Stored
from training.weights import BINS, PtEtaFlavourWeights

CPU = torch.device("cpu")
CLASSES = 3
WEIGHTS = PtEtaFlavourWeights(np.random.default_rng(0).uniform(1, 9, (CLASSES, *BINS)))


def write_jets(folder: Path, number: int) -> Stored:
    """Jets that can be told from one another by everything that they have: jet i is at place i."""
    place = np.arange(number)
    folder.mkdir(parents=True)
    arrays = {
        "values": (place[:, None] + [0, 0.25, 0.5]).astype(np.float32),
        "present": (place[:, None] >> np.arange(3)) % 2 == 1,
        "key": place * 1000,
        "weight": (place % 7 - 1.5).astype(np.float32),
        "target": (place % CLASSES).astype(np.int8),
        "pt": (20 + place % 500).astype(np.float32),
        "eta": ((place % 41) / 10 - 2).astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return Stored(folder)


@pytest.fixture(scope="module")
def stored_of(tmp_path_factory):
    """Jets by number, written once."""
    folder = tmp_path_factory.mktemp("jets")
    kept: dict[int, Stored] = {}

    def make(number: int) -> Stored:
        if number not in kept:
            kept[number] = write_jets(folder / str(number), number)
        return kept[number]

    return make


@pytest.fixture(scope="module")
def expected() -> list[tuple]:
    """The jets that `write_jets` writes, one by one."""
    jets = []
    for i in range(1000):
        values = [i, i + 0.25, i + 0.5]
        present = [bool(i & 1), bool(i & 2), bool(i & 4)]
        fitted = WEIGHTS(torch.tensor([i % 3]), torch.tensor([20.0 + i % 500]), torch.tensor([(i % 41) / 10 - 2]))
        generator = i % 7 - 1.5
        jets.append((values, present, i * 1000, generator, i % 3, float(np.float32(float(fitted) * generator))))
    return jets


def jets_of(batch: Batch) -> list[tuple]:
    inputs = batch.inputs
    assert inputs.values.dtype == batch.weight.dtype == inputs.weight.dtype == torch.float32
    assert inputs.key.dtype == batch.target.dtype == torch.int64
    columns = (inputs.values, inputs.present, inputs.key, inputs.weight, batch.target, batch.weight)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def places(batches) -> list[int]:
    return [key // 1000 for batch in batches for key in batch.inputs.key.tolist()]


def same(a: Batch, b: Batch) -> bool:
    tensors = [(x.inputs.values, x.inputs.present, x.inputs.key, x.inputs.weight, x.target, x.weight) for x in (a, b)]
    return all(torch.equal(*pair) for pair in zip(*tensors, strict=True))


@pytest.fixture(autouse=True)
def few_gathered(monkeypatch):
    """Samples as small as these would be gathered in one go."""
    monkeypatch.setattr(training.batches, "GATHERED", 64)


def source(stored: Stored, kind: str, **settings) -> Resident | Stream:
    settings = {"batch": 10, "seed": 1, "device": CPU, **settings}
    if kind == "resident":
        settings = {name: value for name, value in settings.items() if name not in ("pool", "block")}
        return Resident(stored, WEIGHTS, **settings)
    return Stream(stored, WEIGHTS, **settings)


kinds = pytest.mark.parametrize("kind", ["resident", "stream"])
numbers = st.sampled_from([1, 2, 7, 64, 100, 333])
sizes = st.none() | st.integers(1, 400)


@kinds
@given(number=numbers, batch=st.integers(1, 400), pool=sizes, block=sizes, seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_every_jet_once_and_whole(stored_of, expected, kind, number, batch, pool, block, seed) -> None:
    jets = source(stored_of(number), kind, batch=batch, pool=pool, block=block, seed=seed)
    batches = list(jets.epoch(3))
    assert len(jets) == number
    assert len(batches) == jets.steps
    assert [len(one.target) for one in batches[:-1]] == [batch] * (len(batches) - 1)
    assert 0 < len(batches[-1].target) <= batch
    found = [jet for one in batches for jet in jets_of(one)]
    assert sorted(found, key=lambda jet: jet[2]) == expected[:number]


@kinds
@given(
    number=numbers,
    batch=st.integers(1, 60),
    pool=sizes,
    block=sizes,
    epoch=st.integers(1, 200),
    first=st.integers(0, 340),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_can_begin_anywhere(stored_of, kind, number, batch, pool, block, epoch, first) -> None:
    jets = source(stored_of(number), kind, batch=batch, pool=pool, block=block)
    again = source(stored_of(number), kind, batch=batch, pool=pool, block=block)
    whole, rest = list(jets.epoch(epoch)), list(again.epoch(epoch, first))
    assert len(rest) == max(0, len(whole) - first)
    for a, b in zip(whole[first:], rest, strict=True):
        assert same(a, b)


@kinds
def test_order_is_a_function_of_seed_and_epoch(stored_of, kind) -> None:
    stored = stored_of(333)
    orders = {
        (seed, epoch): places(source(stored, kind, seed=seed, pool=100, block=5).epoch(epoch))
        for seed in (1, 2)
        for epoch in (1, 2, 3)
    }
    assert len({tuple(order) for order in orders.values()}) == 6
    torch.manual_seed(99)
    jets = source(stored, kind, seed=2, pool=100, block=5)
    assert [places(jets.epoch(epoch)) for epoch in (3, 1)] == [orders[2, 3], orders[2, 1]]


@kinds
def test_order_knows_nothing_of_the_batch(stored_of, kind) -> None:
    orders = [places(source(stored_of(333), kind, batch=b, pool=100, block=5).epoch(1)) for b in (1, 7, 64, 1000)]
    assert orders[1:] == orders[:-1]


@kinds
def test_jets_are_shuffled(stored_of, kind) -> None:
    """Neighbours on disk are no neighbours in training, and any jet may come at any time."""
    number = 4000
    jets = source(stored_of(number), kind, pool=500, block=20)
    orders = np.array([places(jets.epoch(epoch)) for epoch in range(1, 21)])
    steps = np.abs(np.diff(orders, axis=1))
    # two jets of a pool of 500 follow each other once in 250 times, and 19 of 20 have their neighbour in the pool
    assert (steps == 1).mean() < (2 / 500 if kind == "stream" else 2 / number) * 1.5
    assert steps.mean() == pytest.approx(number / 3, rel=0.05)
    when = np.argsort(orders, axis=1) / number
    assert np.abs(when.mean(axis=0) - 0.5).max() < 5 / np.sqrt(12 * 20)
    assert np.abs(np.corrcoef(when[0], when[1])[0, 1]) < (0.35 if kind == "stream" else 0.08)  # 200 blocks


class Watched(Stored):
    """Keeps books on what is read."""

    def __init__(self, stored: Stored) -> None:
        self.arrays = stored.arrays
        self.read_jets: list[list[int]] = []
        self.alive: list[int] = []
        self.threads: list[str] = []
        self.second = threading.Event()
        self.samples: list = []

    def gather(self, blocks):
        sample = super().gather(blocks)
        self.read_jets.append(sample.inputs.key.tolist())
        self.threads.append(threading.current_thread().name)
        self.samples.append(weakref.ref(sample.inputs.values))
        self.alive.append(sum(one() is not None for one in self.samples))
        if len(self.read_jets) == 2:
            self.second.set()
        return sample


def readers() -> int:
    return sum(thread.name.startswith("reader") for thread in threading.enumerate())


def test_memory_of_a_stream_is_bounded(stored_of) -> None:
    """Two pools at most: the one that is trained on and the next one."""
    stored = Watched(stored_of(1000))
    assert len(places(source(stored, "stream", pool=100, block=10).epoch(1))) == 1000
    assert [len(jets) for jets in stored.read_jets] == [100] * 10
    assert len({key for jets in stored.read_jets for key in jets}) == 1000
    assert max(stored.alive) == 2


@pytest.mark.parametrize(("first", "pools"), [(0, 10), (9, 10), (10, 9), (57, 5), (99, 1), (100, 0), (1000, 0)])
def test_skipped_pools_are_not_read(stored_of, first, pools) -> None:
    stored = Watched(stored_of(1000))
    list(source(stored, "stream", pool=100, block=10).epoch(1, first))
    assert len(stored.read_jets) == pools


def test_the_next_pool_is_read_meanwhile(stored_of) -> None:
    stored = Watched(stored_of(1000))
    batches = source(stored, "stream", pool=100, block=10).epoch(1)
    next(batches)
    assert stored.second.wait(10)  # though nobody has asked for its jets
    assert len(stored.read_jets) == 2
    assert all(name.startswith("reader") for name in stored.threads)
    batches.close()


def test_the_reader_ends_with_the_epoch(stored_of) -> None:
    jets = source(stored_of(1000), "stream", pool=100, block=10)
    batches = jets.epoch(1)
    next(batches)
    assert readers() == 1
    batches.close()
    assert readers() == 0
    list(jets.epoch(1))
    assert readers() == 0

    def fail() -> None:
        for _ in jets.epoch(1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert readers() == 0


def test_what_goes_wrong_in_the_reader_is_told(tmp_path) -> None:
    stored = write_jets(tmp_path / "jets", 1000)
    batches = source(stored, "stream", pool=100, block=10).epoch(1)
    next(batches)
    (tmp_path / "jets" / "values.npy").unlink()
    with pytest.raises(AdvtagError, match="cannot read the cached jets"):
        list(batches)
    assert readers() == 0


def test_sizes_of_a_stream(stored_of, monkeypatch) -> None:
    """A small sample has several pools, and a pool many blocks; a large one has those of the constants."""
    small = source(stored_of(1000), "stream")
    assert (small.pool, small.block) == (125, 4)
    assert (source(stored_of(1), "stream").pool, source(stored_of(1), "stream").block) == (1, 1)
    monkeypatch.setattr(Stored, "__len__", lambda self: 10**8)
    large = source(stored_of(1000), "stream")
    assert (large.pool, large.block) == (POOL, BLOCK)


@pytest.mark.parametrize(
    ("data", "free", "kind"),
    [
        ("memory", 0, Resident),
        ("stream", 10**12, Stream),
        ("auto", 2 * 4000 + 2, Resident),
        ("auto", 2 * 4000, Stream),
    ],
)
def test_source_that_suits(stored_of, monkeypatch, data, free, kind) -> None:
    stored = stored_of(100)
    assert stored.nbytes == 100 * (3 * 5 + 8 + 4 + 1 + 4 + 4)
    monkeypatch.setattr(Stored, "nbytes", 4000)
    monkeypatch.setattr(training.batches, "free_memory", lambda device: free)
    found = batches_of(stored, WEIGHTS, batch=10, seed=5, device=CPU, data=data)
    assert type(found) is kind
    assert places(found.epoch(2)) == places(kind(stored, WEIGHTS, batch=10, seed=5, device=CPU).epoch(2))


def test_free_memory_is_that_of_the_machine() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    assert 2**24 < free_memory(CPU) < total


@pytest.mark.parametrize(("limit", "free"), [("max\n", 8 << 30), ("1073741824\n", 1 << 30), (f"{1 << 40}\n", 8 << 30)])
def test_free_memory_of_a_batch_job(monkeypatch, limit, free) -> None:
    pages = {
        "/proc/meminfo": f"MemTotal: 16777216 kB\nMemFree: 5 kB\nMemAvailable:   {8 << 20} kB\n",
        "/proc/self/cgroup": "0::/condor/slot1\n",
        "/sys/fs/cgroup/condor/slot1/memory.max": limit,
    }
    monkeypatch.setattr(Path, "read_text", lambda self: pages[str(self)])
    monkeypatch.setattr(Path, "exists", lambda self: str(self) in pages)
    assert free_memory(CPU) == free


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@kinds
def test_on_a_gpu(stored_of, expected, kind) -> None:
    device = torch.device("cuda")
    jets = source(stored_of(333), kind, device=device, pool=100, block=5)
    batches = list(jets.epoch(1))
    assert all(tensor.device.type == "cuda" for one in batches for tensor in (one.inputs.values, one.weight))
    found = [jet for one in batches for jet in jets_of(one)]
    assert sorted(found, key=lambda jet: jet[2]) == expected[:333]
    for a, b in zip(batches[5:], jets.epoch(1, 5), strict=True):
        assert same(a, b)
