"""Feature cards: what is shipped, what is refused, and what the digest sees."""

import math
from importlib.resources import files

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import AdvtagError
from models.features import FeatureSet, Input, expand, load_features

# A. Stein's index map: first index of each group and its length
INDEX_MAP = [
    (0, ["eta"]),
    (1, ["pt"]),
    (2, ["flightDistance2dSig", "flightDistance2dVal", "flightDistance3dSig", "flightDistance3dVal"]),
    (6, [f"trackDecayLenVal_{i}" for i in range(6)]),
    (12, [f"trackDeltaR_{i}" for i in range(6)]),
    (18, [f"trackEtaRel_{i}" for i in range(4)]),
    (22, [f"trackJetDistVal_{i}" for i in range(6)]),
    (28, ["trackJetPt"]),
    (29, [f"trackPtRatio_{i}" for i in range(6)]),
    (35, [f"trackPtRel_{i}" for i in range(6)]),
    (41, ["trackSip2dSigAboveCharm"]),
    (42, [f"trackSip2dSig_{i}" for i in range(6)]),
    (48, ["trackSip2dValAboveCharm"]),
    (49, ["trackSip3dSigAboveCharm"]),
    (50, [f"trackSip3dSig_{i}" for i in range(6)]),
    (56, ["trackSip3dValAboveCharm"]),
    (57, ["trackSumJetDeltaR"]),
    (58, ["trackSumJetEtRatio"]),
    (59, ["vertexCategory"]),
    (60, ["vertexEnergyRatio"]),
    (61, ["vertexJetDeltaR"]),
    (62, ["vertexMass"]),
    (63, ["jetNSecondaryVertices"]),
    (64, ["jetNSelectedTracks"]),
    (65, ["jetNTracksEtaRel"]),
    (66, ["vertexNTracks"]),
]
GROUPS = ("jet", "track", "vertex")
LINE = {"name": "a", "branch": "Jet_a", "label": "a", "bins": [10, 0, 1]}


def write(tmp_path, content) -> str:
    path = tmp_path / "card.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def one_line(refused: pytest.ExceptionInfo) -> str:
    text = str(refused.value)
    assert text
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def deepcsv() -> FeatureSet:
    return load_features("deepcsv")


def test_deepcsv_is_the_published_index_map(deepcsv) -> None:
    assert len(deepcsv) == 67
    for first, names in INDEX_MAP:
        assert list(deepcsv.names[first : first + len(names)]) == names
    assert sum(len(names) for _, names in INDEX_MAP) == 67


def test_deepcsv_branches_are_those_of_pfnano(deepcsv) -> None:
    for feature in deepcsv.inputs:
        assert feature.branch == (f"Jet_{'' if feature.name in ('eta', 'pt') else 'DeepCSV_'}{feature.name}",)


def test_deepcsv_integers(deepcsv) -> None:
    assert np.flatnonzero(deepcsv.integer).tolist() == [59, 63, 64, 65, 66]


def test_deepcsv_presence_rules(deepcsv) -> None:
    """A slot exists below its own counter; vertex variables need a vertex, flight distances a real one."""
    for feature in deepcsv.inputs:
        slot = feature.name.rpartition("_")[2]
        if slot.isdigit():
            counter = "jetNTracksEtaRel" if "EtaRel" in feature.name else "jetNSelectedTracks"
            assert feature.present is not None
            assert feature.present.branch == f"Jet_DeepCSV_{counter}"
            assert feature.present.above == "slot"
            assert feature.slot == int(slot)
        elif feature.name.startswith("flightDistance"):
            assert feature.present is not None
            assert feature.present.one_of == (0,)
        elif feature.name.startswith("vertex") and not feature.integer:
            assert feature.present is not None
            assert feature.present.one_of == (0, 1)
        elif feature.name.endswith("AboveCharm"):
            assert set(feature.sentinels) == {-999, -1}
    assert all(feature.present is None and not feature.sentinels for feature in deepcsv.inputs[:2])


