"""A network like CMS's DeepJet: convolutions over candidates, a recurrent layer over each group, dense layers."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.errors import AdvtagError
from models.features import FeatureSet
from models.groups import Slots, outside

# group: widths of the 1x1 convolutions, and of what summarises the group
GROUPS = {"charged": ((64, 32, 32, 8), 150), "neutral": ((32, 16, 4), 50), "vertex": ((64, 32, 32, 8), 50)}


class DeepJet(nn.Module):
    """A network like DeepJet (E. Bols et al., JINST 15 (2020) P12012, arXiv:2008.10519).

    Taken from there: 1x1 convolutions over the candidates of each group (charged 64, 32, 32, 8; neutral 32, 16, 4;
    secondary vertices 64, 32, 32, 8), an LSTM per group (150, 50, 50) that sees the most telling candidate last, one
    dense layer of 200 on the three and the inputs of the jet, seven of 100, ReLU and dropout 0.1 throughout. With card
    `deepjet` and 4 classes: 260,604 parameters, 143,477 with pooling by attention.

    Not as there: no batch normalisation (inputs are standardised, and under attack batches would have two statistics),
    empty slots are passed over instead of being zeros, logits of b, bb, c, udsg instead of six probabilities. The
    inputs differ with the card.

    Args:
        features: with groups `charged`, `neutral` and `vertex` of slots, the most telling candidate first
        classes: number of outputs
        pooling: `lstm`, or `attention`: a mean over the candidates of the group with learnt weights
        width: of the seven dense layers
        dropout: after each layer
    """

    def __init__(
        self, features: FeatureSet, classes: int, *, pooling: str = "lstm", width: int = 100, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise AdvtagError(f"pooling {pooling!r} of network deepjet: expected {' or '.join(POOLINGS)}")
        tables = {group: Slots(features, group) for group in GROUPS}
        self.tables = nn.ModuleDict(tables)
        self.convolutions, self.pools = nn.ModuleDict(), nn.ModuleDict()
        for group, (sizes, size) in GROUPS.items():
            self.convolutions[group] = dense((len(tables[group].names), *sizes), dropout)
            self.pools[group] = POOLINGS[pooling](sizes[-1], size)
        of_jet = outside(features, list(tables.values()))
        self.register_buffer("of_jet", of_jet, persistent=False)
        summarised = sum(size for _, size in GROUPS.values())
        self.head = dense((len(of_jet) + summarised, 200, *[width] * 7), dropout)
        self.output = nn.Linear(width, classes)

    def forward(self, standardised: Tensor, present: Tensor) -> Tensor:
        """Float and bool [jets, inputs] to logits [jets, classes]."""
        parts = [standardised.index_select(1, self.get_buffer("of_jet"))]
        for group in GROUPS:
            candidates, filled = self.tables[group](standardised, present)
            parts.append(self.pools[group](self.convolutions[group](candidates), filled))
        logits: Tensor = self.output(self.head(torch.cat(parts, 1)))
        return logits


def dense(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers from each width to the next, each with ReLU and dropout; on [..., slots, features], 1x1
    convolutions.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        # a dozen layers of torch's own start leave 1e-4 of what goes in
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class Recurrent(nn.Module):
    """The last state of an LSTM that goes through the filled slots from the last to the first; 0 if there is none."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, size, batch_first=True)

    def forward(self, candidates: Tensor, filled: Tensor) -> Tensor:
        """Float [jets, slots, width] and bool [jets, slots] to float [jets, size]."""
        number = filled.sum(1)
        # empty slots go to the end, behind the state that is read: nothing waits for the numbers, as packing would
        slot = torch.arange(filled.shape[1], device=filled.device)
        order = torch.where(filled, -slot, 1 + slot).argsort(1)
        backwards = candidates.gather(1, order[..., None].expand_as(candidates))
        # cuDNN differentiates only in training mode, and attacks want gradients in evaluation mode; the modes agree
        training, self.lstm.training = self.lstm.training, True
        try:
            states, _ = self.lstm(backwards)
        finally:
            self.lstm.training = training
        last = (number - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
        return torch.where(number[:, None] > 0, states.gather(1, last).squeeze(1), 0)


class Attention(nn.Module):
    """A mean over the filled slots, with weights that are a softmax of a learnt score; 0 if there is none."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.score, self.value = nn.Linear(width, 1), nn.Linear(width, size)

    def forward(self, candidates: Tensor, filled: Tensor) -> Tensor:
        """Float [jets, slots, width] and bool [jets, slots] to float [jets, size]."""
        scores = self.score(candidates).squeeze(2)
        # not -inf: a softmax over nothing else is not a number
        weights = scores.masked_fill(~filled, torch.finfo(scores.dtype).min).softmax(1) * filled
        return torch.einsum("js,jsf->jf", weights, torch.relu(self.value(candidates)))


POOLINGS: dict[str, type[nn.Module]] = {"lstm": Recurrent, "attention": Attention}
