"""Batches of jets for the training loop: of a sample on the device, or from disk through a shuffled stream.

Both sources give every jet once per epoch, in an order that is a function of (seed, epoch) and not of the size of the
batches. So an epoch can begin at any step, as if the steps before had been done.
"""

import os
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models.inputs import Inputs
from training.cache import Stored
from training.columns import Sample
from training.weights import PtEtaFlavourWeights

POOL = 1 << 19
"""Jets of a stream that are shuffled together; two pools are in memory."""
GATHERED = 1 << 15
"""Jets that are gathered in one go from a sample on the device: for each small batch anew, caches would be cold."""
BLOCK = 1 << 12
"""Jets that are read in one piece."""


class Batch(NamedTuple):
    """Jets of one step, on the device of the tagger."""

    inputs: Inputs
    target: Tensor
    """int64 [jets], index into the classes"""
    weight: Tensor
    """float32 [jets], generator times pt-eta-flavour weight"""


Jets = tuple[Tensor, ...]
"""values, present, key, generator weight, target and weight of the loss, [jets, ...] each."""


class Resident:
    """The whole sample on the device: one permutation per epoch, then slices of it, a few batches at a time.

    Args:
        stored: the jets
        weights: of the loss
        batch: jets per step
        seed: of the permutations
        device: where the jets are to lie
    """

    def __init__(
        self, stored: Stored, weights: PtEtaFlavourWeights, *, batch: int, seed: int, device: torch.device
    ) -> None:
        self.batch, self.seed, self.device = batch, seed, device
        chunks = (_jets(sample, weights) for sample in stored.chunks())
        self.jets: Jets = ()
        start = 0
        for chunk in chunks:
            if not self.jets:
                self.jets = tuple(torch.empty((len(stored), *x.shape[1:]), dtype=x.dtype, device=device) for x in chunk)
            for all_jets, some in zip(self.jets, chunk, strict=True):
                all_jets[start : start + len(some)].copy_(some)
            start += len(chunk[0])

    def __len__(self) -> int:
        return len(self.jets[0])

    @property
    def steps(self) -> int:
        """Per epoch; the last one may be short."""
        return -(-len(self) // self.batch)

    def epoch(self, number: int, first: int = 0) -> Generator[Batch, None, None]:
        """Batches of an epoch, from step `first` on, which counts from 0."""
        order = torch.randperm(len(self), generator=_generator(self.seed, number, self.device), device=self.device)
        group = max(1, GATHERED // self.batch)
        for begin in range(first // group * group, self.steps, group):
            places = order[begin * self.batch : (begin + group) * self.batch]
            batches = zip(*(torch.split(x.index_select(0, places), self.batch) for x in self.jets), strict=True)
            yield from map(_batch, islice(batches, max(0, first - begin), None))


class Stream:
    """Jets from disk, in bounded memory.

    Blocks of jets, in random order, fill a pool, which is shuffled and then cut into batches, while a thread reads the
    next one. The jets of a block stay together in a pool only: since the cache on disk is itself a random order, any
    pool is a random sample. What is left of a pool begins the first batch of the next one.

    Args:
        stored: the jets
        weights: of the loss
        batch: jets per step
        seed: of the order
        device: where the batches are to lie
        pool: jets of a pool, about; None: `POOL`, or an eighth of a small sample, so that most of it is read ahead
        block: jets of a block; None: `BLOCK`, or a 32nd of a small pool
    """

    def __init__(
        self,
        stored: Stored,
        weights: PtEtaFlavourWeights,
        *,
        batch: int,
        seed: int,
        device: torch.device,
        pool: int | None = None,
        block: int | None = None,
    ) -> None:
        self.stored, self.weights = stored, weights
        self.batch, self.seed, self.device = batch, seed, device
        self.pool = pool or min(POOL, -(-len(stored) // 8))
        self.block = block or min(BLOCK, -(-self.pool // 32))

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def steps(self) -> int:
        """Per epoch; the last one may be short."""
        return -(-len(self) // self.batch)

    def epoch(self, number: int, first: int = 0) -> Generator[Batch, None, None]:
        """Batches of an epoch, from step `first` on, which counts from 0; pools before it are not read."""
        pools = self._pools(number)
        ends = list(accumulate(pool.jets for pool in pools))
        skipped = first * self.batch
        coming = [pool for pool, end in zip(pools, ends, strict=True) if end > skipped]
        if not coming:
            return
        skipped -= ends[-len(coming)] - coming[0].jets
        parts: list[Jets] = []
        missing = self.batch
        with ThreadPoolExecutor(1, "reader") as reader:
            reading = reader.submit(self._read, coming[0])
            for following in [*coming[1:], None]:
                order, *jets = (x.to(self.device, non_blocking=True) for x in reading.result())
                if following is not None:
                    reading = reader.submit(self._read, following)
                while skipped < len(order):
                    places = order[skipped : skipped + missing]
                    parts.append(tuple(x.index_select(0, places) for x in jets))
                    skipped, missing = skipped + len(places), missing - len(places)
                    if not missing:
                        yield _joined(parts)
                        parts, missing = [], self.batch
                skipped = 0
        if parts:
            yield _joined(parts)

    def _pools(self, number: int) -> list["_Pool"]:
        generator = _generator(self.seed, number)
        blocks = torch.randperm(-(-len(self) // self.block), generator=generator)
        parts = blocks.tensor_split(min(-(-len(self) // self.pool), len(blocks)))
        seeds = torch.randint(2**62, (len(parts),), generator=generator).tolist()
        return [_Pool(self._slices(part), seed) for part, seed in zip(parts, seeds, strict=True)]

    def _slices(self, blocks: Tensor) -> list[tuple[int, int]]:
        starts = (blocks * self.block).tolist()
        return [(start, min(start + self.block, len(self))) for start in starts]

    def _read(self, pool: "_Pool") -> Jets:
        """The order of a pool, int64 [jets], and its jets as they lie on disk."""
        jets = _jets(self.stored.gather(pool.blocks), self.weights)
        order = torch.randperm(pool.jets, generator=torch.Generator().manual_seed(pool.seed))
        if self.device.type == "cuda":  # a copy to the device does not wait for pinned memory
            return tuple(x.pin_memory() for x in (order, *jets))
        return order, *jets


class _Pool(NamedTuple):
    blocks: list[tuple[int, int]]
    seed: int

    @property
    def jets(self) -> int:
        return sum(stop - start for start, stop in self.blocks)


def batches_of(
    stored: Stored,
    weights: PtEtaFlavourWeights,
    *,
    batch: int,
    seed: int,
    device: torch.device,
    data: Literal["auto", "memory", "stream"] = "auto",
) -> Resident | Stream:
    """The source of batches that suits a sample: `auto` holds it on the device where it takes less than half of the
    memory that is free there.
    """
    if data == "memory" or (data == "auto" and stored.nbytes < free_memory(device) / 2):
        return Resident(stored, weights, batch=batch, seed=seed, device=device)
    return Stream(stored, weights, batch=batch, seed=seed, device=device)


def free_memory(device: torch.device) -> int:
    """Bytes that are free: on a GPU as its driver says; else `MemAvailable` of Linux, or the limit of the control group
    of a batch job where that is lower. Where there is no /proc, half of the physical memory.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        group = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        path = Path("/sys/fs/cgroup", group, "memory.max")
        limit = path.read_text().strip() if path.exists() else "max"
        return free if limit == "max" else min(free, int(limit))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _generator(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed * 100_003 + epoch)


def _jets(sample: Sample, weights: PtEtaFlavourWeights) -> Jets:
    inputs = sample.inputs
    return inputs.values, inputs.present, inputs.key, sample.weight, sample.target, weights.of(sample)


def _batch(jets: Iterable[Tensor]) -> Batch:
    values, present, key, generated, target, weight = jets
    return Batch(Inputs(values, present, key, generated), target, weight)


def _joined(parts: list[Jets]) -> Batch:
    return _batch(parts[0] if len(parts) == 1 else (torch.cat(x) for x in zip(*parts, strict=True)))