@pytest.mark.parametrize("card", ["deepcsv", "nanoaod"])
def test_arrays_follow_the_inputs(card) -> None:
    features = load_features(card)
    n = len(features)
    assert features.bounds.shape == (n, 2)
    assert features.caps.shape == features.integer.shape == features.absent_at.shape == features.frozen.shape == (n,)
    assert (features.bounds[:, 0] < features.bounds[:, 1]).all()
    for row, feature in enumerate(features.inputs):
        assert tuple(features.bounds[row]) == feature.bounds
        assert features.caps[row] == feature.cap == 0.2
        assert features.absent_at[row] == np.float32(feature.absent_at) == -0.5
        assert features.integer[row] == feature.integer
        assert features.frozen[row] == feature.frozen
        number, low, high = feature.bins
        assert number > 0
        assert low < high
        assert feature.axis_label.startswith(feature.label)


def test_nanoaod_has_twenty_inputs_and_both_names_of_a_renamed_branch() -> None:
    features = load_features("nanoaod")
    assert len(features) == 20
    integers = {feature.name for feature in features.inputs if feature.integer}
    assert integers == {"nConstituents", "nElectrons", "nMuons", "npvs", "npvsGood"}
    rho = next(feature for feature in features.inputs if feature.name == "rho")
    assert rho.branch == ("fixedGridRhoFastjetAll", "Rho_fixedGridRhoFastjetAll")
    assert rho.axis_label.endswith("[GeV]")


@pytest.mark.parametrize("card", ["deepcsv", "nanoaod"])
def test_json_round_trip(card) -> None:
    features = load_features(card)
    back = FeatureSet.model_validate_json(features.model_dump_json())
    assert back == features
    assert back.digest == features.digest
    assert np.isinf(back.bounds).any()
    np.testing.assert_array_equal(back.bounds, features.bounds)
    np.testing.assert_array_equal(back.caps, features.caps)


bound = st.floats(-1e6, 1e6)
cards = st.builds(
    lambda **keys: FeatureSet(name="toy", inputs=(Input(label="x", bins=(1, 0, 1), name="a", branch="A", **keys),)),
    slot=st.integers(0, 9),
    sentinels=st.lists(bound, max_size=2).map(tuple),
    integer=st.booleans(),
    group=st.sampled_from(["jet", "track"]),
    frozen=st.booleans(),
    pinned=st.lists(bound, max_size=2).map(tuple),
    bounds=st.tuples(
        st.floats(-1e6, 0) | st.sampled_from([-math.inf, None]),
        st.floats(1, 2) | st.sampled_from([math.inf, None]),
    ),
    cap=st.none() | st.floats(1e-3, 10),
    absent_at=st.floats(-10, 10),
    present=st.none() | st.fixed_dictionaries({"branch": st.just("N"), "above": st.just("slot") | bound}),
)


def test_frozen_inputs() -> None:
    pair = [{**LINE, "frozen": True}, {**LINE, "name": "b"}]
    assert FeatureSet.model_validate({"name": "t", "inputs": pair}).frozen.tolist() == [True, False]


@given(features=cards)
@settings(max_examples=100, deadline=None)
def test_json_round_trip_of_any_card(features) -> None:
    """What a tagger file stores must give back the same card, or the tagger is refused for its own card."""
    back = FeatureSet.model_validate_json(features.model_dump_json())
    np.testing.assert_array_equal(back.bounds, features.bounds)
    np.testing.assert_array_equal(back.caps, features.caps)
    assert back.digest == features.digest


def test_digest_sees_rules_and_not_drawing() -> None:
    def digest(**changes) -> str:
        return FeatureSet.model_validate({"name": "toy", "inputs": [{**LINE, **changes}]}).digest

    plain = digest()
    assert len(plain) == 16
    assert digest(label="other", unit="GeV", bins=[3, 0, 9]) == plain
    rules = [
        {"name": "b"},
        {"branch": "Jet_b"},
        {"branch": ["Jet_a", "Jet_b"]},
        {"present": {"branch": "n", "above": 0}},
        {"present": {"branch": "n", "above": 1}},
        {"present": {"branch": "n", "above": "slot"}},
        {"present": {"branch": "n", "one_of": [0]}},
        {"present": {"branch": "n", "one_of": [0, 1]}},
        {"slot": 1},
        {"sentinels": [-999]},
        {"integer": True},
        {"bounds": [0, None]},
        {"bounds": [None, 0]},
        {"cap": 0.2},
        {"absent_at": -0.5},
        {"group": "track"},
        {"frozen": True},
        {"pinned": [1]},
        {"pinned": [1, 0]},
    ]
    digests = [digest(**rule) for rule in rules]
    assert len({plain, *digests}) == 1 + len(rules)


