"""What every network owes its callers, on its card: size, absence, batches, gradients, attacks, its file."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from attacks import FGSM, NGM, PGD, Budget
from attacks.gradient import input_gradient
from common.errors import AdvtagError
from models.features import load_features
from models.inputs import Inputs
from models.tagger import Tagger, tagger_from_bytes

CLASSES = ("b", "bb", "c", "udsg")
CASES = {
    "deepcsv": ("deepcsv", "deepcsv", {}, 47_604),
    "deepjet": ("deepjet", "deepjet", {}, 260_604),
    "deepjet-attention": ("deepjet", "deepjet", {"pooling": "attention"}, 143_477),
    "particlenet": ("particlenet", "particles", {}, 10_276),
    "particle_transformer": ("particle_transformer", "particles", {}, 29_188),
}
CONSTITUENTS = [name for name in CASES if name != "deepcsv"]


def make(case: str, dtype=torch.float64, seed: int = 0) -> Tagger:
    """With widths and means like those of the card's plots."""
    network, card, parameters, _ = CASES[case]
    features = load_features(card)
    low, high = torch.tensor([feature.bins[1:] for feature in features.inputs]).T
    generator = torch.Generator().manual_seed(seed)
    mean = (low + high) / 2 + (high - low) / 8 * torch.randn(len(features), generator=generator)
    std = (high - low) / 4 * (0.5 + torch.rand(len(features), generator=generator))
    torch.manual_seed(seed)
    tagger = Tagger(features, CLASSES, mean, std, network=network, parameters=parameters)
    return tagger.eval().to(dtype)


def jets(tagger: Tagger, number: int, seed: int = 1, *, holes: bool = True) -> tuple[Inputs, torch.Tensor]:
    """Physical jets; the first has no candidate, the second has one, in the third all are at the same place.

    With `holes`, single entries and slots in the middle are absent, too.
    """
    features, dtype = tagger.features, tagger.mean.dtype
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([feature.bins[1:] for feature in features.inputs], dtype=dtype).T
    values = low + (high - low) * torch.rand((number, len(features)), generator=generator, dtype=dtype)
    values = torch.where(torch.from_numpy(features.integer), values.floor(), values)
    present = torch.ones_like(values, dtype=torch.bool)
    counts = torch.randint(0, 25, (number, 4), generator=generator)
    counts[2] = 25
    groups = sorted({feature.group for feature in features.inputs if feature.group != "jet"})
    for k, feature in enumerate(features.inputs):
        if feature.present is not None and feature.present.above == "slot":
            present[:, k] = feature.slot < counts[:, groups.index(feature.group)]
            present[0, k], present[1, k] = False, feature.slot == 0
            if feature.name.startswith(("particle_deltaEta", "particle_deltaPhi")):
                values[2, k] = 0
    if holes:
        present &= torch.rand(present.shape, generator=generator) < 0.95
    values = torch.where(present, values, 0)
    return Inputs(values, present, torch.arange(number)), torch.arange(number) % 4


@pytest.mark.parametrize("case", CASES)
def test_number_of_parameters_is_the_documented_one(case) -> None:
    tagger = make(case)
    number = sum(parameter.numel() for parameter in tagger.network.parameters())
    assert number == CASES[case][3]
    assert f"{number:,}" in type(tagger.network).__doc__


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_are_finite_and_differ(case, dtype) -> None:
    tagger = make(case, dtype)
    inputs, _ = jets(tagger, 60)
    logits = tagger(inputs.values, inputs.present)
    assert logits.shape == (60, 4)
    assert logits.dtype == dtype
    assert torch.isfinite(logits).all()
    assert (logits.std(0) > 1e-3).all()
    assert tagger(inputs.values[:0], inputs.present[:0]).shape == (0, 4)


@pytest.mark.parametrize("case", CASES)
def test_what_is_absent_does_not_matter(case) -> None:
    tagger = make(case)
    inputs, _ = jets(tagger, 40)
    clean = tagger(inputs.values, inputs.present)
    for other in (3.0, -999.0, float("nan"), float("inf"), 1e30):
        assert torch.equal(tagger(torch.where(inputs.present, inputs.values, other), inputs.present), clean)


