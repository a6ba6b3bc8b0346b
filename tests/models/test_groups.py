"""Inputs in slots: the table of a group, its units, and cards that have none."""

import pytest
import torch

from common.errors import AdvtagError
from models.features import FeatureSet, expand, load_features
from models.groups import Slots, outside, stem

TOY = {
    "name": "toy",
    "absent_at": -0.5,
    "inputs": [
        {"name": "eta", "branch": "Jet_eta", "label": "x", "bins": [1, 0, 1]},
        {"name": "q_a", "branch": "Q_a", "label": "x", "bins": [1, 0, 1], "slots": 3, "group": "q"},
        {"name": "r_a", "branch": "R_a", "label": "x", "bins": [1, 0, 1], "slots": 2, "group": "r"},
        {"name": "q_b", "branch": "Q_b", "label": "x", "bins": [1, 0, 1], "slots": 3, "group": "q"},
        {"name": "pt", "branch": "Jet_pt", "label": "x", "bins": [1, 0, 1]},
    ],
}
# eta 0, q_a 1 2 3, r_a 4 5, q_b 6 7 8, pt 9


def toy() -> FeatureSet:
    return FeatureSet.model_validate(expand(TOY))


def test_columns() -> None:
    q, r = Slots(toy(), "q"), Slots(toy(), "r")
    assert q.names == ("q_a", "q_b")
    assert q.columns.tolist() == [[1, 6], [2, 7], [3, 8]]
    assert r.columns.tolist() == [[4], [5]]
    assert (q.slots, r.slots) == (3, 2)
    assert outside(toy(), [q, r]).tolist() == [0, 9]
    assert outside(toy(), [q]).tolist() == [0, 4, 5, 9]
    assert q.places(["q_b", "q_a"]) == [1, 0]


def test_stem() -> None:
    assert [stem(feature) for feature in toy().inputs] == [None, *["q_a"] * 3, *["r_a"] * 2, *["q_b"] * 3, None]


@pytest.mark.parametrize("told", [False, True])
def test_table_against_loops(told) -> None:
    generator = torch.Generator().manual_seed(1)
    seen = torch.randn((50, 10), generator=generator, dtype=torch.float64)
    present = torch.rand((50, 10), generator=generator) < 0.5
    mean, std = torch.randn(10, generator=generator).double(), 0.1 + torch.rand(10, generator=generator).double()
    slots = Slots(toy(), "q").double()
    if told:
        slots.set_units_(mean, std)
    table, filled = slots(seen, present)
    pt = slots.physical(table, "q_b")
    for jet in range(50):
        for slot in range(3):
            columns = [1 + slot, 6 + slot]
            assert bool(filled[jet, slot]) == any(bool(present[jet, k]) for k in columns)
            for place, k in enumerate(columns):
                same = sorted((float(mean[c]), float(std[c])) for c in ((1, 2, 3), (6, 7, 8))[place])
                centre, width = same[1][0], sorted(w for _, w in same)[1]
                physical = float(mean[k] + std[k] * seen[jet, k])
                expected = 0.0
                if present[jet, k]:
                    expected = (physical - centre) / width if told else float(seen[jet, k])
                elif filled[jet, slot]:
                    expected = float(seen[jet, k])
                assert float(table[jet, slot, place]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
                if told and place and present[jet, k]:
                    assert float(pt[jet, slot]) == pytest.approx(physical, rel=1e-9)


def test_units_are_saved() -> None:
    """So that a network that is loaded alone still knows them."""
    slots, other = Slots(toy(), "q"), Slots(toy(), "q")
    slots.set_units_(torch.arange(10.0), 1 + torch.arange(10.0))
    other.load_state_dict(slots.state_dict())
    x, present = torch.randn(5, 10), torch.ones(5, 10, dtype=torch.bool)
    assert torch.equal(other(x, present)[0], slots(x, present)[0])
    assert not torch.equal(Slots(toy(), "q")(x, present)[0], slots(x, present)[0])


@pytest.mark.parametrize(("card", "group"), [("deepcsv", "track"), ("deepcsv", "charged"), ("nanoaod", "jet")])
def test_cards_without_such_a_group(card, group) -> None:
    """The tracks of card deepcsv have 6 slots, 4, or none."""
    with pytest.raises(AdvtagError, match=f"{card}.*{group}.*choose"):
        Slots(load_features(card), group)


def test_missing_input_is_named() -> None:
    with pytest.raises(AdvtagError, match="q_c"):
        Slots(toy(), "q").places(["q_a", "q_c"])
