"""Is a tagger robust, or does it hide its gradients? Checks of the results of a suite, with a verdict.

After A. Athalye et al., arXiv:1802.00420, N. Carlini et al., arXiv:1902.06705, sec. 5, and the warnings of AutoAttack
(F. Croce and M. Hein, arXiv:2003.01690).
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import torch

from attacks.budget import Budget
from attacks.gradient import input_gradient
from models.inputs import Inputs
from models.tagger import Tagger

TOLERANCE = 0.002
"""Of an AUC: about its statistical error with the jets of the checks."""


@dataclass(frozen=True)
class Check:
    """One check; `passed` is None where the suite did not run what it needs."""

    name: str
    expected: str
    found: str
    passed: bool | None


def network_checks(tagger: Tagger, inputs: Inputs, target: torch.Tensor) -> list[Check]:
    """Checks of the network itself, on some jets: it gives logits, the same ones twice, and gradients.

    Raises:
        AdvtagError: the gradient is not finite
    """
    with torch.no_grad():
        logits, again = (tagger(inputs.values, inputs.present) for _ in range(2))
    sums = logits.sum(1)
    probabilities = bool((logits >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-4))
    same = torch.equal(logits, again)
    # float64: in float32 the gradient of a very confident jet may underflow, which attacks on logits do not mind
    double, jets = deepcopy(tagger).to(torch.float64), inputs.to(dtype=torch.float64)
    interval = Budget(epsilon=1.0, capped=False).interval(double, jets)
    gradient, _ = input_gradient(double, jets, target, interval, jets.values)
    movable = interval.free.any(1)
    zero = (gradient.where(interval.free, 0) == 0).all(1)[movable]
    part = float(zero.double().mean()) if len(zero) else None
    return [
        Check(
            "outputs are logits", "not probabilities", "probabilities" if probabilities else "logits", not probabilities
        ),
        Check("outputs are reproducible", "equal twice", "equal" if same else "different", same),
        Check(
            "gradients are not zero",
            "in 99 % of jets",
            "no input can move" if part is None else f"zero in {part:.1%}",
            None if part is None else part < 0.01,
        ),
    ]


def attack_checks(
    auc: Mapping[str, float | None],
    fooled: Mapping[str, float | None],
    transfers: Mapping[str, float | None],
    epsilons: Mapping[float, float | None],
    searched: float | None,
) -> list[Check]:
    """Checks of what attacks did to the same jets.

    Args:
        auc: AUC of BvsL by run: `raw`, `noise`, `fgsm`, `pgd@1`, `unbounded`
        fooled: fooling ratio by run: `pgd`, `pgd-restarts`
        transfers: AUC of BvsL for examples made on other taggers, by their name
        epsilons: AUC of BvsL by multiple of epsilon, of one iterative attack
        searched: fraction of jets that only the black-box search fooled, after all others
    """
    checks = [
        _at_least_as_strong("iterative at least as strong as one step", auc.get("pgd@1"), auc.get("fgsm")),
        _monotone(epsilons),
        # not to 0: absent and integer inputs stay, and some jets have no others
        _below("no bound, no tagging", "AUC below 0.1", auc.get("unbounded"), 0.1),
        _noise(auc),
        _restarts(fooled),
        _below("white box at least as strong as black box", "the search fools 0.5 % more at most", searched, 0.005),
    ]
    if not transfers:
        name = "white box at least as strong as transfer"
        checks.append(Check(name, "examples of another tagger do less", "no other tagger given", None))
    for other, area in transfers.items():
        checks.append(
            _at_least_as_strong(f"white box at least as strong as transfer from {other}", auc.get("pgd@1"), area)
        )
    return checks


def verdict(checks: list[Check]) -> str:
    """One sentence on all checks."""
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        return f"suspicious: {len(failed)} of {len(checks)} checks failed ({'; '.join(failed)})"
    skipped = sum(check.passed is None for check in checks)
    return f"no sign of gradient masking in {len(checks) - skipped} checks" + (f", {skipped} not run" * bool(skipped))


def _at_least_as_strong(name: str, strong: float | None, weak: float | None) -> Check:
    expected = f"AUC lower, or higher by {TOLERANCE} at most"
    if strong is None or weak is None:
        return Check(name, expected, "not run", None)
    return Check(name, expected, f"{strong:.4f} against {weak:.4f}", strong <= weak + TOLERANCE)


def _below(name: str, expected: str, value: float | None, limit: float) -> Check:
    return Check(
        name, expected, "not run" if value is None else f"{value:.4f}", None if value is None else value < limit
    )


def _monotone(epsilons: Mapping[float, float | None]) -> Check:
    name, expected = "damage grows with epsilon", "AUC falls"
    areas = [epsilons[factor] for factor in sorted(epsilons)]
    if len(areas) < 2 or any(area is None for area in areas):
        return Check(name, expected, "not run", None)
    known = [area for area in areas if area is not None]
    falls = all(after <= before + TOLERANCE for before, after in pairwise(known))
    return Check(name, expected, ", ".join(f"{area:.4f}" for area in known), falls)


def _noise(auc: Mapping[str, float | None]) -> Check:
    name, expected = "noise much weaker than a gradient", "a third of the loss of AUC at most"
    raw, noise, fgsm = (auc.get(run) for run in ("raw", "noise", "fgsm"))
    if raw is None or noise is None or fgsm is None:
        return Check(name, expected, "not run", None)
    weaker = raw - noise <= (raw - fgsm) / 3 + TOLERANCE
    return Check(name, expected, f"{raw - noise:.4f} against {raw - fgsm:.4f}", weaker)


def _restarts(fooled: Mapping[str, float | None]) -> Check:
    name, expected = "more restarts change little", "0.02 more fooled at most"
    once, often = fooled.get("pgd"), fooled.get("pgd-restarts")
    if once is None or often is None:
        return Check(name, expected, "not run", None)
    return Check(name, expected, f"{once:.3f} to {often:.3f}", often - once <= 0.02)