@pytest.mark.parametrize("case", CONSTITUENTS)
def test_networks_look_at_presence_and_not_at_values(case) -> None:
    """Empty slots stay empty wherever the card puts their entries; a candidate at that very place counts."""
    tagger = make(case)
    inputs, _ = jets(tagger, 40, holes=False)
    seen = tagger.standardise(inputs.values, inputs.present)
    clean = tagger.network(seen, inputs.present)
    in_slots = torch.tensor([feature.present is not None for feature in tagger.features.inputs])
    elsewhere = torch.where(inputs.present | ~in_slots, seen, 1.7)
    assert torch.equal(tagger.network(elsewhere, inputs.present), clean)
    everywhere = torch.ones_like(inputs.present)
    incomplete = (in_slots & ~inputs.present).any(1)
    assert incomplete.sum() > 20
    assert ((tagger.network(seen, everywhere) - clean).abs().amax(1)[incomplete] > 1e-7).all()


@pytest.mark.parametrize("case", CASES)
def test_a_jet_does_not_know_its_batch(case) -> None:
    tagger = make(case)
    inputs, _ = jets(tagger, 40)
    together = tagger(inputs.values, inputs.present)
    for jet in (0, 1, 2, 17, 39):
        alone = tagger(inputs.values[jet : jet + 1], inputs.present[jet : jet + 1])
        torch.testing.assert_close(alone[0], together[jet], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_training_mode_rolls_dice_and_evaluation_does_not(case) -> None:
    tagger = make(case)
    inputs, _ = jets(tagger, 20)
    assert torch.equal(tagger(inputs.values, inputs.present), tagger(inputs.values, inputs.present))
    tagger.train()
    assert not torch.equal(tagger(inputs.values, inputs.present), tagger(inputs.values, inputs.present))
    assert all(module.training for module in tagger.modules())


@pytest.mark.parametrize("case", ["particlenet", "particle_transformer"])
def test_the_order_of_candidates_does_not_matter(case) -> None:
    """Physical candidates change places; each slot has its own mean and width."""
    tagger = make(case)
    inputs, _ = jets(tagger, 30)
    columns = tagger.network.candidates.table.columns
    order = torch.randperm(len(columns), generator=torch.Generator().manual_seed(3))
    values, present = inputs.values.clone(), inputs.present.clone()
    values[:, columns], present[:, columns] = values[:, columns[order]], present[:, columns[order]]
    # candidates at the same place are equally near: which of them are neighbours is up to the order
    apart = [jet for jet in range(30) if jet != 2 or case != "particlenet"]
    torch.testing.assert_close(
        tagger(values, present)[apart], tagger(inputs.values, inputs.present)[apart], rtol=1e-9, atol=1e-9
    )


def test_the_order_of_candidates_matters_to_an_lstm() -> None:
    tagger = make("deepjet")
    inputs, _ = jets(tagger, 30, holes=False)
    columns = tagger.network.tables["charged"].columns
    values = inputs.values.clone()
    values[:, columns[:2]] = values[:, columns[[1, 0]]]
    both = inputs.present[:, columns[1, 0]]
    change = (tagger(values, inputs.present) - tagger(inputs.values, inputs.present)).abs().amax(1)
    assert (change[both] > 1e-8).all()


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_finite_differences(case) -> None:
    """Through standardisation and network, in physical inputs; that of absent entries is 0."""
    tagger = make(case)
    inputs, target = jets(tagger, 6)
    interval = Budget(epsilon=0.1).interval(tagger, inputs)
    gradient, _ = input_gradient(tagger, inputs, target, interval, inputs.values)
    assert torch.isfinite(gradient).all()
    assert (gradient[~inputs.present] == 0).all()
    rng = torch.Generator().manual_seed(5)
    for jet in (0, 1, 3, 5):
        there = torch.nonzero(inputs.present[jet])[:, 0]
        for k in there[torch.randperm(len(there), generator=rng)[:12]].tolist():
            step = 1e-6 * float(tagger.std[k])
            losses = []
            for sign in (-1, 1):
                moved = inputs.values[jet].clone()
                moved[k] += sign * step
                losses.append(
                    float(cross_entropy(tagger(moved[None], inputs.present[jet][None]), target[jet][None]).detach())
                )
            expected = (losses[1] - losses[0]) / (2 * step)
            assert float(gradient[jet, k]) == pytest.approx(expected, rel=1e-3, abs=1e-7 / float(tagger.std[k]))


@pytest.mark.parametrize("network", ["particlenet", "particle_transformer"])
def test_gradient_where_angles_and_momenta_are_zero(network) -> None:
    """Two candidates exactly on the axis, of no pT: no logarithm or root of 0 is differentiated."""
    features = load_features("particles")
    n = len(features)
    torch.manual_seed(0)
    tagger = Tagger(features, CLASSES, torch.zeros(n), torch.ones(n), network=network).eval()
    values, present = torch.zeros(3, n), torch.ones(3, n, dtype=torch.bool)
    for k, feature in enumerate(features.inputs):
        present[0, k] = feature.slot < 2
    present[2] = False
    inputs, target = Inputs(values, present, torch.arange(3)), torch.arange(3)
    interval = Budget(epsilon=0.1).interval(tagger, inputs)
    gradient, losses = input_gradient(tagger, inputs, target, interval, values)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_parameters_are_finite(case) -> None:
    """In float32, with jets without candidates, with one, and with all at the same place."""
    tagger = make(case, torch.float32).train()
    inputs, target = jets(tagger, 60)
    tagger.requires_grad_(True)
    cross_entropy(tagger(inputs.values, inputs.present), target).backward()
    for name, parameter in tagger.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # the same for all scores of a softmax
        assert parameter.grad.abs().max() > 0 or name.endswith(("score.bias", "key.bias")), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [FGSM, PGD, NGM])
