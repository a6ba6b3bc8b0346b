"""Taggers on toy feature cards, and jets for them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.features import FeatureSet, Input
from models.inputs import Inputs
from models.keys import jet_keys
from models.tagger import Tagger

CLASSES = ("b", "bb", "c", "udsg")
INF = math.inf
# bounds, cap, integer: what a card can combine
KINDS = [
    ((-INF, INF), None, False),
    ((-INF, INF), 0.2, False),
    ((0.0, INF), 0.2, False),
    ((0.0, 1.0), None, False),
    ((-0.07, 0.0), 0.5, False),
    ((-INF, 5.0), 2.0, False),
    ((0.0, INF), 0.2, True),
    ((-INF, INF), None, True),
]


def card(kinds) -> FeatureSet:
    inputs = tuple(
        Input(
            name=f"x{k}",
            branch=f"Jet_x{k}",
            label="x",
            bins=(1, 0, 1),
            bounds=bounds,
            cap=cap,
            integer=integer,
            absent_at=-0.5,
        )
        for k, (bounds, cap, integer) in enumerate(kinds)
    )
    return FeatureSet(name="toy", inputs=inputs)


@pytest.fixture(scope="session")
def make_tagger() -> Callable[..., Tagger]:
    """A tagger with random weights; gives every feature of KINDS, or of another list."""

    def make(kinds=KINDS, *, seed: int = 0, mean=None, std=None, dtype=torch.float32, **parameters) -> Tagger:
        n = len(kinds)
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        mean = rng.normal(size=n) if mean is None else mean
        std = rng.uniform(0.3, 3, n) if std is None else std
        tagger = Tagger(
            card(kinds),
            CLASSES,
            torch.as_tensor(mean),
            torch.as_tensor(std),
            parameters={"width": 30, **parameters},
        )
        return tagger.eval().to(dtype)

    return make


@pytest.fixture(scope="session")
def make_jets() -> Callable[..., tuple[Inputs, torch.Tensor]]:
    """Jets with zeros, negative values, values outside every bound, and absent entries; and their classes."""

    def make(number: int, features: int = len(KINDS), *, seed: int = 0, dtype=torch.float32):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, 2, (number, features))
        values[rng.random(values.shape) < 0.1] = 0
        present = rng.random(values.shape) < 0.75
        values[~present] = 0
        index = np.arange(number)
        key = jet_keys(np.ones(number, int), index // 50, index // 5, index % 5)
        inputs = Inputs(torch.from_numpy(values).to(dtype), torch.from_numpy(present), key)
        return inputs, torch.from_numpy(rng.integers(0, len(CLASSES), number))

    return make
