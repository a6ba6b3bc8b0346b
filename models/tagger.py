"""A tagger: feature card, standardisation and network in one module, and its file.

The file is one safetensors file with a JSON header and holds no code: loading somebody else's tagger cannot run
anything.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from common.errors import AdvtagError
from common.files import whole_file
from models.features import FeatureSet
from models.groups import Slots
from models.networks import NETWORKS
from models.networks.candidates import Candidates
from models.networks.deepcsv import DeepCSV
from models.standardise_kernel import fill_standardised, to_physical_gradient

FORMAT = 1
SCALE = "scale_"
REQUIRED = ("b", "c", "udsg")
"""Classes that every discriminator needs."""


class Tagger(nn.Module):
    """Physical inputs and their presence in, logits out; standardises inside.

    Args:
        features: the feature card
        classes: names of the outputs, from b, bb, c, udsg
        mean, std: float [features], of the present training entries
        scales: further units of a budget by name (`core`, `quantile`), float [features] each
        network: a name in `models.networks.NETWORKS`
        parameters: keyword arguments of the network
        training: configuration and provenance of the training, anything JSON can hold
    """

    mean: Tensor
    std: Tensor
    absent_at: Tensor

    def __init__(
        self,
        features: FeatureSet,
        classes: Sequence[str],
        mean: Tensor,
        std: Tensor,
        *,
        network: str = "deepcsv",
        parameters: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        scales: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if mean.shape != (len(features),) or std.shape != mean.shape:
            raise ValueError(f"{len(features)} features, but {tuple(mean.shape)} means and {tuple(std.shape)} widths")
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("means and widths must be finite, widths above 0")
        if not set(REQUIRED) <= set(classes) <= {*REQUIRED, "bb"}:
            raise ValueError(f"classes {', '.join(classes)}: expected b, c, udsg, and bb if you like")
        self.features = features
        self.classes = tuple(classes)
        self.architecture: dict[str, Any] = {"network": network, "parameters": dict(parameters or {})}
        self.provenance = dict(training or {})
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("std", std.to(torch.float32))
        self.register_buffer("absent_at", torch.from_numpy(features.absent_at.copy()))
        for name, width in (scales or {}).items():
            if width.shape != std.shape or not (torch.isfinite(width).all() and (width >= 0).all()):
                raise ValueError(f"scale {name!r}: expected {len(features)} finite numbers, 0 or more")
            self.register_buffer(f"{SCALE}{name}", width.to(torch.float32))
        self.network = NETWORKS[network](features, len(self.classes), **self.architecture["parameters"])
        for part in self.network.modules():
            if isinstance(part, Slots | Candidates):
                part.set_units_(self.mean, self.std)

    def scale(self, name: str) -> Tensor:
        """Unit of a budget, in the units of the inputs, float [features]: `std`, or one that the training measured.

        Raises:
            AdvtagError: the tagger file does not hold it
        """
        found = self.std if name == "std" else getattr(self, f"{SCALE}{name}", None)
        if found is None:
            raise AdvtagError(f"this tagger does not know the scale {name!r}; use `std`, or train it again")
        return found

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """Logits [jets, classes] from physical values, float [jets, features], and presence, bool likewise."""
        logits: Tensor = self.network(self.standardise(values, present), present)
        return logits

    def standardise(self, values: Tensor, present: Tensor) -> Tensor:
        """What the network sees, float [jets, features]; absent entries at their place."""
        if self._compiled(values):
            seen = torch.empty_like(values)
            known = (tensor.numpy() for tensor in (values, present, self.mean, self.std, self.absent_at, seen))
            fill_standardised(*known)
            return seen
        return torch.where(present, (values - self.mean) / self.std, self.absent_at)

    def vjp(self, seen: Tensor, present: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Logits from what the network sees, and the function that takes a slope in them, [jets, classes], back to it,
        [jets, features], once (`torch.func.vjp`); parameters get no gradient. A network may have a quicker way than
        autograd, which hooks on the network as a whole do not see.
        """
        if type(self.network) is DeepCSV and not self.network.training:
            return self.network.vjp(seen)
        free = seen.detach().requires_grad_()
        with torch.enable_grad():
            logits: Tensor = self.network(free, present)
        return logits.detach(), lambda slope: torch.autograd.grad(logits, free, slope)[0]

    def physical_gradient_(self, gradient: Tensor, present: Tensor) -> Tensor:
        """Turn a gradient in what the network sees into one in physical values, both [jets, features], in place."""
        if self._compiled(gradient):
            to_physical_gradient(gradient.numpy(), present.numpy(), self.std.numpy())
            return gradient
        return gradient.div_(self.std).mul_(present)

    def _compiled(self, values: Tensor) -> bool:
        """On the CPU, and nothing follows the operations: neither a gradient nor an export."""
        followed = values.requires_grad or torch.compiler.is_compiling()
        return values.device.type == "cpu" and values.dtype == self.std.dtype and not followed

    def to_bytes(self) -> bytes:
        """The tagger file, as bytes."""
        header = {
            "format": FORMAT,
            "architecture": self.architecture,
            "features": json.loads(self.features.model_dump_json()),
            "classes": self.classes,
            "training": self.provenance,
        }
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        content: bytes = safetensors.torch.save(state, {"advtag": json.dumps(header)})
        return content

    def save(self, path: Path) -> None:
        """Write the tagger file, aside first."""
        with whole_file(path) as aside:
            aside.write_bytes(self.to_bytes())


def tagger_from_bytes(content: bytes, source: str) -> Tagger:
    """Rebuild a tagger, in evaluation mode with frozen parameters, from the content of a tagger file.

    Raises:
        AdvtagError: the content is not a tagger file of this format; `source` names it.
    """
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        page = json.loads(header["__metadata__"]["advtag"])
        if page["format"] != FORMAT:
            raise AdvtagError(f"{source}: tagger format {page['format']}, this advtag reads {FORMAT}")
        state = safetensors.torch.load(content)
        tagger = Tagger(
            FeatureSet.model_validate(page["features"]),
            page["classes"],
            state["mean"],
            state["std"],
            network=page["architecture"]["network"],
            parameters=page["architecture"]["parameters"],
            training=page["training"],
            scales={name.removeprefix(SCALE): state[name] for name in state if name.startswith(SCALE)},
        )
        tagger.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError, ValidationError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdvtagError(f"{source}: not a tagger file of advtag ({reason})") from error
    return tagger.eval().requires_grad_(False)


def load_tagger(path: Path, features: FeatureSet | None = None) -> Tagger:
    """Load a tagger file; with `features`, insist that it was trained on that card.

    Raises:
        AdvtagError: no such file, not a tagger file, or trained on another feature card.
    """
    tagger = tagger_from_bytes(read_tagger(path), str(path))
    if features is not None and tagger.features.digest != features.digest:
        raise AdvtagError(
            f"{path}: trained on feature card {tagger.features.name!r} ({tagger.features.digest}), this analysis "
            f"uses {features.name!r} ({features.digest}). Use the card of the tagger, or train it again."
        )
    return tagger


def read_tagger(path: Path) -> bytes:
    """The bytes of a tagger file, to send to workers that do not share a disk."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise AdvtagError(f"{path}: cannot read the tagger ({error.strerror}); `advtag train` makes it") from error


@lru_cache(maxsize=32)
def worker_tagger(content: bytes, source: str, dtype: torch.dtype) -> Tagger:
    """The tagger of this worker process, built at its first use: coffea rebuilds processors for every chunk."""
    return tagger_from_bytes(content, source).to(dtype)
