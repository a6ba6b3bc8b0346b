"""Constituents of jets against loops over events, jets and candidates in plain Python."""

import math
from typing import ClassVar

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory

from common.errors import AdvtagError
from common.histograms import read_histograms
from configs.load import load_analysis
from configs.schema import Selection
from models.features import load_features
from models.tagger import Tagger
from processors.constituents import KINDS, constituents, made_from
from processors.fileset import open_fileset, read_list
from processors.jets import read_jets
from processors.jobs import make_columns, make_histograms
from simulation.detector.reconstruct import Content
from simulation.run import simulate
from tests.conftest import NANO

CARDS = ("deepjet", "particles")
NAN = math.nan


@pytest.fixture(scope="session")
def with_constituents(tmp_path_factory):
    """60 simulated ttbar events."""
    folder = tmp_path_factory.mktemp("constituents")
    return simulate("ttbar", 60, folder, seed=5, content=Content(constituents=True), progress=False)[0]


@pytest.fixture(params=["pfnano.root", "simulated"])
def path(request, with_constituents):
    return with_constituents if request.param == "simulated" else NANO / request.param


def wrapped(angle: float) -> float:
    return math.remainder(angle, 2 * math.pi)


def clipped(value: float, most: float) -> float:
    return max(-most, min(most, value))


def slow_candidate(event, link: int, jet: int) -> dict[str, float]:
    """All quantities of one candidate in one jet."""
    index = event["JetPFCands_pFCandsIdx"][link]
    one = {
        name: event[f"PFCands_{name}"][index] for name in ("pt", "eta", "phi", "charge", "pdgId", "d0", "d0Err", "dz")
    }
    axis = {name: event[f"Jet_{name}"][jet] for name in ("pt", "eta", "phi")}
    btag = {name: event[f"JetPFCands_btag{name}"][link] for name in ("EtaRel", "Sip3dVal", "Sip3dSig", "JetDistVal")}
    vertices = [
        math.hypot(one["eta"] - eta, wrapped(one["phi"] - phi))
        for eta, phi in zip(event["SV_eta"], event["SV_phi"], strict=True)
    ]
    nearest = min(vertices, default=NAN)
    # the point where the track is closest to the beam, and whether it lies along the jet
    x, y = -one["d0"] * math.sin(one["phi"]), one["d0"] * math.cos(one["phi"])
    along = x * math.cos(axis["phi"]) + y * math.sin(axis["phi"])
    sip2d = math.copysign(math.hypot(x, y), along)
    eta, phi = one["eta"] - axis["eta"], wrapped(one["phi"] - axis["phi"])
    number = abs(one["pdgId"])
    track = {
        "etaRel": btag["EtaRel"],
        "sip2dVal": clipped(sip2d, 1),
        "sip2dSig": clipped(sip2d / one["d0Err"], 100),
        "sip3dVal": clipped(btag["Sip3dVal"], 1),
        "sip3dSig": clipped(btag["Sip3dSig"], 100) if math.isfinite(btag["Sip3dSig"]) else NAN,
        "jetDistVal": clipped(btag["JetDistVal"], 1),
        "dz": clipped(one["dz"], 1),
    }
    if one["charge"] == 0 or one["d0Err"] == -1:
        track = dict.fromkeys(track, NAN)
    return {
        "pt": one["pt"],
        "ptRel": one["pt"] / axis["pt"],
        "deltaEta": eta,
        "deltaPhi": phi,
        "deltaR": math.hypot(eta, phi),
        **track,
        "drMinSv": nearest if nearest <= 0.4 else NAN,
        "charge": one["charge"],
        "isElectron": number == 11,
        "isMuon": number == 13,
        "isPhoton": number == 22,
    }


def slow_vertex(event, link: int) -> dict[str, float]:
    names = {"ptRel": "ptrel", "energyRatio": "enration", "nTracks": "ntracks", "normChi2": "normchi2"}
    names |= {"dxySig": "dxysig", "d3dSig": "d3dsig", "cosPointing": "costhetasvpv"}
    names |= {name: name for name in ("pt", "mass", "chi2", "deltaR", "dxy", "d3d")}
    return {name: event[f"JetSVs_{branch}"][link] for name, branch in names.items()}


