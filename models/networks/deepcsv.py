"""The fully connected network of the CMS thesis study."""

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
