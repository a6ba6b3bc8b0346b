"""Jet energy scale and resolution of simulation, nominal and shifted, with the corrections of coffea's jetmet_tools.

coffea's CorrectedJetsFactory is not used itself: its random numbers depend on the chunk that a jet is in.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from configs.corrections import JetEnergy
from models.keys import jet_keys, normal
from processors.evaluator import Evaluator, check_choice, load_evaluator
from processors.jets import numbers
from processors.jetstack import jec_stack, stack_parts
from processors.objects import delta_r

Floats = NDArray[np.float64]

RANDOM = 0x7E5
"""Names the stream of the random numbers of the smearing."""
MATCH_CONE, MATCH_WIDTHS = 0.2, 3.0
"""A generated jet is the jet's if it is closer than half the radius and within three resolutions (CMS twiki
JetResolution)."""
MIN_ENERGY = 0.01
"""GeV; a smeared jet keeps this much (SmearedJetProducerT of CMSSW)."""
RHO = ("Rho_fixedGridRhoFastjetAll", "fixedGridRhoFastjetAll")
PER_JET = {"JetEta": "Jet_eta", "JetPhi": "Jet_phi", "JetA": "Jet_area"}
KNOWN = ("JetPt", "Rho", "systematic", *PER_JET)
"""Inputs of corrections that can be given."""
MISSING = ("MET", "PFMET", "PuppiMET")


@dataclass(frozen=True)
class Energy:
    """One section of kind `jets`, ready to travel.

    Attributes:
        name: key of the configuration
        config: the section
        evaluators: of correctionlib by what they are: scale, resolution, resolution_factor, or a source
        texts: name and content of text files
    """

    name: str
    config: JetEnergy
    evaluators: tuple[tuple[str, Evaluator], ...]
    texts: tuple[tuple[str, str], ...]

    @property
    def shifts(self) -> tuple[str, ...]:
        """Names of the shape variations."""
        stack = self.stack()
        sources = [] if stack.junc is None else [_spoken(level) for level in stack.junc.levels]
        sources += ["jer"] if stack.jer is not None else []
        return tuple(f"{source}_{side}" for source in sources for side in ("up", "down"))

    @property
    def branches(self) -> list[tuple[str, ...]]:
        """What is read, each a tuple of possible names."""
        stack = self.stack()
        names: list[tuple[str, ...]] = [(f"Jet_{part}",) for part in ("pt", "eta", "phi", "mass")]
        if stack.jec is not None:
            names.append(("Jet_rawFactor",))
        if stack.jer is not None:
            names.append(("Jet_genJetIdx", "Jet_genPt"))
            names += [(f"GenJet_{part}", "Jet_genPt") for part in ("pt", "eta", "phi")]
        asked = {name for part in stack_parts(stack) for name in part.signature}
        names += [RHO] if "Rho" in asked else []
        return names + ([("Jet_area",)] if "JetA" in asked else [])

    def stack(self) -> Any:
        """The stack of corrections of coffea, built once per process."""
        sources = self.config.text_sources if self.texts else tuple(self.config.uncertainties)
        return jec_stack(self.name, self.evaluators, self.texts, sources)

    def shifted(self, events: Any) -> Iterator[tuple[str, Any]]:
        """Name, and events with Jet_pt, Jet_mass and the missing momentum replaced: nominal, then each variation.

        Raises:
            AdvtagError: a jet is outside of what the corrections cover
        """
        per_event = ak.to_numpy(ak.num(events["Jet_pt"]))
        if not per_event.sum():
            yield from ((name, events) for name in ("nominal", *self.shifts))
            return
        for name, factor in self._factors(events, np.repeat(np.arange(len(events)), per_event)):
            yield name, _scaled(events, per_event, factor)

    def _factors(self, events: Any, owner: NDArray[np.int64]) -> Iterator[tuple[str, Floats]]:
        """Name, and the factor on the pt of the file, float64 [jets]."""
        stack = self.stack()
        pt = numbers(events, "Jet_pt").astype(np.float64)
        corrected = np.ones(len(pt))
        if stack.jec is not None:
            raw = 1 - numbers(events, "Jet_rawFactor").astype(np.float64)
            corrected = raw * self._ask(stack.jec.getCorrection, stack.jec, events, owner, pt * raw)
        smeared = corrected
        if stack.jer is not None:
            before = pt * corrected
            resolution = self._ask(stack.jer.getResolution, stack.jer, events, owner, before)
            scales = self._ask(stack.jersf.getScaleFactor, stack.jersf, events, owner, before)
            relative = _relative(events, owner, before, resolution)
            eta = numbers(events, "Jet_eta").astype(np.float64)
            floor = MIN_ENERGY / np.cosh(eta) / before
            smeared, *varied = (corrected * np.maximum(_smear(relative, scales[:, i]), floor) for i in range(3))
        yield "nominal", smeared
        if stack.junc is not None:
            found = self._ask(stack.junc.getUncertainty, stack.junc, events, owner, pt * smeared)
            for level, (up, down) in zip(stack.junc.levels, found, strict=True):
                yield f"{_spoken(level)}_up", smeared * up
                yield f"{_spoken(level)}_down", smeared * down
        if stack.jer is not None:
            yield "jer_up", varied[0]
            yield "jer_down", varied[1]

    def _ask(self, question: Any, part: Any, events: Any, owner: NDArray[np.int64], pt: Floats) -> Any:
        """Answer of a part of the stack, for jets of this pt."""
        values: dict[str, Floats] = {}
        for name in part.signature:
            if name == "JetPt":
                values[name] = pt
            elif name == "Rho":
                rho = next(rho for rho in RHO if rho in events.fields)
                values[name] = numbers(events, rho).astype(np.float64)[owner]
            else:
                values[name] = numbers(events, PER_JET[name]).astype(np.float64)
        try:
            found = question(**values)
            if question.__name__ == "getUncertainty":
                found = [np.asarray(factors, np.float64).T for _, factors in found]
            else:
                found = np.asarray(found, np.float64)
        except (ValueError, IndexError) as error:
            extents = ", ".join(f"{name} from {value.min():g} to {value.max():g}" for name, value in values.items())
            raise AdvtagError(f"corrections.{self.name}: {' '.join(str(error).split())} ({extents})") from error
        if not all(np.isfinite(factors).all() for factors in found):
            raise AdvtagError(f"corrections.{self.name}: {question.__name__} gives factors that are not finite")
        return found


def load_energy(name: str, config: JetEnergy) -> Energy:
    """Read the files of a section and check them.

    Raises:
        AdvtagError: a file or key is missing, or needs an input that nobody has
    """
    asked = {"scale": config.scale, "resolution": config.resolution, "resolution_factor": config.resolution_factor}
    keys = {**{what: key for what, key in asked.items() if key is not None}, **config.uncertainties}
    evaluators = tuple((what, load_evaluator(name, config.file, key)) for what, key in keys.items() if config.file)
    for what, evaluator in evaluators:
        if what == "resolution_factor":
            for choice in ("nom", "up", "down"):
                check_choice(evaluator, "systematic", choice)
    energy = Energy(name, config, evaluators, tuple((path.name, _read_text(name, path)) for path in config.text_files))
    for part in stack_parts(energy.stack()):
        unknown = [asked for asked in part.signature if asked not in KNOWN]
        if unknown:
            raise AdvtagError(f"corrections.{name}: needs {unknown[0]!r}; known are {', '.join(KNOWN)}")
    return energy


def _read_text(name: str, path: Path) -> str:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, ValueError, EOFError) as error:
        raise AdvtagError(f"corrections.{name}: cannot read {path} ({error})") from error
    if "{" not in text:
        raise AdvtagError(f"corrections.{name}: {path} is not a text file of JME: it has no header in braces")
    return text


def _spoken(level: str) -> str:
    return "jes" if level in ("jes", "total") else f"jes_{level}"


def _relative(events: Any, owner: NDArray[np.int64], pt: Floats, resolution: Floats) -> tuple[Floats, Floats]:
    """What the hybrid smearing scales: (pt - pt_gen)/pt of matched jets and 0 for others, and for these a normal
    number times the resolution and 0 for matched ones; each float64 [jets].
    """
    generated, near = _generated(events, owner)
    matched = near & (np.abs(pt - generated) < MATCH_WIDTHS * resolution * pt)
    index = np.arange(len(owner)) - np.searchsorted(owner, owner)
    run, lumi, event = (numbers(events, name).astype(np.int64)[owner] for name in ("run", "luminosityBlock", "event"))
    random = normal(jet_keys(run, lumi, event, index), 1, RANDOM)[:, 0].numpy()
    return np.where(matched, (pt - generated) / pt, 0.0), np.where(matched, 0.0, random * resolution)


def _generated(events: Any, owner: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """Find the pt of the generated jet of each jet, float64 [jets], and whether there is one near."""
    if "Jet_genJetIdx" not in events.fields:
        own = numbers(events, "Jet_genPt").astype(np.float64)
        return own, own > 0
    per_event = ak.to_numpy(ak.num(events["GenJet_pt"]))
    index = numbers(events, "Jet_genJetIdx").astype(np.int64)
    there = (index >= 0) & (index < per_event[owner])
    place = np.where(there, (np.cumsum(per_event) - per_event)[owner] + index, 0)
    if not there.any():
        return np.zeros(len(owner)), there
    pt, eta, phi = (numbers(events, f"GenJet_{part}").astype(np.float64)[place] for part in ("pt", "eta", "phi"))
    near = delta_r(numbers(events, "Jet_eta"), numbers(events, "Jet_phi"), eta, phi) < MATCH_CONE
    return pt, there & near


def _smear(relative: tuple[Floats, Floats], scale: Floats) -> Floats:
    """The factor of the hybrid method (CMS twiki JetResolution): scaled towards or away from the generated jet, or
    smeared, which can only widen.
    """
    towards, random = relative
    return 1 + (scale - 1) * towards + np.sqrt(np.maximum(scale**2 - 1, 0)) * random


def _scaled(events: Any, per_event: NDArray[np.int64], factor: Floats) -> Any:
    """Events with their jets scaled, and the missing momentum balanced."""
    pt = numbers(events, "Jet_pt")
    new = {"Jet_pt": pt * factor, "Jet_mass": numbers(events, "Jet_mass") * factor}
    moved, phi = pt * (factor - 1), numbers(events, "Jet_phi")
    owner = np.repeat(np.arange(len(events)), per_event)
    shift = [np.bincount(owner, moved * trig(phi), minlength=len(events)) for trig in (np.cos, np.sin)]
    for name, values in new.items():
        events = ak.with_field(events, ak.unflatten(values.astype(np.float32), per_event), name)
    for kind in MISSING:
        if f"{kind}_pt" in events.fields and f"{kind}_phi" in events.fields:
            met, angle = (numbers(events, f"{kind}_{part}").astype(np.float64) for part in ("pt", "phi"))
            x, y = met * np.cos(angle) - shift[0], met * np.sin(angle) - shift[1]
            events = ak.with_field(events, np.hypot(x, y).astype(np.float32), f"{kind}_pt")
            events = ak.with_field(events, np.arctan2(y, x).astype(np.float32), f"{kind}_phi")
    return events
