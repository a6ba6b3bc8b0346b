"""Constituents of jets in slots, from PFNano's collections: candidates and secondary vertices, sorted.

A feature card asks for them by branches that no file holds: `Charged_etaRel_3` is quantity etaRel of the fourth charged
candidate of the jet, `Charged_n` is how many there are. Where a jet has fewer, and where a candidate lacks the
quantity (a neutral one has no track), it is NaN.

Collections, and their order, that of CMS's DeepJet (CMSSW, DeepFlavourTagInfoProducer; pT > 0.95 GeV, likewise):

    Charged     charged candidates, in falling order of sip2dSig
    Neutral     neutral candidates, the nearest to a secondary vertex first (drMinSv), then in falling order of pT
    Vertex      secondary vertices of the jet, in falling order of dxySig
    Particle    all candidates, in falling order of pT (H. Qu, L. Gouskos, arXiv:1902.08570)

Quantities of candidates; lengths in cm, saturated at +-1 cm, significances at +-100 (nuclear interactions and decays of
strange hadrons reach metres, and one width should fit all):

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

Quantities of vertices, from `JetSVs`: see `VERTEX`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError

Ints = NDArray[np.int64]
Numbers = NDArray[Any]

MIN_PT = 0.95
"""GeV"""
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
# PFNano's names; its deltaR is the distance to the jet axis minus 0.5, at most 0
_OF_VERTEX = {
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


VERTEX: dict[str, Callable[[Entries], Numbers]] = {name: _of_vertex(branch) for name, branch in _OF_VERTEX.items()}


@dataclass(frozen=True)
class Kind:
    """One collection of slots."""

    quantities: dict[str, Callable[[Entries], Numbers]]
    order: tuple[tuple[str, int], ...]
    """Quantities that sort it, the first one first: 1 rising, -1 falling"""
    kept: Callable[[Entries], Numbers]
    branches: tuple[str, ...]
    """What it is made from"""


_CANDIDATE_BRANCHES = (
    *(f"PFCands_{name}" for name in ("pt", "eta", "phi", "charge", "pdgId", "d0", "d0Err", "dz")),
    *(f"JetPFCands_{name}" for name in ("jetIdx", "pFCandsIdx", "btagEtaRel")),
    *(f"JetPFCands_btag{name}" for name in ("Sip3dVal", "Sip3dSig", "JetDistVal")),
    *("SV_eta", "SV_phi"),
)
_VERTEX_BRANCHES = ("JetSVs_jetIdx", *(f"JetSVs_{branch}" for branch in _OF_VERTEX.values()))
KINDS = {
    "Charged": Kind(CANDIDATE, (("sip2dSig", -1),), lambda x: x.candidate("charge") != 0, _CANDIDATE_BRANCHES),
    "Neutral": Kind(CANDIDATE, (("drMinSv", 1), ("pt", -1)), lambda x: x.candidate("charge") == 0, _CANDIDATE_BRANCHES),
    "Particle": Kind(CANDIDATE, (("pt", -1),), lambda x: np.ones(len(x), bool), _CANDIDATE_BRANCHES),
    "Vertex": Kind(VERTEX, (("dxySig", -1),), lambda x: np.ones(len(x), bool), _VERTEX_BRANCHES),
}
_NAME = re.compile(rf"({'|'.join(KINDS)})_(n|(\w+)_(\d+))")


def parsed(branch: str) -> tuple[str, str | None, int] | None:
    """Collection, quantity and slot of a branch of a card; no quantity for the number; None: a file may hold it."""
    found = _NAME.fullmatch(branch)
    if found is None:
        return None
    kind, _, quantity, slot = found.groups()
    if quantity is not None and quantity not in KINDS[kind].quantities:
        known = ", ".join(KINDS[kind].quantities)
        raise AdvtagError(f"input with branch {branch!r}: {kind} has no quantity {quantity!r}; known: {known}")
    return kind, quantity, 0 if slot is None else int(slot)


def made_from(branches: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """What a file must hold for an input: the branch by one of its names, or all that it is derived from.

    Raises:
        AdvtagError: there is no such quantity
    """
    found = [parsed(branch) for branch in branches]
    return tuple((name,) for part in found if part for name in KINDS[part[0]].branches) or (branches,)


def constituents(events: Any, branches: Iterable[str], chosen: Ints) -> dict[str, Numbers]:
    """Those of the branches that are derived, [jets] each.

    Args:
        events: of the chunk
        branches: of a card; those of the file are passed over
        chosen: int64 [jets], rows of the jets among all of the chunk

    Raises:
        AdvtagError: a link points outside of the event
    """
    asked: dict[str, dict[str, tuple[str | None, int]]] = {}
    for branch in branches:
        part = parsed(branch)
        if part is not None:
            asked.setdefault(part[0], {})[branch] = part[1:]
    made: dict[str, Numbers] = {}
    for name, wanted in asked.items():
        kind = KINDS[name]
        entries = vertices(events, chosen) if name == "Vertex" else candidates(events, chosen)
        entries = entries[np.flatnonzero(kind.kept(entries))]
        number = np.bincount(entries.jet, minlength=len(chosen))
        entries, position = in_order(entries, kind, 1 + max(slot for _, slot in wanted.values()))
        tables = {
            quantity: table(kind.quantities[quantity](entries), entries.jet, position, len(chosen))
            for quantity in {quantity for quantity, _ in wanted.values() if quantity is not None}
        }
        empty = np.full(len(chosen), np.nan, np.float32)
        for branch, (quantity, slot) in wanted.items():
            if quantity is None:
                made[branch] = number
            else:
                made[branch] = tables[quantity][slot] if slot < len(tables[quantity]) else empty
    return made


def in_order(entries: Entries, kind: Kind, slots: int) -> tuple[Entries, Ints]:
    """The first so many entries of each jet in the kind's order, and the place of each in its jet."""
    keys = []
    for name, direction in kind.order:
        key = direction * kind.quantities[name](entries)
        keys.append(np.where(np.isnan(key), np.inf, key))
    order = np.lexsort((*reversed(keys), entries.jet))
    jet = entries.jet[order]
    position = np.arange(len(jet)) - np.searchsorted(jet, jet)
    return entries[order[position < slots]], position[position < slots]


