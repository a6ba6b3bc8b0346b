"""What a configuration may say. Every key is here, with its unit and default; unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from configs.attacks import Positive, PresetAttack, Section
from configs.training import TrainingRecipe

PositiveInt = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""Names become folders and files."""


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]


class Dataset(Section):
    """Files that share a physics process, or a period of data taking."""

    files: Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)] = (
        Field(min_length=1)
    )
    """Paths, globs or root:// URLs; relative paths are relative to the configuration file."""
    data: bool = False
    """Collision data: truth branches and generator weights are not read, attacks are not applied."""
    cross_section: Positive | None = None
    """pb; needed for MC in histograms."""
    tree: str = "Events"


class Selection(Section):
    """Which jets become rows and histogram entries."""

    pt: tuple[float, float] = (20.0, 1000.0)
    """GeV, inclusive. This and `abs_eta` are the cuts of the CMS thesis study of A. Stein (code AI_Safety_2021), which
    also asks for trackSumJetDeltaR <= 0.3; that cut is not applied here."""
    abs_eta: Positive = 2.5

    @model_validator(mode="after")
    def _pt_is_a_range(self) -> "Selection":
        if not self.pt[0] < self.pt[1]:
            raise ValueError(f"pt: {self.pt[0]} is not below {self.pt[1]}")
        return self


class Split(Section):
    """Fractions of events for training and validation; the rest is for testing."""

    train: Positive = 0.72
    validation: Positive = 0.08

    @model_validator(mode="after")
    def _leaves_a_test_split(self) -> "Split":
        if self.train + self.validation >= 1:
            raise ValueError("train + validation must stay below 1, the rest is the test split")
        return self


class Columns(Section):
    """`advtag columns`: Parquet columns to train on."""

    datasets: Names = Field(min_length=1)
    split: Split = Split()
    mix: Literal["jets", "cross_section"] = "jets"
    """How MC datasets count beside each other in the training: each by its number of jets, or by its cross-section. A
    process of large cross-section then leaves little to the others."""


class Region(Section):
    """A selection of events, and of jets in them.

    Leptons are counted above `lepton_pt` and |eta| < 2.4, without identification or isolation.
    """

    jet_pt: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """GeV"""
    min_jets: Annotated[int, Field(ge=0)] = 0
    """Jets above `jet_pt`, at least this many."""
    electrons: Annotated[int, Field(ge=0)] | None = None
    """Exactly this many; None: any number."""
    muons: Annotated[int, Field(ge=0)] | None = None
    lepton_pt: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25.0
    """GeV"""
    opposite_sign: bool = False
    """The charges of the counted leptons add up to 0."""

    @model_validator(mode="after")
    def _signs_can_be_opposite(self) -> "Region":
        counted = (self.electrons or 0) + (self.muons or 0)
        if self.opposite_sign and (counted == 0 or counted % 2):
            raise ValueError(f"opposite_sign needs an even number of electrons and muons, not {counted}")
        return self


class Histograms(Section):
    """`advtag histograms`: nominal and attacked taggers, evaluated while filling."""

    datasets: Names = Field(min_length=1)
    taggers: dict[Name, Path] = Field(min_length=1)
    """Tagger files by name; relative paths are relative to the output folder."""
    attacks: Names = ()
    regions: dict[Name, Region] = Field(default_factory=lambda: {"inclusive": Region()})
    precision: Literal["float32", "float64"] = "float32"
    """Of the network: float64 gives bin-by-bin identical results whatever the chunking."""


class Run(Section):
    """How the processors run; never what they compute."""

    executor: Literal["iterative", "futures", "dask"] = "futures"
    workers: PositiveInt = 2
    scheduler: str | None = None
    """tcp://... of a running Dask scheduler; None: a LocalCluster."""
    chunksize: PositiveInt = 100_000
    """Events in a chunk, at most."""


class Analysis(Section):
    """One analysis, from files to plots."""

    name: Name
    output: Path
    """Folder of all outputs; a relative path is relative to the configuration file."""
    features: str
    """A shipped feature card, or the path of one."""
    luminosity: Positive = 1.0
    """1/pb, that MC is scaled to in plots."""
    label: Literal["Simulation", "Private work"] = "Private work"
    datasets: dict[Name, Dataset] = Field(min_length=1)
    selection: Selection = Selection()
    columns: Columns | None = None
    attacks: dict[Name, PresetAttack] = Field(default_factory=dict)
    training: dict[Name, TrainingRecipe] = Field(default_factory=dict)
    histograms: Histograms | None = None
    run: Run = Run()

    @model_validator(mode="after")
    def _names_exist(self) -> "Analysis":
        for key, names, known in self._references():
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: no {name!r}; known: {', '.join(known) or 'none'}")
        if "raw" in self.attacks:
            raise ValueError("attacks: `raw` names the undistorted inputs; choose another name")
        return self

    @model_validator(mode="after")
    def _mc_has_cross_section(self) -> "Analysis":
        needed = [(name, "in histograms") for name in (self.histograms.datasets if self.histograms else ())]
        if self.columns and self.columns.mix == "cross_section":
            needed += [(name, "mixed by cross-section") for name in self.columns.datasets]
        for name, where in needed:
            if not self.datasets[name].data and self.datasets[name].cross_section is None:
                raise ValueError(f"datasets.{name}: MC {where} needs a cross_section (pb)")
        return self

    def _references(self) -> list[tuple[str, tuple[str, ...], dict[str, object]]]:
        datasets, attacks = dict[str, object](self.datasets), dict[str, object](self.attacks)
        references: list[tuple[str, tuple[str, ...], dict[str, object]]] = []
        if self.columns:
            references.append(("columns.datasets", self.columns.datasets, datasets))
        if self.histograms:
            references.append(("histograms.datasets", self.histograms.datasets, datasets))
            references.append(("histograms.attacks", self.histograms.attacks, attacks))
        for name, training in self.training.items():
            references.append((f"training.{name}.evaluate_with", training.evaluate_with, attacks))
            if isinstance(training.attack, str):
                references.append((f"training.{name}.attack", (training.attack,), attacks))
        return references