def last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def slow_jet(event, jet: int) -> dict[str, list[dict[str, float]]]:
    """Constituents of one jet by collection, sorted."""
    links = [k for k, owner in enumerate(event["JetPFCands_jetIdx"]) if owner == jet]
    hard = [slow_candidate(event, k, jet) for k in links]
    hard = [one for one in hard if one["pt"] > 0.95]
    vertices = [slow_vertex(event, k) for k, owner in enumerate(event["JetSVs_jetIdx"]) if owner == jet]
    return {
        "Charged": sorted((one for one in hard if one["charge"]), key=lambda one: last(-one["sip2dSig"])),
        "Neutral": sorted((x for x in hard if not x["charge"]), key=lambda x: (last(x["drMinSv"]), -x["pt"])),
        "Particle": sorted(hard, key=lambda one: -one["pt"]),
        "Vertex": sorted(vertices, key=lambda one: -one["dxySig"]),
    }


def read(path) -> list[dict]:
    """Events with plain lists."""
    with uproot.open(path) as file:
        names = {name for kind in KINDS.values() for name in kind.branches} | {"Jet_pt", "Jet_eta", "Jet_phi"}
        return file["Events"].arrays(sorted(names)).to_list()


def events_of(path):
    """With the branches of both cards alone: NanoEvents takes seconds for all of them."""
    branches = sorted({name for card in CARDS for name in read_list(load_features(card), (), {"d": False})["d"]})
    return NanoEventsFactory.from_root(
        {str(path): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"filename": str(path), "dataset": "d"},
        iteritems_options={"filter_name": branches},
    ).events()


def close(found: float, expected: float, *, size: float) -> bool:
    return (math.isnan(found) and math.isnan(expected)) or abs(found - expected) <= 2e-6 * size


def test_every_quantity_of_every_jet(path) -> None:
    """More slots than any jet fills, in an order of jets that is not the file's."""
    plain, slots = read(path), 90
    asked = [
        f"{name}_{quantity}_{slot}"
        for name, kind in KINDS.items()
        for quantity in kind.quantities
        for slot in range(slots)
    ]
    number = [len(event["Jet_pt"]) for event in plain]
    places = [(e, jet) for e, n in enumerate(number) for jet in range(n)]
    chosen = np.arange(sum(number))[1::3][::-1].copy()
    found = constituents(events_of(path), [*asked, *(f"{name}_n" for name in KINDS), "Jet_pt"], chosen)
    assert set(found) == {*asked, *(f"{name}_n" for name in KINDS)}
    counted = dict.fromkeys(KINDS, 0)
    for row, place in enumerate(chosen):
        event, jet = places[place]
        for name, expected in slow_jet(plain[event], jet).items():
            assert found[f"{name}_n"][row] == len(expected)
            counted[name] += len(expected)
            for quantity in KINDS[name].quantities:
                values = [float(found[f"{name}_{quantity}_{slot}"][row]) for slot in range(slots)]
                for slot, one in enumerate(expected):
                    assert close(values[slot], float(one[quantity]), size=max(1, abs(one[quantity]))), (name, quantity)
                assert all(math.isnan(value) for value in values[len(expected) :])
    assert all(counted.values())


@pytest.mark.parametrize("card", CARDS)
def test_inputs_of_the_cards(path, card) -> None:
    """Through the reader of jets: values, presence, and that all are inside of their bounds."""
    features, plain = load_features(card), read(path)
    jets = read_jets(events_of(path), features, Selection(), data=False)
    assert jets.present.any(0).sum() > 0.5 * len(features)
    for row in range(0, len(jets), 3):
        one = slow_jet(plain[jets.owner[row]], int(jets.index[row]))
        for k, feature in enumerate(features.inputs):
            name, _, rest = feature.branch[0].partition("_")
            if name not in KINDS:
                continue
            there, value = bool(jets.present[row, k]), float(jets.values[row, k])
            if rest == "n":
                assert there
                assert value == len(one[name])
                continue
            quantity, _, slot = rest.rpartition("_")
            wanted = one[name][int(slot)][quantity] if int(slot) < len(one[name]) else NAN
            assert there is not math.isnan(wanted)
            assert value == 0 if math.isnan(wanted) else close(value, float(wanted), size=max(1, abs(wanted)))
            if there:
                assert feature.bounds[0] <= value <= feature.bounds[1]


