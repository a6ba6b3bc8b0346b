"""What a configuration may say about training a tagger, and recipes of published studies."""

from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from configs.attacks import FGSM, PGD, Budgeted, NonNegative, Number, Positive, PresetAttack, Section


class Loss(Section):
    """Cross entropy, or focal loss; see `training.losses`."""

    gamma: NonNegative = 0.0
    """(1 - p)^gamma times the cross entropy; 0 is the cross entropy itself."""
    double_softmax: bool = False
    """Softmax before the loss that applies its own: only to reproduce the published gamma of 25."""


class Replace(Section):
    """Batches are replaced by their attacked versions."""

    kind: Literal["replace"] = "replace"
    every: Number = 1
    """Every n-th batch; the others stay clean."""
    kl: NonNegative = 0.0
    """Weight of the Kullback-Leibler divergence of attacked from clean scores, on attacked batches."""


class Free(Section):
    """Free adversarial training; see `training.schemes`."""

    kind: Literal["free"]
    replays: Number = 4
    """Steps on each batch, which its perturbation shares."""


class Trades(Section):
    """Clean loss, and the divergence of attacked from clean scores; see `training.schemes`."""

    kind: Literal["trades"]
    beta: Positive = 6.0


Scheme = Annotated[Replace | Free | Trades, Field(discriminator="kind")]


def _recipe(written: Any) -> Any:
    """Expand `recipe: NAME`; keys beside it win, as wholes."""
    if not isinstance(written, dict) or written.get("recipe") is None:
        return written
    known = recipes()
    name = written["recipe"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"no recipe {name!r}; known: {', '.join(known)}")
    return {**{key: value for key, value in known[name].items() if key != "source"}, **written}


def recipes() -> dict[str, dict[str, Any]]:
    """Trainings of published studies by name, each with its `source` (`configs/recipes.yaml`)."""
    written: dict[str, dict[str, Any]] = yaml.safe_load((files("configs") / "recipes.yaml").read_text(encoding="utf-8"))
    return written


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


NamedAttack = Annotated[
    Annotated[str, Tag("name")] | Annotated[PresetAttack, Tag("section")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "section"),  # else errors speak of both
]


class Fold(Section):
    """Cross-validation: of the events of the training and validation splits, the part `number` of `of` validates, the
    others train. The parts are made by a hash of run, luminosity block and event; the test split stays what it is.
    """

    number: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "Fold":
        if self.number >= self.of:
            raise ValueError(f"number: folds are counted from 0 to {self.of - 1}")
        return self


class Training(Section):
    """One tagger to train."""

    recipe: str | None = None
    """A name in `configs/recipes.yaml`, whose keys hold where they are not given here."""
    network: Literal["deepcsv", "deepjet", "particlenet", "particle_transformer"] = "deepcsv"
    parameters: dict[str, int | float | str] = Field(default_factory=dict)
    """Of the network."""
    attack: NamedAttack | None = None
    """Attack of adversarial training: a name of `attacks`, or one written here; None: nominal training."""
    scheme: Scheme = Replace()
    """How attacked jets enter the training."""
    evaluate_with: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Names of the attacks of the attacked AUCs after each epoch."""
    loss: Loss = Loss()
    weights: Literal["balanced", "flat", "none"] = "balanced"
    """pt-eta-flavour reweighting; see `training.weights`. Generator weights always count."""
    epochs: Number = 20
    batch: Number = 1024
    optimiser: Literal["adam", "radam"] = "adam"
    learning_rate: Positive = 1e-3
    schedule: Literal["published", "cosine", "constant"] = "published"
    """Of the learning rate: 1/(1 + epoch/30), the published one, from a higher start: 1e-4 there, for batches of a
    million; cosine to 0 over all epochs; or constant."""
    clip: Positive | None = None
    """Largest norm of the gradient."""
    autocast: bool = False
    """bfloat16 inside the network, forward and back; weights and losses stay float32."""
    patience: Number | None = None
    """Stop after this many epochs without a lower validation loss; None: never."""
    data: Literal["auto", "memory", "stream"] = "auto"
    """Training jets on the device, or from disk in a shuffled stream; auto: on the device where they fill less than
    half of what is free."""
    validation_jets: Number | None = None
    """Jets of the validation split that are looked at, a random part of it; None: all."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    fold: Fold | None = None
    """None: the splits of the columns."""

    @model_validator(mode="after")
    def _scheme_has_its_attack(self) -> "Training":
        scheme, attack = self.scheme, self.attack
        if attack is None and scheme != Replace():
            raise ValueError(f"scheme {scheme.kind!r} needs an attack")
        if isinstance(attack, Budgeted):  # a name is looked up when the training starts
            if isinstance(scheme, Free) and not isinstance(attack, FGSM):
                raise ValueError("scheme 'free' needs an attack of kind 'fgsm', whose steps it takes")
            if isinstance(scheme, Trades) and not (isinstance(attack, PGD) and attack.random_start):
                raise ValueError("scheme 'trades' needs an attack of kind 'pgd' with a random start")
        return self


TrainingRecipe = Annotated[Training, BeforeValidator(_recipe)]
"""A training, or a recipe with changes on top."""
