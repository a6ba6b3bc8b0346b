"""Projected gradient descent against a loop over jets, against three other libraries, and by its own properties."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn.functional import cross_entropy

from attacks.budget import Budget, Interval
from attacks.fgsm import FGSM
from attacks.pgd import PGD
from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import normal, reseed, uniform
from tests.attacks.conftest import COUPLED, INF, KINDS, card

UNIT_BOX = [((0.0, 1.0), None, False)] * 12
FREE = [((-INF, INF), None, False)] * 6


class Unmasked(nn.Module):
    """A tagger as other attack libraries see one: one tensor in, images if need be, every entry present."""

    def __init__(self, tagger, present=None) -> None:
        super().__init__()
        self.tagger = tagger
        self.present = present

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = values.flatten(1)
        return self.tagger(values, torch.ones_like(values, dtype=torch.bool) if self.present is None else self.present)


def slow_followed(features, inputs: Inputs, jet: int) -> dict[int, tuple[int, float, float]]:
    """By input: the input that it follows in this jet, and the two clean values whose quotient stays."""
    followed, x = {}, inputs.values[jet].tolist()
    for k, feature in enumerate(features.inputs):
        for name in [*feature.same_as, feature.proportional_to]:
            other = features.names.index(name) if name else None
            if k in followed or other is None or not (inputs.present[jet, k] and inputs.present[jet, other]):
                continue
            if feature.same_as and x[other] == x[k]:
                followed[k] = (other, 1.0, 1.0)
            elif feature.proportional_to and x[other] != 0:
                followed[k] = (other, x[k], x[other])
    return followed


def assert_coupled(features, inputs: Inputs, found: torch.Tensor) -> None:
    for jet in range(len(inputs)):
        for k, (source, own, base) in slow_followed(features, inputs, jet).items():
            assert float(found[jet, k]) == pytest.approx(own * float(found[jet, source]) / base, rel=1e-5)


def slow_cross_entropy(logits: torch.Tensor, y: int) -> torch.Tensor:
    return logits.exp().sum().log() - logits[y]


def slow_gradient(tagger, inputs, target, jet: int, row, objective=slow_cross_entropy):
    """Gradient of one jet's objective, one backward() per jet through its followers, and the objective."""
    x = torch.tensor(row, dtype=torch.float64, requires_grad=True)
    entries = list(x)
    for k, (source, own, base) in slow_followed(tagger.features, inputs, jet).items():
        entries[k] = own * (x[source] / base)
    z = [
        (entry - tagger.mean[k]) / tagger.std[k] if inputs.present[jet, k] else tagger.absent_at[k]
        for k, entry in enumerate(entries)
    ]
    loss = objective(tagger.network(torch.stack(z)[None], inputs.present[jet][None])[0], int(target[jet]))
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient.tolist(), float(loss.detach())


def slow_free(features, inputs: Inputs, interval: Interval, jet: int) -> list[bool]:
    """Entries that move by themselves."""
    followed = slow_followed(features, inputs, jet)
    low, high = interval.low[jet].tolist(), interval.high[jet].tolist()
    return [low[k] < high[k] and k not in followed for k in range(len(features))]


def slow_project(features, inputs: Inputs, interval: Interval, jet: int, row) -> list[float]:
    """Each entry into its interval; followers then go where the followed entry went."""
    low, high = interval.low[jet].tolist(), interval.high[jet].tolist()
    row = [min(max(x, low[k]), high[k]) for k, x in enumerate(row)]
    followed = list(row)
    for k, (source, own, base) in slow_followed(features, inputs, jet).items():
        followed[k] = own * (row[source] / base)
    return followed