def test_signed_transverse_impact_parameter_is_the_simulations(with_constituents) -> None:
    """Its own btagSip2dVal takes the helix and the measured vertex: the same sign and size but for tiny ones."""
    with uproot.open(with_constituents) as file:
        tree = file["Events"]
        theirs = {
            name: ak.to_numpy(ak.flatten(tree[f"JetPFCands_{name}"].array()))
            for name in ("btagSip2dVal", "btagSip2dSig")
        }
        total = ak.to_numpy(ak.flatten(tree["Jet_pt"].array()))
    found = constituents(
        events_of(with_constituents),
        [f"Particle_{name}_{slot}" for name in ("sip2dVal", "sip2dSig") for slot in range(90)],
        np.arange(len(total)),
    )
    ours = np.stack([found[f"Particle_sip2dVal_{slot}"] for slot in range(90)]).ravel()
    ours = np.sort(ours[np.isfinite(ours) & (np.abs(ours) > 0.01) & (np.abs(ours) < 0.9)])
    with uproot.open(with_constituents) as file:
        arrays = file["Events"].arrays(["JetPFCands_pFCandsIdx", "PFCands_pt", "PFCands_charge"])
    index = arrays["JetPFCands_pFCandsIdx"]
    hard = (arrays["PFCands_pt"][index] > 0.95) & (arrays["PFCands_charge"][index] != 0)
    value = theirs["btagSip2dVal"][ak.to_numpy(ak.flatten(hard))]
    value = np.sort(value[(np.abs(value) > 0.01) & (np.abs(value) < 0.9)])
    assert len(ours) == pytest.approx(len(value), rel=0.02)
    assert (ours < 0).mean() == pytest.approx((value < 0).mean(), abs=0.01)
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(ours, levels), np.quantile(value, levels), rtol=0.03, atol=1e-3)


@pytest.fixture
def analysis(write_config):
    def build(card: str, path, **sections):
        datasets = {"d": {"files": str(path), "cross_section": 1.0}}
        return load_analysis(
            write_config(
                card,
                features=card,
                datasets=datasets,
                columns={"datasets": ["d"]},
                run={"executor": "iterative"},
                **sections,
            )
        )

    return build


@pytest.mark.parametrize("path", ["pfnano.root"], indirect=True)
@pytest.mark.parametrize("card", CARDS)
def test_columns(analysis, path, card) -> None:
    folder = make_columns(analysis(card, path), progress=False)
    (file,) = folder.glob("d/*.parquet")
    table = pq.read_table(file)
    assert table.num_rows > 10
    for feature in load_features(card).inputs:
        values = table[f"input_{feature.name}"].drop_null().to_numpy()
        assert np.isfinite(values).all()
        if feature.integer:
            assert (values == np.round(values)).all()


