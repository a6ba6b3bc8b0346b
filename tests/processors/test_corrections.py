"""Weights from small files of correctionlib, against loops over events, leptons and jets of a real file."""

import gzip
import math
import pickle
from functools import cache

import correctionlib.schemav2 as schema
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from pydantic import TypeAdapter

from common.errors import AdvtagError
from configs.corrections import Correction
from configs.load import load_analysis
from configs.regions import Region
from configs.schema import Selection
from models.features import FeatureSet
from processors.corrections import Corrections
from processors.jets import read_jets
from processors.preselection import Preselection
from processors.regions import select
from tests.conftest import NANO

PATH = NANO / "nanov5_sample.root"
CARD = FeatureSet.model_validate(
    {"name": "pt", "inputs": [{"name": "pt", "branch": "Jet_pt", "label": "pT", "bins": (50, 0, 400)}]}
)
MUONS = Region(muons=1, lepton_pt=20, jet_pt=20)
PAIRS = Region(muons=2, lepton_pt=10)
PILEUP = {"nominal": lambda n: 1 + n / 100, "up": lambda n: 1 + n / 50, "down": lambda n: 1 - n / 200}
MUON = {"sf": 1.0, "systup": 1.02, "systdown": 0.97, "stat": 1.01}
ETA, PT = (0.0, 0.9, 1.5, 2.4), (10.0, 40.0, 500.0)
BTAG = {"central": 0.0, "up_hf": 0.05, "down_hf": -0.04, "up_cferr1": 0.1, "down_cferr1": -0.2}


def category(name, items):
    return schema.Category(
        nodetype="category",
        input=name,
        content=[schema.CategoryItem(key=key, value=value) for key, value in items.items()],
    )


def correction(name, inputs, data):
    kinds = [schema.Variable(name=each, type=kind) for each, kind in inputs.items()]
    output = schema.Variable(name="weight", type="real")
    return schema.Correction(name=name, version=1, inputs=kinds, output=output, data=data)


def binned(name, edges, content, flow="error"):
    return schema.Binning(nodetype="binning", input=name, edges=list(edges), content=content, flow=flow)


def formula(text, name):
    return schema.Formula(nodetype="formula", expression=text, parser="TFormula", variables=[name])


def muon_factor(pt, abseta, choice):
    return MUON[choice] * (0.9 + 0.03 * (np.searchsorted(ETA, abseta, "right") - 1) + 0.01 * (pt >= 40))


def btag_factor(flavour, discriminant, choice):
    return (1.1 if discriminant > 0.5 else 0.95) + BTAG[choice] * (1 if flavour == 4 else 0.5)


