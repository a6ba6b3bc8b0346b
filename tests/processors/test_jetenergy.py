"""Jet energies against a calculation jet by jet, and against coffea's own factory where jets have a generated one."""

import math
import pickle
from functools import cache

import awkward as ak
import correctionlib.schemav2 as schema
import numpy as np
import pytest
import uproot
from coffea.jetmet_tools import CorrectedJetsFactory
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from pydantic import TypeAdapter, ValidationError

from common.errors import AdvtagError
from configs.corrections import Correction
from processors.corrections import Corrections
from tests.conftest import NANO

PATH = NANO / "nano_tt_v12.root"
KEYS = {
    "scale": "V5_MC_L1L2L3Res_AK4",
    "uncertainties": {"total": "V5_MC_Total_AK4", "FlavorQCD": "V5_MC_FlavorQCD_AK4"},
    "resolution": "V5_MC_PtResolution_AK4",
    "resolution_factor": "V5_MC_ScaleFactor_AK4",
}
SHIFTS = ("jes_up", "jes_down", "jes_FlavorQCD_up", "jes_FlavorQCD_down", "jer_up", "jer_down")
FACTOR = {"nom": 1.15, "up": 1.25, "down": 1.05}
L1 = "{1 JetEta 3 Rho JetPt JetA max(0.0001,1-z*(x-1.5)/y*[0]) Correction L1FastJet}\n"
TEXTS = {
    "Toy_V5_MC_L1FastJet_AK4PFchs.txt": L1 + "-5.2 0 7 0 200 1 6500 0 10 0.5\n0 5.2 7 0 200 1 6500 0 10 0.6\n",
    "Toy_V5_MC_L2Relative_AK4PFchs.txt": "{1 JetEta 1 JetPt [0]+[1]*log10(x) Correction L2Relative}\n"
    "-5.2 0 4 5 5000 1.02 0.01\n0 5.2 4 5 5000 1.03 0.005\n",
    "Toy_V5_MC_Uncertainty_AK4PFchs.txt": '{1 JetEta 1 JetPt "" Correction JECSource}\n'
    "-5.4 0 9 5 0.05 0.05 50 0.02 0.02 5000 0.01 0.01\n0 5.4 9 5 0.06 0.06 50 0.03 0.03 5000 0.01 0.01\n",
    "Toy_V5_MC_PtResolution_AK4PFchs.txt": "{1 JetEta 2 JetPt Rho sqrt([0]*[0]/(x*x)+[1]*[1]) Resolution}\n"
    "-5.2 0 6 5 5000 0 100 3 0.06\n0 5.2 6 5 5000 0 100 4 0.07\n",
    "Toy_V5_MC_SF_AK4PFchs.txt": "{1 JetEta 0 None ScaleFactor}\n-5.2 0 3 1.15 1.05 1.25\n0 5.2 3 1.1 1.02 1.18\n",
}


def variables(kinds):
    return [schema.Variable(name=name, type="string" if name == "systematic" else "real") for name in kinds]


def correction(name, inputs, data):
    output = schema.Variable(name="factor", type="real")
    return schema.Correction(name=name, version=1, inputs=variables(inputs), output=output, data=data)