def test_histograms_are_filled(analysis, tmp_path) -> None:
    features = load_features("deepjet")
    low, high = torch.tensor([feature.bins[1:] for feature in features.inputs]).T
    path = tmp_path / "tagger.safetensors"
    Tagger(features, ("b", "bb", "c", "udsg"), (low + high) / 2, high - low, network="deepjet").save(path)
    built = analysis(
        "deepjet",
        NANO / "pfnano.root",
        attacks={"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
        histograms={"datasets": ["d"], "taggers": {"t": str(path)}, "attacks": ["fgsm"]},
    )
    found = read_histograms(make_histograms(built, progress=False))
    jets = found.datasets["d"].jets
    raw, attacked = (
        found.histograms["charged_sip3dSig_0"][{"attack": name}].values(flow=True) for name in ("raw", "fgsm")
    )
    assert raw.sum() == attacked.sum() > 0.9 * jets
    scores = [found.histograms["BvsL"][{"attack": name}].values(flow=True) for name in ("raw", "fgsm")]
    assert scores[0].sum() == scores[1].sum() == jets
    assert not np.array_equal(*scores)


def test_nano_without_constituents_is_told_what_to_do(analysis) -> None:
    with pytest.raises(AdvtagError, match=r"nano_tt_v12\.root: no branch PFCands_pt.*--constituents"):
        make_columns(analysis("particles", NANO / "nano_tt_v12.root"), progress=False)


def test_unknown_quantity_is_named() -> None:
    with pytest.raises(AdvtagError, match=r"'Charged_puppi_0': Charged has no quantity 'puppi'; known: pt, ptRel"):
        made_from(("Charged_puppi_0",))


def test_other_cards_read_nothing_more() -> None:
    assert made_from(("Jet_pt",)) == (("Jet_pt",),)
    assert made_from(("SV_eta", "Old_name")) == (("SV_eta", "Old_name"),)
    assert not {"PFCands_pt", "JetSVs_mass"}.intersection(read_list(load_features("deepcsv"), (), {"d": False})["d"])
    needed = read_list(load_features("particles"), (), {"d": False})["d"]
    assert {"nPFCands", "PFCands_d0Err", "nJetPFCands", "nSV", "SV_phi"} <= set(needed)
    assert "Particle_pt_0" not in needed
    assert constituents(None, ["Jet_pt", "Jet_eta"], np.arange(3)) == {}


class Events(dict):
    """The collections of some events, as the reader hands them over."""

    metadata: ClassVar = {"filename": "x.root"}

    def __len__(self) -> int:
        return len(self["Jet_pt"])


def toy(**changes) -> Events:
    names = [name for kind in KINDS.values() for name in kind.branches]
    columns = {name: [[], []] for name in names} | {
        "Jet_pt": [[50.0], []],
        "Jet_eta": [[0.0], []],
        "Jet_phi": [[0.0], []],
    }
    for name in names:
        if name.startswith(("PFCands", "JetPFCands")):
            columns[name] = [[1, 2, 3], []]
    columns["JetPFCands_jetIdx"], columns["JetPFCands_pFCandsIdx"] = [[0, 0, 0], []], [[2, 1, 0], []]
    return Events(
        {name: ak.values_astype(ak.Array(values), np.float32) for name, values in (columns | changes).items()}
    )


def test_candidates_of_no_jet_do_not_count() -> None:
    chosen = np.arange(1)
    assert constituents(toy(), ["Particle_n"], chosen)["Particle_n"].tolist() == [3]
    pts = [constituents(toy(), ["Particle_n", f"Particle_pt_{k}"], chosen)[f"Particle_pt_{k}"][0] for k in range(3)]
    assert pts == [3, 2, 1]
    for name in ("jetIdx", "pFCandsIdx"):
        events = toy(**{f"JetPFCands_{name}": [[0, -1, 0], []]})
        assert constituents(events, ["Particle_n"], chosen)["Particle_n"].tolist() == [2]
    assert constituents(toy(), ["Particle_n"], np.arange(0))["Particle_n"].tolist() == []


def test_charged_candidates_without_a_measured_track() -> None:
    """PFNano writes -1 for what it does not know of soft ones: they keep their momentum, and nothing else."""
    events = toy(PFCands_charge=[[1, 0, -1], []], PFCands_d0Err=[[0.5, -1, -1], []])
    names = [f"Particle_{name}_{slot}" for name in ("pt", "sip2dSig", "sip3dVal", "dz") for slot in range(3)]
    found = constituents(events, names, np.arange(1))
    there = [bool(np.isfinite(found[name][0])) for name in names]
    assert there == [True, True, True, *[False, False, True] * 3]
    assert constituents(events, ["Charged_n", "Neutral_n"], np.arange(1)) == {"Charged_n": [2], "Neutral_n": [1]}


@pytest.mark.parametrize(("name", "target"), [("jetIdx", "Jet_pt"), ("pFCandsIdx", "PFCands_pt")])
def test_a_link_beyond_the_event_is_refused(name, target) -> None:
    events = toy(**{f"JetPFCands_{name}": [[0, 3, 0], []]})
    with pytest.raises(AdvtagError, match=rf"x\.root: JetPFCands_{name} is 3 in an event with . entries of {target}"):
        constituents(events, ["Particle_n"], np.arange(1))


def test_files_are_checked_before_anything_runs(analysis, with_constituents) -> None:
    built = analysis("deepjet", with_constituents)
    (file,) = open_fileset(built.datasets, load_features("deepjet"), ())
    assert file.events == 60
