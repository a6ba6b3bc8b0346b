"""Parts of the networks against plain Python, candidate by candidate, and against torch's own layers."""

import math

import pytest
import torch
from torch import nn

from models.networks.candidates import ANGLE
from models.networks.deepjet import Attention, Recurrent
from models.networks.particle_transformer import PAIR, Layer, pairwise
from models.networks.particlenet import EdgeConvolution, nearest
from tests.models.test_networks_all import jets, make


@pytest.fixture
def some():
    """Candidates [jets, slots, 5], of which some slots are empty, in any order; the first jet has none."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn((40, 6, 5), generator=generator, dtype=torch.float64)
    filled = torch.rand((40, 6), generator=generator) < 0.6
    filled[0], filled[1] = False, True
    return x, filled


def test_recurrent_layer_sees_the_filled_slots_backwards(some) -> None:
    torch.manual_seed(0)
    x, filled = some
    pool = Recurrent(5, 7).double().eval()
    cell = nn.LSTMCell(5, 7).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({name: pool.lstm.state_dict()[f"{name}_l0"] for name in names})
    found = pool(x, filled)
    for jet in range(len(x)):
        state = torch.zeros(2, 1, 7, dtype=torch.float64)
        for slot in reversed(range(6)):
            if filled[jet, slot]:
                state = torch.stack(cell(x[jet, slot][None], tuple(state)))
        torch.testing.assert_close(found[jet], state[0, 0])
    assert pool.lstm.training is False


def test_attention_pooling_is_a_weighted_mean(some) -> None:
    torch.manual_seed(0)
    x, filled = some
    pool = Attention(5, 7).double()
    found = pool(x, filled)
    for jet in range(len(x)):
        there = x[jet][filled[jet]]
        weights = [math.exp(float(pool.score(candidate).detach())) for candidate in there]
        expected = torch.zeros(7, dtype=torch.float64)
        for weight, candidate in zip(weights, there, strict=True):
            expected += weight / sum(weights) * pool.value(candidate).clamp(min=0)
        torch.testing.assert_close(found[jet], expected)


def slow_neighbours(points, filled, number: int) -> list[list[int]]:
    found = []
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i and filled[j] and filled[i]]
        others.sort(
            key=lambda j, i=i: sum((float(a) - float(b)) ** 2 for a, b in zip(points[i], points[j], strict=True))
        )
        found.append(others[:number])
    return found


def test_nearest_against_sorting(some) -> None:
    x, filled = some
    slot, linked = nearest(x, filled, 3)
    for jet in range(len(x)):
        expected = slow_neighbours(x[jet], filled[jet], 3)
        assert [s[there].tolist() for s, there in zip(slot[jet], linked[jet], strict=True)] == expected


def test_edge_convolution_against_loops(some) -> None:
    """A layer on (x, x' - x), as it is published."""
    torch.manual_seed(0)
    x, filled = some
    edge = EdgeConvolution(5, 4).double()
    found = edge(x, *nearest(x, filled, 3))
    both = torch.cat([edge.own.weight + edge.other.weight, edge.other.weight], 1)
    with torch.no_grad():
        for jet in (0, 1, 2, 30):
            neighbours = slow_neighbours(x[jet], filled[jet], 3)
            for i in range(6):
                total = torch.zeros(4, dtype=torch.float64)
                for j in neighbours[i]:
                    h = both @ torch.cat([x[jet, i], x[jet, j] - x[jet, i]]) + edge.own.bias
                    for layer in (edge.layers[1], edge.layers[3]):
                        h = layer.weight @ h.clamp(min=0) + layer.bias
                    total += h.clamp(min=0) / len(neighbours[i])
                h = (total + edge.shortcut(x[jet, i])).clamp(min=0)
                h = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt() * edge.norm.weight + edge.norm.bias
                torch.testing.assert_close(found[jet, i], h)


def four_vector(pt: float, eta: float, phi: float) -> tuple[float, float, float, float]:
    return pt * math.cosh(eta), pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)


