"""Regions: which events count, which of their jets, with which sign, and how many events each cut leaves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from configs.regions import Region
from processors.jets import Ints, Jets, event_weights, numbers
from processors.objects import (
    Collection,
    Leptons,
    Mask,
    good,
    hardest_inside,
    pair_mass,
    quality_branches,
    read_leptons,
    soft,
    soft_branches,
    together,
)
from processors.preselection import Preselection

PU_ID_PT = 50.0
"""GeV; the pile-up identification of jets is trained, and its flag means something, below this (CMS twiki
PileupJetIDUL)."""
JET_ID = {"tight": 2, "tight-lepton-veto": 4}
"""Bits of `Jet_jetId`."""
MET = {"PF": ("MET", "PFMET"), "PUPPI": ("PuppiMET",)}
"""Names over the versions of NanoAOD."""


@dataclass(frozen=True)
class Selected:
    """What a region selects from a chunk."""

    kept: Mask
    """[jets]: jets of the region, in events that pass."""
    passed: Mask
    """[events]: events that pass all cuts."""
    sign: NDArray[np.float64] | None
    """[jets]: +1 for opposite charges of lepton and soft muon, -1 for the same, 0 for jets not kept; None: no signs."""
    leptons: dict[Collection, Leptons]
    """Counted leptons of all events, of the collections that the region counts."""
    cutflow: dict[str, tuple[int, float]]
    """Events and sum of weights after each cut, in order, from all events on."""


@dataclass
class _Flow:
    weight: NDArray[np.float64]
    passed: Mask
    counted: dict[str, tuple[int, float]] = field(default_factory=dict)

    def cut(self, name: str, decision: Mask) -> None:
        self.passed &= decision
        self.counted[name] = (int(np.count_nonzero(self.passed)), float(self.weight[self.passed].sum()))


def branches(region: Region) -> list[tuple[str, ...]]:
    """Branches that `select` reads beside those of the jets and of the preselection, each a tuple of possible names."""
    names: list[tuple[str, ...]] = []
    for collection, wanted in _wanted(region):
        if wanted is not None:
            names += quality_branches(collection, region)
    if region.soft_muon is not None:
        names += soft_branches(region.soft_muon)
    if region.met is not None or region.transverse_mass is not None:
        names += [tuple(f"{name}_{part}" for name in MET[region.met_type]) for part in ("pt", "phi")]
    if region.jet_id is not None:
        names.append(("Jet_jetId",))
    if region.pu_id is not None:
        names.append(("Jet_puId",))
    return names


def select(events: Any, jets: Jets, region: Region, preselection: Preselection) -> Selected:
    """Apply the cuts of a region in their order: preselection, leptons, missing momentum, jets, soft muon.

    Args:
        events: a chunk
        jets: its jets within the analysis' selection; others count nowhere
        region: the cuts
        preselection: of the chunk's dataset

    Raises:
        AdvtagError: the file lacks a trigger or filter
    """
    weight = event_weights(events, preselection.data)
    flow = _Flow(weight, np.ones(len(events), np.bool_))
    flow.cut("all", flow.passed)
    for name, decision in preselection.cuts(events, region):
        flow.cut(name, decision)
    leptons, extra = _find_leptons(events, region)
    for name, decision in _lepton_cuts(region, leptons, extra, len(events)):
        flow.cut(name, decision)
    for name, decision in _missing_cuts(events, region, leptons):
        flow.cut(name, decision)
    kept = _good_jets(events, jets, region)
    for found in leptons.values():
        kept &= hardest_inside(jets, found, len(events)) < 0
    for name, decision in _jet_cuts(jets, kept, region, len(events)):
        flow.cut(name, decision)
    sign = None
    if region.soft_muon is not None:
        with_muon, charge = _soft_muons(events, jets, region, leptons)
        kept &= with_muon
        flow.cut("soft muon", np.bincount(jets.owner[kept], minlength=len(events)) > 0)
        sign = charge if region.os_minus_ss else None
    kept &= flow.passed[jets.owner]
    return Selected(kept, flow.passed, None if sign is None else np.where(kept, sign, 0.0), leptons, flow.counted)


def _wanted(region: Region) -> tuple[tuple[Collection, int | None], ...]:
    return ("Electron", region.electrons), ("Muon", region.muons)


def _find_leptons(events: Any, region: Region) -> tuple[dict[Collection, Leptons], Ints]:
    """The counted leptons, and the number of further ones in each event, int [events]."""
    leptons: dict[Collection, Leptons] = {}
    extra = np.zeros(len(events), np.int64)
    for collection, wanted in _wanted(region):
        if wanted is None:
            continue
        found = read_leptons(events, collection)
        quality = good(events, collection, found, region)
        counted = quality & (found.pt > region.lepton_pt)
        leptons[collection] = found[counted]
        if region.veto_pt is not None:
            extra += found[quality & ~counted & (found.pt > region.veto_pt)].per_event(len(events))
    return leptons, extra


def _lepton_cuts(
    region: Region, leptons: dict[Collection, Leptons], extra: Ints, number: int
) -> Iterator[tuple[str, Mask]]:
    for collection, wanted in _wanted(region):
        if wanted is not None:
            yield f"{collection.lower()}s", leptons[collection].per_event(number) == wanted
    if region.veto_pt is not None:
        yield "no other lepton", extra == 0
    both = together(*leptons.values()) if leptons else None
    if both is not None and region.leptons:
        charge = np.bincount(both.owner, both.charge, minlength=number)
        first = _nth(both, 0, number)
        if region.leading_lepton_pt:
            yield "leading lepton", _of_events(first, both.pt, 0.0) >= region.leading_lepton_pt
        if region.opposite_sign:
            yield "opposite sign", charge == 0
        if region.same_sign:
            yield "same sign", np.abs(charge) == 2
        yield from _mass_cuts(region, both, first, number)


def _missing_cuts(events: Any, region: Region, leptons: dict[Collection, Leptons]) -> Iterator[tuple[str, Mask]]:
    if region.met is None and region.transverse_mass is None:
        return
    met, met_phi = (_missing(events, region, part) for part in ("pt", "phi"))
    if region.met is not None:
        yield "missing momentum", met >= region.met
    if region.transverse_mass is not None:
        both = together(*leptons.values())
        first = _nth(both, 0, len(events))
        pt, phi = _of_events(first, both.pt, 0.0), _of_events(first, both.phi, 0.0)
        yield "transverse mass", np.sqrt(2 * pt * met * (1 - np.cos(phi - met_phi))) >= region.transverse_mass


def _mass_cuts(region: Region, both: Leptons, first: Ints, number: int) -> Iterator[tuple[str, Mask]]:
    """Of the two hardest counted leptons; other events have no mass and fail."""
    if region.mass is None and region.veto_mass is None:
        return
    second = _nth(both, 1, number)
    mass = np.full(number, np.nan)
    pair = second >= 0
    mass[pair] = pair_mass(both[first[pair]], both[second[pair]])
    if region.mass is not None:
        yield "mass", (mass >= region.mass[0]) & (mass <= region.mass[1])
    if region.veto_mass is not None:
        yield "mass veto", (mass < region.veto_mass[0]) | (mass > region.veto_mass[1])


def _nth(leptons: Leptons, nth: int, events: int) -> Ints:
    """Index of each event's lepton of that rank, int [events]; -1: the event has fewer. The leptons are by event."""
    start = np.searchsorted(leptons.owner, np.arange(events))
    there = leptons.per_event(events) > nth
    return np.where(there, start + nth, -1)


