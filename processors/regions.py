"""Regions: which events count, and which of their jets."""

from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from configs.schema import Region
from processors.jets import Jets, numbers

LEPTON_ABS_ETA = 2.4
CONE = 0.4
"""A jet this close (ΔR) to a counted lepton is that lepton (electrons are jets in NanoAOD)."""


def needs_leptons(region: Region) -> bool:
    """Whether a region looks at Muon and Electron."""
    return region.muons is not None or region.electrons is not None


def in_region(events: Any, jets: Jets, region: Region) -> NDArray[np.bool_]:
    """Bool [jets]: jets above the region's pt, away from its leptons, in events that pass."""
    keep = jets.pt >= region.jet_pt
    passed = np.ones(len(events), np.bool_)
    if needs_leptons(region):
        charge = np.zeros(len(events))
        for collection, wanted in (("Muon", region.muons), ("Electron", region.electrons)):
            if wanted is None:
                continue
            counted = _counted(events, collection, region.lepton_pt)
            passed &= ak.to_numpy(ak.sum(counted, axis=1)) == wanted
            charge += ak.to_numpy(ak.sum(events[f"{collection}_charge"][counted], axis=1))
            keep &= ~_near(events, collection, counted, jets)
        if region.opposite_sign:
            passed &= charge == 0
    if region.min_jets:
        passed &= np.bincount(jets.owner[keep], minlength=len(events)) >= region.min_jets
    kept: NDArray[np.bool_] = keep & passed[jets.owner]
    return kept


def _counted(events: Any, collection: str, lepton_pt: float) -> Any:
    pt, eta = events[f"{collection}_pt"], events[f"{collection}_eta"]
    return (pt > lepton_pt) & (abs(eta) < LEPTON_ABS_ETA)


def _near(events: Any, collection: str, counted: Any, jets: Jets) -> NDArray[np.bool_]:
    """Bool [jets]: within CONE of a counted lepton of the same event."""
    per_event = ak.to_numpy(ak.num(counted))
    flat = np.flatnonzero(np.asarray(ak.to_numpy(ak.flatten(counted))))
    owner = np.repeat(np.arange(len(events)), per_event)[flat]
    eta, phi = (numbers(events, f"{collection}_{angle}")[flat] for angle in ("eta", "phi"))
    near = np.zeros(len(jets), np.bool_)
    # events with several counted leptons are few: one pass per lepton of an event, not one per pair
    rank = np.arange(len(flat)) - np.searchsorted(owner, owner)
    for place in range(int(rank.max()) + 1 if len(rank) else 0):
        lepton = np.full(len(events), -1)
        lepton[owner[rank == place]] = np.flatnonzero(rank == place)
        mine = lepton[jets.owner]
        d_phi = np.abs(jets.phi - phi[mine])
        d_phi = np.minimum(d_phi, 2 * np.pi - d_phi)
        near |= (mine >= 0) & (np.hypot(jets.eta - eta[mine], d_phi) < CONE)
    return near