def slow_start(tagger, inputs: Inputs, interval: Interval, jet: int, attack: PGD, restart: int) -> list[float]:
    key = reseed(reseed(inputs.key[jet : jet + 1], attack.seed), restart)
    row, n = inputs.values[jet].tolist(), inputs.values.shape[1]
    if attack.norm == "linf":
        low, high, u = interval.low[jet].tolist(), interval.high[jet].tolist(), uniform(key, n, 0)[0].tolist()
        row = [low[k] + u[k] * (high[k] - low[k]) for k in range(n)]
    else:
        free, z = slow_free(tagger.features, inputs, interval, jet), normal(key, n, 1)[0].tolist()
        length = math.sqrt(sum(z[k] ** 2 for k in range(n) if free[k])) or 1.0
        radius = attack.budget.epsilon * float(uniform(key, 1, 0)) ** (1 / max(sum(free), 1))
        unit = attack.budget.unit(tagger).tolist()
        row = [x + radius * unit[k] * z[k] / length * free[k] for k, x in enumerate(row)]
    return slow_project(tagger.features, inputs, interval, jet, row)


def slow_pgd(tagger, inputs: Inputs, target, attack: PGD) -> torch.Tensor:
    """One jet, one restart, one step, one feature at a time."""
    interval, epsilon = attack.budget.interval(tagger, inputs), attack.budget.epsilon
    features = tagger.features
    unit = [float(s) for s in attack.budget.unit(tagger)]
    stride = 2.5 / attack.steps if attack.step_size is None else attack.step_size
    found = []
    for jet in range(len(inputs)):
        clean, free, best = inputs.values[jet].tolist(), slow_free(features, inputs, interval, jet), (-INF, [])
        for restart in range(attack.restarts):
            row = clean
            if attack.random_start:
                row = slow_start(tagger, inputs, interval, jet, attack, restart)
            for _ in range(attack.steps):
                gradient, _ = slow_gradient(tagger, inputs, target, jet, row)
                g = [gradient[k] * unit[k] if free[k] else 0.0 for k in range(len(row))]
                if attack.norm == "linf":
                    g = [math.copysign(1, slope) if slope else 0.0 for slope in g]
                    row = [x + stride * epsilon * unit[k] * g[k] for k, x in enumerate(row)]
                else:
                    length = math.sqrt(sum(slope**2 for slope in g)) or 1.0
                    row = [x + stride * epsilon * unit[k] * g[k] / length for k, x in enumerate(row)]
                    u = [(x - clean[k]) / unit[k] if free[k] else 0.0 for k, x in enumerate(row)]
                    shrink = max(math.sqrt(sum(move**2 for move in u)) / epsilon, 1.0)
                    row = [clean[k] + (x - clean[k]) / shrink for k, x in enumerate(row)]
                row = slow_project(features, inputs, interval, jet, row)
            _, loss = slow_gradient(tagger, inputs, target, jet, row)
            best = max(best, (loss, row), key=lambda pair: pair[0])
        found.append(best[1])
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("features", [card(KINDS), COUPLED])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"steps": 5, "random_start": False},
        {"steps": 3, "step_size": 0.7, "seed": 4},
        {"steps": 2, "restarts": 3},
        {"steps": 4, "capped": False},
        {"steps": 4, "epsilon": 3.0, "scale": "core"},
    ],
)
def test_against_slow_reference(make_tagger, make_jets, features, norm, parameters) -> None:
    core = [0.5, 0.0, 2.0, 1.0, 0.125, 3.0, 0.25, 0.0, 1.0, 0.5][: len(features)]
    tagger = make_tagger(features=features, scales={"core": core}, sharp=4, dtype=torch.float64)
    inputs, target = make_jets(40, features, dtype=torch.float64)
    own = {key: parameters[key] for key in parameters if key not in ("epsilon", "scale", "capped")}
    budget = {"epsilon": 0.3, **{key: parameters[key] for key in parameters if key not in own}}
    attack = PGD(Budget(**budget), norm=norm, **own)
    found = attack(tagger, inputs, target).values
    torch.testing.assert_close(found, slow_pgd(tagger, inputs, target, attack), rtol=1e-6, atol=1e-7)
    assert (found != inputs.values).float().mean() > 0.25


@pytest.fixture(scope="module")
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("foolbox")


