"""Weights of the generator's uncertainties in real files, whose entries come in different orders."""

import math
from functools import cache

import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from pydantic import TypeAdapter, ValidationError

from common.errors import AdvtagError
from configs.corrections import Correction
from processors.theory import Theory
from tests.conftest import NANO

READ = ["PSWeight", "nPSWeight", "LHEScaleWeight", "nLHEScaleWeight", "LHEPdfWeight", "nLHEPdfWeight"]
ORDER_12 = [(2, 1), (1, 2), (0.5, 1), (1, 0.5)]
"""Of PSWeight in NanoAOD v9 and later, as the untitled branches of the skimmed v12 and v15 files have it."""
SIX = [0, 1, 3, 5, 7, 8]
"""Of nine (muR, muF), all but those of opposite changes and the nominal one."""


@cache
def open_events(name):
    return NanoEventsFactory.from_root(
        {str(NANO / name): "Events"},
        schemaclass=BaseSchema,
        mode="virtual",
        metadata={"dataset": "d", "filename": name},
        iteritems_options={"filter_name": READ},
    ).events()


@cache
def tree(name):
    return uproot.open(NANO / name)["Events"]


def varied(name, **section):
    """Variations of a file, and its weights of that branch."""
    theory = Theory("mine", TypeAdapter(Correction).validate_python(section))
    events = open_events(name)
    rows = np.arange(len(events))[::2]
    found = dict(theory.varied(events, rows))
    assert tuple(found) == theory.variations
    return found, np.asarray(tree(name)[theory.branch].array())[rows].astype(float)


@pytest.mark.parametrize(
    ("name", "entries", "places"),
    [
        ("nano_dy.root", None, {"isr_up": 2, "fsr_up": 3, "isr_down": 0, "fsr_down": 1}),
        ("missing_luminosityBlock.root", None, {"isr_up": 0, "fsr_up": 1, "isr_down": 2, "fsr_down": 3}),
        ("nano_tt_v12.root", ORDER_12, {"isr_up": 0, "fsr_up": 1, "isr_down": 2, "fsr_down": 3}),
    ],
)
def test_parton_shower_by_the_title_whatever_its_order(name, entries, places):
    found, weights = varied(name, kind="ps", entries=entries)
    for variation, place in places.items():
        np.testing.assert_array_equal(found[f"mine_{variation}"], weights[:, place])
    assert weights.std() > 0


@pytest.mark.parametrize("name", ["nano_dy.root", "nano_tree.root", "opendata2015_ttbar.root"])
def test_scales_of_the_matrix_element(name):
    """All three titles write (muR, muF) in their own way, muF changing faster."""
    found, weights = varied(name, kind="scale", vary="separate")
    places = {"muR_up": 7, "muR_down": 1, "muF_up": 5, "muF_down": 3, "both_up": 8, "both_down": 0}
    assert set(found) == {f"mine_{variation}" for variation in places}
    for variation, place in places.items():
        np.testing.assert_array_equal(found[f"mine_{variation}"], weights[:, place])
    found, _ = varied(name, kind="scale")
    for row, (up, down) in enumerate(zip(found["mine_up"], found["mine_down"], strict=True)):
        assert up == max(1.0, *weights[row, SIX])
        assert down == min(1.0, *weights[row, SIX])


def test_scales_where_the_factorisation_scale_comes_first():
    found, weights = varied("missing_luminosityBlock.root", kind="scale", vary="separate")
    np.testing.assert_array_equal(found["mine_muR_down"], weights[:, 1])
    np.testing.assert_array_equal(found["mine_muF_up"], weights[:, 5])


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("nano_tt_v12.root", {"method": "hessian", "alpha_s": (101, 102)}),
        ("nano_dy.root", {"method": "hessian", "members": (1, 30), "alpha_s": (31, 32)}),
        ("nano_tree.root", {"method": "replicas"}),
        ("opendata2015_ttbar.root", {"method": "replicas", "members": (0, 99), "central": None}),
    ],
)
def test_parton_densities_against_loops(name, section):
    found, weights = varied(name, kind="pdf", **section)
    first, last = section.get("members", (1, 100))
    for row, weight in enumerate(weights.tolist()):
        members = weight[first : last + 1]
        if section["method"] == "hessian":
            squared = sum((member - weight[0]) ** 2 for member in members)
        else:
            mean = sum(members) / len(members)
            squared = sum((member - mean) ** 2 for member in members) / (len(members) - 1)
        if "alpha_s" in section:
            low, high = section["alpha_s"]
            squared += ((weight[high] - weight[low]) / 2) ** 2
        assert found["mine_up"][row] == pytest.approx(1 + math.sqrt(squared))
        assert found["mine_down"][row] == pytest.approx(1 - math.sqrt(squared))


@pytest.mark.parametrize(
    ("name", "section", "words"),
    [
        ("nano_tree.root", {"kind": "ps"}, "nano_tree.root: PSWeight holds 1 entries per event, so no variations"),
        ("nanov5_sample.root", {"kind": "scale"}, "LHEScaleWeight holds 0 entries"),
        ("nano_tt_v12.root", {"kind": "ps"}, "its title does not tell the scales of the entries"),
        ("nano_dy.root", {"kind": "ps", "entries": ORDER_12[:2]}, "holds 4 entries, not 2"),
        ("nano_dy.root", {"kind": "ps", "entries": [(2, 2)] * 4}, "no entry with scales 2 and 1"),
        (
            "nano_dy.root",
            {"kind": "pdf", "method": "hessian"},
            "holds 33 entries, the configuration asks for entry 100",
        ),
    ],
)
def test_what_a_file_does_not_hold_is_an_error(name, section, words):
    with pytest.raises(AdvtagError, match=words):
        varied(name, **section)


def test_members_rise():
    with pytest.raises(ValidationError, match="members: 5 is not below 5"):
        TypeAdapter(Correction).validate_python({"kind": "pdf", "method": "hessian", "members": (5, 5)})
