"""Every cut of a region against loops over events, on real files and simulated ones."""

import math
from functools import cache

import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from pydantic import ValidationError

from configs.regions import Region, SoftMuon, region_presets
from configs.schema import Histograms, Selection
from models.features import FeatureSet
from processors.jets import read_jets
from processors.preselection import Preselection
from processors.regions import branches, select
from tests.conftest import NANO

CARD = FeatureSet.model_validate(
    {"name": "pt", "inputs": [{"name": "pt", "branch": "Jet_pt", "label": "pT", "bins": (50, 0, 400)}]}
)
SELECTION = Selection(pt=(15.0, 1000.0))
TIGHT = {"muon_id": "tight", "muon_isolation": 0.15, "electron_id": "medium", "electron_gap": True}
REAL = {
    "ids": Region(muons=1, electrons=0, lepton_pt=20, **TIGHT),
    "loose": Region(muons=1, muon_id="loose", electrons=0, electron_id="veto", lepton_pt=10, electron_isolation=0.3),
    "mva": Region(electrons=1, electron_id="mva90", lepton_pt=15, electron_gap=True),
    "veto": Region(muons=1, electrons=0, lepton_pt=25, veto_pt=8, muon_id="medium", electron_id="loose"),
    "pair": Region(muons=2, lepton_pt=5, leading_lepton_pt=20, opposite_sign=True, mass=(20, 120), veto_mass=(60, 80)),
    "same": Region(muons=1, electrons=1, lepton_pt=5, same_sign=True),
    "emu": Region(muons=1, electrons=1, lepton_pt=8, opposite_sign=True, mass=(12, math.inf), jet_pt=20, min_jets=2),
    "met": Region(met=40, jet_pt=30, max_jets=3, min_jets=1, leading_jet_pt=60, met_type="PUPPI"),
    "w": Region(muons=1, lepton_pt=15, transverse_mass=40, met=20, leading_lepton_pt=20),
    "jet id": Region(jet_id="tight-lepton-veto", pu_id="tight", jet_pt=20, min_jets=1),
    "jet id 2": Region(jet_id="tight", pu_id="medium", max_jets=2),
    "pu": Region(pu_id="loose"),
    "muon in jet": Region(soft_muon=SoftMuon(id=None, isolation=None, max_pt_ratio=0.5)),
    "charge": Region(
        muons=1, lepton_pt=15, muon_isolation=0.2, os_minus_ss=True, soft_muon=SoftMuon(pt=(3, 40), id="loose")
    ),
    "charge of electron": Region(
        electrons=1, lepton_pt=10, os_minus_ss=True, soft_muon=SoftMuon(pt=(2, 40), id=None, min_mass=12)
    ),
    "no z": Region(
        muons=1, muon_isolation=0.3, lepton_pt=10, os_minus_ss=True,
        soft_muon=SoftMuon(pt=(2, 60), id=None, isolation=0.05, min_mass=8, veto_mass=(40, 70)),
    ),
}  # fmt: skip
LOOSE = {
    "muon_id": None,
    "electron_id": None,
    "electron_gap": False,
    "jet_id": None,
    "trigger": [],
    "met_filters": False,
}


def of_simulation(name):
    """A shipped region without what simulated files lack."""
    asked = {"preset": name, **LOOSE}
    if name == "wc":
        asked["soft_muon"] = {**region_presets()["wc"]["soft_muon"], "id": None}
        asked["transverse_mass"] = None
    if name == "ttbar_semileptonic":
        asked["met"] = None
    return Histograms.model_validate({"datasets": ["d"], "taggers": {"t": "t"}, "regions": {"r": asked}}).regions["r"]


def lepton(event, collection, i):
    mass = {"Muon": 0.10566, "Electron": 0.000511}[collection]
    pt, eta, phi = (event[f"{collection}_{part}"][i] for part in ("pt", "eta", "phi"))
    momentum = (pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta))
    return {
        "pt": pt, "eta": eta, "phi": phi, "charge": event[f"{collection}_charge"][i], "muon": collection == "Muon",
        "p4": (math.sqrt(sum(p * p for p in momentum) + mass**2), *momentum), "i": i,
    }  # fmt: skip


def mass(a, b):
    energy, *momentum = (p + q for p, q in zip(a["p4"], b["p4"], strict=True))
    return math.sqrt(max(energy**2 - sum(p * p for p in momentum), 0))


def is_good(event, collection, i, region):
    if abs(event[f"{collection}_eta"][i]) >= region.lepton_abs_eta:
        return False
    if collection == "Muon":
        identified = region.muon_id is None or event[f"Muon_{region.muon_id}Id"][i]
        return identified and (
            region.muon_isolation is None or event["Muon_pfRelIso04_all"][i] < np.float32(region.muon_isolation)
        )
    if region.electron_gap and 1.4442 <= abs(event["Electron_eta"][i] + event["Electron_deltaEtaSC"][i]) <= 1.566:
        return False
    if region.electron_isolation is not None and event["Electron_pfRelIso03_all"][i] >= region.electron_isolation:
        return False
    if region.electron_id is None:
        return True
    if region.electron_id.startswith("mva"):
        point = region.electron_id[3:]
        old, new = f"Electron_mvaFall17V2Iso_WP{point}", f"Electron_mvaIso_WP{point}"
        return event[new if new in event else old][i]
    return event["Electron_cutBased"][i] >= ["fail", "veto", "loose", "medium", "tight"].index(region.electron_id)


