"""What a configuration may say. Every key is here, with its unit and default; unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from configs.attacks import Positive, PresetAttack, Section
from configs.clusters import ProfiledCluster, cluster_keys
from configs.corrections import Correction
from configs.fileset import Grid
from configs.regions import EraName, Flag, HLTPath, PresetRegion, eras
from configs.regions import Region as Region  # where the processors look for it
from configs.skim import with_regions
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
    """Paths, globs, folders, text lists (.txt), filesets (.json), root:// URLs, names of CMS datasets, /store/...;
    relative paths are relative to the configuration file. See docs/filesets.md."""
    data: bool = False
    """Collision data: truth branches and generator weights are not read, attacks are not applied."""
    cross_section: Positive | None = None
    """pb; needed for MC in histograms."""
    tree: str = "Events"
    era: EraName | None = None
    """Of `configs/eras.yaml`; regions with triggers or filters need it."""
    golden: Path | None = None
    """JSON of certified luminosity blocks, of data; a relative path is relative to the configuration file."""
    triggers: dict[str, tuple[HLTPath, ...]] = Field(default_factory=dict)
    """HLT paths by group, instead of the era's."""
    met_filters: tuple[Flag, ...] | None = None
    """Instead of the era's."""
    veto_triggers: tuple[str, ...] = ()
    """Groups of HLT paths that another primary dataset took: their events are that one's, and are left out here."""

    @model_validator(mode="after")
    def _data_alone_is_certified(self) -> "Dataset":
        for key in ("golden", "veto_triggers"):
            if getattr(self, key) and not self.data:
                raise ValueError(f"{key} is of data alone; set `data: true`, or drop the key")
        known = ", ".join(self.trigger_groups) or "none, name an `era`"
        for group in self.veto_triggers:
            if group not in self.trigger_groups:
                raise ValueError(f"veto_triggers: no group {group!r}; known: {known}")
        return self

    @property
    def trigger_groups(self) -> dict[str, tuple[str, ...]]:
        """HLT paths by group: the era's, and the dataset's own in their place."""
        return {**(eras()[self.era].triggers if self.era else {}), **self.triggers}

    @property
    def filters(self) -> tuple[str, ...] | None:
        """Filters against instrumental missing momentum; None: no era says which."""
        if self.met_filters is not None or self.era is None:
            return self.met_filters
        return eras()[self.era].met_filters


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


class Histograms(Section):
    """`advtag histograms`: nominal and attacked taggers, evaluated while filling."""

    datasets: Names = Field(min_length=1)
    taggers: dict[Name, Path] = Field(min_length=1)
    """Tagger files by name; relative paths are relative to the output folder."""
    attacks: Names = ()
    regions: dict[Name, PresetRegion] = Field(default_factory=lambda: {"inclusive": Region()})
    transfer: Names = ()
    """Taggers whose attacked jets the other taggers are shown, too: attack `fgsm@nominal`."""
    precision: Literal["float32", "float64"] = "float32"
    """Of the network: float64 gives bin-by-bin identical results whatever the chunking."""
    scores: bool = False
    """Write the scores of every jet, raw and attacked, to `output/scores`, too."""
    correlations: bool = False
    """Add up products of inputs, too, for the correlations of every pair: see `common.correlations`."""


class Skim(Section):
    """`advtag skim`: the events that pass any of the regions, as ROOT files."""

    datasets: Names = Field(min_length=1)
    regions: dict[Name, PresetRegion] = Field(min_length=1)
    """Or a list of names of `histograms.regions`; all of those if not given."""
    keep: Names = ("*",)
    """Branches by patterns (`Jet_*`); those that say which event it is, and genWeight, are always kept."""
    drop: Names = ()
    """Patterns that win over `keep`."""


