"""Batches of jets for the training loop."""

from typing import NamedTuple

from torch import Tensor

from models.inputs import Inputs


class Batch(NamedTuple):
    """Jets of one step, on the device of the tagger."""

    inputs: Inputs
    target: Tensor
    """int64 [jets], index into the classes"""
    weight: Tensor
    """float32 [jets], generator times pt-eta-flavour weight"""