def distance(a, b):
    return math.hypot(a["eta"] - b["eta"], math.remainder(a["phi"] - b["phi"], 2 * math.pi))


def slow(event, region):
    """Names of the cuts passed, and (jet, sign) of the jets kept."""
    passed, counted, further = [], [], 0
    for collection, wanted in (("Electron", region.electrons), ("Muon", region.muons)):
        if wanted is None:
            continue
        found = [
            lepton(event, collection, i)
            for i in range(len(event[f"{collection}_pt"]))
            if is_good(event, collection, i, region)
        ]
        hard = [one for one in found if one["pt"] > region.lepton_pt]
        passed.append((f"{collection.lower()}s", len(hard) == wanted))
        counted += hard
        further += sum(region.veto_pt is not None and region.veto_pt < one["pt"] <= region.lepton_pt for one in found)
    counted.sort(key=lambda one: -one["pt"])
    passed.append(("no other lepton", further == 0))
    passed.append(
        ("leading lepton", not region.leading_lepton_pt or (counted and counted[0]["pt"] >= region.leading_lepton_pt))
    )
    charge = sum(one["charge"] for one in counted)
    passed.append(("opposite sign", not region.opposite_sign or charge == 0))
    passed.append(("same sign", not region.same_sign or abs(charge) == 2))
    pair = mass(*counted[:2]) if len(counted) > 1 else math.nan
    passed.append(("mass", region.mass is None or region.mass[0] <= pair <= region.mass[1]))
    passed.append(("mass veto", region.veto_mass is None or pair < region.veto_mass[0] or pair > region.veto_mass[1]))
    if region.met is not None or region.transverse_mass is not None:
        kind = "PuppiMET" if region.met_type == "PUPPI" else "MET" if "MET_pt" in event else "PFMET"
        met, phi = event[f"{kind}_pt"], event[f"{kind}_phi"]
        passed.append(("missing momentum", region.met is None or met >= region.met))
        if region.transverse_mass is not None:
            x, y = (trig(phi) * met for trig in (math.cos, math.sin))
            one = counted[0] if counted else {"pt": 0, "phi": 0}
            px, py = (trig(one["phi"]) * one["pt"] for trig in (math.cos, math.sin))
            squared = (one["pt"] + met) ** 2 - (px + x) ** 2 - (py + y) ** 2
            passed.append(("transverse mass", math.sqrt(max(squared, 0)) >= region.transverse_mass))
    jets = slow_jets(event, region, counted)
    most = math.inf if region.max_jets is None else region.max_jets
    passed.append(("jets", region.min_jets <= len(jets) <= most))
    passed.append(("leading jet", not region.leading_jet_pt or any(jet["pt"] >= region.leading_jet_pt for jet in jets)))
    if region.soft_muon is None:
        kept = [(jet["i"], None) for jet in jets]
    else:
        kept = slow_soft(event, region, jets, counted)
        passed.append(("soft muon", bool(kept)))
    return passed, kept


def slow_jets(event, region, counted):
    jets = []
    for i, (pt, eta, phi) in enumerate(zip(event["Jet_pt"], event["Jet_eta"], event["Jet_phi"], strict=True)):
        jet = {"pt": pt, "eta": eta, "phi": phi, "i": i}
        if not (15 <= pt <= 1000 and abs(eta) <= 2.5 and pt >= region.jet_pt):
            continue
        if region.jet_id and not event["Jet_jetId"][i] & {"tight": 2, "tight-lepton-veto": 4}[region.jet_id]:
            continue
        if region.pu_id and pt < 50:
            flag = event["Jet_puId"][i]
            if not {"loose": flag in (4, 6, 7, 1, 3, 2, 5), "medium": flag in (6, 7, 3, 2), "tight": flag == 7}[
                region.pu_id
            ]:
                continue
        if all(distance(jet, one) >= 0.4 for one in counted):
            jets.append(jet)
    return jets


def slow_soft(event, region, jets, counted):
    asked, muons = region.soft_muon, []
    isolated = [one for one in counted if one["muon"]]
    for i in range(len(event["Muon_pt"])):
        muon = lepton(event, "Muon", i)
        if not asked.pt[0] <= muon["pt"] <= asked.pt[1] or abs(muon["eta"]) >= region.lepton_abs_eta:
            continue
        if asked.isolation is not None and not event["Muon_pfRelIso04_all"][i] > np.float32(asked.isolation):
            continue
        if asked.id is not None and not event[f"Muon_{asked.id}Id"][i]:
            continue
        if any(one["i"] == i for one in isolated):
            continue
        if isolated:
            pair = mass(isolated[0], muon)
            if asked.min_mass is not None and pair <= asked.min_mass:
                continue
            if asked.veto_mass is not None and asked.veto_mass[0] <= pair <= asked.veto_mass[1]:
                continue
        muons.append(muon)
    kept = []
    for jet in jets:
        inside = sorted((muon for muon in muons if distance(jet, muon) < 0.4), key=lambda one: -one["pt"])
        if inside and (asked.max_pt_ratio is None or inside[0]["pt"] < asked.max_pt_ratio * jet["pt"]):
            opposite = bool(counted) and inside[0]["charge"] != counted[0]["charge"]
            kept.append((jet["i"], (1.0 if opposite else -1.0) if region.os_minus_ss else None))
    return kept


