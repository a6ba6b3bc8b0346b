"""What a configuration may say about regions: a selection of events and jets, shipped ones, triggers of an era."""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from configs.attacks import NonNegative, Positive, Section

Count = Annotated[int, Field(ge=0)]


def _rising(window: tuple[float, float]) -> tuple[float, float]:
    if not window[0] < window[1]:
        raise ValueError(f"{window[0]} is not below {window[1]}")
    return window


Window = Annotated[tuple[NonNegative, Annotated[float, Field(gt=0)]], AfterValidator(_rising)]
Flag = Annotated[str, Field(pattern=r"^Flag_\w+$")]
HLTPath = Annotated[str, Field(pattern=r"^HLT_\w+$")]
"""An HLT path by its branch, without the version."""


class SoftMuon(Section):
    """A muon inside a jet, from a semileptonic decay of a hadron with b or c: not isolated, soft.

    The jets counted are those with such a muon within 0.4; the hardest one is the jet's.
    """

    pt: Window = (5.0, 25.0)
    """GeV, inclusive."""
    isolation: NonNegative | None = 0.2
    """`Muon_pfRelIso04_all` above this; None: not asked for."""
    id: Literal["loose", "medium", "tight"] | None = "tight"
    max_pt_ratio: Positive | None = None
    """pt of the muon over pt of its jet, below this."""
    veto_mass: Window | None = None
    """GeV; mass of the muon and the isolated lepton, if that is a muon, outside of this: no Z."""
    min_mass: NonNegative | None = None
    """GeV; the same mass above this: no J/psi, no Upsilon."""


class Region(Section):
    """A selection of events, and of jets in them.

    Leptons are counted above `lepton_pt` within `lepton_abs_eta`, with the identification and isolation asked for;
    without such a key, whatever they are. Jets within 0.4 of a counted lepton are that lepton.
    """

    jet_pt: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """GeV"""
    min_jets: Count = 0
    """Jets as above, at least this many."""
    max_jets: Count | None = None
    leading_jet_pt: NonNegative = 0.0
    """GeV; the hardest of these jets, at least."""
    jet_id: Literal["tight", "tight-lepton-veto"] | None = None
    """Bits of `Jet_jetId`."""
    pu_id: Literal["loose", "medium", "tight"] | None = None
    """Pile-up identification below 50 GeV, by `Jet_puId` (Run 2)."""
    trigger: tuple[str, ...] = ()
    """Groups of HLT paths of the dataset's era, see `configs/eras.yaml`; an event passes by any path of any group."""
    met_filters: bool = False
    """Apply those of the dataset's era."""
    electrons: Count | None = None
    """Exactly this many; None: any number."""
    muons: Count | None = None
    lepton_pt: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25.0
    """GeV"""
    leading_lepton_pt: NonNegative = 0.0
    """GeV; the hardest counted lepton, at least: the plateau of a single-lepton trigger."""
    lepton_abs_eta: Positive = 2.4
    electron_gap: bool = False
    """Leave out the gap of the calorimeter, 1.4442 < |eta of the supercluster| < 1.566."""
    muon_id: Literal["loose", "medium", "tight"] | None = None
    muon_isolation: Positive | None = None
    """`Muon_pfRelIso04_all` below this."""
    electron_id: Literal["veto", "loose", "medium", "tight", "mva90", "mva80"] | None = None
    """Cut-based working points (with isolation), or those of the BDT with isolation."""
    electron_isolation: Positive | None = None
    """`Electron_pfRelIso03_all` below this."""
    veto_pt: NonNegative | None = None
    """GeV; no other electron or muon of the same quality above this."""
    opposite_sign: bool = False
    """The charges of the counted leptons add up to 0."""
    same_sign: bool = False
    """The two counted leptons have one charge."""
    mass: Window | None = None
    """GeV; mass of the two counted leptons within this."""
    veto_mass: Window | None = None
    """GeV; outside of this."""
    met: NonNegative | None = None
    """GeV, at least."""
    met_type: Literal["PF", "PUPPI"] = "PF"
    transverse_mass: NonNegative | None = None
    """GeV; of the one counted lepton and the missing momentum, at least."""
    soft_muon: SoftMuon | None = None
    os_minus_ss: bool = False
    """Jets count +1 if the charge of their soft muon is opposite to the lepton's, -1 if it is the same."""

    @property
    def leptons(self) -> int:
        """Number of electrons and muons asked for."""
        return (self.electrons or 0) + (self.muons or 0)

    @model_validator(mode="after")
    def _leptons_suffice(self) -> "Region":
        counted = self.leptons
        if self.opposite_sign and (counted == 0 or counted % 2):
            raise ValueError(f"opposite_sign needs an even number of electrons and muons, not {counted}")
        for needed, keys in ((2, ("same_sign", "mass", "veto_mass")), (1, ("transverse_mass", "os_minus_ss"))):
            for key in keys:
                if getattr(self, key) and counted != needed:
                    raise ValueError(f"{key} needs {needed} counted leptons (`electrons`, `muons`), not {counted}")
        if self.leading_lepton_pt and not counted:
            raise ValueError("leading_lepton_pt needs counted leptons (`electrons`, `muons`)")
        return self

    @model_validator(mode="after")
    def _keys_agree(self) -> "Region":
        if self.same_sign and self.opposite_sign:
            raise ValueError("same_sign and opposite_sign exclude each other")
        if self.os_minus_ss and self.soft_muon is None:
            raise ValueError("os_minus_ss needs the key `soft_muon`")
        if self.veto_pt is not None and (self.electrons is None or self.muons is None or self.veto_pt > self.lepton_pt):
            raise ValueError("veto_pt needs `electrons` and `muons`, and lies at or below `lepton_pt`")
        if self.max_jets is not None and self.max_jets < self.min_jets:
            raise ValueError(f"max_jets: {self.max_jets} is below min_jets, {self.min_jets}")
        return self


class Era(Section):
    """A period of data taking and its simulation."""

    source: str
    triggers: dict[str, tuple[HLTPath, ...]]
    """HLT paths by group."""
    met_filters: tuple[Flag, ...]


def _shipped(name: str) -> dict[str, dict[str, Any]]:
    written: dict[str, dict[str, Any]] = yaml.safe_load((files("configs") / name).read_text(encoding="utf-8"))
    return written


@cache
def eras() -> dict[str, Era]:
    """The eras by name, of `configs/eras.yaml`."""
    return {name: Era.model_validate(content) for name, content in _shipped("eras.yaml").items()}


@cache
def region_presets() -> dict[str, dict[str, Any]]:
    """The shipped regions by name, each with its `source` (`configs/regions.yaml`)."""
    return _shipped("regions.yaml")


def _preset(written: Any) -> Any:
    """Expand `preset: NAME`; keys beside it win."""
    if not isinstance(written, dict) or "preset" not in written:
        return written
    known = region_presets()
    name = written["preset"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"no region {name!r}; known: {', '.join(known)}")
    base = {key: value for key, value in known[name].items() if key != "source"}
    return {**base, **{key: value for key, value in written.items() if key != "preset"}}


def _known_era(written: Any) -> Any:
    """Years are numbers in YAML."""
    name = str(written) if isinstance(written, int) else written
    if name is not None and name not in eras():
        raise ValueError(f"no era {name!r}; known: {', '.join(eras())}")
    return name


PresetRegion = Annotated[Region, BeforeValidator(_preset)]
"""A region, or a shipped one with changes on top."""
EraName = Annotated[str, BeforeValidator(_known_era)]
