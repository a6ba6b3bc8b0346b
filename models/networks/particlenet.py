"""A network like ParticleNet: convolutions over a graph of nearest neighbours that is drawn anew in each layer."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from models.features import FeatureSet
from models.networks.candidates import Candidates


class ParticleNet(nn.Module):
    """A network like ParticleNet-Lite (H. Qu, L. Gouskos, arXiv:1902.08570).

    Taken from there: two edge convolutions of three layers each over the 7 nearest neighbours, in eta and phi relative
    to the jet axis first, then among the features of the first one; shortcuts, the mean over all candidates, a dense
    layer of 128 with dropout 0.1. With card `particles` and 4 classes: 10,276 parameters.

    Not as there: convolutions 16 and 32 wide, not 32 and 64, for a CPU to train it; layer normalisation of what a
    convolution gives, instead of batch normalisation inside (a jet must not depend on its batch, and under attack
    batches would have two statistics); fewer neighbours where there are fewer candidates; the dense layer sees the
    inputs of the jet, too.

    Args:
        features: see `Candidates`
        classes: number of outputs
        neighbours: of each candidate
        width: of the first edge convolution; the second one has twice that
        dense: width of the dense layer
        dropout: after the dense layer
    """

    def __init__(
        self,
        features: FeatureSet,
        classes: int,
        *,
        neighbours: int = 7,
        width: int = 16,
        dense: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.candidates = Candidates(features)
        self.neighbours = min(neighbours, self.candidates.table.slots - 1)
        self.first = EdgeConvolution(self.candidates.width, width)
        self.second = EdgeConvolution(width, 2 * width)
        self.head = nn.Sequential(
            nn.Linear(2 * width + self.candidates.globals, dense),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dense, classes),
        )

    def forward(self, standardised: Tensor, present: Tensor) -> Tensor:
        """Float and bool [jets, inputs] to logits [jets, classes]."""
        seen, momenta, filled, of_jet = self.candidates(standardised, present)
        seen = self.first(seen, *nearest(momenta[..., 1:], filled, self.neighbours))
        seen = self.second(seen, *nearest(seen, filled, self.neighbours))
        number = filled.sum(1, keepdim=True).clamp(min=1)
        mean = (seen * filled[..., None]).sum(1) / number
        logits: Tensor = self.head(torch.cat([mean, of_jet], 1))
        return logits


class EdgeConvolution(nn.Module):
    """Mean over a candidate's neighbours of a function of both; three layers, a shortcut, layer normalisation.

    The first layer is linear in (x, x' - x), hence a layer on x plus one on x', once per candidate instead of once per
    edge.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(width, out), nn.Linear(width, out, bias=False)
        self.layers = nn.Sequential(
            nn.ReLU(True), nn.Linear(out, out), nn.ReLU(True), nn.Linear(out, out), nn.ReLU(True)
        )
        self.shortcut = nn.Linear(width, out)
        self.norm = nn.LayerNorm(out)

    def forward(self, seen: Tensor, neighbour: Tensor, linked: Tensor) -> Tensor:
        """Float [jets, slots, width] to float [jets, slots, out].

        Args:
            seen: features of the candidates
            neighbour: int64 [jets, slots, neighbours], slots of neighbours
            linked: bool, likewise, False where there is none
        """
        jets, slots, _ = seen.shape
        # as rows of one table: the backward pass of a gather takes three times as long
        row = neighbour + slots * torch.arange(jets, device=seen.device)[:, None, None]
        other = embedding(row, self.other(seen).flatten(0, 1))
        share = linked / linked.sum(2, keepdim=True).clamp(min=1).to(seen.dtype)
        mean = (self.layers(self.own(seen)[:, :, None] + other) * share[..., None]).sum(2)
        found: Tensor = self.norm(torch.relu(mean + self.shortcut(seen)))
        return found


@torch.no_grad()
def nearest(where: Tensor, filled: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """The nearest other candidates of each.

    Args:
        where: float [jets, slots, dimensions]
        filled: bool [jets, slots]
        neighbours: how many, less than slots

    Returns:
        their slots, int64 [jets, slots, neighbours], and whether there are so many, bool likewise
    """
    with torch.autocast(where.device.type, enabled=False):  # three digits do not tell neighbours apart
        where = where if where.dtype == torch.float64 else where.float()
        norm = (where**2).sum(2)
        distance = norm[:, :, None] + norm[:, None] - 2 * where @ where.transpose(1, 2)
    alone = torch.eye(filled.shape[1], dtype=torch.bool, device=where.device)
    distance = distance.masked_fill(alone | ~filled[:, None], torch.inf)
    found, slot = distance.topk(neighbours, dim=2, largest=False)
    return slot, torch.isfinite(found) & filled[:, :, None]