def efficiency(flavour):
    return {0: 0.05, 4: 0.2, 5: 0.7}[flavour]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every kind, one of them compressed."""
    folder = tmp_path_factory.mktemp("corrections")
    texts = {"nominal": "1+x/100", "up": "1+x/50", "down": "1-x/200"}
    pileup = category("weights", {key: formula(text, "NumTrueInteractions") for key, text in texts.items()})
    by_pt = {
        (choice, i): [MUON[choice] * (0.9 + 0.03 * i), MUON[choice] * (0.9 + 0.03 * i + 0.01)]
        for choice in MUON
        for i in range(3)
    }
    muon = category(
        "scale_factors",
        {choice: binned("abseta", ETA, [binned("pt", PT, by_pt[choice, i]) for i in range(3)]) for choice in MUON},
    )
    shape = category(
        "systematic",
        {
            choice: category(
                "flavor",
                {
                    flavour: binned(
                        "discriminant", (-0.1, 0.5, 1.1), [btag_factor(flavour, d, choice) for d in (0.2, 0.7)]
                    )
                    for flavour in ((0, 4, 5) if "cferr" not in choice else (4,))
                },
            )
            for choice in BTAG
        },
    )
    points = {
        key: binned("pt", (0, 100, 2000), [value, value - 0.1]) for key, value in (("central", 0.98), ("up", 1.03))
    }
    point = category("systematic", {key: category("working_point", {"M": factor}) for key, factor in points.items()})
    rates = category("flavor", {flavour: efficiency(flavour) for flavour in (0, 4, 5)})
    of_muons = {"year": "string", "abseta": "real", "pt": "real", "scale_factors": "string"}
    of_points = {"systematic": "string", "working_point": "string", "pt": "real"}
    sets = {
        "pileup.json.gz": [correction("Collisions18", {"NumTrueInteractions": "real", "weights": "string"}, pileup)],
        "muon.json": [correction("NUM_TightID", of_muons, category("year", {"2018": muon}))],
        "btag.json": [
            correction("deepJet_shape", {"systematic": "string", "flavor": "int", "discriminant": "real"}, shape),
            correction("deepJet_comb", of_points, point),
            correction("efficiency", {"flavor": "int"}, rates),
            correction("broken", {"pt": "real"}, formula("log(-x)", "pt")),
            correction("unused", {"pt": "real", "systematic": "string"}, binned("pt", (0, 1000), [1.0], "clamp")),
        ],
    }
    for name, corrections in sets.items():
        text = schema.CorrectionSet(schema_version=2, corrections=corrections).model_dump_json(exclude_unset=True)
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    (folder / "text.json").write_text("{}")
    (folder / "nothing.json").write_text("no json")
    return folder


def sections(folder):
    btag, muon = (
        folder / "btag.json",
        {"file": folder / "muon.json", "key": "NUM_TightID", "constants": {"year": "2018"}},
    )
    muon |= {"kind": "lepton", "collection": "Muon", "systematic": "scale_factors", "clip": {"pt": (10, 499)}}
    return {
        "pileup": {
            "kind": "event",
            "file": folder / "pileup.json.gz",
            "key": "Collisions18",
            "systematic": "weights",
            "sources": {"total": {"up": "up", "down": "down"}},
        },
        "muon_id": {
            **muon,
            "nominal": "sf",
            "sources": {"total": {"up": "systup", "down": "systdown"}, "stat": {"up": "stat", "down": "sf"}},
        },
        "trigger": {**muon, "leptons": "leading", "nominal": "stat", "regions": ["muons"]},
        "shape": {
            "kind": "jet",
            "file": btag,
            "key": "deepJet_shape",
            "systematic": "systematic",
            "nominal": "central",
            "inputs": {"discriminant": "Jet_btagDeepFlavB"},
            "clip": {"discriminant": (-0.05, 1)},
            "sources": {
                "hf": {"up": "up_hf", "down": "down_hf", "flavours": [0, 5]},
                "cferr1": {"up": "up_cferr1", "down": "down_cferr1", "flavours": [4]},
            },
        },
        "point": {
            "kind": "jet",
            "file": btag,
            "key": "deepJet_comb",
            "systematic": "systematic",
            "nominal": "central",
            "constants": {"working_point": "M"},
            "flavours": [4, 5],
            "sources": {"total": {"up": "up", "down": "central"}},
            "working_point": {
                "branch": "Jet_btagDeepFlavB",
                "threshold": 0.28,
                "efficiency": {"file": btag, "key": "efficiency"},
            },
        },
    }


def parse(written):
    return {name: TypeAdapter(Correction).validate_python(section) for name, section in written.items()}


@cache
def open_events(dataset="mc"):
    names = ["run", "luminosityBlock", "event", "genWeight", "Pileup_nTrueInt", "nJet", "nMuon", "nElectron"]
    names += [f"{kind}_{part}" for kind in ("Jet", "Muon", "Electron") for part in ("pt", "eta", "phi", "charge")]
    return NanoEventsFactory.from_root(
        {str(PATH): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": dataset, "filename": str(PATH)},
        iteritems_options={"filter_name": [*names, "Jet_hadronFlavour", "Jet_btagDeepFlavB"]},
    ).events()


def weights_of(corrections, region, name, dataset="mc"):
    events = open_events(dataset)
    assert {name for names in corrections.branches(False) for name in names} <= set(events.fields)
    data = corrections.datasets[dataset]
    jets = read_jets(events, CARD, Selection(), data=data)
    selected = select(events, jets, region, Preselection(data=data))
    return jets, selected, corrections.weights(events, jets, name, selected)


def slow_weights(region, name, jets, selected):
    """Every factor of every kept jet, one by one."""
    with uproot.open(PATH) as file:
        wanted = (
            "Muon_pt",
            "Muon_eta",
            "Jet_hadronFlavour",
            "Jet_btagDeepFlavB",
            "Jet_pt",
            "Pileup_nTrueInt",
            "genWeight",
        )
        reference = file["Events"].arrays(wanted).to_list()
    rows = []
    for jet in np.flatnonzero(selected.kept):
        event, i = reference[jets.owner[jet]], jets.index[jet]
        muons = [
            (pt, abs(eta))
            for pt, eta in zip(event["Muon_pt"], event["Muon_eta"], strict=True)
            if pt > region.lepton_pt and abs(eta) < 2.4
        ]
        flavour, discriminant, pt = event["Jet_hadronFlavour"][i], event["Jet_btagDeepFlavB"][i], event["Jet_pt"][i]

        def lepton(choice, muons=muons):
            return math.prod(muon_factor(min(pt, 499), eta, choice) for pt, eta in muons)

        def point(choice, flavour=flavour, discriminant=discriminant, pt=pt):
            if flavour == 0:
                return 1.0
            factor = {"central": 0.98, "up": 1.03}[choice] - 0.1 * (pt >= 100)
            e = efficiency(flavour)
            return factor if discriminant > np.float32(0.28) else (1 - factor * e) / (1 - e)

        central = {
            "pileup": PILEUP["nominal"](event["Pileup_nTrueInt"]),
            "muon_id": lepton("sf"),
            "trigger": muon_factor(min(muons[0][0], 499), muons[0][1], "stat") if name == "muons" else 1.0,
            "shape": btag_factor(flavour, discriminant, "central"),
            "point": point("central"),
        }
        varied = {f"pileup_{side}": ("pileup", PILEUP[side](event["Pileup_nTrueInt"])) for side in ("up", "down")}
        varied |= {"muon_id_up": ("muon_id", lepton("systup")), "muon_id_down": ("muon_id", lepton("systdown"))}
        varied |= {"muon_id_stat_up": ("muon_id", lepton("stat")), "muon_id_stat_down": ("muon_id", lepton("sf"))}
        for source in ("hf", "cferr1"):
            for side in ("up", "down"):
                concerned = (flavour == 4) == (source == "cferr1")
                choice = f"{side}_{source}" if concerned else "central"
                varied[f"shape_{source}_{side}"] = ("shape", btag_factor(flavour, discriminant, choice))
        varied |= {"point_up": ("point", point("up")), "point_down": ("point", point("central"))}
        full = event["genWeight"] * math.prod(central.values())
        row = {"nominal": full}
        row |= {key: full / central[factor] * value for key, (factor, value) in varied.items()}
        rows.append(row)
    return rows


@pytest.mark.parametrize(("name", "region"), [("muons", MUONS), ("pairs", PAIRS)])
def test_every_factor_against_loops(files, name, region):
    corrections = pickle.loads(pickle.dumps(Corrections(parse(sections(files)), {"mc": False})))
    jets, selected, found = weights_of(corrections, region, name)
    expected = slow_weights(region, name, jets, selected)
    assert len(expected) > 15
    assert tuple(found) == corrections.variations
    for key, weight in found.items():
        assert weight.dtype == np.float64
        np.testing.assert_allclose(weight[selected.kept], [row[key] for row in expected], rtol=1e-5, err_msg=key)
        assert not weight[~selected.kept].any()
    assert set(jets.flavour[selected.kept].tolist()) >= {2, 3}


def test_variations_are_known_from_the_configuration(files):
    found = Corrections(parse({**sections(files), "ps": {"kind": "ps"}, "qcd": {"kind": "scale"}}), {}).variations
    assert found == (
        "nominal", "pileup_up", "pileup_down", "muon_id_up", "muon_id_down", "muon_id_stat_up", "muon_id_stat_down",
        "shape_hf_up", "shape_hf_down", "shape_cferr1_up", "shape_cferr1_down", "point_up", "point_down",
        "ps_isr_up", "ps_isr_down", "ps_fsr_up", "ps_fsr_down", "qcd_up", "qcd_down",
    )  # fmt: skip


def test_data_and_datasets_that_are_not_named_are_not_corrected(files):
    written = sections(files)
    written["pileup"]["datasets"] = ["mc"]
    corrections = Corrections(parse({"pileup": written["pileup"]}), {"mc": False, "other": False, "data": True})
    jets, selected, found = weights_of(corrections, MUONS, "muons", "other")
    assert all(weight is found["nominal"] for weight in found.values())
    np.testing.assert_array_equal(found["nominal"][selected.kept], jets.weight[selected.kept])
    jets, selected, found = weights_of(corrections, MUONS, "muons", "data")
    assert list(found) == ["nominal"]
    assert set(found["nominal"][selected.kept]) == {1.0}
    assert corrections.branches(data=True) == []
    assert ("Pileup_nTrueInt",) in corrections.branches(False, "mc")
    assert ("Pileup_nTrueInt",) not in corrections.branches(False, "other")


def test_a_shift_has_its_own_weight_alone(files):
    corrections = Corrections(parse({"pileup": sections(files)["pileup"]}), {"mc": False})
    events = open_events()
    jets = read_jets(events, CARD, Selection(), data=False)
    selected = select(events, jets, MUONS, Preselection())
    found = corrections.weights(events, jets, "muons", selected, shift="jes_up")
    assert list(found) == ["jes_up"]
    np.testing.assert_array_equal(found["jes_up"], corrections.weights(events, jets, "muons", selected)["nominal"])


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("pileup", {"file": "nowhere.json"}, r"corrections\.pileup: cannot read .*nowhere.json"),
        ("pileup", {"file": "text.json"}, "text.json is not a file of correctionlib"),
        ("pileup", {"file": "nothing.json"}, "nothing.json is not a file of correctionlib"),
        ("pileup", {"key": "Collisions17"}, "no correction 'Collisions17'; did you mean 'Collisions18'"),
        ("pileup", {"nominal": "central"}, "'weights' has no 'central'; known: down, nominal, up"),
        ("pileup", {"sources": {"total": {"up": "upp", "down": "down"}}}, "'weights' has no 'upp'"),
        ("pileup", {"systematic": "weight", "sources": {}}, "say what its input 'weights' is"),
        ("pileup", {"inputs": {"Ntrue": "Pileup_nTrueInt"}}, "no input 'Ntrue'"),
        ("pileup", {"inputs": {"NumTrueInteractions": "nTrueInt"}}, "cannot be 'nTrueInt'"),
        ("muon_id", {"constants": {}}, "say what its input 'year' is"),
        ("muon_id", {"constants": {"year": "2017"}}, "'year' has no '2017'; known: 2018"),
        ("muon_id", {"constants": {"year": 2018}}, "'year' is of type string"),
        ("muon_id", {"inputs": {"pt": "Jet_pt"}}, "cannot be 'Jet_pt'"),
        ("muon_id", {"clip": {"eta": (0, 1)}}, "no input 'eta'"),
        ("shape", {"inputs": {}, "clip": {}}, "say what its input 'discriminant' is"),
        ("shape", {"key": "unused", "sources": {}, "inputs": {}, "clip": {}}, "no 'central'; known: none"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_known_before_any_job(files, section, change, words):
    written = {**sections(files)[section], **change}
    if "file" in change:
        written["file"] = files / change["file"]
    with pytest.raises(AdvtagError, match=words):
        Corrections(parse({section: written}), {"mc": False})


def test_out_of_range_names_variable_and_range(files):
    written = sections(files)["muon_id"]
    corrections = Corrections(parse({"muon_id": {**written, "clip": {}}}), {"mc": False})
    with pytest.raises(
        AdvtagError, match=r"input 'pt': values from 5\.\d* to [\d.]+, but the file covers from 10 to 500"
    ):
        weights_of(corrections, Region(muons=1, lepton_pt=5), "r")
    written = {**sections(files)["shape"], "sources": {}, "nominal": "up_cferr1"}
    with pytest.raises(AdvtagError, match=r"input 'flavor': values from 0 to 5, but the file covers 0, 4, 5"):
        weights_of(Corrections(parse({"shape": written}), {"mc": False}), Region(), "r")


def test_factors_that_are_not_finite_are_refused(files):
    written = {"kind": "jet", "file": files / "btag.json", "key": "broken"}
    corrections = Corrections(parse({"mine": written}), {"mc": False})
    with pytest.raises(
        AdvtagError, match=r"corrections.mine: 'broken' of .*btag.json gives \d+ of \d+ factors that are not"
    ):
        weights_of(corrections, Region(), "r")


def test_two_sections_of_one_name_of_a_variation(files):
    written = sections(files)
    written["muon_id_stat"] = {**written["pileup"]}
    with pytest.raises(AdvtagError, match="two sections give a variation 'muon_id_stat_up'"):
        Corrections(parse(written), {})


def test_paths_are_relative_to_the_configuration(write_config, files):
    section = sections(files)["point"]
    section |= {"file": "btag.json", "datasets": ["d"], "regions": ["all"]}
    section["working_point"]["efficiency"]["file"] = "eff/btag.json"
    keys = {
        "features": "nanoaod",
        "datasets": {"d": {"files": "x.root", "cross_section": 1.0}},
        "histograms": {"datasets": ["d"], "taggers": {"t": "t"}, "regions": {"all": {}}},
    }
    path = write_config(corrections={"point": section}, **keys)
    found = load_analysis(path).corrections["point"]
    assert found.file == path.parent / "btag.json"
    assert found.working_point.efficiency.file == path.parent / "eff/btag.json"
    for change, words in (
        ({"datasets": ["e"]}, "corrections.point.datasets: no 'e'"),
        ({"regions": ["emu"]}, "corrections.point.regions: no 'emu'; known: all"),
        ({"nominall": "central"}, r"corrections.point.nominall: unknown key; did you mean 'nominal'"),
    ):
        with pytest.raises(AdvtagError, match=words):
            load_analysis(write_config(corrections={"point": {**section, **change}}, **keys))
