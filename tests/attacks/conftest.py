"""Every attack once, taggers on toy feature cards, and jets for them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attacks import (
    APGD,
    FGSM,
    NGM,
    PGD,
    PIP,
    PIPPGD,
    RDSA,
    Attack,
    Budget,
    Conserv,
    GaussianNoise,
    MiniFool,
    Square,
    Systematic,
)
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


def of(kind: Callable[..., Attack], **parameters) -> Callable[..., Attack]:
    """A constructor from epsilon, and further arguments of the budget."""
    return lambda epsilon, **budget: kind(Budget(epsilon=epsilon, **budget), **parameters)


# What test_attack asks of every attack, it asks of these: few steps, the loss rises with them all the same
ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": of(FGSM),
    "noise": of(GaussianNoise),
    "systematic": of(Systematic),
    "ngm": of(NGM),
    "pgd": of(PGD, steps=3),
    "pgd-l2": of(PGD, steps=3, norm="l2"),
    "apgd": of(APGD, steps=5),
    "apgd-dlr": of(APGD, steps=3, objective="dlr-targeted"),
    "square": of(Square, queries=20),
    "pip": of(PIP),
    "pip-pgd": of(PIPPGD, steps=3),
    "rdsa": of(RDSA, attempts=3),
    "minifool": of(MiniFool, steps=10, scales=(0.5, 1.0)),
    "conserv": of(Conserv, iterations=2),
}
AIMLESS = {"noise", "systematic", "rdsa", "minifool", "apgd-dlr", "conserv"}
"""Attacks that do not drive the cross entropy up."""


def line(name: str, **rules) -> Input:
    """One input of a toy card."""
    return Input(
        **{"name": name, "branch": f"Jet_{name}", "label": name, "bins": (1, 0, 1), "absent_at": -0.5, **rules}
    )


def card(kinds) -> FeatureSet:
    inputs = (line(f"x{k}", bounds=b, cap=cap, integer=integer) for k, (b, cap, integer) in enumerate(kinds))
    return FeatureSet(name="toy", inputs=tuple(inputs))


COUPLED = FeatureSet(
    name="coupled",
    inputs=(
        line("a", group="track"),
        line("b", group="track", cap=0.2, bounds=(-INF, 2.5)),
        line("same", group="track", cap=0.3, same_as=("a", "b")),
        line("alias", group="vertex", same_as=("b",), bounds=(-1.0, INF)),
        line("multiple", group="vertex", cap=0.1, proportional_to="a"),
        line("another", bounds=(-2.0, 2.0), proportional_to="a"),
        line("frozen", frozen=True),
        line("pinned", pinned=(1.0, -2.0), bounds=(-3.0, 3.0)),
        line("count", integer=True),
        line("of_count", proportional_to="count"),
    ),
)
"""A card with every rule by which entries stay or move together."""


@pytest.fixture(scope="session", params=ATTACKS)
def make_attack(request) -> Callable[..., Attack]:
    """Constructor of each attack in turn: (epsilon, **budget)."""
    return ATTACKS[request.param]


@pytest.fixture(scope="session", params=[name for name in ATTACKS if name not in AIMLESS])
def make_aimed(request) -> Callable[..., Attack]:
    """Constructor of each attack that drives the cross entropy up."""
    return ATTACKS[request.param]


@pytest.fixture(scope="session")
def make_tagger() -> Callable[..., Tagger]:
    """A tagger with random weights; gives every feature of KINDS, or of another list, or of a card."""

    def make(
        kinds=KINDS,
        *,
        features: FeatureSet | None = None,
        classes=CLASSES,
        seed: int = 0,
        mean=None,
        std=None,
        scales=None,
        dtype=torch.float32,
        sharp: float = 1.0,
        **parameters,
    ) -> Tagger:
        features = card(kinds) if features is None else features
        n = len(features)
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        mean = rng.normal(size=n) if mean is None else mean
        std = rng.uniform(0.3, 3, n) if std is None else std
        tagger = Tagger(
            features,
            classes,
            torch.as_tensor(mean),
            torch.as_tensor(std),
            parameters={"width": 30, **parameters},
            scales={name: torch.as_tensor(width) for name, width in (scales or {}).items()},
        )
        with torch.no_grad():  # an untrained network gives every class 1/4, whatever the inputs
            tagger.network.layers[-1].weight *= sharp
        return tagger.eval().to(dtype)

    return make


@pytest.fixture(scope="session")
def make_jets() -> Callable[..., tuple[Inputs, torch.Tensor]]:
    """Jets with zeros, negative values, values outside every bound, and absent entries; and their classes.

    With a card instead of a number of features, two thirds of the entries that may be the same as others are, and a
    third of those that may be pinned.
    """

    def make(number: int, features: int | FeatureSet = 8, *, seed: int = 0, dtype=torch.float32, classes=4):
        rng = np.random.default_rng(seed)
        n = features if isinstance(features, int) else len(features)
        values = rng.normal(0, 2, (number, n))
        values[rng.random(values.shape) < 0.1] = 0
        present = rng.random(values.shape) < 0.75
        if isinstance(features, FeatureSet):
            obey(features, values, rng)
        values[~present] = 0
        index = np.arange(number)
        key = jet_keys(np.ones(number, int), index // 50, index // 5, index % 5)
        inputs = Inputs(torch.from_numpy(values).to(dtype), torch.from_numpy(present), key)
        return inputs, torch.from_numpy(rng.integers(0, classes, number))

    return make


def obey(features: FeatureSet, values: np.ndarray, rng: np.random.Generator) -> None:
    for k, feature in enumerate(features.inputs):
        if feature.integer:
            values[:, k] = np.round(values[:, k])
    for k, feature in enumerate(features.inputs):
        choices = [values[:, features.names.index(name)].copy() for name in feature.same_as]
        choices += [np.full(len(values), value) for value in feature.pinned]
        if choices:
            chosen = np.choose(rng.integers(0, len(choices), len(values)), choices)
            often = 2 / 3 if feature.same_as else 1 / 3
            values[:, k] = np.where(rng.random(len(values)) < often, chosen, values[:, k])


# no denormal numbers: their ratios have no digits
number = st.floats(-50, 50).map(lambda x: x if abs(x) > 1e-30 else 0.0) | st.sampled_from(
    [0.0, -0.0, 1.0, -0.07, 5.0, 1e30, -1e30, 1e-30]
)


@pytest.fixture(scope="session")
def jets_of() -> Callable[[FeatureSet], st.SearchStrategy[Inputs]]:
    """Strategy: one to five jets of a card, float64, with every combination of equal, pinned and absent entries."""

    def jets(features: FeatureSet) -> st.SearchStrategy[Inputs]:
        rows = st.lists(st.tuples(*(st.tuples(number, st.booleans()) for _ in features.inputs)), min_size=1, max_size=5)
        return st.builds(inputs_of, st.just(features), rows, st.integers(0, 2**16))

    return jets


def inputs_of(features: FeatureSet, rows, seed: int) -> Inputs:
    values = np.array([[x for x, _ in row] for row in rows])
    obey(features, values, np.random.default_rng(seed))
    present = torch.tensor([[there for _, there in row] for row in rows])
    values = torch.where(present, torch.from_numpy(values), 0)
    return Inputs(values, present, torch.arange(len(rows)) + 31 * seed)
