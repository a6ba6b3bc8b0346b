"""The fully connected network of the CMS thesis study."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.features import FeatureSet


class DeepCSV(nn.Module):
    """The network of the CMS thesis study of A. Stein on the DeepCSV inputs (code AI_Safety_2021).

    inputs -> 5 x 100 with ReLU -> classes, dropout 0.1 after the first four hidden layers, none after the fifth
    (67 inputs and 4 classes: 47,604 parameters; the later paper, Comput. Softw. Big Sci. 6 (2022) 15, has it with 184
    inputs and 3 classes). It returns logits: theirs ended in a softmax on which the loss applied another one.
    """

    def __init__(
        self, features: FeatureSet, classes: int, *, width: int = 100, hidden: int = 5, dropout: float = 0.1
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in range(hidden):
            layers += [nn.Linear(len(features) if layer == 0 else width, width), nn.ReLU()]
            if layer < hidden - 1:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, standardised: Tensor, present: Tensor) -> Tensor:  # noqa: ARG002
        """Float [jets, inputs], absent ones at their place, to logits [jets, classes]; `present` is not looked at."""
        logits: Tensor = self.layers(standardised)
        return logits

    @torch.no_grad()
    def vjp(self, standardised: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Logits in evaluation mode, and the function that takes a slope in them, [jets, classes], back to the inputs,
        [jets, inputs].

        The same operations as in autograd, which writes each activation and each slope twice: here ReLU works in place.
        """
        first, *others = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        hidden: list[Tensor] = []
        logits: Tensor = first(standardised)
        for layer in others:
            hidden.append(logits.relu_())
            logits = layer(logits)

        @torch.no_grad()
        def back(slope: Tensor) -> Tensor:
            for layer, seen in zip(reversed(others), reversed(hidden), strict=True):
                slope = slope @ layer.weight
                torch.ops.aten.threshold_backward.grad_input(slope, seen, 0, grad_input=slope)
            return (slope @ first.weight).to(standardised.dtype)

        return logits, back