def formula(text, *names):
    return schema.Formula(nodetype="formula", expression=text, parser="TFormula", variables=list(names))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A compound of two levels, two sources, a resolution and its factor."""
    items = [schema.CategoryItem(key=key, value=value) for key, value in FACTOR.items()]
    single = [
        correction("L1", ["JetA", "Rho", "JetPt"], formula("max(0.1,1-0.5*x*y/z)", "JetA", "Rho", "JetPt")),
        correction("L2", ["JetEta", "JetPt"], formula("1.05+0.01*abs(x)-0.00001*y", "JetEta", "JetPt")),
        correction("V5_MC_Total_AK4", ["JetEta", "JetPt"], formula("0.02+1/(50+y)+0*x", "JetEta", "JetPt")),
        correction("V5_MC_FlavorQCD_AK4", ["JetEta", "JetPt"], formula("0.01+0*x*y", "JetEta", "JetPt")),
        correction(
            "V5_MC_PtResolution_AK4", ["JetEta", "JetPt", "Rho"], formula("sqrt(9/(y*y)+0.0036)", "JetEta", "JetPt")
        ),
        correction(
            "V5_MC_ScaleFactor_AK4",
            ["JetEta", "systematic"],
            schema.Category(nodetype="category", input="systematic", content=items),
        ),
        correction("simple", ["JetPt"], formula("0.1+0*x", "JetPt")),
        correction(
            "narrow",
            ["JetPt"],
            schema.Binning(nodetype="binning", input="JetPt", edges=[0, 50], content=[1.0], flow="error"),
        ),
    ]
    compound = schema.CompoundCorrection(
        name="V5_MC_L1L2L3Res_AK4",
        inputs=variables(["JetA", "JetEta", "JetPt", "Rho"]),
        output=schema.Variable(name="factor", type="real"),
        inputs_update=["JetPt"],
        input_op="*",
        output_op="*",
        stack=["L1", "L2"],
    )
    found = schema.CorrectionSet(schema_version=2, corrections=single, compound_corrections=[compound])
    path = tmp_path_factory.mktemp("jerc") / "jet_jerc.json"
    path.write_text(found.model_dump_json(exclude_unset=True))
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name, content in TEXTS.items():
        (folder / name).write_text(content)
    sources = "".join(
        f'[{name}]\n{{1 JetEta 1 JetPt "" Correction JECSource}}\n-5.4 5.4 6 5 {low} {low} 5000 0.01 0.01\n'
        for name, low in (("FlavorQCD", 0.03), ("TimePtEta", 0.02))
    )
    (folder / "Toy_V5_MC_UncertaintySources_AK4PFchs.txt").write_text(sources)
    return folder


def build(section, data=False):
    return Corrections({"jets": TypeAdapter(Correction).validate_python({"kind": "jets", **section})}, {"d": data})


def open_events(corrections, file=PATH, start=None, stop=None):
    names = {name for names in corrections.branches(False) for name in names}
    names |= {"run", "luminosityBlock", "event", "MET_pt", "MET_phi", "nJet", "nGenJet"}
    return NanoEventsFactory.from_root(
        {str(file): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "d", "filename": str(file)},
        iteritems_options={"filter_name": sorted(names)},
        entry_start=start,
        entry_stop=stop,
    ).events()


@cache
def reference():
    names = ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass", "Jet_rawFactor", "Jet_area", "Jet_genJetIdx", "MET_pt"]
    names += ["MET_phi", "GenJet_pt", "GenJet_eta", "GenJet_phi", "Rho_fixedGridRhoFastjetAll"]
    with uproot.open(PATH) as file:
        return file["Events"].arrays(names).to_list()


def matched(event, i, pt, width):
    """pt of the generated jet near this one, or None."""
    index = event["Jet_genJetIdx"][i]
    if not 0 <= index < len(event["GenJet_pt"]):
        return None
    angle = math.remainder(event["Jet_phi"][i] - event["GenJet_phi"][index], 2 * math.pi)
    near = math.hypot(event["Jet_eta"][i] - event["GenJet_eta"][index], angle) < 0.2
    generated = event["GenJet_pt"][index]
    return generated if near and abs(pt - generated) < 3 * width * pt else None


def hand(event, i):
    """pt of a jet in each shift, and whether it has a generated jet."""
    eta, rho = event["Jet_eta"][i], event["Rho_fixedGridRhoFastjetAll"]
    pt = event["Jet_pt"][i] * (1 - event["Jet_rawFactor"][i])
    pt *= max(0.1, 1 - 0.5 * event["Jet_area"][i] * rho / pt)
    pt *= 1.05 + 0.01 * abs(eta) - 0.00001 * pt
    width = math.sqrt(9 / pt**2 + 0.0036)
    generated = matched(event, i, pt, width)
    if generated is None:
        return pt, width, None
    floor = 0.01 / math.cosh(eta)
    smeared = {key: max(generated + factor * (pt - generated), floor) for key, factor in FACTOR.items()}
    nominal = smeared["nom"]
    shifts = {"nominal": nominal, "jer_up": smeared["up"], "jer_down": smeared["down"]}
    for name, size in (("jes", 0.02 + 1 / (50 + nominal)), ("jes_FlavorQCD", 0.01)):
        shifts |= {f"{name}_up": nominal * (1 + size), f"{name}_down": nominal * (1 - size)}
    return pt, width, shifts


def test_every_shift_by_hand(path):
    corrections = pickle.loads(pickle.dumps(build({"file": path, **KEYS})))
    assert corrections.variations == ("nominal", *SHIFTS)
    shifts = dict(corrections.shifts(open_events(corrections), data=False))
    assert tuple(shifts) == ("nominal", *SHIFTS)
    found = {name: events["Jet_pt"].to_list() for name, events in shifts.items()}
    mass = shifts["jes_up"]["Jet_mass"].to_list()
    pulls = {"nominal": [], "jer_up": [], "jer_down": []}
    compared = 0
    for row, event in enumerate(reference()):
        for i in range(len(event["Jet_pt"])):
            pt, width, expected = hand(event, i)
            scaled = event["Jet_mass"][i] * found["jes_up"][row][i] / event["Jet_pt"][i]
            assert mass[row][i] == pytest.approx(scaled, rel=1e-4)
            if expected is not None:
                for name, value in expected.items():
                    assert found[name][row][i] == pytest.approx(value, rel=1e-5), (name, row, i)
                compared += 1
                continue
            if pt < 15:  # where the resolution is so wide that the floor of the energy cuts the tail
                continue
            for name, factor in zip(pulls, FACTOR.values(), strict=True):
                pulls[name].append((found[name][row][i] / pt - 1) / width / math.sqrt(factor**2 - 1))
            nominal = found["nominal"][row][i]
            assert found["jes_up"][row][i] == pytest.approx(nominal * (1.02 + 1 / (50 + nominal)), rel=1e-5)
    assert compared > 500
    # the same random number in all shifts, and a normal one
    pulls = np.array(list(pulls.values()))
    np.testing.assert_allclose(pulls, np.broadcast_to(pulls[0], pulls.shape), atol=1e-3)
    assert abs(pulls[0].mean()) < 4 / math.sqrt(pulls.shape[1])
    assert pulls[0].std() == pytest.approx(1, abs=4 / math.sqrt(2 * pulls.shape[1]))


def test_smearing_does_not_depend_on_the_chunk(path):
    corrections = build({"file": path, **KEYS})
    whole = dict(corrections.shifts(open_events(corrections), False))
    for start, stop in ((0, 70), (70, 71), (71, 200)):
        for name, events in corrections.shifts(open_events(corrections, start=start, stop=stop), False):
            assert events["Jet_pt"].to_list() == whole[name]["Jet_pt"][start:stop].to_list()


def test_missing_momentum_balances_the_jets(path):
    corrections = build({"file": path, **KEYS})
    shifted = dict(corrections.shifts(open_events(corrections), False))
    before = reference()
    for name in ("nominal", "jes_down"):
        pt, met, phi = (shifted[name][branch].to_list() for branch in ("Jet_pt", "MET_pt", "MET_phi"))
        for row, event in enumerate(before):
            x, y = event["MET_pt"] * math.cos(event["MET_phi"]), event["MET_pt"] * math.sin(event["MET_phi"])
            for new, old, angle in zip(pt[row], event["Jet_pt"], event["Jet_phi"], strict=True):
                x, y = x - (new - old) * math.cos(angle), y - (new - old) * math.sin(angle)
            assert met[row] == pytest.approx(math.hypot(x, y), rel=1e-4)
            assert math.remainder(phi[row] - math.atan2(y, x), 2 * math.pi) == pytest.approx(0, abs=1e-3)
    assert shifted["jes_up"].metadata["dataset"] == "d"


def of_factory(stack, jets, rho):
    names = {"JetPt": "pt", "JetMass": "mass", "JetEta": "eta", "JetA": "area", "Rho": "rho", "ptGenJet": "pt_gen"}
    names |= {"ptRaw": "pt_raw", "massRaw": "mass_raw"}
    jets = ak.with_field(jets, ak.broadcast_arrays(rho, jets.pt)[0], "rho")
    return CorrectedJetsFactory(names, stack).build(jets)


def test_matched_jets_agree_with_coffeas_factory(texts):
    files = [str(texts / name) for name in TEXTS]
    corrections = build({"text_files": files})
    assert corrections.variations == ("nominal", "jes_up", "jes_down", "jer_up", "jer_down")
    events = open_events(corrections)
    shifts = dict(corrections.shifts(events, False))
    pt_gen, raw = [], []
    for event in reference():
        pt_gen.append([matched(event, i, pt, math.inf) or 0.0 for i, pt in enumerate(event["Jet_pt"])])
        raw.append([pt * (1 - factor) for pt, factor in zip(event["Jet_pt"], event["Jet_rawFactor"], strict=True)])
    record = {part: events[f"Jet_{part}"] for part in ("pt", "eta", "area", "mass")}
    empty = ak.values_astype(ak.Array(raw), np.float32)
    record |= {"pt_gen": ak.values_astype(ak.Array(pt_gen), np.float32), "pt_raw": empty, "mass_raw": record["mass"]}
    (energy,) = corrections.energies
    built = of_factory(energy.stack(), ak.zip(record), events["Rho_fixedGridRhoFastjetAll"])
    width = built.jet_energy_resolution
    sure = (built.pt_gen > 0) & (abs(built.pt_jec - built.pt_gen) < 3 * width * built.pt_jec)
    theirs = {"nominal": built.pt, "jes_up": built.JES_jes.up.pt, "jes_down": built.JES_jes.down.pt}
    theirs |= {"jer_up": built.JER.up.pt, "jer_down": built.JER.down.pt}
    for name, pt in theirs.items():
        ours = shifts[name]["Jet_pt"]
        np.testing.assert_allclose(ak.flatten(ours[sure]), ak.flatten(pt[sure]), rtol=2e-5, err_msg=name)
    assert ak.sum(sure) > 500


def test_sources_of_a_text_file(texts):
    files = [str(texts / "Toy_V5_MC_UncertaintySources_AK4PFchs.txt")]
    corrections = build({"text_files": files, "text_sources": ["FlavorQCD"]})
    assert corrections.variations == ("nominal", "jes_FlavorQCD_up", "jes_FlavorQCD_down")
    events = open_events(corrections)
    shifts = dict(corrections.shifts(events, False))
    pt = ak.flatten(events["Jet_pt"]).to_numpy().astype(float)
    size = np.interp(pt, [5, 5000], [0.03, 0.01])
    np.testing.assert_array_equal(ak.flatten(shifts["nominal"]["Jet_pt"]), pt)
    np.testing.assert_allclose(ak.flatten(shifts["jes_FlavorQCD_up"]["Jet_pt"]), pt * (1 + size), rtol=1e-5)
    with pytest.raises(AdvtagError, match="no text file has a source 'FlavorQCDD'"):
        build({"text_files": files, "text_sources": ["FlavorQCDD"]})


def test_simulated_files_have_the_generated_pt_itself(path, simulated):
    """Matched ones move as by hand; for the others see above."""
    file = sorted(simulated.glob("ttbar_mc_11_*.root"))[0]
    corrections = build({"file": path, "resolution": "simple", "resolution_factor": KEYS["resolution_factor"]})
    shifts = dict(corrections.shifts(open_events(corrections, file), False))
    with uproot.open(file) as opened:
        pt, generated = (ak.flatten(opened["Events"][f"Jet_{part}"].array()).to_numpy() for part in ("pt", "genPt"))
    sure = (generated > 0) & (abs(pt - generated) < 0.299 * pt)
    for name, factor in (("nominal", 1.15), ("jer_up", 1.25), ("jer_down", 1.05)):
        expected = generated + factor * (pt - generated)
        np.testing.assert_allclose(ak.flatten(shifts[name]["Jet_pt"])[sure], expected[sure], rtol=1e-5)
    assert 100 < sure.sum() < len(pt)


def test_data_keeps_its_jets(path):
    corrections = build({"file": path, **KEYS}, data=True)
    events = object()
    assert list(corrections.shifts(events, data=True)) == [("nominal", events)]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"scale": "V6_MC_L1L2L3Res_AK4"}, "no correction 'V6_MC_L1L2L3Res_AK4'; did you mean 'V5_MC_L1L2L3Res_AK4'"),
        ({"resolution": "simple", "resolution_factor": "L1"}, "has no input 'systematic'"),
    ],
)
def test_keys_that_are_missing(path, section, words):
    with pytest.raises(AdvtagError, match=words):
        build({"file": path, **section})


def test_jets_out_of_range_name_variable_and_range(path):
    corrections = build({"file": path, "uncertainties": {"total": "narrow"}})
    with pytest.raises(AdvtagError, match=r"'JetPt': values from [\d.]+ to [\d.]+, but the file covers from 0 to 50"):
        list(corrections.shifts(open_events(corrections), False))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # coffea leaves a broken file open
@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read"), ("nothing", "not a text file of JME"), ("{1 JetEta 0}\n", "jets: Toy_V5_MC_L1FastJet")],
)
def test_a_text_file_that_is_none(tmp_path, content, words):
    path = tmp_path / "Toy_V5_MC_L1FastJet_AK4PFchs.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AdvtagError, match=words):
        build({"text_files": [str(path)]})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "either `file` or `text_files`"),
        ({"file": "x.json"}, "name the keys of `file`"),
        ({"file": "x.json", "resolution": "a"}, "come together"),
        ({"text_files": ["a.txt"], "scale": "b"}, "are keys of `file`"),
    ],
)
def test_sections_that_make_no_sense(section, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Correction).validate_python({"kind": "jets", **section})
