"""Electrons and muons as NanoAOD identifies them, and which jets they are in."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from configs.regions import Region, SoftMuon
from processors.jets import Ints, Jets, numbers

Mask = NDArray[np.bool_]
Collection = Literal["Muon", "Electron"]

CONE = 0.4
"""A jet this close (ΔR) to a counted lepton is that lepton (electrons are jets in NanoAOD), and to a soft muon, has
that muon inside: the radius of the jets."""
GAP = (1.4442, 1.566)
"""|eta| of the supercluster between barrel and endcap of the electromagnetic calorimeter (CMS egamma twiki)."""
MASS = {"Muon": 0.10566, "Electron": 0.000511}
"""GeV"""
MUON_ID = {"loose": "Muon_looseId", "medium": "Muon_mediumId", "tight": "Muon_tightId"}
CUT_BASED = {"veto": 1, "loose": 2, "medium": 3, "tight": 4}
"""`Electron_cutBased`: 0 fails, and each point includes those before it."""
MVA = {f"mva{point}": (f"Electron_mvaIso_WP{point}", f"Electron_mvaFall17V2Iso_WP{point}") for point in (80, 90)}
"""Run 3 NanoAOD, then Run 2."""


@dataclass(frozen=True)
class Leptons:
    """Leptons of a chunk, arrays [leptons], by event."""

    owner: Ints
    """Row of the lepton's event in the chunk."""
    place: Ints
    """In the flattened collection: `numbers(events, "Muon_pt")[place]`."""
    pt: NDArray[np.float64]
    """GeV"""
    eta: NDArray[np.float64]
    phi: NDArray[np.float64]
    charge: NDArray[np.float64]
    mass: NDArray[np.float64]
    """GeV"""

    def __len__(self) -> int:
        return len(self.pt)

    def __getitem__(self, which: Mask | Ints | slice) -> "Leptons":
        return Leptons(*(getattr(self, part.name)[which] for part in fields(self)))

    def per_event(self, events: int) -> Ints:
        """Number of leptons in each event, int [events]."""
        return np.bincount(self.owner, minlength=events)


def read_leptons(events: Any, collection: Collection) -> Leptons:
    """All leptons of a collection."""
    per_event = ak.to_numpy(ak.num(events[f"{collection}_pt"]))
    pt, eta, phi, charge = (
        numbers(events, f"{collection}_{part}").astype(np.float64) for part in ("pt", "eta", "phi", "charge")
    )
    owner = np.repeat(np.arange(len(events)), per_event)
    return Leptons(owner, np.arange(len(pt)), pt, eta, phi, charge, np.full(len(pt), MASS[collection]))


def together(*collections: Leptons) -> Leptons:
    """Leptons of several collections, by event and then by falling pt; `place` is of no use any more."""
    joined = Leptons(
        *(np.concatenate([getattr(leptons, part.name) for leptons in collections]) for part in fields(Leptons))
    )
    return joined[np.lexsort((-joined.pt, joined.owner))]


def good(events: Any, collection: Collection, leptons: Leptons, region: Region) -> Mask:
    """Whether each lepton has the quality that the region asks for, bool [leptons]; pt apart."""
    passed: Mask = np.abs(leptons.eta) < region.lepton_abs_eta
    if collection == "Muon":
        if region.muon_id is not None:
            passed &= numbers(events, MUON_ID[region.muon_id]).astype(np.bool_)
        if region.muon_isolation is not None:
            passed &= numbers(events, "Muon_pfRelIso04_all") < region.muon_isolation
        return passed
    if region.electron_id in CUT_BASED:
        passed &= numbers(events, "Electron_cutBased") >= CUT_BASED[region.electron_id]
    elif region.electron_id is not None:
        name = next(name for name in MVA[region.electron_id] if name in events.fields)
        passed &= numbers(events, name).astype(np.bool_)
    if region.electron_isolation is not None:
        passed &= numbers(events, "Electron_pfRelIso03_all") < region.electron_isolation
    if region.electron_gap:
        at = np.abs(supercluster_eta(events))
        passed &= (at < GAP[0]) | (at > GAP[1])
    return passed


