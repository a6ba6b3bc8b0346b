"""Auto-PGD against a loop over jets, against PGD and torchattacks, and by the rules of its paper."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attacks.apgd
from attacks.apgd import APGD, checkpoints, climb
from attacks.budget import Budget
from attacks.objectives import cross_entropies, dlr, margins, targeted_dlr
from attacks.pgd import PGD
from common.errors import AdvtagError
from models.keys import reseed, uniform
from tests.attacks.conftest import COUPLED, INF, KINDS, card
from tests.attacks.test_pgd import Unmasked, assert_coupled, slow_cross_entropy, slow_gradient, slow_project, unit_box


def slow_checkpoints(steps: int) -> set[int]:
    """Sec. 3.2 of the paper: w_j = ceil(p_j N), p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06)."""
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    return {math.ceil(share * steps) for share in p[1:-1]}


@pytest.mark.parametrize("steps", [*range(1, 40), 100, 1000, 1003])
def test_checkpoints(steps) -> None:
    assert checkpoints(steps) == sorted(slow_checkpoints(steps))


def test_checkpoints_of_a_hundred_steps() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def slow_dlr(logits: torch.Tensor, y: int) -> torch.Tensor:
    places = logits.tolist()
    ordered = [logits[k] for k in sorted(range(len(places)), key=lambda k: -places[k])]
    other = logits[max((k for k in range(len(places)) if k != y), key=lambda k: places[k])]
    return -(logits[y] - other) / (ordered[0] - ordered[2])


def slow_targeted(wanted: int):
    def loss(logits: torch.Tensor, y: int) -> torch.Tensor:
        places = logits.tolist()
        ordered = [logits[k] for k in sorted(range(len(places)), key=lambda k: -places[k])]
        return -(logits[y] - logits[wanted]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)

    return loss


def slow_run(gradient_at, project, row, reach, steps: int):
    """Algorithm 1 of the paper for one jet. The step size at each checkpoint is before it is halved there."""
    n, ends = len(row), slow_checkpoints(steps)
    gradient, f = gradient_at(row)
    x, fs = [row, row], [f]
    best, best_f, best_gradient = row, f, gradient
    eta, last, eta_at_last, best_at_last, rises = 2.0, 0, 2.0, f, 0
    for k in range(1, steps + 1):
        sign = [math.copysign(1, slope) if slope else 0.0 for slope in gradient]
        z = project([x[-1][i] + eta * reach[i] * sign[i] for i in range(n)])
        a = 1.0 if k == 1 else 0.75
        step = [x[-1][i] + a * (z[i] - x[-1][i]) + (1 - a) * (x[-1][i] - x[-2][i]) for i in range(n)]
        x.append(project(step))
        gradient, f = gradient_at(x[-1])
        rises += f > fs[-1]
        fs.append(f)
        if f > best_f:
            best, best_f, best_gradient = x[-1], f, gradient
        if k in ends:
            before = eta
            if rises < 0.75 * (k - last) or (eta == eta_at_last and best_f == best_at_last):
                eta = eta / 2
                x[-1], fs[-1], gradient = best, best_f, best_gradient
            last, eta_at_last, best_at_last, rises = k, before, best_f, 0
    return best_f, best


def slow_apgd(tagger, inputs, target, attack: APGD) -> torch.Tensor:
    interval, n = attack.budget.interval(tagger, inputs), inputs.values.shape[1]
    reach = [attack.budget.epsilon * float(s) for s in attack.budget.unit(tagger)]
    found = []
    for jet in range(len(inputs)):
        y, best, run = int(target[jet]), (-INF, []), 0
        for _ in range(attack.restarts):
            losses = {"ce": [slow_cross_entropy], "dlr": [slow_dlr]}.get(attack.objective)
            losses = losses or [slow_targeted((y + k) % len(tagger.classes)) for k in range(1, len(tagger.classes))]
            for loss in losses:
                key = reseed(reseed(inputs.key[jet : jet + 1], attack.seed), run)
                low, high, u = interval.low[jet].tolist(), interval.high[jet].tolist(), uniform(key, n, 0)[0].tolist()

                def project(row, jet=jet):
                    return slow_project(tagger.features, inputs, interval, jet, row)

                def gradient_at(row, jet=jet, loss=loss):
                    return slow_gradient(tagger, inputs, target, jet, row, loss)

                start = project([low[k] + u[k] * (high[k] - low[k]) for k in range(n)])
                best = max(best, slow_run(gradient_at, project, start, reach, attack.steps), key=lambda pair: pair[0])
                run += 1
        found.append(best[1])
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("features", [card(KINDS), COUPLED])
@pytest.mark.parametrize(
    "parameters",
    [
        {"steps": 20},
        {"steps": 7, "restarts": 2, "seed": 3},
        {"steps": 12, "objective": "dlr"},
        {"steps": 6, "objective": "dlr-targeted"},
        {"steps": 6, "objective": "dlr-targeted", "restarts": 2},
    ],
)
def test_against_slow_reference(make_tagger, make_jets, features, parameters) -> None:
    tagger = make_tagger(features=features, sharp=10, dtype=torch.float64)
    inputs, target = make_jets(16, features, dtype=torch.float64)
    attack = APGD(Budget(epsilon=1.0, capped=False), **parameters)
    found = attack(tagger, inputs, target).values
    torch.testing.assert_close(found, slow_apgd(tagger, inputs, target, attack), rtol=1e-9, atol=1e-11)
    assert (found != inputs.values).double().mean() > 0.3


@given(seed=st.integers(0, 2**16), steps=st.integers(1, 60), drift=st.sampled_from([-0.5, 0.3, 1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_rules_on_any_course_of_the_objective(seed, steps, drift) -> None:
    """Random walks with ties and falls instead of a tagger: what decides is only how the objective goes."""
    rng = np.random.default_rng(seed)
    jets, features = 8, 2
    # mostly up, with a fall now and then: that is where the second rule for halving counts
    falls = rng.integers(2, 30, jets) * (rng.random((steps + 1, jets)) < 0.1)
    walks = np.round((rng.integers(0, 3, (steps + 1, jets)) + drift - falls).cumsum(0))
    slopes = rng.choice([-1.0, 0.0, 1.0], (steps + 1, jets, features))
    start, step = rng.uniform(-1, 1, (jets, features)), np.array([1.0, 0.4])
    calls = iter(zip(torch.from_numpy(slopes), torch.from_numpy(walks), strict=True))
    box = SimpleNamespace(project=lambda values: values.clamp(-1, 1))
    found, reached = climb(lambda _: next(calls), box, torch.from_numpy(step), torch.from_numpy(start), steps)
    for jet in range(jets):
        course = iter(zip(slopes[:, jet].tolist(), walks[:, jet].tolist(), strict=True))
        best, row = slow_run(
            lambda _, course=course: next(course),
            lambda row: [min(max(x, -1.0), 1.0) for x in row],
            start[jet].tolist(),
            step.tolist(),
            steps,
        )
        assert float(reached[jet]) == best
        assert found[jet].tolist() == pytest.approx(row, abs=1e-12)


@torch.no_grad()
def objective_of(tagger, inputs, target, objective=cross_entropies) -> torch.Tensor:
    return objective(tagger(inputs.values, inputs.present), target)


@pytest.mark.parametrize("objective", ["ce", "dlr"])
def test_returns_the_best_that_it_met(make_tagger, make_jets, monkeypatch, objective) -> None:
    tagger, (inputs, target) = make_tagger(sharp=20, dtype=torch.float64), make_jets(200, dtype=torch.float64)
    met, gradient = [], attacks.apgd.input_gradient

    def record(*args, **kwargs):
        found = gradient(*args, **kwargs)
        met.append(found[1])
        return found

    monkeypatch.setattr(attacks.apgd, "input_gradient", record)
    found = APGD(Budget(epsilon=1.0, capped=False), steps=25, restarts=2, objective=objective)(tagger, inputs, target)
    reached = objective_of(tagger, found, target, {"ce": cross_entropies, "dlr": dlr}[objective])
    assert len(met) == 2 * 26
    torch.testing.assert_close(reached, torch.stack(met).amax(0), rtol=0, atol=0)
    assert (reached > met[-1]).any()  # the last is not always the best


@pytest.mark.parametrize("objective", ["ce", "dlr", "dlr-targeted"])
def test_restarts_are_never_weaker(make_tagger, make_jets, objective) -> None:
    tagger, (inputs, target) = make_tagger(sharp=40, dtype=torch.float64), make_jets(200, dtype=torch.float64)
    budget, kind = Budget(epsilon=1.0, capped=False), {"ce": cross_entropies, "dlr": dlr}.get(objective)

    def reached(restarts: int) -> torch.Tensor:
        found = APGD(budget, steps=5, restarts=restarts, objective=objective)(tagger, inputs, target)
        if kind is not None:
            return objective_of(tagger, found, target, kind)
        towards = [lambda z, y, k=k: targeted_dlr(z, y, (y + k) % 4) for k in (1, 2, 3)]
        return torch.stack([objective_of(tagger, found, target, objective) for objective in towards]).amax(0)

    once, more = reached(1), reached(3)
    assert (more >= once).all()
    assert (more > once).double().mean() > 0.2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [5, 10, 40])
def test_at_least_as_strong_as_pgd(make_tagger, make_jets, seed, steps) -> None:
    tagger = make_tagger(seed=seed, sharp=40, dtype=torch.float64)
    inputs, target = make_jets(300, seed=seed, dtype=torch.float64)
    budget = Budget(epsilon=1.0, capped=False)
    apgd, pgd = (
        float(objective_of(tagger, attack(tagger, inputs, target), target).mean())
        for attack in (APGD(budget, steps=steps), PGD(budget, steps=steps))
    )
    assert apgd > pgd


@pytest.mark.parametrize("epsilon", [0.1, 0.4])
@pytest.mark.parametrize("objective", ["ce", "dlr"])
def test_as_strong_as_torchattacks(make_tagger, epsilon, objective) -> None:
    """It draws other starts and rounds its checkpoints down."""
    torchattacks = pytest.importorskip("torchattacks")
    tagger, inputs, target = unit_box(make_tagger, torch.float32)
    kind = {"ce": cross_entropies, "dlr": dlr}[objective]
    ours = APGD(Budget(epsilon=epsilon), steps=30, objective=objective)(tagger, inputs, target)
    found = float(objective_of(tagger, ours, target, kind).mean())
    with torch.random.fork_rng():
        theirs = torchattacks.APGD(Unmasked(tagger), eps=epsilon, steps=30, loss=objective)
        reached, values = theirs.perturb(inputs.values[:, :, None, None], target, best_loss=True)
    check = objective_of(tagger, inputs.moved(values.flatten(1)), target, kind)
    torch.testing.assert_close(check, reached, rtol=1e-4, atol=1e-4)
    clean = float(objective_of(tagger, inputs, target, kind).mean())
    assert found - clean == pytest.approx(float(reached.mean()) - clean, rel=0.01)


def test_dlr_does_not_see_the_scale_of_the_logits(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(dtype=torch.float64), make_jets(200, dtype=torch.float64)
    budget = Budget(epsilon=0.5)
    attacks = [APGD(budget, steps=10, objective=objective) for objective in ("dlr", "dlr-targeted", "ce")]
    before = [attack(tagger, inputs, target).values for attack in attacks]
    with torch.no_grad():
        tagger.network.layers[-1].weight *= 1024
        tagger.network.layers[-1].bias *= 1024
    after = [attack(tagger, inputs, target).values for attack in attacks]
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


def test_dlr_attacks_taggers_that_are_merely_sure(make_tagger, make_jets) -> None:
    """With such logits float32 has no slope of the cross entropy left in most jets."""
    tagger, (inputs, _) = make_tagger(sharp=1e5), make_jets(300)
    with torch.no_grad():
        tagger.network.layers[-1].bias -= tagger(inputs.values, inputs.present).mean(0)  # so that all classes occur
        target = tagger(inputs.values, inputs.present).argmax(1)
    budget = Budget(epsilon=0.5, capped=False)
    wrong = {}
    for objective in ("ce", "dlr", "dlr-targeted"):
        found = APGD(budget, steps=10, objective=objective)(tagger, inputs, target)
        wrong[objective] = float((objective_of(tagger, found, target, margins) > 0).double().mean())
    assert wrong["dlr"] > wrong["ce"] + 0.2
    assert wrong["dlr-targeted"] > wrong["ce"] + 0.2


@pytest.mark.parametrize("objective", ["ce", "dlr-targeted"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_jet_does_not_know_its_batch(make_tagger, make_jets, objective, size) -> None:
    tagger = make_tagger(features=COUPLED, sharp=10, dtype=torch.float64)
    inputs, target = make_jets(60, COUPLED, dtype=torch.float64)
    attack = APGD(Budget(epsilon=0.5), steps=8, objective=objective)
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(60, generator=torch.Generator().manual_seed(size))
    parts = torch.cat([attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)])
    # the last bit of a matrix product depends on the number of its rows, and can decide which of two points that are
    # as good is kept, or whether one of them counts as a rise
    same = torch.isclose(parts, whole[order], rtol=1e-11, atol=1e-11).all(1)
    assert same.double().mean() > 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stays_inside(make_tagger, make_jets, dtype) -> None:
    tagger = make_tagger(features=COUPLED, sharp=10, dtype=dtype)
    inputs, target = make_jets(200, COUPLED, dtype=dtype)
    budget = Budget(epsilon=0.5)
    found = APGD(budget, steps=10)(tagger, inputs, target).values
    interval = budget.interval(tagger, inputs)
    assert found.dtype == dtype
    assert ((interval.low <= found) & (found <= interval.high)).all()
    assert_coupled(COUPLED, inputs, found)


def test_too_few_classes(make_tagger, make_jets) -> None:
    tagger, (inputs, target) = make_tagger(classes=("b", "c", "udsg")), make_jets(10, classes=3)
    APGD(Budget(epsilon=0.1), steps=2, objective="dlr")(tagger, inputs, target)
    with pytest.raises(AdvtagError, match="'dlr-targeted' needs 4 classes; the tagger has b, c, udsg"):
        APGD(Budget(epsilon=0.1), steps=2, objective="dlr-targeted")(tagger, inputs, target)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"steps": 0}, "steps is 0"), ({"restarts": 0}, "restarts is 0"), ({"objective": "cw"}, "objective is 'cw'")],
)
def test_wrong_parameters(parameters, named) -> None:
    with pytest.raises(AdvtagError, match=f"{named}; expected"):
        APGD(Budget(epsilon=0.1), **parameters)


def test_repr() -> None:
    assert repr(APGD(Budget(epsilon=0.1))).endswith("seed=0, steps=100, restarts=1, objective='ce')")
