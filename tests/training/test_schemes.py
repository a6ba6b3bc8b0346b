"""Steps of every scheme against the same steps written out, and what must not leak into them."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from attacks import FGSM, NGM, PGD, PIPPGD, Attack, Budget, GaussianNoise
from attacks.attack import Attack as AttackBase
from common.errors import AdvtagError
from configs.training import Training
from models.inputs import Inputs
from models.keys import reseed, uniform
from models.tagger import Tagger
from tests.attacks.conftest import COUPLED, KINDS, card, obey
from tests.attacks.test_pgd import slow_followed, slow_project, slow_start
from training.batches import Batch
from training.losses import Loss, divergence, weighted_mean
from training.schemes import DivergencePGD, Free, Nominal, Replace, Scheme, Trades, build_scheme, of_epoch

CLASSES = ("b", "bb", "c", "udsg")
TOY = card(KINDS)
SMALL = Budget(epsilon=0.1)


def make_tagger(features=TOY, *, dropout: float = 0.1, dtype=torch.float32, seed: int = 0) -> Tagger:
    """In training mode; not so sure of itself that losses vanish, and not so unsure that nothing depends on inputs."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n = len(features)
    mean, std = torch.from_numpy(rng.normal(size=n)), torch.from_numpy(rng.uniform(0.5, 2, n))
    parameters = {"width": 20, "hidden": 2, "dropout": dropout}
    tagger = Tagger(features, CLASSES, mean, std, parameters=parameters, scales={"core": 0.5 * std})
    with torch.no_grad():
        tagger.network.layers[-1].weight *= 5
    return tagger.train().to(dtype)


