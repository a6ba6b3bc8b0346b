"""Coherent shift: what a systematic uncertainty of the same size costs."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from attacks.attack import Attack
from attacks.budget import Budget, Interval
from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import Tagger


class Systematic(Attack):
    """Shifts each feature by the same amount in all jets: x + d eps s, projected into the budget.

    `syst_var` in the code of A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15, which shifts all features up.
    It looks neither at the tagger's outputs nor at the truth.

    Args:
        budget: size of the shift
        shift: d of each feature by name, from -1 to 1, and features not named stay; `up` and `down` are 1 and -1 for
            all
        seed: nothing is random here

    Raises:
        AdvtagError: a shift that is none of these; when called, one of a feature that the tagger does not have
    """

    def __init__(
        self, budget: Budget, *, shift: Literal["up", "down"] | Mapping[str, float] = "up", seed: int = 0
    ) -> None:
        super().__init__(budget, seed=seed)
        if isinstance(shift, str):
            if shift not in ("up", "down"):
                raise AdvtagError(f"shift is {shift!r}; expected `up`, `down`, or a number from -1 to 1 per feature")
        else:
            wrong = [name for name, number in shift.items() if not -1 <= number <= 1]
            if wrong:
                raise AdvtagError(f"shift of {wrong[0]!r} is {shift[wrong[0]]}; expected a number from -1 to 1")
        self.shift = shift

    def perturb(self, tagger: Tagger, inputs: Inputs, target: Tensor, interval: Interval) -> Tensor:  # noqa: ARG002
        """See `Attack`."""
        names = tagger.features.names
        if isinstance(self.shift, str):
            numbers = dict.fromkeys(names, 1.0 if self.shift == "up" else -1.0)
        else:
            numbers = dict(self.shift)
        unknown = sorted(set(numbers) - set(names))
        if unknown:
            raise AdvtagError(f"shift of {', '.join(unknown)}: not among the inputs of card {tagger.features.name!r}")
        direction = inputs.values.new_tensor([numbers.get(name, 0.0) for name in names])
        return inputs.values + direction * self.budget.step(tagger)
