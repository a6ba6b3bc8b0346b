"""MiniFool against torch's Adam, one jet at a time, and against the distance to a plane."""

import math

import pytest
import torch

from attacks.budget import Budget
from attacks.minifool import MiniFool
from attacks.success import WorkingPoint
from common.errors import AdvtagError
from models.discriminators import discriminators
from models.inputs import Inputs
from tests.attacks.conftest import CLASSES, COUPLED, INF

TWENTIETHS = tuple(k / 20 for k in range(1, 21))


def undecided(tagger, inputs: Inputs):
    """The same tagger without a class that it prefers: random weights prefer one for all jets."""
    with torch.no_grad():
        prior = torch.tensor([0.5, 0.5, 1.0, 1.0]).log()  # b and bb are one answer
        tagger.network.layers[-1].bias += prior - tagger(inputs.values, inputs.present).mean(0)
    return tagger


@pytest.fixture(scope="module")
def toy(make_tagger, make_jets):
    inputs, target = make_jets(40, dtype=torch.float64)
    return undecided(make_tagger(dtype=torch.float64, sharp=50, hidden=2), inputs), inputs, target


def answer_of(probabilities: torch.Tensor, working_point: WorkingPoint | None) -> int:
    """What the tagger says of one jet: b, c or udsg; or tagged, or not."""
    if working_point is None:
        b, bb, c, udsg = probabilities.tolist()
        return max(range(3), key=[b + bb, c, udsg].__getitem__)
    found = discriminators(probabilities[None], CLASSES)[working_point.discriminator]
    return int(float(found) >= working_point.threshold)


def sides(answer: int, working_point: WorkingPoint | None) -> tuple[list[int], list[int], float]:
    """Classes of an answer and of its opposite, and the probability that is aimed at."""
    if working_point is None:
        mine = [[0, 1], [2], [3]][answer]
        return mine, [k for k in range(4) if k not in mine], 1 / 3
    signal, background = {"BvsL": ([0, 1], [3]), "CvsB": ([2], [0, 1])}[working_point.discriminator]
    return (signal, background, 0.0) if answer else (background, signal, 0.0)


