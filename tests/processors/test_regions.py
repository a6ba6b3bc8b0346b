"""Regions against loops over events, leptons and jets, on real files and simulated ones."""

import math

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory

from configs.schema import Region, Selection
from models.features import load_features
from processors.jets import read_jets
from processors.preselection import Preselection
from processors.regions import select
from tests.conftest import NANO

EMU = Region(jet_pt=30, electrons=1, muons=1, lepton_pt=15, opposite_sign=True, min_jets=2)
REGIONS = {
    "all": Region(),
    "hard": Region(jet_pt=50),
    "two jets": Region(jet_pt=30, min_jets=2),
    "one muon": Region(muons=1, lepton_pt=10),
    "no electron": Region(electrons=0, lepton_pt=10, min_jets=1),
    "dimuon": Region(muons=2, lepton_pt=5, opposite_sign=True),
    "emu": EMU,
}


def slow_region(path, selection, region):
    """(event row, jet index) of every jet in the region."""
    with uproot.open(path) as file:
        names = [f"{c}_{f}" for c in ("Muon", "Electron") for f in ("pt", "eta", "phi", "charge")]
        events = file["Events"].arrays(["Jet_pt", "Jet_eta", "Jet_phi", *names]).to_list()
    kept = []
    for row, event in enumerate(events):
        counted, passed = [], True
        for collection, wanted in (("Muon", region.muons), ("Electron", region.electrons)):
            if wanted is None:
                continue
            leptons = zip(*(event[f"{collection}_{f}"] for f in ("pt", "eta", "phi", "charge")), strict=True)
            good = [lepton for lepton in leptons if lepton[0] > region.lepton_pt and abs(lepton[1]) < 2.4]
            passed &= len(good) == wanted
            counted += good
        if region.opposite_sign:
            passed &= sum(lepton[3] for lepton in counted) == 0
        jets = []
        for i, (pt, eta, phi) in enumerate(zip(event["Jet_pt"], event["Jet_eta"], event["Jet_phi"], strict=True)):
            if not (selection.pt[0] <= pt <= selection.pt[1] and abs(eta) <= selection.abs_eta and pt >= region.jet_pt):
                continue
            angles = [math.remainder(phi - lepton[2], 2 * math.pi) for lepton in counted]
            if all(math.hypot(eta - lepton[1], angle) >= 0.4 for lepton, angle in zip(counted, angles, strict=True)):
                jets.append((row, i))
        if passed and len(jets) >= region.min_jets:
            kept += jets
    return kept


@pytest.fixture(scope="module", params=["nano_tt_v12.root", "nanov5_sample.root", "dilepton"])
def path(request, tmp_path_factory):
    if request.param != "dilepton":
        return NANO / request.param
    from simulation.run import simulate

    return simulate("ttbar-dilepton", 150, tmp_path_factory.mktemp("dilepton"), seed=4, progress=False)[0]


@pytest.mark.parametrize("name", REGIONS)
def test_region_against_loops(path, name):
    region, selection = REGIONS[name], Selection()
    factory = NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "d", "filename": str(path)},
    )
    events = factory.events()
    card = "nanoaod" if path.parent == NANO else "deepcsv"
    jets = read_jets(events, load_features(card), selection, data=False)
    keep = select(events, jets, region, Preselection(data=True)).kept
    found = list(zip(jets.owner[keep].tolist(), jets.index[keep].tolist(), strict=True))
    assert found == slow_region(path, selection, region)
    if region is EMU and path.parent != NANO:
        assert len(found) > 5


def test_split_keeps_events_together_and_has_the_configured_fractions(simulated):
    from configs.schema import Split
    from processors.columns import split_of

    (path,) = simulated.glob("qcd_mc_12_*.root")
    factory = NanoEventsFactory.from_root({str(path): "Events"}, schemaclass=BaseSchema, metadata={"dataset": "d"})
    jets = read_jets(factory.events(), load_features("deepcsv"), Selection(), data=False)
    split = split_of(jets, Split(train=0.5, validation=0.25))
    for row in np.unique(jets.owner):
        assert len(np.unique(split[jets.owner == row])) == 1
    firsts = split[np.unique(jets.owner, return_index=True)[1]]
    fractions = np.bincount(firsts, minlength=3) / len(firsts)
    error = np.sqrt(0.25 / len(firsts))
    np.testing.assert_allclose(fractions, [0.5, 0.25, 0.25], atol=4 * error)
    assert ak.to_numpy(factory.events()["event"]).dtype.kind in "ui"