def table(values: Numbers, jet: Ints, position: Ints, jets: int) -> NDArray[np.float32]:
    """Values [entries] as float32 [slots, jets], NaN where there is none."""
    filled = np.full((1 + position.max(initial=-1), jets), np.nan, np.float32)
    filled[position, jet] = values
    return filled


def candidates(events: Any, chosen: Ints) -> Entries:
    """Candidates of the chosen jets with pT above 0.95 GeV, in the order of the file."""
    jet, link = owners(events, "JetPFCands", chosen)
    target = rows(events, "JetPFCands_pFCandsIdx", "PFCands_pt")[link]
    hard = (target >= 0) & (flat(events, "PFCands_pt")[target] > MIN_PT)
    return Entries(events, "JetPFCands", jet[hard], chosen, link[hard], target[hard])


def vertices(events: Any, chosen: Ints) -> Entries:
    """Secondary vertices of the chosen jets, in the order of the file."""
    jet, link = owners(events, "JetSVs", chosen)
    return Entries(events, "JetSVs", jet, chosen, link, link)


def owners(events: Any, collection: str, chosen: Ints) -> tuple[Ints, Ints]:
    """Links of a collection to chosen jets: row among the chosen ones, and row of the link."""
    owner = rows(events, f"{collection}_jetIdx", "Jet_pt")
    of_jet = np.full(int(ak.count(events["Jet_pt"], axis=None)) + 1, -1)  # the last one is for no jet
    of_jet[chosen] = np.arange(len(chosen))
    jet = of_jet[owner]
    link = np.flatnonzero(jet >= 0)
    return jet[link], link


def rows(events: Any, index: str, target: str) -> Ints:
    """Indices within events as rows of the whole chunk, int64; -1 where there is none.

    Raises:
        AdvtagError: an index is beyond the end of its event
    """
    links, number = events[index], ak.to_numpy(ak.num(events[target]))
    event = np.repeat(np.arange(len(events)), ak.to_numpy(ak.num(links)))
    place = flat(events, index).astype(np.int64)
    if (place >= number[event]).any():
        wrong = int(np.argmax(place >= number[event]))
        raise AdvtagError(
            f"{events.metadata['filename']}: {index} is {place[wrong]} in an event with {number[event[wrong]]} entries "
            f"of {target}; the collections do not belong together: make the file again"
        )
    return np.where(place >= 0, place + (np.cumsum(number) - number)[event], -1)
