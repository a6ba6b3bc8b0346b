"""Which attacks the robustness suites run, in which order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attacks.attack import Attack
from attacks.build import build_attack
from configs.attacks import attack_config

SuiteName = Literal["quick", "standard", "full"]
JETS: dict[SuiteName, int | None] = {"quick": 5_000, "standard": 10_000, "full": None}
"""Jets that a suite looks at; None: all of the test split."""
CHECK_JETS = 2_000
"""Jets of the runs that only the masking checks need."""
EPSILONS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of epsilon at which the damage must grow."""
UNBOUNDED = 100.0
"""Epsilon, in standard deviations and without caps, that stands for no bound."""


@dataclass(frozen=True)
class Entry:
    """One run of a suite."""

    attack: Attack
    survivors: bool = False
    """Attack only jets that nothing before has fooled: for searches that cost many passes."""
    integers: bool = False
    """Moves integers, which epsilon does not bound: counts in a worst case of its own."""
    check: bool = False
    """Only for the masking checks, on `CHECK_JETS` jets: counts neither as an attack nor in the worst case."""


def suite(
    name: SuiteName, classes: int, *, epsilon: float, scale: str | Path, capped: bool, seed: int
) -> dict[str, Entry]:
    """The runs of a suite by name, cheapest attacks first.

    Args:
        name: `quick`, one step and few steps; `standard`, every attack; `full`, every attack with more of everything
        classes: number of the tagger's classes
        epsilon: size of all attacks but those of the unbounded check
        scale: unit of epsilon, or a table of uncertainties
        capped: apply the relative caps of the card
        seed: of all random numbers
    """
    budget = {"epsilon": epsilon, "scale": scale, "capped": capped, "seed": seed}
    more = {"quick": 1, "standard": 2, "full": 10}[name]

    def attack(kind: str, **keys: Any) -> Attack:
        return build_attack(attack_config({"kind": kind, **budget, **keys}))

    dlr = "dlr-targeted" if classes > 3 else "dlr"
    entries = {
        "noise": Entry(attack("noise")),
        "systematic-up": Entry(attack("systematic", shift="up")),
        "systematic-down": Entry(attack("systematic", shift="down")),
        "fgsm": Entry(attack("fgsm")),
        "ngm": Entry(attack("ngm")),
        "pgd": Entry(attack("pgd", steps=10)),
    }
    if name != "quick":
        entries |= {
            "pgd-l2": Entry(attack("pgd", steps=10, norm="l2")),
            "rdsa": Entry(attack("rdsa")),
            "minifool": Entry(attack("minifool")),
            "conserv": Entry(attack("conserv")),
        }
    entries |= {
        "apgd-ce": Entry(attack("apgd", steps=10 * more), survivors=True),
        f"apgd-{dlr}": Entry(attack("apgd", steps=10 * more, objective=dlr), survivors=True),
        "square": Entry(attack("square", queries=100 * more), survivors=True),
    }
    if name != "quick":
        # one step: integers have no budget but their steps
        entries |= {kind: Entry(attack(kind, steps=1), integers=True) for kind in ("pip", "pip-pgd")}
    for factor in EPSILONS:
        entries[f"pgd@{factor:g}"] = Entry(attack("pgd", epsilon=factor * epsilon, random_start=False), check=True)
    entries["pgd-restarts"] = Entry(attack("pgd", restarts=5), check=True)
    entries["unbounded"] = Entry(attack("apgd", epsilon=UNBOUNDED, scale="std", capped=False, steps=100), check=True)
    return entries