def _of_events(index: Ints, values: NDArray[np.float64], otherwise: float) -> NDArray[np.float64]:
    """Values at each index; `otherwise` where it is -1."""
    return np.append(values, otherwise)[index]


def _missing(events: Any, region: Region, part: str) -> NDArray[np.float64]:
    name = next(name for name in MET[region.met_type] if f"{name}_{part}" in events.fields)
    return numbers(events, f"{name}_{part}").astype(np.float64)


def _good_jets(events: Any, jets: Jets, region: Region) -> Mask:
    kept: Mask = jets.pt >= region.jet_pt
    if region.jet_id is not None:
        kept &= (_of_jets(events, jets, "Jet_jetId") & JET_ID[region.jet_id]) > 0
    if region.pu_id is not None:
        flag = _of_jets(events, jets, "Jet_puId")
        # the bits of loose and tight change places between the trainings for 2016 and later years
        passed = {"loose": flag > 0, "medium": (flag & 2) > 0, "tight": flag == 7}[region.pu_id]
        kept &= passed | (jets.pt >= PU_ID_PT)
    return kept


def _of_jets(events: Any, jets: Jets, name: str) -> Ints:
    return numbers(events, name).astype(np.int64)[jet_places(events, jets)]


def jet_places(events: Any, jets: Jets) -> Ints:
    """Places of the jets in the flattened collection, int [jets]."""
    per_event = ak.to_numpy(ak.num(events["Jet_pt"]))
    places: Ints = (np.cumsum(per_event) - per_event)[jets.owner] + jets.index
    return places


def _jet_cuts(jets: Jets, kept: Mask, region: Region, events: int) -> Iterator[tuple[str, Mask]]:
    number = np.bincount(jets.owner[kept], minlength=events)
    if region.min_jets or region.max_jets is not None:
        most = np.inf if region.max_jets is None else region.max_jets
        yield "jets", (number >= region.min_jets) & (number <= most)
    if region.leading_jet_pt:
        hard = np.bincount(jets.owner[kept & (jets.pt >= region.leading_jet_pt)], minlength=events)
        yield "leading jet", hard > 0


def _soft_muons(
    events: Any, jets: Jets, region: Region, leptons: dict[Collection, Leptons]
) -> tuple[Mask, NDArray[np.float64]]:
    """Whether each jet has a soft muon, and minus the product of its charge and the lepton's (0: no lepton)."""
    asked = region.soft_muon
    assert asked is not None  # noqa: S101 - for the type checker
    muons = read_leptons(events, "Muon")
    passed = soft(events, muons, asked, region.lepton_abs_eta)
    counted = leptons.get("Muon")
    if counted is not None:
        passed &= ~np.isin(muons.place, counted.place)
        hardest = together(counted)
        partner = _nth(hardest, 0, len(events))[muons.owner]
        pairs = np.flatnonzero(partner >= 0)
        mass = pair_mass(muons[pairs], hardest[partner[pairs]])
        if asked.min_mass is not None:
            passed[pairs] &= mass > asked.min_mass
        if asked.veto_mass is not None:
            passed[pairs] &= (mass < asked.veto_mass[0]) | (mass > asked.veto_mass[1])
    muons = muons[passed]
    inside = hardest_inside(jets, muons, len(events))
    there = inside >= 0
    if asked.max_pt_ratio is not None:
        there &= _of_events(inside, muons.pt, np.inf) < asked.max_pt_ratio * jets.pt
    both = together(*leptons.values()) if leptons else muons[:0]
    lepton_charge = _of_events(_nth(both, 0, len(events)), both.charge, 0.0)
    return there, -lepton_charge[jets.owner] * _of_events(inside, muons.charge, 0.0)
