"""Weights that give every flavour the same pt and eta spectrum, and every class the same total."""

from collections.abc import Iterable
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import AdvtagError
from training.cache import Stored
from training.columns import Sample

PT_EDGES = np.array([15, 20, 26, 35, 46, 61, 80, 106, 141, 186, 247, 326, 432, 571, 756, 1001.0])
"""GeV; the b-hive edges of CMS."""
MAX_WEIGHT = 10.0
ETA_EDGES = np.arange(-2.5, 2.51, 0.5)
BINS = (len(PT_EDGES) - 1, len(ETA_EDGES) - 1)
Form = Literal["balanced", "flat", "none"]


class PtEtaFlavourWeights:
    """The reweightings of the CMS thesis study on DeepCSV (A. Stein, AI_Safety_2021).

    `balanced` (`_ptetaflavloss` in its code), with h_f the normalised (pt, eta) histogram of flavour f and N_f its sum
    of weights: every flavour gets the average spectrum, and every class the same total,

        w_f(bin) = mean_f' h_f'(bin) / h_f(bin) * (N / N_f) / sum_f' (N / N_f')

    `flat` (`_flatptetaflavloss`), with n_f = N_f h_f: every bin of every class gets the same total,

        w_f(bin) = (N / bins) / n_f(bin)

    `none`: all 1.

    The first two are scaled to an average of 1 over the fitted jets, and then capped. Without the cap, the 0.5 % of
    jets with two b hadrons in simulated ttbar carry a quarter of the balanced weight, 60 each, and cost 0.008 of the
    BvsL area (0.935 instead of 0.943 after 9 epochs of 200,000 jets). The study has 50 x 50 equal bins, too many for
    small samples: here are the 15 x 10 bins of b-hive. The published weights are infinite in empty bins; here a bin
    without jets of flavour f weighs 0 for f. Jets outside the edges count in the outermost bins.

    Args:
        counts: float [classes, pt bins, eta bins], sums of generator weights; `spectra` makes them
        form: which
        cap: largest weight

    Raises:
        AdvtagError: the weights add up to nothing positive
    """

    def __init__(self, counts: NDArray[np.float64], form: Form = "balanced", *, cap: float = MAX_WEIGHT) -> None:
        number = counts.sum()
        if not number > 0:
            raise AdvtagError("training weights: the generator weights of the training jets add up to nothing positive")
        filled = np.maximum(counts, 0)  # negative generator weights can outweigh a sparse bin
        if form == "none":
            table = np.ones_like(filled)
        else:
            table = _balanced(filled) if form == "balanced" else _inverse(filled)
            table = np.minimum(table * number / (table * filled).sum(), cap)
        self.table = torch.from_numpy(table)

    @classmethod
    def fit(
        cls, jets: Stored | Iterable[Sample], classes: int, form: Form = "balanced", *, cap: float = MAX_WEIGHT
    ) -> Self:
        """The weights of jets on disk or in chunks; only counts are kept.

        Raises:
            AdvtagError: the generator weights add up to nothing positive
        """
        return cls(spectra(jets, classes), form, cap=cap)

    def __call__(self, target: Tensor, pt: Tensor, eta: Tensor) -> Tensor:
        """Weight of each jet from its class, int, and pt [GeV] and eta, [jets] each: float64 [jets], likewise on the
        device of the jets.
        """
        return self.table.view(-1).to(pt.device).index_select(0, _place(target, pt, eta))

    def of(self, sample: Sample) -> Tensor:
        """What the loss of each jet counts, float32 [jets]: this weight times the generator's."""
        return (self(sample.target, sample.pt, sample.eta) * sample.weight).float()


def spectra(jets: Stored | Iterable[Sample], classes: int) -> NDArray[np.float64]:
    """Sums of the generator weights of jets on disk or in chunks, float64 [classes, pt bins, eta bins]."""
    bins = classes * BINS[0] * BINS[1]
    counts = torch.zeros(bins, dtype=torch.float64)
    for sample in jets.chunks() if isinstance(jets, Stored) else jets:
        place = _place(sample.target, sample.pt, sample.eta)
        counts += torch.bincount(place, sample.weight.double(), bins).cpu()
    return counts.view(classes, *BINS).numpy()


def _balanced(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum(axis=(1, 2), keepdims=True)
    shape = counts * _inverse(total)
    average = shape.sum(axis=0) / (total > 0).sum()
    balanced: NDArray[np.float64] = average * _inverse(total) * _inverse(shape)
    return balanced


def _inverse(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1/x, and 0 for 0."""
    return np.divide(1, x, out=np.zeros_like(x), where=x > 0)


def _place(target: Tensor, pt: Tensor, eta: Tensor) -> Tensor:
    """Place in the flattened table, int64 [jets]."""
    return (target * BINS[0] + _bin(PT_EDGES, pt)) * BINS[1] + _bin(ETA_EDGES, eta)


def _bin(edges: NDArray[np.float64], x: Tensor) -> Tensor:
    # the inner edges alone: what lies outside is then in the outermost bin
    inner = torch.as_tensor(edges[1:-1], dtype=x.dtype, device=x.device)
    return torch.bucketize(x.contiguous(), inner, right=True)
