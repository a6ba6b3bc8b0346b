"""Quantities of the constituents of jets, each a function of all entries of a chunk.

Of candidates; lengths in cm, saturated at +-1 cm, significances at +-100 (nuclear interactions and decays of strange
hadrons reach metres, and one width should fit all). Where a candidate lacks the quantity (a neutral one has no track),
it is NaN.

    pt, ptRel                   GeV; over the jet's
    deltaEta, deltaPhi, deltaR  to the jet axis
    etaRel                      PFNano's btagEtaRel: pseudorapidity of the track along the jet axis
    sip2dVal, sip2dSig          transverse impact parameter, positive where the track comes from in front of the primary
                                vertex as seen along the jet; over its uncertainty, without the primary vertex's. From
                                PFCands_d0: not every version of PFNano writes btagSip2dVal
    sip3dVal, sip3dSig          the same in space: PFNano's btagSip3dVal, btagSip3dSig
    jetDistVal                  PFNano's btagJetDistVal: minus the distance of track and jet axis
    dz                          longitudinal impact parameter
    drMinSv                     distance in eta and phi to the nearest secondary vertex of the event; NaN beyond 0.4
    charge, isElectron, isMuon, isPhoton

Of vertices, from `JetSVs`: see `OF_VERTEX`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Numbers = NDArray[Any]

NEAR = 0.4
MAX_LENGTH, MAX_SIGNIFICANCE = 1.0, 100.0


@dataclass(frozen=True)
class Entries:
    """Objects that belong to the chosen jets, arrays [entries]; one may belong to two jets."""

    events: Any
    collection: str
    """of the links: JetPFCands or JetSVs"""
    jet: Ints
    """Row among the chosen jets, and"""
    chosen: Ints
    """[jets], row among all jets of the chunk"""
    link: Ints
    """Row in the collection of links"""
    object: Ints
    """Row of the candidate in PFCands; unused for vertices"""

    def __len__(self) -> int:
        return len(self.jet)

    def __getitem__(self, entries: NDArray[Any]) -> "Entries":
        return replace(self, jet=self.jet[entries], link=self.link[entries], object=self.object[entries])

    def linked(self, name: str) -> Numbers:
        """A branch of the links."""
        return flat(self.events, f"{self.collection}_{name}")[self.link]

    def candidate(self, name: str) -> Numbers:
        """A branch of PFCands."""
        return flat(self.events, f"PFCands_{name}")[self.object]

    def of_jet(self, name: str) -> Numbers:
        """A branch of the jet."""
        return flat(self.events, f"Jet_{name}")[self.chosen[self.jet]]

    def of_track(self, values: Numbers) -> Numbers:
        """Values [entries], NaN where the candidate has no measured track: PFNano has an uncertainty of -1 there."""
        return np.where((self.candidate("charge") != 0) & (self.candidate("d0Err") > 0), values, np.nan)


def flat(events: Any, name: str) -> Numbers:
    """A branch of a collection as one array of all its entries."""
    return np.asarray(ak.to_numpy(ak.flatten(events[name], axis=None)))


def delta_phi(one: Numbers, other: Numbers) -> Numbers:
    """Difference of azimuths in [-pi, pi)."""
    return (one.astype(np.float64) - other + np.pi) % (2 * np.pi) - np.pi


def _delta_eta(entries: Entries) -> Numbers:
    return entries.candidate("eta").astype(np.float64) - entries.of_jet("eta")


def _delta_phi(entries: Entries) -> Numbers:
    return delta_phi(entries.candidate("phi"), entries.of_jet("phi"))


def _sip2d(entries: Entries) -> Numbers:
    # the point of closest approach is d0 (-sin phi, cos phi), the jet points to (cos phi_j, sin phi_j)
    d0, towards = entries.candidate("d0").astype(np.float64), np.sin(-_delta_phi(entries))
    return np.abs(d0) * np.where(d0 * towards < 0, -1, 1)


def _dr_min_sv(entries: Entries) -> Numbers:
    """Distance to the nearest vertex of the event, NaN beyond 0.4."""
    events = entries.events
    eta, phi = flat(events, "SV_eta").astype(np.float64), flat(events, "SV_phi").astype(np.float64)
    number = ak.to_numpy(ak.num(events["SV_eta"]))
    first = np.cumsum(number) - number
    of_candidates = np.repeat(np.arange(len(events)), ak.to_numpy(ak.num(events["PFCands_pt"])))
    event = of_candidates[entries.object]
    own_eta, own_phi = entries.candidate("eta"), entries.candidate("phi")
    nearest = np.full(len(entries), np.inf)
    for vertex in range(number.max(initial=0)):
        there = np.flatnonzero(vertex < number[event])
        row = first[event[there]] + vertex
        distance = np.hypot(own_eta[there] - eta[row], delta_phi(own_phi[there], phi[row]))
        nearest[there] = np.minimum(nearest[there], distance)
    return np.where(nearest <= NEAR, nearest, np.nan)


def _length(values: Numbers) -> Numbers:
    return np.clip(values, -MAX_LENGTH, MAX_LENGTH)


def _significance(values: Numbers) -> Numbers:
    return np.clip(values, -MAX_SIGNIFICANCE, MAX_SIGNIFICANCE)


def _is(number: int) -> Callable[[Entries], Numbers]:
    return lambda entries: np.abs(entries.candidate("pdgId")) == number


CANDIDATE: dict[str, Callable[[Entries], Numbers]] = {
    "pt": lambda x: x.candidate("pt"),
    "ptRel": lambda x: x.candidate("pt") / x.of_jet("pt"),
    "deltaEta": _delta_eta,
    "deltaPhi": _delta_phi,
    "deltaR": lambda x: np.hypot(_delta_eta(x), _delta_phi(x)),
    "etaRel": lambda x: x.of_track(x.linked("btagEtaRel")),
    "sip2dVal": lambda x: x.of_track(_length(_sip2d(x))),
    "sip2dSig": lambda x: x.of_track(
        _significance(_sip2d(x) / np.where(x.candidate("d0Err") > 0, x.candidate("d0Err"), 1))
    ),
    "sip3dVal": lambda x: x.of_track(_length(x.linked("btagSip3dVal"))),
    "sip3dSig": lambda x: x.of_track(
        np.where(np.isfinite(sig := x.linked("btagSip3dSig")), _significance(sig), np.nan)
    ),
    "jetDistVal": lambda x: x.of_track(_length(x.linked("btagJetDistVal"))),
    "dz": lambda x: x.of_track(_length(x.candidate("dz"))),
    "drMinSv": _dr_min_sv,
    "charge": lambda x: x.candidate("charge"),
    "isElectron": _is(11),
    "isMuon": _is(13),
    "isPhoton": _is(22),
}
# quantity: PFNano's name; its deltaR is the distance to the jet axis minus 0.5, at most 0
OF_VERTEX = {
    **{name: name for name in ("pt", "mass", "chi2", "deltaR", "dxy", "d3d")},
    "ptRel": "ptrel",
    "energyRatio": "enration",
    "nTracks": "ntracks",
    "normChi2": "normchi2",
    "dxySig": "dxysig",
    "d3dSig": "d3dsig",
    "cosPointing": "costhetasvpv",
}


def _of_vertex(branch: str) -> Callable[[Entries], Numbers]:
    return lambda entries: entries.linked(branch)


VERTEX: dict[str, Callable[[Entries], Numbers]] = {name: _of_vertex(branch) for name, branch in OF_VERTEX.items()}
