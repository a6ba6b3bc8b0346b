"""Normed gradient method."""

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Interval
from attacks.gradient import input_gradient
from models.inputs import Inputs
from models.tagger import Tagger


class NGM(Attack):
    """One step of fixed length per jet and input group: x + eps s g / ||g||, projected into the budget.

    g = s dL/dx is the gradient of the cross entropy in units of s; its norm runs over the entries of one group of the
    feature card (jet, tracks, vertex, ...). FGSM moves every entry equally far; here those that the loss depends on
    most move farthest. Source: the training script of RobustParTAK4 (`Part_train_ADV_NormedGradMethod.py` in the
    DeepJet of A. Stein; tagger: CMSSW PR 41275). Theirs takes the gradient in the inputs as the network gets them, so
    that the direction depends on their units, and its norm over all entries of an input tensor, whether they move or
    not, and no smaller than 1e-6. Here it runs over the present entries that may move by themselves,
    and is what it is: with a floor, jets that the tagger is sure about would not move.
    """

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:
        """See `Attack`."""
        gradient, _ = input_gradient(tagger, inputs, target, interval, inputs.values)
        slope = torch.where(interval.free, gradient * self.budget.unit(tagger), 0)
        groups = [feature.group for feature in tagger.features.inputs]
        direction = torch.zeros_like(slope)
        for group in dict.fromkeys(groups):
            columns = torch.tensor([k for k, other in enumerate(groups) if other == group], device=slope.device)
            direction[:, columns] = normed(slope[:, columns])
        return inputs.values + self.budget.step(tagger) * direction


def normed(vectors: Tensor) -> Tensor:
    """Each row of float [jets, features] at length 1; a row of zeros stays.

    It is divided by its largest entry first: the square of 1e-20, the slope of a loss that is nearly 0, is 0 in
    float32.
    """
    largest = vectors.abs().amax(1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / length.clamp(min=1)