@pytest.mark.parametrize("working_point", [None, WorkingPoint("BvsL", 0.4), WorkingPoint("CvsB", 0.3)])
def test_probability_of_the_answer(working_point) -> None:
    """The softmax or the discriminator, where these are not 0/0."""
    attack = MiniFool(Budget(epsilon=1), working_point=working_point)
    logits = 2 * torch.randn(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(1)
    answer = attack._answer(logits, CLASSES)
    found = attack._probability(logits, answer, CLASSES)
    for j in range(100):
        said = answer_of(p[j], working_point)
        assert int(answer[j]) in sides(said, working_point)[0]
        expected = float(p[j, sides(said, working_point)[0]].sum())
        if working_point is not None:
            tagged = float(discriminators(p[j : j + 1], CLASSES)[working_point.discriminator])
            expected = tagged if said else 1 - tagged
        assert float(found[j]) == pytest.approx(expected, rel=1e-12)


def slow_minifool(tagger, x0, present, box, sigma, attack: MiniFool) -> tuple[float, torch.Tensor]:
    """One jet: for each scale, torch's Adam on the moves, cut after each step."""
    low, high, free = box
    n = max(int(free.sum()), 1)

    def logits(x: torch.Tensor) -> torch.Tensor:
        return tagger(x[None], present[None])[0]

    answer = answer_of(logits(x0).detach().softmax(0), attack.working_point)
    mine, others, goal = sides(answer, attack.working_point)
    x = x0
    for scale in attack.scales:
        t = torch.zeros_like(x0, requires_grad=True)
        adam = torch.optim.Adam([t], lr=attack.learning_rate)
        best = None
        for _ in range(attack.steps):
            adam.zero_grad()
            x = torch.where(free, x0 + scale * sigma * t, x0)
            z = logits(x)
            # by the odds: in a sure tagger, 1 - f of the softmax is nothing but rounding
            f = torch.sigmoid(z[mine].logsumexp(0) - z[others].logsumexp(0))
            loss = attack.alpha / n * (t**2).sum() + attack.beta * (f - goal) ** 2
            loss.backward()
            adam.step()
            with torch.no_grad():
                t.copy_(torch.minimum(torch.maximum(t, (low - x0) / sigma), (high - x0) / sigma))
                x = torch.where(free, x0 + scale * sigma * t, x0)
                distance = sum(float(entry) ** 2 for entry in t) / n
                flipped = answer_of(logits(x).softmax(0), attack.working_point) != answer
                if flipped and (best is None or distance < best[0]):
                    best = distance, x
        if best is not None:
            return scale, best[1]
    return INF, x


@pytest.mark.parametrize(
    ("working_point", "parameters"),
    [
        (None, {"steps": 25}),
        (None, {"alpha": 0.1, "beta": 30.0, "learning_rate": 0.03, "steps": 15, "scales": (0.3, 1.0)}),
        (WorkingPoint("BvsL", 0.55), {"steps": 10}),
        (WorkingPoint("CvsB", 0.4), {"alpha": 0.0, "steps": 10, "scales": (0.5,)}),
    ],
)
@pytest.mark.parametrize("capped", [True, False])
def test_against_torch_adam_jet_by_jet(toy, working_point, parameters, capped) -> None:
    tagger, inputs, target = toy
    budget = Budget(epsilon=1.5, capped=capped)
    attack = MiniFool(budget, working_point=working_point, **parameters)
    scales, found = attack.smallest_scale(tagger, inputs, target)
    box, sigma = budget.interval(tagger, inputs), 1.5 * tagger.std
    for j in range(25):
        limits = (box.low[j], box.high[j], box.free[j])
        scale, x = slow_minifool(tagger, inputs.values[j], inputs.present[j], limits, sigma, attack)
        assert float(scales[j]) == scale
        torch.testing.assert_close(found.values[j], x, rtol=1e-8, atol=1e-10)
    flipped = torch.isfinite(scales)
    assert 0.1 < flipped.double().mean() < 1
    assert torch.equal(attack(tagger, inputs, target).values, found.values)


def planes(make_tagger, make_jets, features: int = 5):
    """b against c on one plane, udsg nowhere; and jets with absent entries."""
    kinds = [((-INF, INF), None, False)] * features
    tagger = make_tagger(
        kinds, classes=("b", "c", "udsg"), mean=[0.0] * features, dtype=torch.float64, hidden=0, width=features
    )
    last = tagger.network.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.weight[0].copy_(torch.tensor([1.0, -0.6, 0.3, 0.8, -0.1])[:features])
        last.bias.copy_(torch.tensor([0.2, 0.0, -60.0]))
    return tagger, *make_jets(200, features, dtype=torch.float64, classes=2)


def test_flipping_scale_is_the_distance_to_the_plane(make_tagger, make_jets) -> None:
    """The box at scale s reaches the plane where s sum |w sigma| over present entries is the margin."""
    tagger, inputs, target = planes(make_tagger, make_jets)
    epsilon = 2.0
    attack = MiniFool(Budget(epsilon=epsilon), beta=1e4, steps=40, scales=TWENTIETHS)
    scales, found = attack.smallest_scale(tagger, inputs, target)
    sigma = epsilon * tagger.std
    weight = tagger.network.layers[-1].weight[0].detach() / tagger.std  # the network sees standardised inputs
    reach = torch.where(inputs.present, (weight * sigma).abs(), 0)
    with torch.no_grad():
        logits = tagger(inputs.values, inputs.present)
        margin = (logits[:, 0] - logits[:, 1]).abs()
        after = tagger(found.values, found.present)
    exact = margin / reach.sum(1)
    expected = torch.tensor([next((s for s in TWENTIETHS if s >= x), INF) for x in exact.tolist()], dtype=torch.float64)
    assert (scales >= expected).all()
    assert (scales <= expected + 0.05 + 1e-9).all()
    assert (scales == expected).double().mean() > 0.95
    assert 0.1 < torch.isinf(scales).double().mean() < 0.9
    flipped = torch.isfinite(scales)
    assert torch.equal(after[:, :2].argmax(1) != logits[:, :2].argmax(1), flipped)
    # no example is nearer than the plane
    number = inputs.present.sum(1).clamp(min=1)
    distance = (((found.values - inputs.values) / sigma) ** 2).sum(1) / number
    nearest = margin**2 / (reach**2).sum(1) / number
    assert (distance >= nearest * (1 - 1e-9))[flipped].all()
    single = inputs.present.sum(1) == 1
    torch.testing.assert_close(nearest[single], exact[single] ** 2)


def test_keeps_the_nearest_example(make_tagger, make_jets) -> None:
    """One scale, small steps: the example lies on the plane, not where Adam ends behind it, and more weight on the
    distance brings it no farther from the jet."""
    tagger, inputs, target = planes(make_tagger, make_jets)
    sigma = 4.0 * tagger.std
    with torch.no_grad():
        before = tagger(inputs.values, inputs.present)
    moves = []
    for alpha in (0.0, 0.5):
        attack = MiniFool(Budget(epsilon=4.0), alpha=alpha, learning_rate=0.01, steps=150, scales=(1.0,))
        scales, found = attack.smallest_scale(tagger, inputs, target)
        flipped = torch.isfinite(scales)
        assert flipped.double().mean() > 0.5
        with torch.no_grad():
            after = tagger(found.values, found.present)
        behind = ((after - before)[:, 0].abs() - before[:, 0].sub(before[:, 1]).abs())[flipped]
        assert float(behind.min()) > 0
        # Adam ends where f is 1/3, log 2 behind the plane
        assert float(behind.median()) < 0.1
        moves.append(torch.where(flipped, (((found.values - inputs.values) / sigma) ** 2).sum(1), INF))
    both = torch.isfinite(moves[0]) & torch.isfinite(moves[1])
    assert (moves[1][both] <= moves[0][both] * (1 + 1e-6)).double().mean() > 0.9
    assert moves[1][both].mean() < 0.99 * moves[0][both].mean()


@pytest.mark.parametrize("working_point", [None, WorkingPoint("BvsL", 0.5)])
def test_examples_flip_inside_their_share_of_the_interval(toy, working_point) -> None:
    tagger, inputs, target = toy
    budget = Budget(epsilon=2.0)
    attack = MiniFool(budget, working_point=working_point, steps=30, scales=(0.2, 0.4, 0.7))
    scales, found = attack.smallest_scale(tagger, inputs, target)
    box, clean = budget.interval(tagger, inputs), inputs.values
    share = torch.where(torch.isfinite(scales), scales, 0.7)[:, None]
    assert set(scales.tolist()) == {0.2, 0.4, 0.7, INF}
    assert (found.values >= clean + share * (box.low - clean) - 1e-12).all()
    assert (found.values <= clean + share * (box.high - clean) + 1e-12).all()
    with torch.no_grad():
        before = tagger(clean, inputs.present).softmax(1)
        after = tagger(found.values, inputs.present).softmax(1)
    for j in range(len(inputs)):
        changed = answer_of(after[j], working_point) != answer_of(before[j], working_point)
        assert changed == math.isfinite(scales[j])
    frozen = ~inputs.present | torch.from_numpy(tagger.features.integer)
    assert torch.equal(found.values[frozen], clean[frozen])
    assert (found.values != clean)[torch.isinf(scales)].any()


def test_b_and_bb_are_one_answer(make_tagger) -> None:
    """x decides between b and bb, y between both and c: only y flips the jet, though bb is the highest class."""
    tagger = make_tagger(
        [((-INF, INF), None, False)] * 2, mean=[0.0] * 2, std=[1.0] * 2, dtype=torch.float64, hidden=0, width=2
    )
    with torch.no_grad():
        tagger.network.layers[-1].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        tagger.network.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, -50.0]))
    ones = torch.ones(3, 2, dtype=torch.bool)
    # c wins where y > log(2 cosh x): the third jet, with c as its highest class, is b by b + bb
    values = torch.tensor([[0.5, -1.0], [-0.5, -1.0], [0.0, 0.5]], dtype=torch.float64)
    inputs, target = Inputs(values, ones, torch.arange(3)), torch.tensor([0, 0, 0])
    attack = MiniFool(Budget(epsilon=4.0), beta=1e3, steps=60, scales=TWENTIETHS)
    scales, found = attack.smallest_scale(tagger, inputs, target)
    for x, y, scale, moved in zip(*values.T.tolist(), scales.tolist(), found.values.tolist(), strict=True):
        assert moved[1] > math.log(2 * math.cosh(moved[0]))
        # the box reaches c where y has risen to log(2 cosh x), x having come as near to 0 as it can
        reaches = [s for s in TWENTIETHS if y + 4 * s > math.log(2 * math.cosh(max(abs(x) - 4 * s, 0)))]
        assert reaches[0] <= scale <= reaches[0] + 0.05 + 1e-9


