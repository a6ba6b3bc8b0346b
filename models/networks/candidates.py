"""Kinematics of a jet's candidates for networks that need more than standardised numbers."""

import torch
from torch import Tensor, nn

from common.errors import AdvtagError
from models.features import FeatureSet
from models.groups import Slots, outside

GROUP = "particle"
MIN_PT = 0.1
"""GeV; logarithms below are not followed any further."""
ANGLE = 1e-3
"""Angles are not resolved below: the precision of stored eta and phi. Their logarithms keep finite slopes."""


class Candidates(nn.Module):
    """Candidates of group `particle`: what a network sees of each, and their kinematics in physical units.

    The card has `particle_pt` [GeV], `particle_deltaEta`, `particle_deltaPhi` (to the jet axis) and whatever else of
    each candidate, and `pt` [GeV] and `eta` of the jet. Each candidate's features are the standardised inputs, and in
    place of the standardised pT, as in H. Qu, L. Gouskos, arXiv:1902.08570, table 1: ln pT, ln E, ln pT/pT(jet),
    ln E/E(jet) and Delta R, shifted and scaled by round numbers to about [-1, 1]. Masses are neglected. What can be
    derived is derived here: a card has no input for it that an attack could move on its own.

    Args:
        features: the feature card
    """

    def __init__(self, features: FeatureSet) -> None:
        super().__init__()
        self.table = Slots(features, GROUP)
        pt, *_ = self.table.places([f"{GROUP}_{name}" for name in ("pt", "deltaEta", "deltaPhi")])
        missing = {"pt", "eta"}.difference(features.names)
        if missing:
            raise AdvtagError(f"feature card {features.name!r}: the network needs the jet's {missing.pop()!r}")
        self.jet = [features.names.index(name) for name in ("pt", "eta")]
        others = [place for place in range(len(self.table.names)) if place != pt]
        self.register_buffer("others", torch.tensor(others), persistent=False)
        self.register_buffer("of_jet", outside(features, [self.table]), persistent=False)
        self.register_buffer("jet_mean", torch.zeros(2))
        self.register_buffer("jet_std", torch.ones(2))
        self.width = len(others) + 5
        """Features of a candidate"""
        self.globals = len(self.get_buffer("of_jet"))

    def set_units_(self, mean: Tensor, std: Tensor) -> None:
        """Tell means and widths, float [inputs of the card], by which the tagger standardises the jet's pt and eta."""
        self.jet_mean, self.jet_std = mean[self.jet].clone(), std[self.jet].clone()

    def forward(self, standardised: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From float and bool [jets, inputs of the card].

        Returns:
            features of the candidates, float [jets, slots, width], 0 in empty slots; their ln pT [GeV], Delta eta and
            Delta phi, float [jets, slots, 3]; which slots are filled, bool [jets, slots]; inputs of the jet itself,
            float [jets, globals]
        """
        table, filled = self.table(standardised, present)
        pt, eta, phi = (self.table.physical(table, f"{GROUP}_{name}") for name in ("pt", "deltaEta", "deltaPhi"))
        jet_pt, jet_eta = (standardised[:, self.jet] * self.get_buffer("jet_std") + self.get_buffer("jet_mean")).unbind(
            1
        )
        log_pt = pt.clamp(min=MIN_PT).log()
        log_energy = log_pt + log_cosh(jet_eta[:, None] + eta)
        log_jet_pt = jet_pt.clamp(min=MIN_PT).log()[:, None]
        log_jet_energy = log_jet_pt + log_cosh(jet_eta)[:, None]
        kinematics = torch.stack(
            [
                (log_pt - 1) / 2,
                (log_energy - 1) / 2,
                (log_pt - log_jet_pt + 3) / 2,
                (log_energy - log_jet_energy + 3) / 2,
                5 * (eta**2 + phi**2 + ANGLE**2).sqrt() - 1,
            ],
            2,
        )
        seen = torch.cat([table.index_select(2, self.get_buffer("others")), kinematics], 2)
        where = filled[..., None]
        momenta = torch.where(where, torch.stack([log_pt, eta, phi], 2), 0)
        return torch.where(where, seen, 0), momenta, filled, standardised.index_select(1, self.get_buffer("of_jet"))


def log_cosh(eta: Tensor) -> Tensor:
    """Logarithm of cosh: E/pT of a particle without mass; does not overflow."""
    size = eta.abs()
    return size + torch.log1p(torch.exp(-2 * size)) - 0.6931471805599453
