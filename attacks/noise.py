"""Gaussian noise: what a perturbation of the same size costs when it does not aim."""

from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Interval
from models.inputs import Inputs
from models.keys import normal
from models.tagger import Tagger


class GaussianNoise(Attack):
    """Adds N(0, eps s) to each entry, projected into the budget, and so cut at one standard deviation.

    The reference attack of A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15, with the same masks as FGSM. The
    noise is a function of (jet, feature, seed) alone. It looks neither at the tagger's outputs nor at the truth.
    """

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:  # noqa: ARG002
        """See `Attack`."""
        noise = normal(inputs.key, inputs.values.shape[1], self.seed).to(inputs.values.dtype)
        return inputs.values + self.budget.step(tagger) * noise