def make_batch(number: int = 60, features=TOY, *, dtype=torch.float32, seed: int = 0) -> Batch:
    """Jets with absent entries, of which a fifth weigh less than nothing, and one nothing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (number, len(features)))
    obey(features, values, rng)
    present = torch.from_numpy(rng.random(values.shape) < 0.8)
    key = torch.from_numpy(rng.integers(0, 2**62, number))
    weight = rng.uniform(0.2, 3, number) * np.where(rng.random(number) < 0.2, -1, 1)
    weight[0] = 0
    inputs = Inputs(torch.where(present, torch.from_numpy(values), 0).to(dtype), present, key)
    return Batch(inputs, torch.from_numpy(rng.integers(0, 4, number)), torch.from_numpy(weight).to(dtype))


class Steps:
    """What the loop gives a scheme: plain gradient descent, and a record of it."""

    def __init__(self, tagger: Tagger, rate: float = 0.1, *, forgetful: bool = False) -> None:
        self.tagger, self.rate, self.forgetful = tagger, rate, forgetful
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.losses: list[torch.Tensor] = []

    def __call__(self, loss: torch.Tensor) -> None:
        assert self.tagger.training
        if not self.forgetful:  # as the published loop, which does it before the attack
            self.tagger.zero_grad()
        loss.backward()
        self.losses.append(loss.detach().clone())
        self.gradients.append({name: p.grad.clone() for name, p in self.tagger.named_parameters()})
        with torch.no_grad():
            for p in self.tagger.parameters():
                p -= self.rate * p.grad


class Watched(AttackBase):
    """An attack, and the jets that it was given and made."""

    def __init__(self, attack: Attack) -> None:
        super().__init__(attack.budget, seed=attack.seed)
        self.attack = attack
        self.seen: list[tuple[Inputs, Inputs]] = []

    def __call__(self, tagger, inputs, target) -> Inputs:
        found = self.attack(tagger, inputs, target)
        self.seen.append((inputs, found))
        return found

    def perturb(self, *_) -> torch.Tensor:
        raise NotImplementedError


def by_hand(tagger: Tagger, loss_of) -> dict[str, torch.Tensor]:
    """Gradient of a loss in the weights of a copy."""
    other = copy.deepcopy(tagger)
    names, parameters = zip(*other.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss_of(other), parameters), strict=True))


def slow_mean(losses: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return sum(loss * w for loss, w in zip(losses, weight, strict=True)) / sum(abs(float(w)) for w in weight)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **tolerance) -> None:
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, **tolerance)


EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
ATTACKS = {
    "fgsm": FGSM(SMALL),
    "ngm": NGM(Budget(epsilon=0.3, scale="core")),
    "noise": GaussianNoise(SMALL, seed=3),
    "pgd": PGD(SMALL, steps=3),
    "pip-pgd": PIPPGD(SMALL, steps=2),
}
SCHEMES: dict[str, Scheme] = {
    "nominal": Nominal(Loss()),
    "replace": Replace(Loss(), FGSM(SMALL)),
    "focal": Replace(Loss(2.0), PGD(SMALL, steps=2)),
    "published": Replace(Loss(25.0, True), FGSM(SMALL)),
    "alternate": Replace(Loss(), NGM(SMALL), every=2),
    "kl": Replace(Loss(), NGM(SMALL), every=3, kl=1.0),
    "pip": Replace(Loss(), PIPPGD(SMALL)),
    "free": Free(Loss(), FGSM(SMALL), replays=3),
    "trades": Trades(Loss(), PGD(SMALL, steps=2)),
}


@pytest.fixture(params=SCHEMES)
def scheme(request) -> Scheme:
    return SCHEMES[request.param]


@pytest.mark.parametrize("forgetful", [False, True])
def test_nominal_step(forgetful) -> None:
    tagger, batch = make_tagger(dropout=0.0, dtype=torch.float64), make_batch(dtype=torch.float64)

    def loss_of(other: Tagger) -> torch.Tensor:
        logits = other(batch.inputs.values, batch.inputs.present)
        return slow_mean(cross_entropy(logits, batch.target, reduction="none"), batch.weight)

    expected, expected_loss = by_hand(tagger, loss_of), loss_of(tagger).detach()
    tagger.zero_grad()
    steps = Steps(tagger, forgetful=forgetful)
    loss = Nominal(Loss())(tagger, batch, 0, 0, steps)
    assert len(steps.losses) == 1
    assert_same(steps.gradients[0], expected, **CLOSE)
    torch.testing.assert_close(loss, expected_loss, **CLOSE)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("forgetful", [False, True])
def test_replaced_batch_steps_on_its_attacked_jets_alone(name, forgetful) -> None:
    """The gradient is that at the attacked jets, bit by bit, dropout included. `forgetful`: an optimiser loop that sets
    gradients to zero before the attack, as the published one; what the attack leaves there would be counted.
    """
    tagger, batch, attack = make_tagger(), make_batch(), ATTACKS[name]
    alone = copy.deepcopy(tagger).eval().requires_grad_(False)
    inputs = replace(batch.inputs, key=reseed(batch.inputs.key, 4))
    attacked = attack(alone, inputs, batch.target)
    assert not torch.equal(attacked.values, batch.inputs.values)

    def at(jets: Inputs):
        def loss_of(other: Tagger) -> torch.Tensor:
            torch.manual_seed(8)
            losses = cross_entropy(other(jets.values, jets.present), batch.target, reduction="none")
            return weighted_mean(losses, batch.weight)

        return loss_of

    expected, clean = by_hand(tagger, at(attacked)), by_hand(tagger, at(inputs))
    tagger.zero_grad()
    steps = Steps(tagger, forgetful=forgetful)
    torch.manual_seed(8)
    Replace(Loss(), attack)(tagger, batch, 4, 17, steps)
    assert_same(steps.gradients[0], expected, **EXACT)
    for key, gradient in expected.items():
        assert not torch.equal(gradient, clean[key])


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_nth_batch_is_attacked_from_the_first(every) -> None:
    tagger, batch = make_tagger(dropout=0.0), make_batch()
    attack = Watched(FGSM(SMALL))
    scheme, nominal = Replace(Loss(), attack, every=every), Nominal(Loss())
    attacked = []
    for step in range(7):
        before, steps, plain = len(attack.seen), Steps(tagger, 0.0), Steps(tagger, 0.0)
        scheme(tagger, batch, 1, step, steps)
        nominal(tagger, batch, 1, step, plain)
        if len(attack.seen) > before:
            attacked.append(step)
        else:
            assert_same(steps.gradients[0], plain.gradients[0], **EXACT)
    assert attacked == [step for step in range(7) if step / every == step // every]


def slow_kl(clean: list[float], attacked: list[float]) -> float:
    p, q = ([math.exp(x) / sum(map(math.exp, z)) for x in z] for z in (clean, attacked))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_kl_is_added_on_attacked_batches_only() -> None:
    """CE(attacked) + 0.7 KL(clean || attacked), weighted jet by jet; clean batches have none."""
    tagger, batch = make_tagger(dropout=0.0, dtype=torch.float64), make_batch(dtype=torch.float64)
    attack = NGM(Budget(epsilon=2.0))
    attacked = attack(tagger, of_epoch(batch.inputs, 2), batch.target)
    both = [tagger(jets.values, batch.inputs.present).tolist() for jets in (batch.inputs, attacked)]
    jets = zip(*both, batch.target.tolist(), batch.weight.tolist(), strict=True)
    total = norm = 0.0
    for clean, moved, y, w in jets:
        loss = math.log(sum(map(math.exp, moved))) - moved[y]
        total, norm = total + w * (loss + 0.7 * slow_kl(clean, moved)), norm + abs(w)

    def loss_of(other: Tagger) -> torch.Tensor:
        clean, moved = (other(jets.values, jets.present) for jets in (batch.inputs, attacked))
        p, q = clean.softmax(1), moved.softmax(1)
        kl = (p * (p / q).log()).sum(1)
        return slow_mean(cross_entropy(moved, batch.target, reduction="none") + 0.7 * kl, batch.weight)

    expected = by_hand(tagger, loss_of)
    steps = Steps(tagger, 0.0)
    scheme = Replace(Loss(), attack, every=2, kl=0.7)
    assert float(scheme(tagger, batch, 2, 0, steps)) == pytest.approx(total / norm, rel=1e-9)
    assert_same(steps.gradients[0], expected, rtol=1e-7, atol=1e-10)
    clean_loss = Nominal(Loss())(tagger, batch, 2, 1, Steps(tagger, 0.0))
    assert torch.equal(scheme(tagger, batch, 2, 1, Steps(tagger, 0.0)), clean_loss)


def test_random_numbers_are_functions_of_jet_and_epoch() -> None:
    tagger, batch = make_tagger(), make_batch()
    attack = Watched(GaussianNoise(SMALL))
    scheme = Replace(Loss(), attack)
    part = Batch(batch.inputs[20:50], batch.target[20:50], batch.weight[20:50])
    for jets, epoch, step in ((batch, 0, 0), (batch, 1, 0), (batch, 0, 5), (part, 0, 3)):
        scheme(tagger, jets, epoch, step, Steps(tagger, 0.0))
    first, other_epoch, again, in_part = (found.values for _, found in attack.seen)
    assert torch.equal(first, again)
    assert torch.equal(first[20:50], in_part)
    moves = [(values - batch.inputs.values).flatten() for values in (first, other_epoch)]
    assert abs(np.corrcoef(torch.stack(moves).numpy())[0, 1]) < 0.2
    assert all(torch.equal(found.present, given.present) for given, found in attack.seen)


class SlowFree:
    """Free adversarial training, one jet and one replay at a time, weights by plain gradient descent."""

    def __init__(self, tagger: Tagger, batch: Batch, attack: FGSM, epoch: int, replays: int, rate: float) -> None:
        self.tagger, self.batch, self.losses = copy.deepcopy(tagger), batch, []
        inputs = replace(batch.inputs, key=reseed(batch.inputs.key, epoch))
        interval, features = attack.interval(tagger, inputs), tagger.features
        keys = reseed(inputs.key, attack.seed)
        rows = [self.start(features, inputs, interval, jet, keys[jet : jet + 1]) for jet in range(len(inputs))]
        stride = attack.budget.step(tagger).tolist()
        for _ in range(replays):
            gradients, slopes, total = None, [], 0.0
            norm = sum(abs(float(w)) for w in batch.weight)
            for jet, row in enumerate(rows):
                loss, slope, of_weights = self.one(inputs, jet, row)
                slopes.append(slope)
                share = float(batch.weight[jet]) / norm
                total += share * loss
                parts = [share * g for g in of_weights]
                gradients = parts if gradients is None else [a + b for a, b in zip(gradients, parts, strict=True)]
            self.losses.append(total)
            with torch.no_grad():
                for p, gradient in zip(self.tagger.parameters(), gradients, strict=True):
                    p -= rate * gradient
            for jet, row in enumerate(rows):
                if batch.weight[jet] != 0:
                    row = [x + stride[k] * float(np.sign(slopes[jet][k])) for k, x in enumerate(row)]
                rows[jet] = slow_project(features, inputs, interval, jet, row)

    @staticmethod
    def start(features, inputs: Inputs, interval, jet: int, key: torch.Tensor) -> list[float]:
        u = uniform(key, len(features), 0)[0].tolist()
        low, high = interval.low[jet].tolist(), interval.high[jet].tolist()
        row = [low[k] + u[k] * (high[k] - low[k]) for k in range(len(features))]
        return slow_project(features, inputs, interval, jet, row)

    def one(self, inputs: Inputs, jet: int, row: list[float]):
        """Loss of one jet, its slope in the inputs through their followers, and in the weights."""
        x = torch.tensor(row, dtype=torch.float64, requires_grad=True)
        entries = list(x)
        for k, (source, own, base) in slow_followed(self.tagger.features, inputs, jet).items():
            entries[k] = own * (x[source] / base)
        logits = self.tagger(torch.stack(entries)[None], inputs.present[jet : jet + 1])
        loss = cross_entropy(logits, self.batch.target[jet : jet + 1])
        slope, *of_weights = torch.autograd.grad(loss, [x, *self.tagger.parameters()])
        return float(loss.detach()), slope.tolist(), of_weights


@pytest.mark.parametrize("features", [TOY, COUPLED], ids=["toy", "coupled"])
@pytest.mark.parametrize("replays", [1, 3])
def test_free_is_the_slow_loop(features, replays) -> None:
    """Weights after all replays; jets of negative weight are pushed up their own loss, like all others."""
    tagger = make_tagger(features, dropout=0.0, dtype=torch.float64)
    batch = make_batch(25, features, dtype=torch.float64)
    attack = FGSM(Budget(epsilon=0.5), seed=5)
    slow = SlowFree(tagger, batch, attack, 3, replays, rate=0.3)
    steps = Steps(tagger, 0.3)
    loss = Free(Loss(), attack, replays=replays)(tagger, batch, 3, 0, steps)
    assert len(steps.losses) == replays
    assert [float(x) for x in steps.losses] == pytest.approx(slow.losses, rel=1e-8)
    assert float(loss) == pytest.approx(sum(slow.losses) / replays, rel=1e-8)
    for found, expected in zip(tagger.parameters(), slow.tagger.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


def test_free_stays_in_the_budget_and_raises_the_loss() -> None:
    """Without steps of the weights, each replay is a step up."""
    tagger, batch = make_tagger(dropout=0.0), make_batch(400)
    seen = []
    hook = tagger.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    attack = FGSM(Budget(epsilon=0.2))
    steps = Steps(tagger, 0.0)
    batch = batch._replace(weight=batch.weight.abs())
    Free(Loss(), attack, replays=4)(tagger, batch, 0, 0, steps)
    hook.remove()
    interval = attack.interval(tagger, batch.inputs)
    assert len(seen) == 4
    for values in seen:
        assert (values >= interval.low).all()
        assert (values <= interval.high).all()
    losses = [float(x) for x in steps.losses]
    assert losses[1] > losses[0] * 1.01
    assert losses[3] > losses[0] * 1.01
    assert not torch.equal(seen[0], batch.inputs.values)


def test_free_keeps_nothing_between_batches() -> None:
    """A batch gives the same step whatever was trained on before it, so that a training can be resumed anywhere."""
    batches = [make_batch(seed=1), make_batch(seed=2)]
    scheme, found = Free(Loss(), FGSM(SMALL), replays=2), []
    for order in ((0, 1), (1,)):
        for number in order:
            tagger = make_tagger(dropout=0.0)
            steps = Steps(tagger)
            scheme(tagger, batches[number], 0, number, steps)
        found.append(steps.gradients[-1])
    assert_same(found[0], found[1], **EXACT)


def test_trades_step() -> None:
    """CE(clean) + beta KL(clean || attacked), both differentiated, at the jets that its own PGD finds."""
    tagger, batch = make_tagger(dropout=0.0, dtype=torch.float64), make_batch(dtype=torch.float64)
    attack = PGD(SMALL, steps=3, seed=2)
    climbing = DivergencePGD(SMALL, steps=3, seed=2)
    attacked = climbing(copy.deepcopy(tagger).eval(), of_epoch(batch.inputs, 1), batch.target)

    def loss_of(other: Tagger) -> torch.Tensor:
        clean, moved = (other(jets.values, jets.present) for jets in (batch.inputs, attacked))
        kl = torch.nn.KLDivLoss(reduction="none")(moved.log_softmax(1), clean.softmax(1)).sum(1)
        return slow_mean(cross_entropy(clean, batch.target, reduction="none") + 4 * kl, batch.weight)

    expected, expected_loss = by_hand(tagger, loss_of), float(loss_of(tagger).detach())
    tagger.zero_grad()
    steps = Steps(tagger, 0.0, forgetful=True)
    assert float(Trades(Loss(), attack, beta=4.0)(tagger, batch, 1, 0, steps)) == pytest.approx(expected_loss)
    assert_same(steps.gradients[0], expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_inner_maximisation_of_trades_raises_the_divergence(norm) -> None:
    """Above its own start, above the same steps up the cross entropy, and more with more restarts."""
    tagger, batch = make_tagger().eval(), make_batch(500)
    budget = Budget(epsilon=0.3, capped=False)
    with torch.no_grad():
        clean = tagger(batch.inputs.values, batch.inputs.present)

    def reached(kind: type[PGD], **parameters) -> torch.Tensor:
        attack = kind(budget, norm=norm, **parameters)
        found = attack(tagger, batch.inputs, batch.target)
        interval = attack.interval(tagger, batch.inputs)
        assert ((found.values >= interval.low) & (found.values <= interval.high)).all()
        with torch.no_grad():
            return divergence(tagger(found.values, found.present), clean)

    start = reached(DivergencePGD, steps=1, step_size=1e-6)
    few, many = reached(DivergencePGD, steps=2), reached(DivergencePGD, steps=10)
    assert many.mean() > 1.3 * start.mean()
    assert few.mean() > start.mean()
    assert (many > start).float().mean() > 0.9
    assert many.mean() > 1.05 * reached(PGD, steps=10).mean()
    assert (reached(DivergencePGD, steps=10, restarts=3) >= many * 0.9999).all()


def test_one_step_of_its_pgd_is_that_of_the_published_loss() -> None:
    """x + stride sign(d KLDivLoss(log q, p)/dx) from the random start, one jet at a time."""
    tagger, batch = make_tagger(dtype=torch.float64).eval(), make_batch(30, dtype=torch.float64)
    attack = DivergencePGD(SMALL, steps=1, step_size=0.4, seed=7)
    interval = attack.interval(tagger, batch.inputs)
    stride = 0.4 * attack.budget.step(tagger)
    found = attack(tagger, batch.inputs, batch.target)
    for jet in range(30):
        x0, present = batch.inputs.values[jet : jet + 1], batch.inputs.present[jet : jet + 1]
        row = slow_start(tagger, batch.inputs, interval, jet, attack, 0)
        x = torch.tensor([row], dtype=torch.float64, requires_grad=True)
        criterion = torch.nn.KLDivLoss(reduction="sum")
        loss = criterion(tagger(x, present).log_softmax(1), tagger(x0, present).softmax(1).detach())
        (slope,) = torch.autograd.grad(loss, x)
        expected = slow_project(TOY, batch.inputs, interval, jet, (x.detach() + stride * slope.sign())[0].tolist())
        assert found.values[jet].tolist() == pytest.approx(expected, rel=1e-9)


def test_trades_takes_the_parameters_of_its_attack() -> None:
    attack = PGD(Budget(epsilon=0.2, scale="core"), steps=4, step_size=0.3, restarts=2, norm="l2", seed=9)
    assert vars(Trades(Loss(), attack).attack) == vars(attack)


@pytest.mark.parametrize("attack", [FGSM(SMALL), PGD(SMALL, random_start=False), PIPPGD(SMALL)])
def test_trades_refuses_an_attack_that_cannot_climb_it(attack) -> None:
    with pytest.raises(AdvtagError, match="random start by PGD"):
        Trades(Loss(), attack)


@pytest.mark.parametrize("attack", [PGD(SMALL), PIPPGD(SMALL), NGM(SMALL)])
def test_free_refuses_other_attacks(attack) -> None:
    with pytest.raises(AdvtagError, match="steps of FGSM"):
        Free(Loss(), attack)


@pytest.mark.parametrize("kind", ["fgsm", "ngm", "pgd", "pip-pgd", "noise", "free"])
def test_without_a_budget_it_is_nominal_training_bit_by_bit(kind) -> None:
    """Three steps with dropout: the same weights."""
    nothing = Budget(epsilon=0.0)
    schemes = [Nominal(Loss())]
    if kind == "free":
        schemes.append(Free(Loss(), FGSM(nothing), replays=1))
    else:
        schemes.append(Replace(Loss(), type(ATTACKS[kind])(nothing)))
    found = []
    for scheme in schemes:
        tagger = make_tagger(dropout=0.3)
        steps = Steps(tagger)
        torch.manual_seed(5)
        for step in range(3):
            scheme(tagger, make_batch(seed=step), 0, step, steps)
        found.append((steps.losses, dict(tagger.named_parameters())))
    assert found[0][0] == found[1][0]
    assert_same(found[1][1], found[0][1], **EXACT)


def test_trades_without_a_budget_has_no_divergence() -> None:
    tagger, batch = make_tagger(dropout=0.0), make_batch()
    trades = Trades(Loss(), PGD(Budget(epsilon=0.0)))(tagger, batch, 0, 0, Steps(tagger, 0.0))
    torch.testing.assert_close(trades, Nominal(Loss())(tagger, batch, 0, 0, Steps(tagger, 0.0)))


def test_returns_the_loss_and_leaves_the_tagger_as_it_was(scheme) -> None:
    tagger, batch = make_tagger(), make_batch()
    values, key = batch.inputs.values.clone(), batch.inputs.key.clone()
    steps = Steps(tagger)
    loss = scheme(tagger, batch, 2, 6, steps)
    assert loss.shape == ()
    assert not loss.requires_grad
    torch.testing.assert_close(loss, torch.stack(steps.losses).mean())
    assert tagger.training
    assert all(module.training for module in tagger.modules())
    assert torch.equal(batch.inputs.values, values)
    assert not batch.inputs.values.requires_grad
    assert torch.equal(batch.inputs.key, key)


def test_it_learns(scheme) -> None:
    """Positive weights, labels that the first input gives away: the loss falls by a third in thirty steps."""
    tagger, batch = make_tagger(dropout=0.0), make_batch(100)
    present = torch.ones_like(batch.inputs.present)
    target = (batch.inputs.values[:, 0] > 0).long() * 3
    batch = Batch(replace(batch.inputs, present=present), target, batch.weight.abs())
    before = Nominal(Loss())(tagger, batch, 0, 0, Steps(tagger, 0.0))
    for step in range(30):
        scheme(tagger, batch, 0, step, Steps(tagger, 20.0 if scheme is SCHEMES["published"] else 0.1))
    assert Nominal(Loss())(tagger, batch, 0, 0, Steps(tagger, 0.0)) < 0.67 * before


def test_bfloat16_inside_the_network(scheme) -> None:
    """Losses and gradients agree with float32 to a few per cent; the network did compute in bfloat16."""
    found = []
    for cast in (False, True):
        tagger = make_tagger(dropout=0.0)
        steps = Steps(tagger, 0.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = scheme(tagger, make_batch(200), 0, 0, steps)
        assert loss.dtype == torch.float32
        found.append((loss, torch.cat([gradient.flatten() for gradient in steps.gradients[-1].values()])))
    (loss, gradient), (cast_loss, cast_gradient) = found
    assert cast_gradient.dtype == torch.float32
    assert cast_loss != loss
    torch.testing.assert_close(cast_loss, loss, rtol=0.02, atol=0)
    assert (cast_gradient - gradient).norm() < 0.1 * gradient.norm()


def steps_under_autocast(scheme: Scheme, *, at_once: bool, cache: bool = True) -> tuple[list[float], torch.Tensor]:
    """Losses and all weights of three steps, in one autocast or in one each."""
    tagger = make_tagger(dropout=0.0)
    steps = Steps(tagger, 0.5)
    cast = torch.autocast("cpu", torch.bfloat16, cache_enabled=cache)
    with torch.autocast("cpu", torch.bfloat16, enabled=at_once, cache_enabled=cache):
        for step in range(3):
            with cast:
                scheme(tagger, make_batch(seed=step), 0, step, steps)
    return [float(loss) for loss in steps.losses], torch.cat([p.detach().flatten() for p in tagger.parameters()])


def test_autocast_does_not_remember_weights_of_an_earlier_step(scheme) -> None:
    """Inside one autocast torch keeps bfloat16 copies of the weights; a second step must not see those of the first."""
    losses, weights = steps_under_autocast(scheme, at_once=True)
    assert_same({"": weights}, {"": steps_under_autocast(scheme, at_once=False)[1]}, **EXACT)
    # without copies gradients of two passes add up in float32 instead of bfloat16
    uncached_losses, uncached_weights = steps_under_autocast(scheme, at_once=True, cache=False)
    assert losses == pytest.approx(uncached_losses, rel=0.01)
    assert (weights - uncached_weights).norm() < 0.01 * weights.norm()


FGSM_CONFIG = {"kind": "fgsm", "epsilon": 0.1}
PGD_CONFIG = {"kind": "pgd", "epsilon": 0.1}


@pytest.mark.parametrize(
    ("written", "attack", "kind", "expected"),
    [
        ({}, None, Nominal, {}),
        ({"loss": {"gamma": 2}}, None, Nominal, {"loss": Loss(2.0)}),
        ({"loss": {"gamma": 25, "double_softmax": True}}, None, Nominal, {"loss": Loss(25.0, True)}),
        ({"attack": "a"}, FGSM(SMALL), Replace, {"every": 1, "kl": 0.0, "loss": Loss()}),
        ({"attack": "a", "scheme": {"kind": "replace", "every": 3, "kl": 2}}, NGM(SMALL), Replace, {"every": 3}),
        ({"attack": FGSM_CONFIG, "scheme": {"kind": "free", "replays": 8}}, FGSM(SMALL), Free, {"replays": 8}),
        ({"attack": PGD_CONFIG, "scheme": {"kind": "trades", "beta": 1.5}}, PGD(SMALL), Trades, {"beta": 1.5}),
    ],
)  # fmt: skip
def test_built_from_a_configuration(written, attack, kind, expected) -> None:
    scheme = build_scheme(Training(**written), attack)
    assert type(scheme) is kind
    for name, value in expected.items():
        assert getattr(scheme, name) == value
    if kind in (Replace, Free):
        assert scheme.attack is attack


@pytest.mark.parametrize("kind", ["free", "trades"])
def test_an_attack_looked_up_by_name_is_checked_when_the_scheme_is_built(kind) -> None:
    settings = Training(attack="named", scheme={"kind": kind})
    with pytest.raises(AdvtagError, match=f"scheme '{kind}'"):
        build_scheme(settings, NGM(SMALL))
