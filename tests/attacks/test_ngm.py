"""The normed gradient method against a loop over jets, groups and features."""

import math

import pytest
import torch

from attacks.budget import Budget
from attacks.fgsm import FGSM
from attacks.ngm import NGM
from models.features import FeatureSet
from models.inputs import Inputs
from tests.attacks.conftest import COUPLED, INF, KINDS, card, line
from tests.attacks.test_pgd import slow_free, slow_gradient, slow_project

GROUPS = ("jet", "track", "track", "vertex", "jet", "track", "vertex", "count")
GROUPED = FeatureSet(
    name="grouped",
    inputs=tuple(
        feature.model_copy(update={"group": group}) for feature, group in zip(card(KINDS).inputs, GROUPS, strict=True)
    ),
)
FREE = FeatureSet(name="free", inputs=tuple(line(f"x{k}", group=group) for k, group in enumerate(GROUPS)))


def slow_ngm(tagger, inputs: Inputs, target, budget: Budget) -> torch.Tensor:
    interval, features = budget.interval(tagger, inputs), tagger.features.inputs
    unit = [float(s) for s in budget.unit(tagger)]
    rows = []
    for jet in range(len(inputs)):
        row = inputs.values[jet].tolist()
        gradient, _ = slow_gradient(tagger, inputs, target, jet, row)
        free = slow_free(tagger.features, inputs, interval, jet)
        for group in {feature.group for feature in features}:
            members = [k for k, feature in enumerate(features) if feature.group == group and free[k]]
            length = math.sqrt(sum((gradient[k] * unit[k]) ** 2 for k in members))
            for k in members:
                if length > 0:
                    row[k] += budget.epsilon * unit[k] * (gradient[k] * unit[k]) / length
        rows.append(slow_project(tagger.features, inputs, interval, jet, row))
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("features", [GROUPED, COUPLED])
@pytest.mark.parametrize("capped", [True, False])
@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_against_slow_reference(make_tagger, make_jets, features, capped, epsilon) -> None:
    tagger = make_tagger(features=features, dtype=torch.float64, sharp=5)
    inputs, target = make_jets(60, features, dtype=torch.float64)
    budget = Budget(epsilon=epsilon, capped=capped)
    found = NGM(budget)(tagger, inputs, target).values
    torch.testing.assert_close(found, slow_ngm(tagger, inputs, target, budget), rtol=1e-10, atol=1e-12)
    assert (found != inputs.values).float().mean() > 0.3


@pytest.mark.parametrize("scale", ["std", "core"])
def test_each_group_moves_by_epsilon(make_tagger, make_jets, scale) -> None:
    """Where nothing stops it; a group without present entries has nowhere to go."""
    core = [0.5, 0.0, 2.0, 1.0, 0.0, 3.0, 0.25, 0.0]
    tagger = make_tagger(features=FREE, scales={"core": core}, dtype=torch.float64)
    inputs, target = make_jets(200, FREE, dtype=torch.float64)
    budget = Budget(epsilon=0.3, scale=scale)
    moves = NGM(budget)(tagger, inputs, target).values - inputs.values
    unit = budget.unit(tagger)
    moves, some = torch.where(unit == 0, 0, moves / unit), inputs.present & (unit > 0)
    for group in set(GROUPS):
        columns = torch.tensor([k for k, other in enumerate(GROUPS) if other == group])
        length = torch.linalg.vector_norm(moves[:, columns], dim=1)
        expected = 0.3 * some[:, columns].any(1).double()
        torch.testing.assert_close(length, expected, rtol=1e-9, atol=1e-12)


def test_one_feature_per_group_is_fgsm(make_tagger, make_jets) -> None:
    alone = FeatureSet(
        name="alone", inputs=tuple(feature.model_copy(update={"group": feature.name}) for feature in GROUPED.inputs)
    )
    tagger, (inputs, target) = make_tagger(features=alone, dtype=torch.float64), make_jets(200, dtype=torch.float64)
    found, fgsm = (kind(Budget(epsilon=0.2))(tagger, inputs, target).values for kind in (NGM, FGSM))
    torch.testing.assert_close(found, fgsm, rtol=1e-14, atol=1e-14)
    assert (found != inputs.values).any()


def test_jets_that_the_tagger_is_sure_about_move_too(make_tagger, make_jets) -> None:
    """Slopes far below 1e-6, whose squares float32 does not hold."""
    inputs, _ = make_jets(100, FREE)
    found = {}
    for dtype in (torch.float32, torch.float64):
        tagger = make_tagger(features=FREE, sharp=0.5, dtype=dtype)
        with torch.no_grad():
            tagger.network.layers[-1].bias[:] = torch.tensor([70.0, 0.0, 0.0, 0.0])
        clean = inputs.to(dtype=dtype)
        found[dtype] = NGM(Budget(epsilon=0.3))(tagger, clean, torch.zeros(100, dtype=torch.int64)).values
    torch.testing.assert_close(found[torch.float32].double(), found[torch.float64], rtol=1e-4, atol=1e-4)
    assert ((found[torch.float64] != inputs.values) == inputs.present).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_slope_no_move(make_tagger, make_jets, dtype) -> None:
    tagger, (inputs, target) = make_tagger(sharp=0, dtype=dtype), make_jets(50, dtype=dtype)
    assert torch.equal(NGM(Budget(epsilon=0.3))(tagger, inputs, target).values, inputs.values)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_jet_does_not_know_its_batch(make_tagger, make_jets, size) -> None:
    tagger = make_tagger(features=COUPLED, dtype=torch.float64)
    inputs, target = make_jets(200, COUPLED, dtype=torch.float64)
    attack = NGM(Budget(epsilon=0.1))
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(200, generator=torch.Generator().manual_seed(size))
    parts = [attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)]
    # not a choice of sign: the last bit of a matrix product, which depends on the number of its rows, is seen
    torch.testing.assert_close(torch.cat(parts), whole[order], rtol=1e-13, atol=1e-13)


def test_pushes_where_the_loss_depends_on_it(make_tagger, make_jets) -> None:
    """A move of the same length in a random direction raises the loss less, on every seed."""
    features = FeatureSet(name="one", inputs=tuple(line(f"x{k}", bounds=(-INF, INF)) for k in range(20)))
    for seed in range(3):
        tagger = make_tagger(features=features, sharp=10, seed=seed, dtype=torch.float64)
        inputs, target = make_jets(300, features, seed=seed, dtype=torch.float64)
        moves = NGM(Budget(epsilon=0.2))(tagger, inputs, target).values - inputs.values
        shuffled = moves.flip(0)  # another jet's direction

        def loss(values: torch.Tensor, tagger=tagger, inputs=inputs, target=target) -> float:
            with torch.no_grad():
                return float(torch.nn.functional.cross_entropy(tagger(values, inputs.present), target))

        clean = loss(inputs.values)
        assert loss(inputs.values + moves) - clean > 4 * abs(loss(inputs.values + shuffled) - clean)
