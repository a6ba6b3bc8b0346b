"""The DeepCSV network: its size, its dropout, its logits."""

import torch
from torch import nn

from models.networks import NETWORKS, DeepCSV


def test_published_size() -> None:
    assert sum(parameter.numel() for parameter in DeepCSV(67, 4).parameters()) == 47_604
    assert sum(parameter.numel() for parameter in DeepCSV(184, 3).parameters()) == 59_203


def test_layers_in_order() -> None:
    """Dropout 0.1 after the first four hidden layers, none after the fifth, and nothing after the last layer."""
    kinds = [type(layer) for layer in DeepCSV(67, 4).layers]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout] * 4 + [nn.Linear, nn.ReLU, nn.Linear]
    assert [layer.p for layer in DeepCSV(67, 4).layers if isinstance(layer, nn.Dropout)] == [0.1] * 4
    assert [layer.out_features for layer in DeepCSV(67, 4).layers if isinstance(layer, nn.Linear)] == [100] * 5 + [4]


def test_parameters_of_the_network() -> None:
    network = DeepCSV(3, 2, width=7, hidden=2, dropout=0.5)
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
    network = DeepCSV(67, 4).eval()
    x = 20 * torch.randn(100, 67)
    logits = network(x)
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
    network, x = DeepCSV(67, 4), torch.randn(50, 67)
    assert not torch.equal(network.train()(x), network.train()(x))
    assert torch.equal(network.eval()(x), network.eval()(x))


def test_networks_by_name() -> None:
    assert NETWORKS["deepcsv"] is DeepCSV