def supercluster_eta(events: Any) -> NDArray[np.float64]:
    """Eta of the supercluster of each electron, float64 [electrons]."""
    eta: NDArray[np.float64] = numbers(events, "Electron_eta").astype(np.float64)
    return eta + numbers(events, "Electron_deltaEtaSC").astype(np.float64)


def quality_branches(collection: Collection, region: Region) -> list[tuple[str, ...]]:
    """Branches that `read_leptons` and `good` read, each a tuple of the names that it may have."""
    names: list[tuple[str, ...]] = [(f"{collection}_{part}",) for part in ("pt", "eta", "phi", "charge")]
    if collection == "Muon":
        names += [(MUON_ID[region.muon_id],)] if region.muon_id else []
        return names + ([("Muon_pfRelIso04_all",)] if region.muon_isolation is not None else [])
    if region.electron_id is not None:
        names.append(MVA.get(region.electron_id, ("Electron_cutBased",)))
    names += [("Electron_pfRelIso03_all",)] if region.electron_isolation is not None else []
    return names + ([("Electron_deltaEtaSC",)] if region.electron_gap else [])


def soft(events: Any, muons: Leptons, asked: SoftMuon, abs_eta: float) -> Mask:
    """Whether each muon may be one of a hadron's decay inside a jet, bool [muons]."""
    passed: Mask = (muons.pt >= asked.pt[0]) & (muons.pt <= asked.pt[1]) & (np.abs(muons.eta) < abs_eta)
    if asked.isolation is not None:
        passed &= numbers(events, "Muon_pfRelIso04_all") > asked.isolation
    if asked.id is not None:
        passed &= numbers(events, MUON_ID[asked.id]).astype(np.bool_)
    return passed


def soft_branches(asked: SoftMuon) -> list[tuple[str, ...]]:
    """Branches that `soft` reads."""
    names: list[tuple[str, ...]] = [(f"Muon_{part}",) for part in ("pt", "eta", "phi", "charge")]
    names += [("Muon_pfRelIso04_all",)] if asked.isolation is not None else []
    return names + ([(MUON_ID[asked.id],)] if asked.id is not None else [])


def hardest_inside(jets: Jets, leptons: Leptons, events: int) -> Ints:
    """For each jet the hardest of the leptons within CONE, int [jets], an index into `leptons`; -1: none."""
    inside = np.full(len(jets), -1)
    order = np.lexsort((-leptons.pt, leptons.owner))
    owner = leptons.owner[order]
    # events with several leptons are few: one pass per lepton of an event, not one per pair; the softest first
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    for place in range(int(rank.max()) if len(rank) else -1, -1, -1):
        lepton = np.full(events, -1)
        lepton[owner[rank == place]] = order[rank == place]
        mine = lepton[jets.owner]
        close = mine >= 0
        close[close] = (
            delta_r(jets.eta[close], jets.phi[close], leptons.eta[mine[close]], leptons.phi[mine[close]]) < CONE
        )
        inside[close] = mine[close]
    return inside


def delta_r(eta: NDArray[Any], phi: NDArray[Any], other_eta: NDArray[Any], other_phi: NDArray[Any]) -> NDArray[Any]:
    """Distance in eta and phi."""
    d_phi = np.abs(phi - other_phi)
    distance: NDArray[Any] = np.hypot(eta - other_eta, np.minimum(d_phi, 2 * np.pi - d_phi))
    return distance


def pair_mass(first: Leptons, second: Leptons) -> NDArray[np.float64]:
    """Invariant mass of pairs, GeV, float64 [pairs]."""
    energy = [np.hypot(lepton.pt * np.cosh(lepton.eta), lepton.mass) for lepton in (first, second)]
    transverse = np.cos(first.phi - second.phi) + np.sinh(first.eta) * np.sinh(second.eta)
    squared = first.mass**2 + second.mass**2 + 2 * (energy[0] * energy[1] - first.pt * second.pt * transverse)
    mass: NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    return mass
