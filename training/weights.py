"""Weights that give every flavour the same pt and eta spectrum, and every class the same total."""

import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError

PT_EDGES = np.array([15, 20, 26, 35, 46, 61, 80, 106, 141, 186, 247, 326, 432, 571, 756, 1001.0])
"""GeV; the b-hive edges of CMS."""
MAX_WEIGHT = 10.0
ETA_EDGES = np.arange(-2.5, 2.51, 0.5)


class PtEtaFlavourWeights:
    """The class-balanced reweighting of the CMS thesis study on DeepCSV (`_ptetaflavloss` in its code).

    With h_f the normalised (pt, eta) histogram of flavour f and N_f its sum of weights,

        w_f(bin) = mean_f' h_f'(bin) / h_f(bin) * (N / N_f) / sum_f' (N / N_f')

    scaled to an average of 1 over the fitted jets, and then capped. Without the cap, the 0.5 % of jets
    with two b hadrons in simulated ttbar carry a quarter of the weight, 60 each, and cost 0.008 of the BvsL area (0.935
    instead of 0.943 after 9 epochs of 200,000 jets). The study has 50 x 50 equal bins, too many for small samples: here
    are the 15 x 10 bins of b-hive. The published weights are infinite in empty bins; here a bin
    without jets of flavour f weighs 0 for f. Jets outside the edges count in the outermost bins.

    Args:
        target: int [jets], class of each jet
        pt, eta: float [jets], GeV
        weight: float [jets], generator weights
        classes: number of classes
        cap: largest weight

    Raises:
        AdvtagError: the weights add up to nothing positive
    """

    def __init__(
        self,
        target: NDArray[np.integer],
        pt: NDArray[np.floating],
        eta: NDArray[np.floating],
        weight: NDArray[np.floating],
        classes: int,
        *,
        cap: float = MAX_WEIGHT,
    ) -> None:
        counts = np.zeros((classes, len(PT_EDGES) - 1, len(ETA_EDGES) - 1))
        np.add.at(counts, (target, *self._bins(pt, eta)), weight)
        counts = np.maximum(counts, 0)  # negative generator weights can outweigh a sparse bin
        total = counts.sum(axis=(1, 2), keepdims=True)
        if not weight.sum() > 0:
            raise AdvtagError("training weights: the generator weights of the training jets add up to nothing positive")
        shape = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        average = shape.sum(axis=0) / (total > 0).sum()
        balance = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
        self.table = np.divide(average * balance, shape, out=np.zeros_like(shape), where=shape > 0)
        used = (self(target, pt, eta) * weight).sum()
        self.table = np.minimum(self.table * weight.sum() / used, cap)

    def __call__(
        self, target: NDArray[np.integer], pt: NDArray[np.floating], eta: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Weight of each jet, float64 [jets]."""
        found: NDArray[np.float64] = self.table[(target, *self._bins(pt, eta))]
        return found

    @staticmethod
    def _bins(pt: NDArray[np.floating], eta: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        pt_bin = np.clip(np.searchsorted(PT_EDGES, pt, side="right") - 1, 0, len(PT_EDGES) - 2)
        eta_bin = np.clip(np.searchsorted(ETA_EDGES, eta, side="right") - 1, 0, len(ETA_EDGES) - 2)
        return pt_bin, eta_bin