def test_pairwise_features_are_those_of_four_vectors() -> None:
    generator = torch.Generator().manual_seed(4)
    momenta = torch.randn((3, 5, 3), generator=generator, dtype=torch.float64)
    found = pairwise(momenta)
    for jet in range(3):
        for i, one in enumerate(momenta[jet].tolist()):
            for j, other in enumerate(momenta[jet].tolist()):
                a, b = math.exp(one[0]), math.exp(other[0])
                distance = math.sqrt((one[1] - other[1]) ** 2 + (one[2] - other[2]) ** 2 + ANGLE**2)
                first, second = four_vector(a, *one[1:]), four_vector(b, *other[1:])
                energy, *momentum = (x + y for x, y in zip(first, second, strict=True))
                mass2 = energy**2 - sum(p**2 for p in momentum) + a * b * ANGLE**2
                expected = (min(a, b) * distance, min(a, b) / (a + b), distance, mass2)
                for k, (shift, scale) in enumerate(PAIR):
                    value = (math.log(expected[k]) + shift) * scale
                    assert float(found[jet, i, j, k]) == pytest.approx(value, abs=1e-6)


def test_attention_is_torchs(some) -> None:
    """On the filled candidates alone, without a bias."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    x, filled = torch.randn((40, 6, 8), generator=generator, dtype=torch.float64), some[1]
    layer = Layer(8, 2, 0.1).double().eval()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([layer.query.bias, layer.key.bias, layer.value.bias]))
        theirs.out_proj.load_state_dict(layer.mix.state_dict())
        closed = torch.zeros(40, 6, dtype=torch.float64).masked_fill(~filled, torch.finfo(torch.float64).min)
        found = layer(x, x, closed[:, None, None])
        for jet in range(1, 40):
            one = x[jet][filled[jet]][None]
            if one.shape[1]:
                normed = layer.before(one)
                middle = one + theirs(normed, normed, normed)[0]
                hidden = nn.functional.gelu(layer.inner(layer.between(middle)))
                torch.testing.assert_close(found[jet][filled[jet]], (middle + layer.outer(hidden))[0])
    assert torch.isfinite(found).all()


class Given(nn.Module):
    """In place of `Candidates`: one jet as given."""

    def __init__(self, parts) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, *_):
        return tuple(part[None] for part in self.parts)


@pytest.mark.parametrize("name", ["particlenet", "particle_transformer"])
def test_empty_slots_are_as_if_they_were_not_there(name) -> None:
    """Logits of a jet are those of a network that has only the jet's candidates, of two at least."""
    tagger = make(name)
    inputs, _ = jets(tagger, 30, holes=False)
    network = tagger.network
    seen = tagger.standardise(inputs.values, inputs.present)
    features, momenta, filled, of_jet = network.candidates(seen, inputs.present)
    expected = tagger(inputs.values, inputs.present)
    compared = 0
    for jet, there in enumerate(filled):
        if there.sum() < 2 or jet == 2:  # all candidates of jet 2 are equally near
            continue
        network.candidates = Given((features[jet][there], momenta[jet][there], there[there], of_jet[jet]))
        network.neighbours = min(7, int(there.sum()) - 1)
        torch.testing.assert_close(network(None, None)[0], expected[jet])
        compared += 1
    assert compared > 20


def test_kinematics_of_candidates_by_hand() -> None:
    """From physical numbers, one by one."""
    tagger = make("particlenet")
    inputs, _ = jets(tagger, 20, holes=False)
    names = tagger.features.names
    parts = tagger.network.candidates(tagger.standardise(inputs.values, inputs.present), inputs.present)
    seen, momenta, filled, of_jet = parts
    assert of_jet.shape == (20, 3)
    for jet in range(20):
        value = dict(zip(names, inputs.values[jet].tolist(), strict=True))
        jet_energy = value["pt"] * math.cosh(value["eta"])
        for slot in range(24):
            assert bool(filled[jet, slot]) == bool(inputs.present[jet, names.index(f"particle_pt_{slot}")])
            if not filled[jet, slot]:
                assert (seen[jet, slot] == 0).all()
                continue
            pt, eta, phi = (value[f"particle_{name}_{slot}"] for name in ("pt", "deltaEta", "deltaPhi"))
            pt = max(pt, 0.1)
            energy = pt * math.cosh(value["eta"] + eta)
            expected = [
                (math.log(pt) - 1) / 2,
                (math.log(energy) - 1) / 2,
                (math.log(pt / value["pt"]) + 3) / 2,
                (math.log(energy / jet_energy) + 3) / 2,
                5 * math.sqrt(eta**2 + phi**2 + ANGLE**2) - 1,
            ]
            assert seen[jet, slot, -5:].tolist() == pytest.approx(expected, abs=1e-4)
            assert momenta[jet, slot].tolist() == pytest.approx([math.log(pt), eta, phi], abs=1e-4)