@pytest.fixture(scope="module")
def art():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evasion = pytest.importorskip("art.attacks.evasion")
        classification = pytest.importorskip("art.estimators.classification")

    def attack(model, values, target, present=None, **parameters):
        clip, shape = parameters.pop("clip", None), values.shape[1:]
        classifier = classification.PyTorchClassifier(
            model, nn.CrossEntropyLoss(), shape, 4, clip_values=clip, device_type="cpu"
        )
        pgd = evasion.ProjectedGradientDescent(classifier, batch_size=len(values), verbose=False, **parameters)
        mask = {} if present is None else {"mask": present.numpy().astype(np.float32)}
        return torch.from_numpy(pgd.generate(values.numpy(), target.numpy(), **mask))

    return attack


def unit_box(make_tagger, dtype=torch.float64, low: float = 0.0, high: float = 1.0):
    """Inputs in the unit box without caps, masks and widths, which is all that the libraries know."""
    tagger = make_tagger(UNIT_BOX, mean=[0.0] * 12, std=[1.0] * 12, sharp=20, dtype=dtype)
    generator = torch.Generator().manual_seed(4)
    values = low + (high - low) * torch.rand((300, 12), generator=generator, dtype=torch.float64)
    if (low, high) == (0.0, 1.0):
        values[:20] = values[:20].round()  # on the walls of the box
    target = torch.randint(0, 4, (300,), generator=generator)
    return tagger, Inputs(values.to(dtype), torch.ones((300, 12), dtype=torch.bool), torch.arange(300)), target


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.4])
@pytest.mark.parametrize(("steps", "step_size"), [(10, 0.25), (4, 0.8)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_torchattacks(make_tagger, epsilon, steps, step_size, norm) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    tagger, inputs, target = unit_box(make_tagger)
    ours = PGD(Budget(epsilon=epsilon), steps=steps, step_size=step_size, norm=norm, random_start=False)
    found = ours(tagger, inputs, target).values
    settings = {"eps": epsilon, "alpha": step_size * epsilon, "steps": steps, "random_start": False}
    if norm == "linf":
        theirs = torchattacks.PGD(Unmasked(tagger), **settings)
    else:  # its loss is averaged over the batch, and would be small next to the default
        theirs = torchattacks.PGDL2(Unmasked(tagger), eps_for_division=1e-30, **settings)
    expected = theirs(inputs.values[:, :, None, None], target).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found != inputs.values).double().mean() > 0.8


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("epsilon", [0.05, 0.4])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_foolbox(make_tagger, foolbox, epsilon, norm, random_start) -> None:
    tagger, inputs, target = unit_box(make_tagger)
    attack = PGD(Budget(epsilon=epsilon), steps=7, step_size=0.3, norm=norm, random_start=random_start, seed=3)
    interval = attack.budget.interval(tagger, inputs)
    start = [slow_start(tagger, inputs, interval, jet, attack, 0) for jet in range(len(inputs))]
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD

    class SameStart(kind):
        def get_random_start(self, x0, epsilon):
            return type(x0)(torch.tensor(start, dtype=torch.float64))

    found = attack(tagger, inputs, target).values
    theirs = SameStart(abs_stepsize=0.3 * epsilon, steps=7, random_start=random_start)
    model = foolbox.PyTorchModel(Unmasked(tagger).eval(), bounds=(0, 1))
    expected = theirs.run(model, inputs.values, foolbox.criteria.Misclassification(target), epsilon=epsilon)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_art(make_tagger, art, norm) -> None:
    """For the ball inside the box: where the two meet, ART first cuts by the box and then by the ball."""
    walls = (0.0, 1.0) if norm == "linf" else (0.3, 0.7)
    tagger, inputs, target = unit_box(make_tagger, torch.float32, *walls)
    ours = PGD(Budget(epsilon=0.2), steps=6, step_size=0.4, norm=norm, random_start=False)
    expected = art(
        Unmasked(tagger),
        inputs.values,
        target,
        norm="inf" if norm == "linf" else 2,
        eps=0.2,
        eps_step=0.08,
        max_iter=6,
        clip=(0.0, 1.0),
    )
    torch.testing.assert_close(ours(tagger, inputs, target).values, expected, rtol=0, atol=1e-6)


def test_art_with_masks_and_widths(make_tagger, make_jets, art) -> None:
    """ART takes an epsilon per feature and a mask per entry: absent and integer entries."""
    tagger = make_tagger([*FREE, ((-INF, INF), None, True)], sharp=10)
    inputs, target = make_jets(200, 7)
    found = PGD(Budget(epsilon=0.3), steps=6, step_size=0.4, random_start=False)(tagger, inputs, target).values
    mask = inputs.present & ~torch.from_numpy(tagger.features.integer)
    reach = 0.3 * tagger.std.numpy()
    model = Unmasked(tagger, inputs.present)
    expected = art(model, inputs.values, target, mask, norm="inf", eps=reach, eps_step=0.4 * reach, max_iter=6)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert ((found != inputs.values) == mask).double().mean() > 0.95


@pytest.mark.parametrize("features", [card(KINDS), COUPLED])
def test_one_full_step_is_fgsm(make_tagger, make_jets, features) -> None:
    tagger, (inputs, target) = make_tagger(features=features), make_jets(200, features)
    pgd = PGD(Budget(epsilon=0.2), steps=1, step_size=1.0, random_start=False)
    fgsm = FGSM(Budget(epsilon=0.2))(tagger, inputs, target)
    torch.testing.assert_close(pgd(tagger, inputs, target).values, fgsm.values, rtol=1e-7, atol=1e-7)


@torch.no_grad()
def losses_of(tagger, inputs: Inputs, target) -> torch.Tensor:
    return cross_entropy(tagger(inputs.values, inputs.present), target, reduction="none")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_are_never_weaker(make_tagger, make_jets, norm) -> None:
    tagger, (inputs, target) = make_tagger(sharp=40, dtype=torch.float64), make_jets(300, dtype=torch.float64)
    losses = [
        losses_of(tagger, PGD(Budget(epsilon=0.7), steps=4, restarts=n, norm=norm)(tagger, inputs, target), target)
        for n in (1, 2, 6)
    ]
    assert (losses[1] >= losses[0]).all()
    assert (losses[2] >= losses[1]).all()
    assert (losses[2] > losses[0]).double().mean() > 0.3


@pytest.mark.parametrize("seed", range(3))
def test_stronger_than_fgsm_on_a_curved_loss(make_tagger, make_jets, seed) -> None:
    tagger = make_tagger(seed=seed, sharp=40, dtype=torch.float64)
    inputs, target = make_jets(300, seed=seed, dtype=torch.float64)
    budget = Budget(epsilon=1.0, capped=False)
    pgd, fgsm = (losses_of(tagger, a(tagger, inputs, target), target).mean() for a in (PGD(budget), FGSM(budget)))
    assert pgd > 1.003 * fgsm


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_wasted_passes(make_tagger, make_jets, monkeypatch, restarts, norm) -> None:
    tagger, (inputs, target) = make_tagger(), make_jets(20)
    forwards, backwards, intervals = [], [], []
    tagger.network.layers[0].register_forward_pre_hook(lambda *_: forwards.append(1))
    grad, interval = torch.autograd.grad, Budget.interval
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: (backwards.append(1), grad(*args))[1])
    monkeypatch.setattr(Budget, "interval", lambda *args: (intervals.append(1), interval(*args))[1])
    PGD(Budget(epsilon=0.1), steps=7, restarts=restarts, norm=norm)(tagger, inputs, target)
    assert len(backwards) == 7 * restarts
    assert len(forwards) == 7 * restarts + (restarts if restarts > 1 else 0)
    assert len(intervals) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [card(KINDS), COUPLED])