class Run(Section):
    """How the processors run; never what they compute."""

    executor: Literal["iterative", "futures", "dask"] = "futures"
    workers: PositiveInt = 2
    scheduler: str | None = None
    """tcp://... of a running Dask scheduler."""
    cluster: ProfiledCluster = None
    """Workers to start: the name or path of a profile, or keys on top of one; implies `executor: dask`. None, and no
    scheduler: `workers` processes of this machine."""
    chunksize: PositiveInt = 50_000
    """Events in a chunk, at most."""
    retries: Annotated[int, Field(ge=0)] = 4
    """How often a chunk is tried again after an error of a disk or a server, or at another place of the file."""
    backoff: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """Seconds before the first retry; each further one waits twice as long (2, 4, 8, 16: half a minute)."""
    resume: bool = False
    """Go on with an unfinished job of the same configuration."""
    allow_missing: bool = False
    """Write the output although events are missing; the manifest lists them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of the taggers: auto is a GPU where the worker has one."""

    @model_serializer(mode="wrap")
    def _workers_are_written_once(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = written(self)
        return {key: value for key, value in found.items() if key != "workers" or self.cluster is None}

    @model_validator(mode="before")
    @classmethod
    def _workers_have_one_place(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        if written.get("cluster") is not None and written.get("scheduler") is not None:
            raise ValueError("cluster, scheduler: start workers or use those of a scheduler; drop one")
        if keys := cluster_keys(written):
            return {"executor": "dask", **written, "cluster": keys}
        return {"executor": "dask", **written} if written.get("scheduler") is not None else written


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
    fileset: Path | None = None
    """JSON of `advtag fileset`: its datasets are added to `datasets`, their files are not opened again before a job."""
    datasets: dict[Name, Dataset] = Field(min_length=1)
    grid: Grid = Grid()
    selection: Selection = Selection()
    columns: Columns | None = None
    attacks: dict[Name, PresetAttack] = Field(default_factory=dict)
    training: dict[Name, TrainingRecipe] = Field(default_factory=dict)
    histograms: Histograms | None = None
    skim: Skim | None = None
    corrections: dict[Annotated[str, Field(pattern=r"^\w+$")], Correction] = Field(default_factory=dict)
    """Of simulation in histograms; the names are those of their variations, NAME_up and NAME_down."""
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _skim_names_regions(cls, written: Any) -> Any:
        return with_regions(written)

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

    @model_validator(mode="after")
    def _regions_can_be_selected(self) -> "Analysis":
        selections = [chosen for chosen in (self.histograms, self.skim) if chosen is not None]
        for section, name in ((chosen, name) for chosen in selections for name in chosen.datasets):
            dataset = self.datasets[name]
            for region, asked in section.regions.items():
                missing = [group for group in asked.trigger if group not in dataset.trigger_groups]
                if missing:
                    known = ", ".join(dataset.trigger_groups) or "none, name an `era`"
                    raise ValueError(
                        f"datasets.{name}: region {region!r} asks for trigger {missing[0]!r}; known: {known}"
                    )
                if asked.met_filters and dataset.filters is None:
                    raise ValueError(f"datasets.{name}: region {region!r} applies met_filters; name an `era`")
        return self

    def _references(self) -> list[tuple[str, tuple[str, ...], dict[str, object]]]:
        datasets, attacks = dict[str, object](self.datasets), dict[str, object](self.attacks)
        references: list[tuple[str, tuple[str, ...], dict[str, object]]] = []
        if self.columns:
            references.append(("columns.datasets", self.columns.datasets, datasets))
        if self.histograms:
            references.append(("histograms.datasets", self.histograms.datasets, datasets))
            references.append(("histograms.attacks", self.histograms.attacks, attacks))
            taggers = dict[str, object](self.histograms.taggers)
            references.append(("histograms.transfer", self.histograms.transfer, taggers))
        if self.skim:
            references.append(("skim.datasets", self.skim.datasets, datasets))
        for name, correction in self.corrections.items():
            regions = dict[str, object](self.histograms.regions if self.histograms else {})
            references.append((f"corrections.{name}.datasets", correction.datasets or (), datasets))
            references.append((f"corrections.{name}.regions", correction.regions or (), regions))
        for name, training in self.training.items():
            references.append((f"training.{name}.evaluate_with", training.evaluate_with, attacks))
            if isinstance(training.attack, str):
                references.append((f"training.{name}.attack", (training.attack,), attacks))
        return references
