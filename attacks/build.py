"""From a configuration to an attack."""

from collections.abc import Mapping
from pathlib import Path

import yaml

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
from common.errors import AdvtagError
from configs.attacks import Attack as AttackConfig

ATTACKS: dict[str, type[Attack]] = {
    "noise": GaussianNoise,
    "systematic": Systematic,
    "fgsm": FGSM,
    "ngm": NGM,
    "pgd": PGD,
    "apgd": APGD,
    "square": Square,
    "pip": PIP,
    "pip-pgd": PIPPGD,
    "rdsa": RDSA,
    "minifool": MiniFool,
    "conserv": Conserv,
    "conserv-reference": ConservReference,
}
BUDGET = ("epsilon", "scale", "capped")


def build_attack(config: AttackConfig) -> Attack:
    """The attack that a configuration describes.

    Raises:
        AdvtagError: its table of uncertainties cannot be read
    """
    scale = read_uncertainties(config.scale) if isinstance(config.scale, Path) else config.scale
    budget = Budget(epsilon=config.epsilon, scale=scale, capped=config.capped)
    parameters = {name: getattr(config, name) for name in type(config).model_fields if name not in (*BUDGET, "kind")}
    if parameters.get("working_point") is not None:
        parameters["working_point"] = WorkingPoint(**parameters["working_point"].model_dump())
    return ATTACKS[config.kind](budget, **parameters)


def build_attacks(configs: Mapping[str, AttackConfig]) -> dict[str, Attack]:
    """The attacks of a configuration by name.

    Raises:
        AdvtagError: parameters that no attack takes, with the place in the configuration
    """
    built = {}
    for name, config in configs.items():
        try:
            built[name] = build_attack(config)
        except AdvtagError as error:
            raise AdvtagError(f"attacks.{name}: {error}") from error
    return built


def read_uncertainties(path: Path) -> Mapping[str, float]:
    """Read a table of uncertainties: YAML, numbers in physical units by input name under the key `uncertainties`.

    Raises:
        AdvtagError: the file cannot be read, or is not such a table
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))["uncertainties"]
        return {str(name): float(value) for name, value in table.items()}
    except OSError as error:
        raise AdvtagError(f"{path}: cannot read the table of uncertainties ({error.strerror})") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AdvtagError(
            f"{path}: not a table of uncertainties ({reason}); expected `uncertainties: {{INPUT: NUMBER, ...}}`"
        ) from error
