"""From a configuration to an attack."""

from attacks.attack import Attack
from attacks.budget import Budget
from attacks.fgsm import FGSM
from attacks.noise import GaussianNoise
from configs.schema import Attack as AttackConfig

ATTACKS: dict[str, type[Attack]] = {"fgsm": FGSM, "noise": GaussianNoise}


def build_attack(config: AttackConfig) -> Attack:
    """The attack that a configuration describes."""
    return ATTACKS[config.kind](Budget(epsilon=config.epsilon, capped=config.capped), seed=config.seed)
