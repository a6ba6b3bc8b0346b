"""What the configuration of `advtag study` may say. Unknown keys are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from common.errors import AdvtagError
from configs.attacks import Fraction, Number, Positive, PresetAttack, Section
from configs.load import describe, read_yaml, set_key
from configs.schema import Name, Names, Seed
from configs.training import TrainingRecipe

METHODS = {"ttbar-dilepton": "b", "wc": "c", "qcd": "light"}
"""The process in which the scale factor of a flavour is measured."""


class Sample(Section):
    """Simulated events; files that are there already are used."""

    seed: Annotated[int, Field(ge=0, lt=100_000)]
    """Of `advtag simulate`; no two samples of a study share one."""
    events: dict[str, Number] = Field(min_length=1)
    """By process."""


class Study(Section):
    """The hidden-mismodelling study: nominal and robust taggers on simulation and on "data" whose truth is known."""

    name: Name = "study"
    output: Path
    """Folder of all outputs; a relative path is relative to the configuration file."""
    simulation: Path = Path("simulation")
    """Folder of the simulated files, made as far as they are missing; relative to `output`."""
    features: str = "deepcsv"
    """A shipped feature card, or the path of one. Negative tags and the fit of the vertex mass need the inputs of
    `deepcsv`."""
    label: Literal["Simulation", "Private work"] = "Simulation"
    mc: Sample
    """What the analysis calls simulation. It defines the working points."""
    data: Sample
    """What stands for data, in each of the variants."""
    variants: Names = Field(min_length=1)
    """Of `advtag simulate --list`. `mc` is the same simulation with other events: a closure."""
    train: Sample | None = None
    """To train on; needed with `training`."""
    training: dict[Name, TrainingRecipe] = Field(default_factory=dict)
    """As in an analysis: the taggers to train."""
    taggers: dict[Name, Path] = Field(default_factory=dict)
    """Tagger files that there are already; relative paths are relative to the configuration file."""
    reference: Name | None = None
    """The tagger that others are compared with, and that tags in tag-and-probe; the first one if not given."""
    attacks: dict[Name, PresetAttack] = Field(default_factory=dict)
    evaluate_with: Names = ()
    """Attacks whose shifts of efficiency are compared with the true ones (the uncertainty from attacks)."""
    discriminator: Literal["BvsL", "BvsC", "CvsL", "CvsB"] = "BvsL"
    working_points: dict[Name, Fraction] = Field(default_factory=lambda: {"loose": 0.1, "medium": 0.01}, min_length=1)
    """Fraction of light jets above the cut, in `mc` of the first process."""
    jet_pt: Positive = 30.0
    """GeV, at least."""
    pt_bins: tuple[Positive, ...] = (40.0, 50.0, 70.0, 100.0, 140.0)
    """GeV: edges between the bins in which the spectrum of the MC is given that of the data."""
    bootstrap: Annotated[int, Field(ge=10, le=1000)] = 100
    """Replicas of all samples behind the errors."""
    seed: Seed = 1
    """Of the replicas."""
    workers: Number = 2

    @field_validator("variants")
    @classmethod
    def _variants_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from simulation.variants import get_variant

        for name in names:
            try:
                get_variant(name)
            except AdvtagError as error:
                raise ValueError(str(error)) from None
        return names

    @model_validator(mode="after")
    def _samples_agree(self) -> "Study":
        for key, sample in {"mc": self.mc, "data": self.data}.items():
            for process in sample.events:
                if process not in METHODS:
                    raise ValueError(
                        f"{key}.events: nothing is measured in {process!r}; choose from {', '.join(METHODS)}"
                    )
        if set(self.mc.events) != set(self.data.events):
            raise ValueError("mc.events and data.events must name the same processes")
        seeds = [sample.seed for sample in (self.mc, self.data, self.train) if sample is not None]
        if len(set(seeds)) < len(seeds):
            raise ValueError("the samples `mc`, `data` and `train` must have different seeds: they would share events")
        return self

    @model_validator(mode="after")
    def _taggers_agree(self) -> "Study":
        both = set(self.training) & set(self.taggers)
        if both:
            raise ValueError(f"tagger {min(both)!r} is in both `training` and `taggers`")
        if not self.names:
            raise ValueError("no tagger: name files in `taggers`, or trainings in `training`")
        if self.training and self.train is None:
            raise ValueError("`training` needs the key `train`, the events to train on")
        if self.reference is not None and self.reference not in self.names:
            raise ValueError(f"reference: no tagger {self.reference!r}; known: {', '.join(self.names)}")
        wanted = [("evaluate_with", name) for name in self.evaluate_with]
        for name, recipe in self.training.items():
            wanted += [(f"training.{name}.evaluate_with", attack) for attack in recipe.evaluate_with]
            wanted += [(f"training.{name}.attack", recipe.attack)] if isinstance(recipe.attack, str) else []
        for key, attack in wanted:
            if attack not in self.attacks:
                raise ValueError(f"{key}: no attack {attack!r}; known: {', '.join(self.attacks) or 'none'}")
        if list(self.pt_bins) != sorted(set(self.pt_bins)) or (self.pt_bins and self.pt_bins[0] <= self.jet_pt):
            raise ValueError("pt_bins: must rise, from above jet_pt")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the taggers, those of `training` first."""
        return (*self.training, *self.taggers)

    @property
    def first(self) -> str:
        """Name of the reference tagger."""
        return self.reference or self.names[0]


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Load and validate the configuration of a study.

    Args:
        path: YAML file; relative paths in it are relative to its folder
        overrides: `key.sub=value`, the value in YAML

    Raises:
        AdvtagError: the file cannot be read or is not valid; the text names the key
    """
    written = read_yaml(path)
    for each in overrides:
        set_key(written, each)
    try:
        study = Study.model_validate(written)
    except ValidationError as error:
        raise AdvtagError(f"{path}: {describe(error.errors()[0], Study)}") from error
    folder = path.parent.absolute()
    output = folder / study.output
    update: dict[str, Any] = {"output": output, "simulation": output / study.simulation}
    update["taggers"] = {name: folder / tagger for name, tagger in study.taggers.items()}
    if study.features.endswith((".yaml", ".yml")):
        update["features"] = str(folder / study.features)
    return study.model_copy(update=update)
