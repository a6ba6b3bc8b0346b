"""Perturbations of a tagger's inputs, and the budget that each must stay inside."""

from attacks.apgd import APGD
from attacks.attack import Attack
from attacks.budget import Budget
from attacks.conserv import Conserv
from attacks.conserv_reference import ConservReference
from attacks.fgsm import FGSM
from attacks.minifool import MiniFool
from attacks.ngm import NGM
from attacks.noise import GaussianNoise
from attacks.pgd import PGD
from attacks.pip import PIP, PIPPGD
from attacks.rdsa import RDSA
from attacks.square import Square
from attacks.success import WorkingPoint
from attacks.systematic import Systematic

__all__ = [
    "APGD",
    "FGSM",
    "NGM",
    "PGD",
    "PIP",
    "PIPPGD",
    "RDSA",
    "Attack",
    "Budget",
    "Conserv",
    "ConservReference",
    "GaussianNoise",
    "MiniFool",
    "Square",
    "Systematic",
    "WorkingPoint",
]
