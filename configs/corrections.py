"""What a configuration may say about corrections of simulation: weights, theory uncertainties, jet energies."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.attacks import Number, Section

Name = Annotated[str, Field(pattern=r"^\w+$")]
Flavours = Annotated[tuple[Literal[0, 4, 5], ...], Field(min_length=1)]
"""Of `Jet_hadronFlavour`: 0 is light quarks and gluons."""
Index = Annotated[int, Field(ge=0)]
Scale = Annotated[float, Field(gt=0)]


class Applied(Section):
    """Where a correction applies; elsewhere its factor is 1, because the configuration says so."""

    datasets: tuple[str, ...] | None = None
    """None: all that are not data, which is never corrected."""
    regions: tuple[str, ...] | None = None
    """None: all."""


class Source(Section):
    """One source of uncertainty: two values of the correction's `systematic` input."""

    up: str
    down: str
    flavours: Flavours | None = None
    """Of jets that it concerns; others keep the nominal factor. None: all."""


class FromFile(Applied):
    """A factor from a file of correctionlib, in the manner of jsonPOG."""

    file: Path
    """.json or .json.gz; a relative path is relative to the configuration file."""
    key: str
    """Name of the correction in the file."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Input of the correction to a quantity (see `processors.corrections`), where the names say it not already."""
    constants: dict[str, str | int | float] = Field(default_factory=dict)
    """Input of the correction to a fixed value, such as a year or a working point."""
    clip: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Input of the correction to the range that its values are moved into; outside of a file's bins is an error."""
    systematic: str | None = None
    """Input of the correction that chooses nominal, up or down; None: it has none, and no variations."""
    nominal: str = "nominal"
    """Value of `systematic`."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """By name; the source named `total` gives the variations NAME_up and NAME_down, another NAME_SOURCE_up, ..."""

    @model_validator(mode="after")
    def _varies_by_an_input(self) -> "FromFile":
        if self.sources and self.systematic is None:
            raise ValueError("sources need the key `systematic`: the input of the correction that chooses them")
        return self


class EventWeight(FromFile):
    """Per event, such as pile-up."""

    kind: Literal["event"]


class LeptonWeight(FromFile):
    """Per counted lepton of the region: identification, isolation, reconstruction, trigger."""

    kind: Literal["lepton"]
    collection: Literal["Muon", "Electron"]
    leptons: Literal["all", "leading"] = "all"
    """All counted ones multiply, or the hardest alone (a single-lepton trigger)."""


class Efficiency(Section):
    """Efficiency of a working point in simulation, as the weight of jets that fail it needs it."""

    file: Path
    key: str
    inputs: dict[str, str] = Field(default_factory=dict)
    constants: dict[str, str | int | float] = Field(default_factory=dict)


class WorkingPoint(Section):
    """A jet passes if `branch` is above `threshold`."""

    branch: Annotated[str, Field(pattern=r"^Jet_\w+$")]
    threshold: float
    efficiency: Efficiency


class JetWeight(FromFile):
    """Per jet, for its own entries: of the discriminator's shape, or of a working point.

    The factor of a working point is SF for a jet that passes, and (1 - SF e)/(1 - e) for one that fails, with the
    efficiency e in simulation (BTV's method 1a, CMS twiki BTagSFMethods).
    """

    kind: Literal["jet"]
    flavours: Flavours | None = None
    """Jets of these alone have a factor, as the file says; None: all."""
    working_point: WorkingPoint | None = None
    """None: the factor is of the shape, for every jet."""


class PartonShower(Applied):
    """Renormalisation scale of initial- and final-state radiation, `PSWeight`: NAME_isr_up, NAME_fsr_up, ..."""

    kind: Literal["ps"]
    entries: tuple[tuple[Scale, Scale], ...] | None = None
    """(ISR, FSR) of each entry as the branch's title has it; None: the title of the branch is read."""


class LHEScale(Applied):
    """Renormalisation and factorisation scales of the matrix element, `LHEScaleWeight`."""

    kind: Literal["scale"]
    vary: Literal["envelope", "separate"] = "envelope"
    """Largest and smallest of the six without opposite changes; or NAME_muR_up, NAME_muF_up, NAME_both_up, ..."""
    entries: tuple[tuple[Scale, Scale], ...] | None = None
    """(muR, muF) of each entry; None: the title of the branch is read."""


class LHEPdf(Applied):
    """Parton densities, `LHEPdfWeight`."""

    kind: Literal["pdf"]
    method: Literal["hessian", "replicas"]
    """Square root of the summed squares of the eigenvectors, or root mean square of the replicas (arXiv:1510.03865)."""
    members: tuple[Index, Number] = (1, 100)
    """First and last entry of the eigenvectors or replicas."""
    central: Index | None = 0
    """Entry of the central member; None: the branch does not hold it, its weight is 1."""
    alpha_s: tuple[Index, Index] | None = None
    """Entries of the strong coupling lower and higher, half of whose difference is added in quadrature."""

    @model_validator(mode="after")
    def _members_are_a_range(self) -> "LHEPdf":
        if not self.members[0] < self.members[1]:
            raise ValueError(f"members: {self.members[0]} is not below {self.members[1]}")
        return self


class JetEnergy(Applied):
    """Jet energy scale and resolution through coffea's jetmet_tools: jes_up, jes_SOURCE_up, jer_up, ...

    Either text files of JME by their names, or keys of one file of correctionlib.
    """

    kind: Literal["jets"]
    regions: None = None
    """The jets of an event are the same in all regions."""
    file: Path | None = None
    """.json or .json.gz of correctionlib."""
    scale: str | None = None
    """Key of the (compound) correction, applied to the raw pt; None: the pt of the file is corrected already."""
    uncertainties: dict[Name, str] = Field(default_factory=dict)
    """Source to its key; the source named `total` gives jes_up and jes_down, another jes_SOURCE_up, ..."""
    resolution: str | None = None
    """Key of the relative resolution of pt; with it, simulation is smeared, nominal as well."""
    resolution_factor: str | None = None
    """Key of the factor between the resolutions of data and simulation."""
    text_files: tuple[Path, ...] = ()
    """TAG_MC_L1FastJet_AK4PFchs.txt and the like; what each is, is seen by its name."""
    text_sources: tuple[Name, ...] = ()
    """Sources to take from a text file of sources, or Total from one of the total."""

    @model_validator(mode="after")
    def _one_of_two_forms(self) -> "JetEnergy":
        keys = (self.scale, self.resolution, self.resolution_factor, *self.uncertainties)
        if (self.file is None) == (not self.text_files):
            raise ValueError("needs either `file` or `text_files`")
        if self.file is None and any(keys):
            raise ValueError("`scale`, `uncertainties` and `resolution` are keys of `file`")
        if self.file is not None and (self.text_sources or not any(keys)):
            raise ValueError("name the keys of `file`: `scale`, `uncertainties`, `resolution`; text_sources is not one")
        if (self.resolution is None) != (self.resolution_factor is None):
            raise ValueError("resolution and resolution_factor come together")
        return self


Correction = Annotated[
    EventWeight | LeptonWeight | JetWeight | PartonShower | LHEScale | LHEPdf | JetEnergy, Field(discriminator="kind")
]
