"""Several processes train one tagger: `torchrun --nproc-per-node 4 --module advtag train CONFIG`.

Each process takes every n-th jet of each batch, on its own GPU, and the gradients are averaged.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch.nn import Parameter

from training.batches import Batch


@dataclass(frozen=True)
class World:
    """The processes that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Only the first process writes files."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """The part of a batch that is for this process."""
        if self.size == 1:
            return batch
        mine = slice(self.rank, None, self.size)
        return Batch(batch.inputs[mine], batch.target[mine], batch.weight[mine])

    def average_(self, parameters: Iterable[Parameter]) -> None:
        """Average the gradients of all processes, in place."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def reseed(self, seed: int) -> None:
        """Dropout of its own in each process, once all have the same weights."""
        if self.size > 1:
            torch.manual_seed(seed + self.rank)

    def agree(self, wanted: bool) -> bool:
        """Whether any process wants it: all leave after the same step, or none."""
        if self.size == 1:
            return wanted
        votes = torch.tensor(int(wanted), device=self.device)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        return bool(votes)


@contextmanager
def world() -> Iterator[World]:
    """The processes of torchrun, connected; or this one alone. Each has its own GPU, where there are any."""
    gpu = torch.cuda.is_available()
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World(torch.device("cuda" if gpu else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        yield World(device, torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
