"""The state of a training in one file, from which it goes on as if nothing had happened: bit by bit, on the CPU."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from common.errors import AdvtagError
from common.files import whole_file
from models.tagger import Tagger

FORMAT = 1
History = list[dict[str, Any]]


@dataclass
class Progress:
    """How far a training is."""

    total: Tensor
    """Sum of the losses of the jets of this epoch so far; on the device, so that no step waits for it."""
    jets: int = 0
    """Their number."""
    epoch: int = 1
    """The one under way, from 1."""
    step: int = 0
    """Steps of it that are done."""
    history: History = field(default_factory=list)
    """Record of each epoch that is done."""

    @classmethod
    def start(cls, device: torch.device) -> "Progress":
        """Nothing done yet."""
        return cls(torch.zeros((), dtype=torch.float64, device=device))

    def add(self, loss: Tensor, jets: int) -> None:
        """Count a step."""
        self.total += loss * jets
        self.jets += jets
        self.step += 1

    @property
    def mean(self) -> float:
        """Mean loss of the epoch so far."""
        return float(self.total) / max(self.jets, 1)

    def end_epoch(self, record: dict[str, Any], judged_by: str) -> bool:
        """Put the epoch into the history, and go on to the next; return whether its validation loss is the lowest."""
        self.history.append({"epoch": self.epoch, **record})
        self.total.zero_()
        self.epoch, self.step, self.jets = self.epoch + 1, 0, 0
        losses = [epoch["validation_loss"][judged_by] for epoch in self.history]
        return bool(losses[-1] <= min(losses))


@dataclass
class Checkpoint:
    """What is saved, and where.

    The file is safetensors: no code, and a checksum. Batches and learning rates are functions of (seed, epoch, step),
    so weights, optimiser, random states and progress are all there is to keep.

    Args:
        path: the file
        digest: hash of all that decides the training; a checkpoint of another one is refused
        tagger, optimiser, schedule: what is saved, and filled by `restore`
    """

    path: Path
    digest: str
    tagger: Tagger
    optimiser: Optimizer
    schedule: LRScheduler

    def save(self, progress: Progress) -> None:
        """Write the file: aside, flushed to the disk, then renamed.

        Raises:
            AdvtagError: it cannot be written; an earlier checkpoint is still there
        """
        optimiser = self.optimiser.state_dict()
        tensors = {f"network.{name}": tensor for name, tensor in self.tagger.network.state_dict().items()}
        for place, state in optimiser["state"].items():
            tensors |= {f"optimiser.{place}.{name}": tensor for name, tensor in state.items()}
        tensors |= {"total": progress.total, "random.cpu": torch.get_rng_state()}
        if progress.total.is_cuda:
            tensors["random.cuda"] = torch.cuda.get_rng_state(progress.total.device)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        header = {
            "format": FORMAT,
            "digest": self.digest,
            "groups": optimiser["param_groups"],
            "schedule": self.schedule.state_dict(),
            "progress": {key: getattr(progress, key) for key in ("jets", "epoch", "step", "history")},
        }
        page = json.dumps(header)
        content = safetensors.torch.save(tensors, {"advtag": page, "sha256": checksum(page, tensors)})
        with whole_file(self.path) as aside:
            aside.write_bytes(content)

    def restore(self, device: torch.device) -> Progress | None:
        """Fill tagger, optimiser, schedule and random states from the file; None if there is no file.

        Raises:
            AdvtagError: damaged, or of another configuration; nothing is touched
        """
        if not self.path.exists():
            return None
        header, tensors = self._read()
        if header["digest"] != self.digest:
            raise AdvtagError(
                f"{self.path}: the checkpoint of a training with another configuration or other columns; "
                "`advtag train --restart` begins anew, in its place"
            )
        self.tagger.network.load_state_dict(_below("network.", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimiser.", tensors).items():
            place, key = name.split(".", 1)
            states.setdefault(int(place), {})[key] = tensor
        self.optimiser.load_state_dict({"state": states, "param_groups": header["groups"]})
        self.schedule.load_state_dict(header["schedule"])
        torch.set_rng_state(tensors["random.cpu"])
        if device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], device)
        return Progress(tensors["total"].to(device), **header["progress"])

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, "pt") as file:
                page = file.metadata()["advtag"]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
                whole = file.metadata()["sha256"] == checksum(page, tensors)
            header: dict[str, Any] = json.loads(page)
            whole = whole and header["format"] == FORMAT
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(" ".join(str(error).split())[:100]) from error
        if not whole:
            raise self._damaged("another format, or its checksum is wrong")
        return header, tensors

    def _damaged(self, reason: str) -> AdvtagError:
        return AdvtagError(
            f"{self.path}: damaged checkpoint ({reason}); the taggers of the epochs so far are beside it. "
            "`advtag train --restart` begins anew"
        )


def checksum(page: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header, and of the tensors by name."""
    found = hashlib.sha256(page.encode())
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
