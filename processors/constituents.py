"""Constituents of jets in slots, from PFNano's collections: candidates and secondary vertices, sorted.

A feature card asks for them by branches that no file holds: `Charged_etaRel_3` is quantity etaRel of the fourth charged
candidate of the jet, `Charged_n` is how many there are. Where a jet has fewer, it is NaN.

Collections, and their order, that of CMS's DeepJet (CMSSW, DeepFlavourTagInfoProducer; pT > 0.95 GeV, likewise):

    Charged     charged candidates, in falling order of sip2dSig
    Neutral     neutral candidates, the nearest to a secondary vertex first (drMinSv), then in falling order of pT
    Vertex      secondary vertices of the jet, in falling order of dxySig
    Particle    all candidates, in falling order of pT (H. Qu, L. Gouskos, arXiv:1902.08570)

Quantities: see `processors.quantities`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from common.errors import AdvtagError
from processors.quantities import CANDIDATE, OF_VERTEX, VERTEX, Entries, Ints, Numbers, flat

MIN_PT = 0.95
"""GeV"""


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
_VERTEX_BRANCHES = ("JetSVs_jetIdx", *(f"JetSVs_{branch}" for branch in OF_VERTEX.values()))
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
