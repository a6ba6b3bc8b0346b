"""RDSA against a dictionary of donors; what it keeps, what it destroys, and whom it fools."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import chisquare

from attacks.budget import Budget
from attacks.rdsa import RDSA, Donors
from attacks.success import WorkingPoint, is_right
from common.errors import AdvtagError
from models.discriminators import discriminators
from models.features import FeatureSet
from models.inputs import Inputs
from models.keys import jet_keys, reseed, uniform
from tests.attacks.conftest import CLASSES, COUPLED, INF, KINDS, card, line

FREE = Budget(epsilon=INF, capped=False)
BINNED = FeatureSet(
    name="toy",
    inputs=(*card(KINDS).inputs, line("eta"), line("pt", bounds=(0.0, INF)), line("pinned", pinned=(1.0,))),
)
FLAVOUR = {"b": 0, "bb": 0, "c": 1, "udsg": 2}


@pytest.fixture(scope="module")
def binned(make_tagger, make_jets):
    """A tagger with pt and eta among its inputs, jets for it, and classes that it mostly finds."""
    tagger = make_tagger(features=BINNED, dtype=torch.float64, sharp=20)
    inputs, target = make_jets(250, BINNED, dtype=torch.float64)
    values = inputs.values.clone()
    values[:, 9] = torch.where(inputs.present[:, 9], 10 * 2 ** values[:, 9].abs(), 0)
    values[::10, 8] = -0.8 * inputs.present[::10, 8].double()  # on an edge that float32 does not hold
    inputs = inputs.moved(values)
    with torch.no_grad():
        called = tagger(values, inputs.present).argmax(1)
    return tagger, inputs, torch.where(torch.arange(250) % 4 == 0, target, called)


def own_prediction(tagger, inputs: Inputs) -> torch.Tensor:
    """Classes of which the tagger is right about every jet."""
    with torch.no_grad():
        logits = tagger(inputs.values, inputs.present)
    code = torch.zeros(len(inputs), dtype=torch.int64)
    for k in range(len(tagger.classes)):
        code[is_right(logits, torch.full_like(code, k), tagger.classes)] = k
    return code


def slow_right(tagger, x: list[float], present: torch.Tensor, code: int, working_point) -> bool:
    with torch.no_grad():
        p = tagger(torch.tensor([x], dtype=torch.float64), present[None]).softmax(1)
    if working_point is None:
        b, bb, c, udsg = p[0].tolist()
        return max(range(3), key=[b + bb, c, udsg].__getitem__) == FLAVOUR[CLASSES[code]]
    if (working_point.discriminator, CLASSES[code]) in {("BvsL", "c"), ("CvsB", "udsg")}:
        return False
    tagged = float(discriminators(p, CLASSES)[working_point.discriminator]) >= working_point.threshold
    return tagged == (CLASSES[code] in (("b", "bb") if working_point.discriminator == "BvsL" else ("c",)))


def slow_rdsa(tagger, inputs, target, budget, *, features, attempts, pt_edges, eta_edges, working_point, seed):
    """One jet, one attempt and one input at a time."""
    names, n = tagger.features.names, len(inputs)
    box = budget.interval(tagger, inputs)
    clean = inputs.values.tolist()
    cells, donors = [], defaultdict(list)
    for j in range(n):
        cell = [int(target[j])]
        for name, edges in (("pt", pt_edges), ("eta", eta_edges)):
            k = names.index(name) if name in names else None
            there = k is not None and bool(inputs.present[j, k])
            cell.append(sum(abs(clean[j][k]) >= edge for edge in edges) if there else None)
        cells.append(tuple(cell))
    takes = [[bool(box.free[j, k]) and name not in ("pt", "eta") for k, name in enumerate(names)] for j in range(n)]
    for j in sorted(range(n), key=lambda j: int(inputs.key[j])):
        for k in range(len(names)):
            if takes[j][k]:
                donors[k, cells[j]].append(j)
    found = [list(row) for row in clean]
    for j in range(n):
        if not slow_right(tagger, clean[j], inputs.present[j], int(target[j]), working_point):
            continue
        key = reseed(inputs.key[j : j + 1], seed)
        order = uniform(key, len(names), 0)[0].tolist()
        able = [k for k in range(len(names)) if takes[j][k] and len(donors[k, cells[j]]) > 1]
        subset = sorted(able, key=order.__getitem__)[:features]
        for attempt in range(1, attempts + 1):
            draws = uniform(key, len(names), attempt)[0].tolist()
            x = list(clean[j])
            for k in subset:
                others = [i for i in donors[k, cells[j]] if i != j]
                drawn = clean[others[int(draws[k] * len(others))]][k]
                x[k] = min(max(drawn, float(box.low[j, k])), float(box.high[j, k]))
            found[j] = x
            if not slow_right(tagger, x, inputs.present[j], int(target[j]), working_point):
                break
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("budget", [FREE, Budget(epsilon=0.5), Budget(epsilon=INF)], ids=["free", "finite", "capped"])
@pytest.mark.parametrize("working_point", [None, WorkingPoint("BvsL", 0.5), WorkingPoint("CvsB", 0.4)])
def test_against_a_dictionary_of_donors(binned, budget, working_point) -> None:
    tagger, inputs, target = binned
    parameters = {"features": 3, "attempts": 4, "pt_edges": (15.0, 40.0), "eta_edges": (0.0, 0.8, 3.0)}
    attack = RDSA(budget, working_point=working_point, seed=2, **parameters)
    found = attack(tagger, inputs, target).values
    expected = slow_rdsa(tagger, inputs, target, budget, working_point=working_point, seed=2, **parameters)
    assert torch.equal(found, expected)
    changed = (found != inputs.values).any(1)
    assert 0.1 < changed.double().mean() < 0.95


@pytest.mark.parametrize("working_point", [None, WorkingPoint("CvsL", 0.5)])
def test_without_pt_and_eta_there_is_one_bin(make_tagger, make_jets, working_point) -> None:
    tagger, (inputs, target) = make_tagger(dtype=torch.float64, sharp=20), make_jets(150, dtype=torch.float64)
    attack = RDSA(FREE, features=99, attempts=2, working_point=working_point)
    assert attack.pt_edges == (20, 30, 50, 70, 100, 150, 250, 1000)
    found = attack(tagger, inputs, target).values
    if working_point is None:
        rules = {"pt_edges": (), "eta_edges": (), "working_point": None, "seed": 0, "features": 8, "attempts": 2}
        assert torch.equal(found, slow_rdsa(tagger, inputs, target, FREE, **rules))
    for jet, k in (found != inputs.values).nonzero().tolist():
        same = inputs.present[:, k] & (target == target[jet])
        assert found[jet, k] in inputs.values[same, k] or found[jet, k] in tagger.features.bounds[k]


def test_the_order_of_the_jets_does_not_matter(binned) -> None:
    tagger, inputs, target = binned
    attack = RDSA(FREE, pt_edges=(15, 40), eta_edges=(1.5,))
    assert attack.per_jet is False
    expected = attack(tagger, inputs, target).values
    order = torch.randperm(250, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(tagger, inputs[order], target[order]).values, expected[order])
    first = attack(tagger, inputs[:100], target[:100]).values
    assert not torch.equal(first, expected[:100])


def correlated(n: int, features: int = 3) -> tuple[Inputs, torch.Tensor]:
    """Jets of two classes whose inputs nearly repeat one another, with a peak, a tail, and absent entries."""
    rng = np.random.default_rng(5)
    target = rng.integers(0, 2, n) * 3
    common = np.where(target == 0, rng.exponential(2, n), rng.normal(-1, 0.5, n))
    values = torch.from_numpy(common[:, None] + 0.1 * rng.normal(size=(n, features)))
    present = torch.from_numpy(rng.random((n, features)) < 0.9)
    key = jet_keys(np.ones(n, int), np.ones(n, int), np.arange(n), np.zeros(n, int))
    return Inputs(torch.where(present, values, 0), present, key), torch.from_numpy(target)


def test_marginals_stay_and_correlations_go(make_tagger) -> None:
    """A tagger that always says b, of jets that are b: each is drawn once or ten times, and none is fooled."""
    n = 20_000
    inputs, flavour = correlated(n)
    tagger = make_tagger([((-INF, INF), None, False)] * 3, dtype=torch.float64, hidden=0, width=3)
    with torch.no_grad():
        tagger.network.layers[0].weight.zero_()
        tagger.network.layers[0].bias.copy_(torch.tensor([5.0, 0.0, 0.0, 0.0]))
    inputs = inputs[flavour == 0]
    target = torch.zeros(len(inputs), dtype=torch.int64)
    for attempts in (1, 10):
        found = RDSA(FREE, attempts=attempts)(tagger, inputs, target).values
        together = inputs.present.all(1)
        before, after = (torch.corrcoef(x[together].T)[0, 1] for x in (inputs.values, found))
        assert before > 0.99
        assert abs(after) < 5 / math.sqrt(int(together.sum()))
        for k in range(3):
            there = inputs.present[:, k]
            clean, moved = inputs.values[there, k], found[there, k]
            assert torch.isin(moved, clean).all()
            assert (moved != clean).all()
            edges = np.quantile(clean, np.linspace(0, 1, 51))
            js = jensenshannon(*(np.histogram(x, edges)[0] for x in (clean, moved)), base=2)
            # JS^2 of a resampling is chi2/(8 n ln 2) with 49 degrees of freedom, up to 90 at five sigma
            assert js**2 < 2 * 90 / (8 * len(clean) * math.log(2))


def test_each_class_keeps_to_itself(make_tagger) -> None:
    inputs, target = correlated(1000)
    tagger = make_tagger([((-INF, INF), None, False)] * 3, dtype=torch.float64)
    working_point = WorkingPoint("BvsL", 1.0)  # nothing is tagged: right about udsg, always
    found = RDSA(FREE, working_point=working_point)(tagger, inputs, target).values
    moved = (found != inputs.values).any(1)
    assert torch.equal(moved, (target == 3) & inputs.present.any(1))
    light = target == 3
    for k in range(3):
        assert torch.isin(found[light, k], inputs.values[light, k]).all()


def xor_tagger(make_tagger):
    """b where both inputs have the same sign, udsg elsewhere: |x + y| - |x - y|, in four ReLUs."""
    kinds = [((-INF, INF), None, False)] * 2
    tagger = make_tagger(kinds, mean=[0.0] * 2, std=[1.0] * 2, dtype=torch.float64, hidden=1, width=4)
    first, last = tagger.network.layers[0], tagger.network.layers[-1]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]))
        last.weight.zero_()
        last.weight[0].copy_(torch.tensor([1.0, 1.0, -1.0, -1.0]))
        last.weight[3].copy_(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
        first.bias.zero_()
        last.bias.copy_(torch.tensor([0.0, -50.0, -50.0, 0.0]))
    return tagger


def test_fools_what_knows_only_correlations(make_tagger) -> None:
    """Independent signs are wrong half of the time, so 1 - 2^-attempts are fooled; one input alone fools nobody."""
    n, generator = 4000, torch.Generator().manual_seed(1)
    values = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    inputs = Inputs(values, torch.ones(n, 2, dtype=torch.bool), torch.arange(n))
    tagger = xor_tagger(make_tagger)
    target = torch.where(values.prod(1) > 0, 0, 3)
    with torch.no_grad():
        assert is_right(tagger(values, inputs.present), target, CLASSES).all()
    for attempts in (1, 3):
        found = RDSA(FREE, attempts=attempts)(tagger, inputs, target)
        with torch.no_grad():
            right = is_right(tagger(found.values, found.present), target, CLASSES)
        expected = 0.5**attempts
        assert float(right.double().mean()) == pytest.approx(expected, abs=5 * math.sqrt(expected / n))
    with torch.no_grad():  # x alone, of which each class has one sign
        tagger.network.layers[0].weight[:, 1] = 0
        tagger.network.layers[0].weight[:, 0] = torch.tensor([1.0, -1.0, 0.0, 0.0])
        tagger.network.layers[-1].weight[0, :2] = torch.tensor([1.0, -1.0])
        tagger.network.layers[-1].weight[3, :2] = torch.tensor([-1.0, 1.0])
    target = torch.where(values[:, 0] > 0, 0, 3)
    found = RDSA(FREE)(tagger, inputs, target).values
    with torch.no_grad():
        assert is_right(tagger(found, inputs.present), target, CLASSES).all()
    assert (found != values).all()


def test_fixed_subset_of_the_asked_size(make_tagger) -> None:
    n, generator = 3000, torch.Generator().manual_seed(2)
    tagger = make_tagger([((-INF, INF), None, False)] * 6, dtype=torch.float64)
    values = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    present = torch.ones(n, 6, dtype=torch.bool)
    present[:500, :3] = False
    inputs = Inputs(torch.where(present, values, 0), present, torch.arange(n))
    light, nobody = torch.full((n,), 3), WorkingPoint("BvsL", 1.0)
    moved = [
        RDSA(FREE, features=4, attempts=a, working_point=nobody)(tagger, inputs, light).values != inputs.values
        for a in (1, 7)
    ]
    assert torch.equal(*moved)
    assert set(moved[0][500:].sum(1).tolist()) == {4}
    assert torch.equal(moved[0][:500], present[:500])
    counts = moved[0][500:].sum(0)
    assert counts.double().numpy() == pytest.approx(2500 * 4 / 6, abs=5 * math.sqrt(2500 * 2 / 9))


def test_donors_are_drawn_alike(make_tagger) -> None:
    """Every other jet of the cell equally often, never the jet itself, also at the ends of (0, 1)."""
    values = torch.arange(14).double().reshape(7, 2)
    takes_part = torch.ones(7, 2, dtype=torch.bool)
    takes_part[4, 0] = False
    cell = torch.tensor([5, 5, 2, 5, 5, 2, 5])
    donors = Donors.of(Inputs(values, takes_part, torch.tensor([3, 9, -4, 0, 7, 11, 5])), takes_part, cell)
    assert donors.others[:, 1].tolist() == [4, 4, 1, 4, 4, 1, 4]
    assert donors.others[[0, 1, 3, 6], 0].tolist() == [3] * 4
    draws = (torch.arange(24) + 0.5)[:, None].double().expand(24, 2) / 24
    for jet in range(7):
        chosen = takes_part[jet].expand(24, 2)
        found = donors.draw(torch.full((24,), jet), chosen, draws)
        for k in range(2):
            others = [float(values[i, k]) for i in range(7) if i != jet and cell[i] == cell[jet] and takes_part[i, k]]
            seen, times = found[:, k].unique(return_counts=True)
            if takes_part[jet, k]:
                assert seen.tolist() == sorted(others)
                assert set(times.tolist()) == {24 // len(others)}
            else:
                assert seen.tolist() == [0.0]
        ends = torch.tensor([[1e-300, 1.0 - 2.0**-53], [1.0, 1e-300]], dtype=torch.float64)
        assert set(donors.draw(torch.full((2,), jet), chosen[:2], ends).flatten().tolist()) <= {
            *(float(x) for i in range(7) if i != jet and cell[i] == cell[jet] for x in values[i]),
            *([] if takes_part[jet].all() else [0.0]),
        }


def test_each_jet_has_its_own_donors(make_tagger) -> None:
    """Donors of one jet over many seeds: uniform; donors of two inputs: independent."""
    values = torch.arange(10).double().reshape(5, 2)
    tagger = make_tagger([((-INF, INF), None, False)] * 2, dtype=torch.float64)
    inputs = Inputs(values, torch.ones(5, 2, dtype=torch.bool), torch.arange(5) * 77)
    light, nobody = torch.full((5,), 3), WorkingPoint("BvsL", 1.0)
    table = np.zeros((5, 5))
    for seed in range(800):
        found = RDSA(FREE, attempts=1, working_point=nobody, seed=seed)(tagger, inputs, light).values
        first, second = (found[2] // 2).long().tolist()
        table[first, second] += 1
    assert table[2].sum() == table[:, 2].sum() == 0
    assert chisquare(np.delete(np.delete(table, 2, 0), 2, 1).ravel()).pvalue > 1e-4


def test_who_stays(binned) -> None:
    tagger, inputs, target = binned
    found = RDSA(FREE, features=99, pt_edges=(30,), eta_edges=())(tagger, inputs, target).values
    with torch.no_grad():
        right = is_right(tagger(inputs.values, inputs.present), target, CLASSES)
    changed = found != inputs.values
    assert not changed[~right].any()
    assert changed[right].any(1).double().mean() > 0.9
    assert not changed[~inputs.present].any()
    assert not changed[:, torch.from_numpy(tagger.features.integer)].any()
    assert not changed[:, 8:10].any()
    pinned = inputs.values[:, 10] == 1
    assert not changed[pinned, 10].any()
    assert not (found[changed[:, 10], 10] == 1).any()
    alone = torch.cat([RDSA(FREE)(tagger, inputs[j : j + 1], target[j : j + 1]).values for j in range(20)])
    assert torch.equal(alone, inputs.values[:20])


def test_what_is_one_quantity_stays_one(make_tagger, make_jets) -> None:
    tagger = make_tagger(features=COUPLED, dtype=torch.float64, sharp=20)
    inputs, _ = make_jets(300, COUPLED, dtype=torch.float64)
    attack = RDSA(FREE, features=99, attempts=3)
    found = attack(tagger, inputs, own_prediction(tagger, inputs)).values
    interval = attack.interval(tagger, inputs)
    assert torch.equal(interval.project(found), found)
    assert (found[:, 0] != inputs.values[:, 0])[inputs.present[:, 0]].double().mean() > 0.9
    moved = found[:, 2] != inputs.values[:, 2]
    follows = inputs.present[:, 0] & inputs.present[:, 2] & (inputs.values[:, 0] == inputs.values[:, 2])
    assert torch.equal(found[follows, 0], found[follows, 2])
    assert (moved & follows).any()
    assert torch.equal(found[:, 6], inputs.values[:, 6])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.4, INF])
def test_what_no_attack_may_touch(make_tagger, make_jets, dtype, epsilon) -> None:
    tagger = make_tagger(features=BINNED, dtype=dtype, dropout=0.5).train()
    inputs, target = make_jets(200, BINNED, dtype=dtype)
    before, state = inputs.values.clone(), torch.get_rng_state()
    attack = RDSA(Budget(epsilon=epsilon), attempts=3)
    found = attack(tagger, inputs, target)
    interval = attack.interval(tagger, inputs)
    assert ((interval.low <= found.values) & (found.values <= interval.high)).all()
    assert torch.equal(inputs.values, before)
    assert found.values.dtype == dtype
    assert (found.values != before).any()
    assert tagger.training
    assert all(parameter.grad is None for parameter in tagger.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attack(tagger, inputs, target).values, found.values)
    other = RDSA(Budget(epsilon=epsilon), attempts=3, seed=1)(tagger, inputs, target).values
    assert not torch.equal(other, found.values)
    assert torch.equal(RDSA(Budget(epsilon=0.0))(tagger, inputs, target).values, before)
    assert len(attack(tagger, inputs[:0], target[:0])) == 0


def test_refuses_parameters() -> None:
    wrong = [{"features": 0}, {"attempts": 0}, {"pt_edges": (30, 20)}, {"eta_edges": (0, 0)}, {"pt_edges": (math.nan,)}]
    for parameters in wrong:
        with pytest.raises(AdvtagError, match=next(iter(parameters))):
            RDSA(FREE, **parameters)
    assert repr(RDSA(FREE)).startswith("RDSA(Budget(epsilon=inf")