def test_ball(make_tagger, make_jets, features, dtype) -> None:
    """The move of the entries that move by themselves is at most epsilon long; a unit of 0 freezes, without NaN."""
    core = [0.5, 0.0, 2.0, 1.0, 0.125, 3.0, 0.25, 0.0, 1.0, 0.5][: len(features)]
    tagger = make_tagger(features=features, scales={"core": core}, sharp=10, dtype=dtype)
    inputs, target = make_jets(300, features, dtype=dtype)
    budget = Budget(epsilon=0.4, scale="core")
    found = PGD(budget, norm="l2", step_size=0.5)(tagger, inputs, target).values
    interval = budget.interval(tagger, inputs)
    moves = torch.where(interval.free, (found - inputs.values) / budget.unit(tagger), 0).double()
    lengths = torch.linalg.vector_norm(moves, dim=1)
    assert lengths.max() < 0.4 * (1 + 1e-5)
    assert (lengths > 0.39).double().mean() > 0.1
    assert torch.isfinite(found).all()
    assert ((interval.low <= found) & (found <= interval.high)).all()
    assert torch.equal(found[:, 1], inputs.values[:, 1])
    assert_coupled(features, inputs, found)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_slope_stays_at_the_start(make_tagger, make_jets, norm) -> None:
    tagger, (inputs, target) = make_tagger(sharp=0), make_jets(50)
    stay = PGD(Budget(epsilon=0.3), norm=norm, random_start=False)
    torch.testing.assert_close(stay(tagger, inputs, target).values, inputs.values, rtol=0, atol=0)
    start = PGD(Budget(epsilon=0.3), norm=norm)
    moved = start(tagger, inputs, target).values
    assert torch.isfinite(moved).all()
    assert (moved != inputs.values).any()


