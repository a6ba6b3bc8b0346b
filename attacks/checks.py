"""What attacks refuse, and where they do not look: each look makes a GPU wait for all that it was given before."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import Tagger

_checking: ContextVar[bool] = ContextVar("checking", default=True)


@contextmanager
def unchecked() -> Iterator[None]:
    """Attacks inside the block refuse nothing: for the steps of a training, whose jets were checked when they were
    cached, and whose loss, where a gradient was not finite, is neither.
    """
    token = _checking.set(False)
    try:
        yield
    finally:
        _checking.reset(token)


def refuse_bad_input(tagger: Tagger, inputs: Inputs, target: Tensor) -> None:
    """Refuse what no attack can move.

    Raises:
        AdvtagError: see `Attack.__call__`
    """
    if not _checking.get():
        return
    features = tagger.features
    if inputs.values.shape[1] != len(features):
        raise AdvtagError(
            f"jets with {inputs.values.shape[1]} inputs, but card {features.name!r} of the tagger has {len(features)}"
        )
    if not len(inputs):
        return
    # one sum is quick, and is finite unless something is wrong or values are near the end of the floating range
    if not torch.isfinite(inputs.values.sum()):
        bad = (inputs.present & ~torch.isfinite(inputs.values)).sum(0)
        if bad.any():
            k = int(bad.argmax())
            raise AdvtagError(
                f"input {features.names[k]!r}: not finite although present in {int(bad[k])} of {len(inputs)} jets; "
                "an entry without a value must be absent"
            )
    lowest, highest = (int(code) for code in target.aminmax())
    if lowest < 0 or highest >= len(tagger.classes):
        wrong = lowest if lowest < 0 else highest
        raise AdvtagError(f"true class {wrong} among the jets, but the tagger has classes {', '.join(tagger.classes)}")


def refuse_bad_gradient(gradient: Tensor) -> None:
    """Refuse to follow a gradient, float [jets, features], that is not finite.

    Raises:
        AdvtagError: it is not
    """
    if _checking.get() and not torch.isfinite(gradient.sum()) and not torch.isfinite(gradient).all():
        raise AdvtagError("the gradient of the loss is not finite: the tagger's weights or its widths are not usable")