def test_attacks_stay_inside_the_budget(case, kind) -> None:
    tagger = make(case, torch.float32)
    inputs, target = jets(tagger, 60)
    budget = Budget(epsilon=0.1)
    attack = kind(budget, steps=3) if kind is PGD else kind(budget)
    moved = attack(tagger, inputs, target)
    assert torch.isfinite(moved.values).all()
    assert torch.equal(moved.present, inputs.present)
    low, high = tagger.features.bounds.T
    for k, feature in enumerate(tagger.features.inputs):
        x, y = inputs.values[:, k].double(), moved.values[:, k].double()
        still = ~inputs.present[:, k] | feature.integer
        assert torch.equal(x[still], y[still])
        if kind is not NGM:  # one step of a given length, cut at the budget as well
            assert ((y - x).abs() <= 0.1 * float(tagger.std[k]) * (1 + 1e-4) + 1e-6).all()
        assert ((y - x).abs() <= 0.2 * x.abs() * (1 + 1e-4) + 1e-7).all()
        inside = (x >= low[k]) & (x <= high[k])
        assert ((y >= low[k] - 1e-6) & (y <= high[k] + 1e-6))[inside].all()
    assert (moved.values != inputs.values).any(1).float().mean() > 0.9
    before, after = (cross_entropy(tagger(x.values, x.present), target, reduction="none") for x in (inputs, moved))
    assert (after - before).mean() > 0


@pytest.mark.parametrize("case", CASES)
def test_file_round_trips_bit_by_bit(case) -> None:
    tagger = make(case, torch.float32)
    back = tagger_from_bytes(tagger.to_bytes(), "x")
    inputs, _ = jets(tagger, 50)
    assert torch.equal(back(inputs.values, inputs.present), tagger(inputs.values, inputs.present))
    assert back.to_bytes() == tagger.to_bytes()
    assert back.architecture == {"network": CASES[case][0], "parameters": CASES[case][2]}


@pytest.mark.parametrize("network", ["deepjet", "particlenet", "particle_transformer"])
def test_a_card_without_candidates_is_refused(network) -> None:
    features = load_features("deepcsv")
    with pytest.raises(AdvtagError, match=r"deepcsv.*group '(charged|particle)'"):
        Tagger(features, CLASSES, torch.zeros(67), torch.ones(67), network=network)


def test_unknown_pooling_is_refused() -> None:
    features = load_features("deepjet")
    n = len(features)
    with pytest.raises(AdvtagError, match="lstm or attention"):
        Tagger(features, CLASSES, torch.zeros(n), torch.ones(n), network="deepjet", parameters={"pooling": "max"})
