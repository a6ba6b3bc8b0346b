"""The DeepCSV network: its size, its dropout, its logits."""

import torch
from torch import nn

from models.features import FeatureSet, Input
from models.networks import NETWORKS
from models.networks.deepcsv import DeepCSV


def card(number: int) -> FeatureSet:
    inputs = (Input(name=f"x{k}", branch=f"Jet_x{k}", label="x", bins=(1, 0, 1)) for k in range(number))
    return FeatureSet(name="toy", inputs=tuple(inputs))


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def test_published_size() -> None:
    assert sum(parameter.numel() for parameter in DeepCSV(card(67), 4).parameters()) == 47_604
    assert sum(parameter.numel() for parameter in DeepCSV(card(184), 3).parameters()) == 59_203


def test_layers_in_order() -> None:
    """Dropout 0.1 after the first four hidden layers, none after the fifth, and nothing after the last layer."""
    layers = DeepCSV(card(67), 4).layers
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Dropout] * 4 + [nn.Linear, nn.ReLU, nn.Linear]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.1] * 4
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [100] * 5 + [4]


def test_names_of_its_state_are_those_of_saved_taggers() -> None:
    expected = {f"layers.{layer}.{part}" for layer in (0, 3, 6, 9, 12, 14) for part in ("weight", "bias")}
    assert set(DeepCSV(card(67), 4).state_dict()) == expected


def test_parameters_of_the_network() -> None:
    network = DeepCSV(card(3), 2, width=7, hidden=2, dropout=0.5)
    assert [type(layer) for layer in network.layers] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
        nn.ReLU,
        nn.Linear,
    ]
    assert network.layers[0].out_features == 7
    assert network.layers[2].p == 0.5


def test_returns_logits_not_probabilities() -> None:
    torch.manual_seed(1)
    network = DeepCSV(card(67), 4).eval()
    x = 20 * torch.randn(100, 67)
    logits = network(x, everywhere(x))
    by_hand = x
    for layer in network.layers:
        if isinstance(layer, nn.Linear):
            by_hand = by_hand @ layer.weight.T + layer.bias
            if layer.out_features != 4:
                by_hand = by_hand.clamp(min=0)
    torch.testing.assert_close(logits, by_hand, rtol=1e-4, atol=1e-4)
    assert (logits.sum(1) - 1).abs().max() > 0.1
    assert logits.min() < 0


def test_dropout_acts_only_in_training() -> None:
    torch.manual_seed(2)
    network, x = DeepCSV(card(67), 4), torch.randn(50, 67)
    assert not torch.equal(network.train()(x, everywhere(x)), network.train()(x, everywhere(x)))
    assert torch.equal(network.eval()(x, everywhere(x)), network.eval()(x, everywhere(x)))


def test_networks_by_name() -> None:
    assert NETWORKS["deepcsv"] is DeepCSV
    assert list(NETWORKS) == ["deepcsv", "deepjet", "particlenet", "particle_transformer"]
