"""Fast gradient sign method."""

from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Interval
from attacks.gradient import input_gradient
from models.inputs import Inputs
from models.tagger import Tagger


class FGSM(Attack):
    """One step of full size along the sign of the loss gradient: x + eps s sign(dL/dx), projected into the budget.

    L is the cross entropy with the true class (I. Goodfellow et al., arXiv:1412.6572; on jets: A. Stein et al.,
    Comput. Softw. Big Sci. 6 (2022) 15). Standardisation has positive slope, so the sign in physical and in
    standardised space is the same.
    """

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        gradient, _ = input_gradient(tagger, inputs, target, interval, inputs.values)
        return gradient.sign_().mul_(self.budget.step(tagger)).add_(inputs.values)