def test_starts_are_uniform(make_tagger, make_jets) -> None:
    """In the intervals, and in the ball: there the n-th power of the length is uniform, and no direction is special."""
    flat = make_tagger(FREE, sharp=0, dtype=torch.float64)
    inputs, target = make_jets(5000, 6, dtype=torch.float64)
    inputs = Inputs(inputs.values, torch.ones_like(inputs.present), inputs.key)

    def starts(**parameters) -> torch.Tensor:
        found = PGD(Budget(epsilon=0.1), steps=1, **parameters)(flat, inputs, target).values
        return (found - inputs.values) / (0.1 * flat.std)

    box, ball = starts(), starts(norm="l2")
    assert kstest(box.flatten().numpy(), "uniform", (-1, 2)).pvalue > 1e-3
    lengths = torch.linalg.vector_norm(ball, dim=1)
    assert kstest((lengths**6).numpy(), "uniform").pvalue > 1e-3
    assert float(box.T.corrcoef().fill_diagonal_(0).abs().max()) < 5 / math.sqrt(5000)
    # E[u_j^2] = 1/(n + 2) in a ball of n dimensions
    torch.testing.assert_close((ball**2).mean(0), torch.full((6,), 1 / 8).double(), rtol=0.1, atol=0)
    assert float(ball.mean(0).abs().max()) < 5 * math.sqrt(1 / 8 / 5000)
    assert not torch.equal(starts(seed=1), box)
    assert not torch.equal(starts(restarts=2), ball)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_jet_does_not_know_its_batch(make_tagger, make_jets, norm, size) -> None:
    tagger = make_tagger(features=COUPLED, sharp=10, dtype=torch.float64)
    inputs, target = make_jets(80, COUPLED, dtype=torch.float64)
    attack = PGD(Budget(epsilon=0.3), steps=5, restarts=2, norm=norm)
    whole = attack(tagger, inputs, target).values
    order = torch.randperm(80, generator=torch.Generator().manual_seed(size))
    parts = torch.cat([attack(tagger, inputs[jets], target[jets]).values for jets in order.split(size)])
    # the last bit of a matrix product depends on the number of its rows: it is seen where steps are not signs, and
    # where two restarts reach the same corner
    torch.testing.assert_close(parts, whole[order], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"step_size": math.nan}, "step_size is nan"),
        ({"step_size": INF}, "step_size is inf"),
        ({"restarts": 0}, "restarts is 0"),
        ({"restarts": 2, "random_start": False}, "restarts is 2"),
        ({"norm": "l1"}, "norm is 'l1'"),
    ],
)
def test_wrong_parameters(parameters, named) -> None:
    with pytest.raises(AdvtagError, match=f"{named}; expected"):
        PGD(Budget(epsilon=0.1), **parameters)


def test_repr_and_bounds() -> None:
    attack = PGD(Budget(epsilon=0.1), steps=3)
    assert repr(attack).endswith("seed=0, steps=3, step_size=None, restarts=1, random_start=True, norm='linf')")
    with pytest.raises(AdvtagError, match="PGD needs a finite epsilon"):
        PGD(Budget(epsilon=INF))
