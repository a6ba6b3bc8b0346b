"""What is compiled for the CPU against the same in torch, which is what runs on a GPU: equal to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import budget, coupling
from models.features import FeatureSet
from models.inputs import Inputs
from tests.attacks.conftest import COUPLED, INF, KINDS, card, line

PINNED = FeatureSet(
    name="pinned",
    inputs=(*card(KINDS).inputs, line("pinned", pinned=(1.0, -0.5)), line("edges", bounds=(0, 1), cap=0.2)),
)
numbers = [0.0, -0.0, 1.0, -0.5, 2.0, -3.0, 1e-30, 1e30, 1e-310, 0.2]


@st.composite
def jets(draw, features: FeatureSet, dtype: torch.dtype) -> Inputs:
    """Few different numbers, so that many entries are equal; numbers in absent entries too."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = (draw(st.integers(1, 40)), len(features))
    values = np.where(rng.random(size) < 0.5, rng.choice(numbers, size), rng.normal(size=size))
    values[rng.random(size) < draw(st.sampled_from([0.0, 0.05]))] = np.nan
    present = (rng.random(size) < 0.7) & np.isfinite(values)
    return Inputs(torch.from_numpy(values).to(dtype), torch.from_numpy(present), torch.arange(size[0]))


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


@pytest.mark.parametrize("features", [PINNED, COUPLED], ids=lambda features: features.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@given(data=st.data(), epsilon=st.sampled_from([0.0, 0.05, 3.0, INF]))
@settings(max_examples=50, deadline=None)
def test_intervals(features, dtype, data, epsilon) -> None:
    inputs = data.draw(jets(features, dtype))
    step = torch.full((len(features),), epsilon, dtype=dtype)
    step[0] = 0
    caps = torch.as_tensor(features.caps, dtype=dtype)
    bounds = torch.as_tensor(features.bounds.T.copy(), dtype=dtype)
    arguments = (inputs.values, inputs.present, step, caps, bounds, features.pins)
    there = inputs.present
    for ours, theirs in zip(budget._between_compiled(*arguments), budget._between(*arguments), strict=True):
        assert torch.equal(ours[there], theirs[there])
        assert same(ours, theirs) or not there.all()  # an absent entry that is no number stays one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_sources(dtype, data) -> None:
    inputs = data.draw(jets(COUPLED, dtype))
    arguments = (COUPLED, inputs.values, inputs.present)
    assert torch.equal(coupling._sources_compiled(*arguments), coupling._sources(*arguments))


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_standardisation_and_its_gradient(make_tagger, data) -> None:
    tagger = make_tagger(features=PINNED)
    inputs = data.draw(jets(PINNED, torch.float32))
    seen = tagger.standardise(inputs.values, inputs.present)
    followed = tagger.standardise(inputs.values.clone().requires_grad_(), inputs.present)
    assert followed.requires_grad
    assert not seen.requires_grad
    assert same(seen, followed.detach())
    gradient = torch.randn_like(seen)
    expected = torch.where(inputs.present, gradient / tagger.std, 0)
    assert torch.equal(tagger.physical_gradient_(gradient, inputs.present), expected)
