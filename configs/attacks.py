"""What a configuration may say about an attack: one section per kind, and presets of published studies."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import AdvtagError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Number = Annotated[int, Field(gt=0)]
Unlimited = Annotated[float, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Edges = Annotated[tuple[float, ...], Field(min_length=2)]


class Section(BaseModel):
    """Unknown keys are errors; values cannot change after validation; infinity is "Infinity" in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class WorkingPoint(Section):
    """Success is crossing this cut, instead of another highest class."""

    discriminator: Literal["BvsL", "BvsC", "CvsL", "CvsB"]
    threshold: Annotated[float, Field(ge=0, le=1)]


class Budgeted(Section):
    """The budget of an attack; see `attacks.budget.Budget`."""

    epsilon: NonNegative
    """Units of `scale`; rdsa and conserv take .inf, too: no limit per jet."""
    scale: Literal["std", "core", "quantile"] | Path = "std"
    """Unit of each input, or a YAML table of uncertainties (`advtag envelope` writes one); a relative path is relative
    to the configuration file."""
    capped: bool = True
    """Apply the relative caps of the feature card."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of attacks that draw random numbers."""


class Noise(Budgeted):
    """Gaussian noise; see `attacks.noise`."""

    kind: Literal["noise"]


class Systematic(Budgeted):
    """Coherent shift of all jets; see `attacks.systematic`."""

    kind: Literal["systematic"]
    shift: Literal["up", "down"] | dict[str, Annotated[float, Field(ge=-1, le=1)]] = "up"


class FGSM(Budgeted):
    """Fast gradient sign; see `attacks.fgsm`."""

    kind: Literal["fgsm"]


class NGM(Budgeted):
    """Normed gradient per input group; see `attacks.ngm`."""

    kind: Literal["ngm"]


class PGD(Budgeted):
    """Projected gradient descent; see `attacks.pgd`."""

    kind: Literal["pgd"]
    steps: Number = 10
    step_size: Positive | None = None
    restarts: Number = 1
    random_start: bool = True
    norm: Literal["linf", "l2"] = "linf"


class APGD(Budgeted):
    """Auto-PGD; see `attacks.apgd`."""

    kind: Literal["apgd"]
    steps: Number = 100
    restarts: Number = 1
    objective: Literal["ce", "dlr", "dlr-targeted"] = "ce"


class Square(Budgeted):
    """Black-box random search; see `attacks.square`."""

    kind: Literal["square"]
    queries: Number = 500
    fraction: Fraction = 0.3


class PIP(Budgeted):
    """Probabilistic integer perturbation; see `attacks.pip`."""

    kind: Literal["pip"]
    steps: Number = 1
    sharpness: NonNegative = 1.0
    maximum: Literal["jet", "batch"] = "jet"
    features: tuple[str, ...] | None = None


class PIPPGD(Budgeted):
    """Integers by PIP and the rest by PGD; see `attacks.pip`."""

    kind: Literal["pip-pgd"]
    steps: Number = 10
    step_size: Positive | None = None
    sharpness: NonNegative = 1.0
    maximum: Literal["jet", "batch"] = "jet"
    features: tuple[str, ...] | None = None
    random_start: bool = False


class RDSA(Budgeted):
    """Random distribution shuffle; see `attacks.rdsa`."""

    kind: Literal["rdsa"]
    epsilon: Unlimited
    features: Number = 15
    attempts: Number = 25
    pt_edges: Edges = (20, 30, 50, 70, 100, 150, 250, 1000)
    eta_edges: Edges = (0, 0.8, 1.6, 2.5)
    working_point: WorkingPoint | None = None


class MiniFool(Budgeted):
    """Smallest chi2 that flips a jet; see `attacks.minifool`."""

    kind: Literal["minifool"]
    alpha: NonNegative = 1.0
    beta: Positive = 10.0
    steps: Number = 50
    learning_rate: Positive = 0.1
    scales: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.125, 0.25, 0.5, 1.0)
    working_point: WorkingPoint | None = None


class Conserv(Budgeted):
    """Keeps marginals and correlations; see `attacks.conserv`."""

    kind: Literal["conserv"]
    epsilon: Unlimited
    iterations: Number = 10
    candidates: Number = 24
    js_cap: Fraction = 0.005
    correlation_cap: Positive = 0.006
    alpha: NonNegative = 0.03
    beta: NonNegative = 0.1
    within: Literal["class", "sample"] = "class"
    integers: tuple[str, ...] = ()
    working_point: WorkingPoint | None = None


class ConservReference(Budgeted):
    """The published CONSERVAttack; see `attacks.conserv_reference`."""

    kind: Literal["conserv-reference"]
    epsilon: Unlimited
    iterations: Number = 10
    bins: Number = 70
    candidates: Number | None = 150
    min_change: Positive = 0.001
    step: Positive = 0.001
    js_cap: Positive = 0.005
    correlation_cap: Positive = 0.05
    alpha: NonNegative = 6.0
    beta: NonNegative = 1.0
    use_no_change: bool = True


def _preset(written: Any) -> Any:
    """Expand `preset: NAME`; keys beside it win."""
    if not isinstance(written, dict) or "preset" not in written:
        return written
    known = presets()
    name = written["preset"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"no preset {name!r}; known: {', '.join(known)}")
    base = {key: value for key, value in known[name].items() if key != "source"}
    return {**base, **{key: value for key, value in written.items() if key != "preset"}}


def presets() -> dict[str, dict[str, Any]]:
    """The attacks of published studies by name, each with its `source` (`configs/presets.yaml`)."""
    written: dict[str, dict[str, Any]] = yaml.safe_load((files("configs") / "presets.yaml").read_text(encoding="utf-8"))
    return written


Attack = Annotated[
    Noise | Systematic | FGSM | NGM | PGD | APGD | Square | PIP | PIPPGD | RDSA | MiniFool | Conserv | ConservReference,
    Field(discriminator="kind"),
]
"""An attack and its budget."""
PresetAttack = Annotated[Attack, BeforeValidator(_preset)]
"""The same, or a preset with changes on top."""


def attack_config(written: dict[str, Any]) -> Attack:
    """Validate one attack as a configuration writes it.

    Raises:
        AdvtagError: naming the key that is wrong
    """
    try:
        return TypeAdapter[Attack](PresetAttack).validate_python(written)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("attack", *first["loc"]))
        raise AdvtagError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
