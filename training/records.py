"""What a training leaves behind.

taggers/NAME.safetensors                          the tagger of the last epoch
taggers/NAME.history.jsonl                        one line of losses and areas per epoch
taggers/checkpoints/NAME/epoch_0001.safetensors   the tagger of each epoch
taggers/checkpoints/NAME/best.safetensors         the one with the lowest validation loss
taggers/checkpoints/NAME/last.safetensors         the state of the training, see `training.checkpoint`
taggers/tensorboard/NAME                          the history for TensorBoard, where that is installed
"""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

from common.files import whole_file
from models.tagger import Tagger


class Records:
    """The files of one training.

    Args:
        folder: of all taggers
        name: of this one
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.checkpoints = folder / "checkpoints" / name

    @property
    def checkpoint(self) -> Path:
        """The state of the training."""
        return self.checkpoints / "last.safetensors"

    @property
    def _history(self) -> Path:
        return self.folder / f"{self.name}.history.jsonl"

    def history(self) -> list[dict[str, Any]]:
        """The record of each epoch so far."""
        return [json.loads(line) for line in self._history.read_text(encoding="utf-8").splitlines()]

    def epoch(self, tagger: Tagger, history: list[dict[str, Any]], *, best: bool) -> None:
        """Write what an epoch, the last of the history, leaves behind.

        Raises:
            AdvtagError: the files cannot be written
        """
        tagger.save(self.checkpoints / f"epoch_{len(history):04d}.safetensors")
        if best:
            tagger.save(self.checkpoints / "best.safetensors")
        with whole_file(self._history) as aside:
            lines = (json.dumps(epoch, allow_nan=False) + "\n" for epoch in history)
            aside.write_text("".join(lines), encoding="utf-8")
        tensorboard(self.folder / "tensorboard" / self.name, history[-1])

    def end(self, tagger: Tagger, epochs: int) -> None:
        """Write the tagger; delete the epochs of an earlier, longer training.

        Raises:
            AdvtagError: the file cannot be written
        """
        tagger.save(self.folder / f"{self.name}.safetensors")
        for path in self.checkpoints.glob("epoch_*.safetensors"):
            if int(path.stem.removeprefix("epoch_")) > epochs:
                path.unlink()


def tensorboard(folder: Path, epoch: dict[str, Any]) -> None:
    """Add an epoch to the log of TensorBoard, if that is installed; a repeated epoch replaces what follows it."""
    if importlib.util.find_spec("tensorboard") is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        from torch.utils.tensorboard import SummaryWriter

    step = epoch["epoch"]
    with SummaryWriter(str(folder), purge_step=step) as writer:
        for name, value in flat(epoch):
            writer.add_scalar(name, value, step)


def flat(epoch: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """The numbers of an epoch by path, `auc/raw/BvsL`; without those that are missing, and without points of curves."""
    found = []
    for name, value in epoch.items():
        if name == "mistag":
            continue
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}/")
        elif value is not None and name != "epoch":
            found.append((f"{prefix}{name}", float(value)))
    return found
