"""A tagger as an ONNX file, for programs without torch, say onnxruntime in a coffea processor.

The preprocessing is inside the graph: physical values and their presence go in, as into the tagger itself. (The wrapper
of CMSSW, `cms::Ort::ONNXRuntime`, passes float arrays only; there, presence needs a cast in front.)
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import AdvtagError
from common.files import whole_file
from common.provenance import provenance
from models.tagger import Tagger

INPUTS = ("values", "present")
OUTPUTS = ("logits", "probabilities")
"""What discriminators are made of, and what CMSSW takes from a model, are probabilities; attacks, combinations and
temperatures want logits. A softmax costs nothing beside the network."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5
CHECKED = (1, 3, 1000)
"""Jets in the batches that an exported file is checked with."""
ELSEWHERE = 1 / 500
"""Largest share of jets that may differ by more: a network of nearest neighbours jumps where two are equally far but
for rounding (ParticleNet: one random jet in ten thousand). None of a few jets."""
QUIET = {
    "torch.onnx._internal.exporter._registration": "no torchvision, of which taggers have no operator",
    "onnxscript.optimizer._constant_folding": "what is not simplified",
}
"""Loggers whose warnings mean nothing for taggers, and what they tell."""
IGNORED = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "_check_is_size will be removed",
    "# The axis name: jets will not be used",  # both inputs have it
    "The tensor attributes .*_flat_weights",  # views of an LSTM's weights
)
"""Beginnings of warnings about the insides of torch."""


class _BothOutputs(nn.Module):
    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.tagger(values, present)
        return logits, logits.softmax(1)


def export_onnx(tagger: Tagger, path: Path) -> None:
    """Write the tagger as ONNX, checked against torch before the file is there.

    Inputs of the graph are `values`, float32 [jets, features], in the units of the branches, and `present`, bool
    likewise; outputs are `logits` and `probabilities`, float32 [jets, classes], of any number of jets. An absent
    entry's value does not count, but must be a number. The metadata hold `features` and `classes` in order, as JSON
    lists, `card` and `card_digest`, and the version of `advtag`.

    Raises:
        AdvtagError: a package of `pip install advtag[export]` is missing, onnxruntime does not find what torch finds,
            or nowhere to write
    """
    onnx, _, runtime = (_package(name) for name in PACKAGES)
    module = _BothOutputs(copy.deepcopy(tagger).to("cpu", torch.float32)).eval()
    model = _graph(module)
    onnx.helper.set_model_props(model, metadata(tagger))
    with whole_file(path) as aside:
        aside.write_bytes(model.SerializeToString())
        session = runtime.InferenceSession(aside, providers=["CPUExecutionProvider"])
        _refuse_difference(module, session, path)


def metadata(tagger: Tagger) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "features": json.dumps(tagger.features.names),
        "classes": json.dumps(tagger.classes),
        "card": tagger.features.name,
        "card_digest": tagger.features.digest,
        "advtag": provenance()["advtag"],
    }


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise AdvtagError(f"export to ONNX needs the package {name!r}: pip install advtag[export]") from error


def _graph(module: _BothOutputs) -> Any:
    """The graph as an `onnx.ModelProto`."""
    jets = {0: torch.export.Dim("jets")}
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            physical_jets(module.tagger, 2),  # of one jet, the exporter would take the number for a constant
            dynamo=True,
            dynamic_shapes=(jets, jets),
            input_names=INPUTS,
            output_names=OUTPUTS,
            external_data=False,
            verbose=False,
        )
    return program.model_proto  # type: ignore[union-attr]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    levels = {logger: logger.level for logger in map(logging.getLogger, QUIET)}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for message in IGNORED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def physical_jets(tagger: Tagger, number: int) -> tuple[Tensor, Tensor]:
    """Random values inside the physical ranges, float32 [jets, features], and presence, bool likewise.

    A fifth of the objects is absent, each with all inputs of its slot; of three jets or more, the last has all of them
    and the one before has none.
    """
    features, generator = tagger.features, torch.Generator().manual_seed(number)
    low, high = torch.from_numpy(features.bounds).float().T
    mean, std = tagger.mean.cpu().float(), tagger.std.cpu().float()
    values = torch.clamp(mean + std * torch.randn(number, len(features), generator=generator), low, high)
    values = torch.where(torch.from_numpy(features.integer), values.round(), values)
    rules = [(feature.present, feature.slot) if feature.present else feature.name for feature in features.inputs]
    objects = list(dict.fromkeys(rules))
    present = torch.rand(number, len(objects), generator=generator) < 0.8
    present = present[:, [objects.index(rule) for rule in rules]]
    if number > 2:
        present[-1], present[-2] = True, False
    return values, present


@torch.no_grad()
def _refuse_difference(module: _BothOutputs, session: Any, path: Path) -> None:
    for number in CHECKED:
        jets = physical_jets(module.tagger, number)
        found = session.run(OUTPUTS, dict(zip(INPUTS, (tensor.numpy() for tensor in jets), strict=True)))
        for name, expected, output in zip(OUTPUTS, module(*jets), map(torch.from_numpy, found), strict=True):
            apart = ~torch.isclose(output, expected, rtol=TOLERANCE, atol=TOLERANCE).all(1)
            if int(apart.sum()) > number * ELSEWHERE:
                raise AdvtagError(
                    f"{path}: onnxruntime finds other {name} than torch for {int(apart.sum())} of {number} jets, by up "
                    f"to {float((output - expected).abs().max()):.2g}; not exported"
                )