def test_the_truth_changes_nothing(toy) -> None:
    tagger, inputs, target = toy
    attack = MiniFool(Budget(epsilon=1.5), steps=10)
    scales, found = attack.smallest_scale(tagger, inputs, target)
    others, again = attack.smallest_scale(tagger, inputs, 3 - target)
    assert torch.equal(scales, others)
    assert torch.equal(found.values, again.values)
    with torch.no_grad():
        wrong = tagger(inputs.values, inputs.present).argmax(1) != target
    assert torch.isfinite(scales[wrong]).any()
    assert (scales > 0).all()


@pytest.mark.parametrize("size", [1, 7])
def test_a_jet_does_not_know_its_batch(toy, size) -> None:
    tagger, inputs, target = toy
    attack = MiniFool(Budget(epsilon=1.5), steps=10)
    scales, found = attack.smallest_scale(tagger, inputs, target)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(size))
    parts = [attack.smallest_scale(tagger, inputs[jets], target[jets]) for jets in order.split(size)]
    assert torch.equal(torch.cat([part[0] for part in parts]), scales[order])
    # a product of matrices of another size may differ in its last bit
    values = torch.cat([part[1].values for part in parts])
    torch.testing.assert_close(values, found.values[order], rtol=1e-10, atol=1e-12)