def test_digest_sees_what_follows_what() -> None:
    def digest(**changes) -> str:
        others = [{**LINE, "name": name} for name in ("y", "z")]
        return FeatureSet.model_validate({"name": "toy", "inputs": [{**LINE, **changes}, *others]}).digest

    rules = [
        {},
        {"same_as": "y"},
        {"same_as": "z"},
        {"same_as": ["y", "z"]},
        {"same_as": ["z", "y"]},
        {"proportional_to": "y"},
        {"proportional_to": "z"},
    ]
    assert len({digest(**rule) for rule in rules}) == len(rules)
    assert digest(same_as="y") == digest(same_as=["y"])


def test_digest_depends_on_the_order() -> None:
    first, second = {**LINE, "name": "a"}, {**LINE, "name": "b"}
    one, two = (FeatureSet.model_validate({"name": "t", "inputs": pair}) for pair in ([first, second], [second, first]))
    assert one.digest != two.digest


def test_expand_hands_defaults_down_and_numbers_slots() -> None:
    card = {
        "name": "t",
        "cap": 0.2,
        "absent_at": -0.5,
        "sentinels": [-999],
        "inputs": [
            {**LINE, "slots": 3, "branch": ["Old", "New"]},
            {**LINE, "name": "b", "cap": 0.1, "sentinels": []},
        ],
    }
    features = FeatureSet.model_validate(expand(card))
    assert features.names == ("a_0", "a_1", "a_2", "b")
    assert features.inputs[2].branch == ("Old_2", "New_2")
    assert [feature.slot for feature in features.inputs] == [0, 1, 2, 0]
    assert features.caps.tolist() == [0.2, 0.2, 0.2, 0.1]
    assert features.inputs[0].sentinels == (-999,)
    assert features.inputs[3].sentinels == ()


def test_expand_follows_every_slot_of_what_is_followed() -> None:
    """Whether the followed input comes before or after, and beside inputs without slots."""
    follower = {**LINE, "name": "f", "same_as": ["s", "plain"]}
    slots, plain = {**LINE, "name": "s", "slots": 3}, {**LINE, "name": "plain"}
    for inputs in ([follower, slots, plain], [slots, plain, follower]):
        features = FeatureSet.model_validate(expand({"name": "t", "inputs": inputs}))
        found = next(feature for feature in features.inputs if feature.name == "f")
        assert found.same_as == ("s_0", "s_1", "s_2", "plain")
        assert all(not feature.same_as for feature in features.inputs if feature is not found)
    card = {"name": "t", "inputs": [{**follower, "same_as": "s", "slots": 2}, slots]}
    features = FeatureSet.model_validate(expand(card))
    assert [features.inputs[k].same_as for k in range(2)] == [("s_0", "s_1", "s_2")] * 2


def test_deepcsv_groups_are_objects(deepcsv) -> None:
    groups = {name: [feature.name for feature in deepcsv.inputs if feature.group == name] for name in GROUPS}
    assert sum(map(len, groups.values())) == 67
    assert {name.partition("_")[0] for name in groups["track"]} == {
        *("trackDecayLenVal", "trackDeltaR", "trackEtaRel", "trackJetDistVal", "trackPtRatio", "trackPtRel"),
        *(f"trackSip{d}{kind}" for d in ("2d", "3d") for kind in ("Sig", "SigAboveCharm", "ValAboveCharm")),
    }
    assert all(name.startswith(("flightDistance", "vertex")) for name in groups["vertex"])
    assert not any(name.startswith(("flightDistance", "vertex")) for name in groups["jet"])