@cache
def open_events(path):
    """Events with all that any region here may read."""
    every = (*REAL.values(), *(of_simulation(name) for name in region_presets()))
    names = {name for region in every for names in branches(region) for name in names}
    names |= {"Jet_pt", "Jet_eta", "Jet_phi", "Jet_hadronFlavour", "genWeight", "run", "luminosityBlock", "event"}
    return NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "d", "filename": str(path)},
        iteritems_options={"filter_name": sorted(names | {f"n{name.partition('_')[0]}" for name in names})},
    ).events()


@cache
def tree(path):
    return uproot.open(path)["Events"]


def compare(path, region):
    """Jets, signs and cutflow of a region against the loops; return the jets kept."""
    events = open_events(path)
    jets = read_jets(events, CARD, SELECTION, data=False)
    selected = select(events, jets, region, Preselection())
    names = {name for names in branches(region) for name in names}
    held = set(tree(path).keys(recursive=False))
    reference = tree(path).arrays(sorted((names | {"Jet_pt", "Jet_eta", "Jet_phi", "genWeight"}) & held)).to_list()
    kept, flow = [], {}
    for row, event in enumerate(reference):
        passed, found = slow(event, region)
        alive = True
        for name, decision in (("all", True), *passed):
            alive = alive and decision
            before = flow.get(name, (0, 0.0))
            flow[name] = (before[0] + bool(alive), before[1] + bool(alive) * event["genWeight"])
        kept += [(row, jet, sign) for jet, sign in found if alive]
    signs = [None] * len(jets) if selected.sign is None else selected.sign.tolist()
    rows = zip(jets.owner.tolist(), jets.index.tolist(), signs, strict=True)
    assert [row for row, there in zip(rows, selected.kept, strict=True) if there] == kept
    if selected.sign is not None:
        assert not selected.sign[~selected.kept].any()
    # cuts that a region does not ask for are not in its cutflow, and change nothing in the loops'
    assert list(selected.cutflow) == [name for name in flow if name in selected.cutflow]
    for name, (events_left, weight) in selected.cutflow.items():
        assert events_left == flow[name][0]
        assert weight == pytest.approx(flow[name][1], rel=1e-6)
    assert list(selected.cutflow.values())[-1][0] == list(flow.values())[-1][0]
    return kept


@pytest.mark.parametrize("name", REAL)
def test_cuts_of_real_files(name):
    kept = compare(NANO / "nanov5_sample.root", REAL[name])
    assert kept, "the region selects nothing, so nothing was tested"


@pytest.mark.parametrize(("file", "name"), [("v12", "mva"), ("v12", "emu"), ("v15", "w"), ("v15", "met")])
def test_cuts_of_run_3(file, name):
    assert compare(NANO / f"nano_tt_{file}.root", REAL[name])


@pytest.mark.parametrize("name", region_presets())
def test_shipped_regions_of_simulated_files(simulated, name):
    kept = [compare(path, of_simulation(name)) for path in sorted(simulated.glob("ttbar_mc_11_*.root"))]
    assert name == "zjets" or any(kept)


def test_opposite_minus_same_sign_is_charm(tmp_path):
    """W- comes with c, which decays to a positive muon: opposite charges outnumber the same ones."""
    from simulation.run import simulate

    (path,) = simulate("wc", 800, tmp_path, seed=9, progress=False)
    soft = SoftMuon(pt=(2, 25), id=None)
    signs = []
    for lepton in ({"muons": 1}, {"electrons": 1}):
        region = Region(lepton_pt=20, os_minus_ss=True, soft_muon=soft, muon_isolation=0.15, **lepton)
        signs += [sign for *_, sign in compare(path, region)]
    assert len(signs) >= 8
    assert signs.count(1.0) >= 4 * signs.count(-1.0)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mass": (1, 2), "muons": 1}, "mass needs 2 counted leptons"),
        ({"mass": (5, 2), "muons": 2}, "5.0 is not below 2.0"),
        ({"os_minus_ss": True, "muons": 1}, "needs the key `soft_muon`"),
        ({"transverse_mass": 10, "muons": 2}, "transverse_mass needs 1 counted"),
        ({"same_sign": True, "opposite_sign": True, "muons": 2}, "exclude each other"),
        ({"veto_pt": 10, "muons": 1}, "veto_pt needs `electrons`"),
        ({"max_jets": 1, "min_jets": 2}, "max_jets"),
        ({"leading_lepton_pt": 10}, "leading_lepton_pt"),
    ],
)
def test_regions_that_make_no_sense(keys, words):
    with pytest.raises(ValidationError, match=words):
        Region(**keys)
