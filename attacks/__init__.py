"""Perturbations of a tagger's inputs, and the budget that each must stay inside."""

from attacks.attack import Attack
from attacks.budget import Budget
from attacks.fgsm import FGSM
from attacks.noise import GaussianNoise

__all__ = ["FGSM", "Attack", "Budget", "GaussianNoise"]