def test_a_sure_tagger_has_a_finite_gradient(make_tagger, make_jets) -> None:
    """Both sides of a discriminator are 0 in float32: 0/0 by the probabilities."""
    tagger, (inputs, target) = make_tagger(), make_jets(50)
    with torch.no_grad():
        tagger.network.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, 300.0, 0.0]))
        probabilities = tagger(inputs.values, inputs.present).softmax(1)
    assert (probabilities[:, [0, 1, 3]].sum(1) == 0).all()
    attack = MiniFool(Budget(epsilon=1.0), working_point=WorkingPoint("BvsL", 0.5), steps=5)
    scales, found = attack.smallest_scale(tagger, inputs, target)
    assert torch.isfinite(found.values).all()
    assert torch.isinf(scales).all()


def test_what_is_one_quantity_stays_one(make_tagger, make_jets) -> None:
    inputs, target = make_jets(100, COUPLED, dtype=torch.float64)
    tagger = undecided(make_tagger(features=COUPLED, dtype=torch.float64, sharp=50, hidden=2), inputs)
    attack = MiniFool(Budget(epsilon=1.5), steps=10, scales=(0.5, 1.0))
    scales, found = attack.smallest_scale(tagger, inputs, target)
    interval = attack.interval(tagger, inputs)
    assert torch.equal(interval.project(found.values), found.values)
    assert torch.isfinite(scales).any()
    follows = inputs.present[:, 0] & inputs.present[:, 2] & (inputs.values[:, 0] == inputs.values[:, 2])
    assert torch.equal(found.values[follows, 0], found.values[follows, 2])
    assert (found.values != inputs.values)[follows, 2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_no_attack_may_touch(make_tagger, make_jets, dtype) -> None:
    tagger, (inputs, target) = make_tagger(dtype=dtype, dropout=0.5).train(), make_jets(50, dtype=dtype)
    before, state = inputs.values.clone(), torch.get_rng_state()
    attack = MiniFool(Budget(epsilon=0.5), steps=5)
    found = attack(tagger, inputs, target)
    interval = attack.interval(tagger, inputs)
    assert ((interval.low <= found.values) & (found.values <= interval.high)).all()
    assert found.values.dtype == attack.smallest_scale(tagger, inputs, target)[0].dtype == dtype
    assert torch.equal(inputs.values, before)
    assert (found.values != before).any()
    assert tagger.training
    assert all(parameter.grad is None for parameter in tagger.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    off = MiniFool(Budget(epsilon=0.0), steps=2)
    assert torch.equal(off(tagger, inputs, target).values, before)
    scales, still = off.smallest_scale(tagger, inputs, target)
    assert torch.isinf(scales).all()
    assert torch.equal(still.values, before)
    assert len(attack(tagger, inputs[:0], target[:0])) == 0
    assert len(attack.smallest_scale(tagger, inputs[:0], target[:0])[0]) == 0


def test_refusals(toy) -> None:
    tagger, inputs, target = toy
    wrong = [{"alpha": -1.0}, {"beta": 0.0}, {"learning_rate": math.nan}, {"steps": 0}]
    wrong += [{"scales": scales} for scales in ((), (0.0, 1.0), (0.5, 1.5), (0.5, 0.5), (1.0, 0.5))]
    for parameters in wrong:
        with pytest.raises(AdvtagError, match=next(iter(parameters))):
            MiniFool(Budget(epsilon=0.1), **parameters)
    with pytest.raises(AdvtagError, match="finite epsilon"):
        MiniFool(Budget(epsilon=INF))
    with pytest.raises(AdvtagError, match="true class 9"):
        MiniFool(Budget(epsilon=0.1)).smallest_scale(tagger, inputs, target + 9 - target)
    assert repr(MiniFool(Budget(epsilon=0.1), scales=[1.0])).endswith("scales=(1.0,), working_point=None)")