def test_card_by_path_is_the_card_by_name(deepcsv) -> None:
    path = files("configs") / "features" / "deepcsv.yaml"
    assert load_features(str(path)) == deepcsv


def test_cards_are_frozen(deepcsv) -> None:
    with pytest.raises(ValueError, match="frozen"):
        deepcsv.name = "other"


def test_unknown_card_names_the_shipped_ones() -> None:
    with pytest.raises(AdvtagError) as refused:
        load_features("deepcvs")
    text = one_line(refused)
    assert "'deepcvs'" in text
    assert "deepcsv, deepjet, nanoaod, particles" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lable": "x"}, "inputs.0.lable"),
        ({"present": {"branch": "n", "over": 1}}, "inputs.0.present"),
        ({"present": {"branch": "n", "above": 1, "one_of": [1]}}, "inputs.0.present"),
        ({"present": {"branch": "n"}}, "inputs.0.present"),
        ({"bounds": [1, 2, 3]}, "inputs.0.bounds"),
        ({"bounds": 1}, "card"),
        ({"bins": [10, 0]}, "inputs.0.bins"),
        ({"integer": "perhaps"}, "inputs.0.integer"),
        ({"slots": "six"}, "card"),
        ({"pinned": 1}, "inputs.0.pinned"),
        ({"frozen": "perhaps"}, "inputs.0.frozen"),
        ({"group": 3}, "inputs.0.group"),
        ({"same_as": "b"}, "'a' follows 'b', which is no input"),
        ({"proportional_to": "b"}, "'a' follows 'b', which is no input"),
        ({"same_as": "a"}, "'a' follows 'a', which itself follows another"),
        ({"same_as": "b", "proportional_to": "b"}, "not both"),
    ],
)
def test_bad_input_is_one_line(tmp_path, change, named) -> None:
    with pytest.raises(AdvtagError) as refused:
        load_features(write(tmp_path, {"name": "t", "inputs": [{**LINE, **change}]}))
    text = one_line(refused)
    assert "card.yaml" in text
    assert named in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"3",
        b"[1, 2]",
        b"{name: [",
        b"name: t",
        b"name: t\ninputs: 3",
        b"name: t\ninputs: [a]",
        b"\xff\xfe\x00\x81",
    ],
    ids=["empty", "number", "list", "broken", "no inputs", "inputs a number", "inputs a string", "binary"],
)
def test_not_a_card_is_one_line(tmp_path, content) -> None:
    with pytest.raises(AdvtagError) as refused:
        load_features(write(tmp_path, content))
    assert "card.yaml" in one_line(refused)


def test_a_folder_is_not_a_card(tmp_path) -> None:
    with pytest.raises(AdvtagError):
        load_features(str(tmp_path))


def test_names_must_differ(tmp_path) -> None:
    with pytest.raises(AdvtagError, match="appears twice"):
        load_features(write(tmp_path, {"name": "t", "inputs": [LINE, LINE]}))


def test_an_infinite_cap_is_refused_or_survives_the_tagger_file(tmp_path) -> None:
    """JSON has no infinity: a tagger must not be refused for the very card that it was trained on."""
    try:
        features = load_features(write(tmp_path, {"name": "t", "inputs": [{**LINE, "cap": math.inf}]}))
    except AdvtagError:
        return
    assert FeatureSet.model_validate_json(features.model_dump_json()).digest == features.digest


@pytest.mark.parametrize("change", [{"cap": -0.2}, {"bounds": [1, 0]}, {"bins": [0, 0, 1]}], ids=str)
def test_impossible_numbers_are_refused(tmp_path, change) -> None:
    with pytest.raises(AdvtagError):
        load_features(write(tmp_path, {"name": "t", "inputs": [{**LINE, **change}]}))


@pytest.mark.parametrize("name", ["BvsL", "flavour", "attack"])
def test_names_that_histograms_use_are_refused(name: str) -> None:
    card = {"name": "mine", "inputs": [{"name": name, "branch": "Jet_x", "label": "x", "bins": [5, 0, 1]}]}
    with pytest.raises(ValidationError, match="histograms use that name"):
        FeatureSet.model_validate(card)
