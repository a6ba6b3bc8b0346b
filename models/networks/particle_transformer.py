"""A network like the Particle Transformer: attention among candidates, biased by what is known of each pair."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, softplus

from models.features import FeatureSet
from models.networks.candidates import ANGLE, Candidates

PAIR = ((0.0, 0.5), (2.5, 1.0), (2.0, 0.5), (0.0, 0.3))
"""Shift and scale of the pairwise features, round numbers."""


class ParticleTransformer(nn.Module):
    """A network like the Particle Transformer (H. Qu, C. Li, S. Qian, arXiv:2202.03772).

    Taken from there: no places, so that the order of the candidates does not matter; layers of attention with
    normalised inputs, whose scores get a bias from ln kT, ln z, ln Delta R and ln m^2 of each pair, the same in all
    layers; a class token that attends to the candidates at the end. With card `particles` and 4 classes: 29,188
    parameters (the original has 2.14 million).

    Not as there: 2 + 1 layers of width 32 with 4 heads, not 8 + 2 of 128 with 8; twice the width inside a layer, not
    four times; no further normalisation and scaling of heads inside of them; masses are neglected; the last layer sees
    the inputs of the jet, too.

    Args:
        features: see `Candidates`
        classes: number of outputs
        width: of all layers
        heads: of the attention
        layers: before the class token
        dropout: inside of these layers; none at the class token
    """

    def __init__(
        self,
        features: FeatureSet,
        classes: int,
        *,
        width: int = 32,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.candidates = Candidates(features)
        self.embedding = nn.Sequential(
            nn.Linear(self.candidates.width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.GELU()
        )
        self.pairs = nn.Sequential(nn.Linear(len(PAIR), 4 * heads), nn.GELU(), nn.Linear(4 * heads, heads))
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.token = nn.Parameter(torch.randn(width) / 10)
        self.last = Layer(width, heads, 0.0)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width + self.candidates.globals, classes)

    def forward(self, standardised: Tensor, present: Tensor) -> Tensor:
        """Float and bool [jets, inputs] to logits [jets, classes]."""
        seen, momenta, filled, of_jet = self.candidates(standardised, present)
        seen = self.embedding(seen)
        # not -inf: a softmax over nothing else is not a number
        closed = torch.zeros_like(filled, dtype=seen.dtype).masked_fill(~filled, torch.finfo(seen.dtype).min)
        bias = self.pairs(pairwise(momenta)).movedim(3, 1) + closed[:, None, None]
        for layer in self.layers:
            seen = layer(seen, seen, bias)
        token = self.token.expand(seen.shape[0], 1, -1)
        open_token = closed.new_zeros(seen.shape[0], 1)
        both = torch.cat([token, seen], 1)
        token = self.last(token, both, torch.cat([open_token, closed], 1)[:, None, None])
        logits: Tensor = self.output(torch.cat([self.norm(token.squeeze(1)), of_jet], 1))
        return logits


class Layer(nn.Module):
    """Attention and two dense layers, each added to what was there."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, asking: Tensor, asked: Tensor, bias: Tensor) -> Tensor:
        """Float [jets, asking, width] to the same, by what the candidates `asked`, float [jets, asked, width], say.

        Args:
            asking: those that change
            asked: those that are looked at
            bias: of the scores, float [jets, heads or 1, asking or 1, asked]
        """
        normed = self.before(asked)
        own = normed if asking is asked else self.before(asking)
        query, key, value = (
            self._by_head(f(x)) for f, x in ((self.query, own), (self.key, normed), (self.value, normed))
        )
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5 + bias
        found = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)
        asking = asking + dropout(self.mix(found), self.dropout, self.training)
        inner = gelu(self.inner(self.between(asking)))
        return asking + dropout(self.outer(inner), self.dropout, self.training)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def pairwise(momenta: Tensor) -> Tensor:
    """Features of each pair of candidates, float [jets, slots, slots, 4]: ln kT, ln z, ln Delta R, ln m^2, of order 1.

    kT = min(pT, pT') Delta R, z = min(pT, pT') / (pT + pT'), m^2 = 2 pT pT' (cosh Delta eta - cos Delta phi), all with
    Delta R^2 + `ANGLE`^2 for Delta R^2.

    Args:
        momenta: ln pT [GeV], eta and phi, float [jets, slots, 3]
    """
    log_pt, eta, phi = momenta.unbind(2)
    one, other = log_pt[:, :, None], log_pt[:, None]
    d_eta, d_phi = eta[:, :, None] - eta[:, None], phi[:, :, None] - phi[:, None]
    log_distance = (d_eta**2 + d_phi**2 + ANGLE**2).log() / 2
    # 2 (cosh x - cos y) without the difference of two numbers near 1
    opening = 4 * (torch.sinh(d_eta / 2) ** 2 + torch.sin(d_phi / 2) ** 2) + ANGLE**2
    log_kt = torch.minimum(one, other) + log_distance
    log_z = -softplus((one - other).abs())
    features = (log_kt, log_z, log_distance, one + other + opening.log())
    return torch.stack([(x + shift) * scale for x, (shift, scale) in zip(features, PAIR, strict=True)], 3)
