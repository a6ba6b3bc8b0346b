"""Tables of an inspection against slow references: loops over jets, numpy, scipy and scikit-learn."""

import json
import math
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import confusion_matrix
from torch.nn.functional import cross_entropy

from attacks import FGSM, Budget
from common.errors import AdvtagError
from models.inputs import Inputs
from models.tagger import load_tagger
from tests.training.conftest import CARD
from training.bench import logits_of
from training.columns import read_splits, some_jets
from training.inspect_shapes import pair_table, triangle
from training.inspect_shifts import shift_table, shown_inputs
from training.inspect_surface import GRID, LINE, directions, surface_table
from training.inspection import inspect, rounded
from training.train import train_all
from training.weights import PtEtaFlavourWeights

JETS = 400
TRAINING = {
    "nominal": {"epochs": 3, "learning_rate": 3e-3},
    "flat": {"epochs": 1, "weights": "flat", "seed": 2},
    "unweighted": {"epochs": 1, "weights": "none"},
}
CLASSES = ("b", "bb", "c", "udsg")
EDGES = {feature["name"]: np.linspace(*feature["bins"][1:], feature["bins"][0] + 1) for feature in CARD["inputs"]}
NAMES = tuple(EDGES)


@pytest.fixture(scope="module")
def analysis(shared_workplace):
    threads = torch.get_num_threads()
    found = shared_workplace.analysis(TRAINING)
    train_all(found, progress=False)
    yield found
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def page(analysis):
    path = inspect(analysis, jets=JETS, inputs=("lifetime", "noise"), progress=False)
    assert path == analysis.output / "inspection" / "inspection.json"

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def tagger(analysis):
    return load_tagger(analysis.output / "taggers" / "nominal.safetensors")


@pytest.fixture(scope="module")
def sample(analysis):
    return some_jets(read_splits(analysis.output / "columns", ("test",))[0]["test"], JETS)


@pytest.fixture(scope="module")
def moved(tagger, sample):
    return FGSM(Budget(epsilon=0.1))(tagger, sample.inputs, sample.target)


def arrays(inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values with nan where absent, and |w|."""
    values = inputs.values.double().numpy().copy()
    values[~inputs.present.numpy()] = np.nan
    return values, inputs.present.numpy(), inputs.weight.double().abs().numpy()


def bins_of(name: str, values: np.ndarray) -> list[int]:
    """Bin of each value by a loop, 0 for the underflow; float32, as the values are."""
    return [sum(np.float32(x) >= edge for edge in EDGES[name].astype(np.float32)) for x in values]


def shape(name: str, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    content = np.zeros(len(EDGES[name]) + 1)
    for place, w in zip(bins_of(name, values), weight, strict=True):
        content[place] += w
    return content


def test_what_was_looked_at(page, analysis) -> None:
    assert list(page["taggers"]) == list(TRAINING)
    assert list(page["attacks"]) == ["fgsm", "noise"]
    assert page["attacks"]["fgsm"] == "FGSM(Budget(epsilon=0.1, scale='std', capped=True), seed=0)"
    assert page["jets"] == JETS
    assert [feature["name"] for feature in page["inputs"]] == list(NAMES)
    assert page["inputs"][2] == {
        "name": "tracks", "stem": "tracks", "slot": None, "group": "jet", "integer": True,
        "label": "tracks", "axis_label": "tracks",
    }  # fmt: skip
    assert {name: page[name]["weights"] for name in ("distances", "shifts", "surfaces")} == {
        "distances": "columns", "shifts": "columns", "surfaces": "none"
    }  # fmt: skip


def test_distances(page, sample, moved) -> None:
    (raw, present, weight), (attacked, _, _) = arrays(sample.inputs), arrays(moved)
    found = page["distances"]["taggers"]["nominal"]["fgsm"]
    for k, name in enumerate(NAMES):
        mask = present[:, k]
        before, after = (shape(name, values[mask, k], weight[mask]) for values in (raw, attacked))
        assert found[k] == pytest.approx(jensenshannon(before, after, base=2), abs=1e-4)
    assert found[2] == 0.0 < max(found)  # integers stay
    assert all(0 < x < 0.5 for x in page["distances"]["null"])


def test_correlations(page, sample, moved) -> None:
    tables = {"raw": page["correlations"]["raw"], "fgsm": page["correlations"]["taggers"]["nominal"]["fgsm"]}
    for found, inputs in zip(tables.values(), (sample.inputs, moved), strict=True):
        values, present, weight = arrays(inputs)
        expected, number = [], []
        for i in range(4):
            for j in range(i + 1, 4):
                both = present[:, i] & present[:, j]
                covariance = np.cov(values[both, i], values[both, j], aweights=weight[both])
                expected.append(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
                number.append(int(both.sum()))
        assert found == pytest.approx(expected, abs=1e-3)
        assert page["correlations"]["pairs"] == number == pair_table(inputs)
    assert tables["raw"] != tables["fgsm"]
    assert triangle(np.arange(9).reshape(3, 3)) == [1, 2, 5]


def test_confusion(page, tagger, sample, moved) -> None:
    found = page["confusion"]["taggers"]["nominal"]
    target, weight = sample.target.numpy(), sample.weight.abs().double().numpy()
    for kind, inputs in (("raw", sample.inputs), ("fgsm", moved)):
        highest = tagger(inputs.values, inputs.present).argmax(1).numpy()
        assert found[kind]["jets"] == confusion_matrix(target, highest, labels=range(4)).tolist()
        expected = confusion_matrix(target, highest, labels=range(4), sample_weight=weight, normalize="true")
        assert np.allclose(found[kind]["fraction"], expected, atol=1e-4)
    assert len(set(weight)) == 2


def test_absence(page, sample, shared_workplace) -> None:
    _, present, weight = arrays(sample.inputs)
    flavours = page["absence"]["flavours"]
    assert list(flavours) == [*CLASSES, "all", "data"]
    for code, name in enumerate(CLASSES):
        jets = [j for j in range(JETS) if sample.target[j] == code]
        total = sum(weight[j] for j in jets)
        expected = [sum(weight[j] for j in jets if not present[j, k]) / total for k in range(4)]
        assert flavours[name]["jets"] == len(jets)
        assert flavours[name]["absent"] == pytest.approx(expected, rel=1e-3)
    assert flavours["all"]["jets"] == JETS
    assert flavours["data"]["jets"] == 500
    assert all(0.1 < x < 0.2 for x in flavours["data"]["absent"])  # 0.15 in the toy


def test_reweighting(page, analysis) -> None:
    found = page["reweighting"]
    train = read_splits(analysis.output / "columns", ("train", "validation"))[0]["train"]
    assert list(found["forms"]) == ["balanced", "flat"]  # `none` has no map
    edges = [np.array(found["pt_edges"]), np.array(found["eta_edges"])]
    for code, name in enumerate(CLASSES):
        mask = (train.target == code).numpy()
        jets = [x.double().numpy()[mask] for x in (train.pt, train.eta, train.weight)]
        expected, _, _ = np.histogram2d(jets[0], jets[1], edges, weights=jets[2])
        assert np.allclose(found["before"][name], expected, rtol=1e-3)
    for form, tables in found["forms"].items():
        weights = PtEtaFlavourWeights.fit([train], 4, form)(train.target, train.pt, train.eta).numpy()
        for j in range(0, len(train), 97):
            row = np.searchsorted(edges[0], float(train.pt[j]), side="right") - 1
            column = np.searchsorted(edges[1], float(train.eta[j]), side="right") - 1
            assert tables[CLASSES[train.target[j]]][row][column] == pytest.approx(weights[j], rel=1e-3)


@pytest.mark.parametrize("name", ["lifetime", "noise"])
@pytest.mark.parametrize("capped", [True, False])
def test_shifts(page, tagger, sample, name: str, capped: bool) -> None:
    attacked = FGSM(Budget(epsilon=0.1, capped=capped))(tagger, sample.inputs, sample.target)
    (raw, present, weight), (after, _, _), k = arrays(sample.inputs), arrays(attacked), NAMES.index(name)
    found = page["shifts"]["taggers"]["nominal"]["fgsm"]["capped" if capped else "uncapped"][name]
    shapes = page["shifts"]["inputs"][name]
    assert np.allclose(shapes["edges"], EDGES[name])
    for code, flavour in enumerate(CLASSES):
        mask = (sample.target.numpy() == code) & present[:, k]
        x, y, w = raw[mask, k], after[mask, k], weight[mask]
        assert shapes["flavours"][flavour]["jets"] == mask.sum()
        assert np.allclose(shapes["flavours"][flavour]["raw"], shape(name, x, w), rtol=1e-3)
        assert np.allclose(found[flavour]["attacked"], shape(name, y, w), rtol=1e-3)
        assert found[flavour]["up"] == pytest.approx(w[y > x].sum() / w.sum(), rel=1e-3)
        assert found[flavour]["down"] == pytest.approx(w[y < x].sum() / w.sum(), rel=1e-3)
        assert found[flavour]["mean"] == pytest.approx(np.average(y - x, weights=w), rel=1e-3)
        places = np.array(bins_of(name, x))
        for place, (mean, error) in enumerate(zip(found[flavour]["shift"], found[flavour]["error"], strict=True)):
            inside = places == place
            if not inside.any():
                assert mean is None
                assert error is None
                continue
            assert mean == pytest.approx(np.average((y - x)[inside], weights=w[inside]), rel=1e-3, abs=1e-6)
            if len(set(w[inside])) == 1 and inside.sum() > 2:  # unweighted: the textbook error of a mean
                expected = (y - x)[inside].std(ddof=1) / math.sqrt(inside.sum())
                assert error == pytest.approx(expected, rel=2e-3, abs=1e-6)


def test_caps_hold_where_they_are_said_to(page) -> None:
    shifts = page["shifts"]["taggers"]["nominal"]["fgsm"]
    assert shifts["capped"]["lifetime"] != shifts["uncapped"]["lifetime"]
    assert shifts["capped"]["noise"] == shifts["uncapped"]["noise"]  # the card has no cap for it


def test_an_attack_on_b_jets_only_shows_in_b_jets(sample, shared_workplace) -> None:
    values = sample.inputs.values.clone()
    values[:, 0] -= (sample.target == 0) * 0.5
    found = shift_table(
        shared_workplace.features, "lifetime", sample.inputs, sample.inputs.moved(values), sample.target, CLASSES
    )
    assert (found["b"]["down"], found["b"]["up"], found["udsg"]["down"], found["udsg"]["up"]) == (1.0, 0.0, 0.0, 0.0)
    assert found["b"]["mean"] == pytest.approx(-0.5)


def test_inputs_that_are_shown(sample, shared_workplace) -> None:
    features = shared_workplace.features
    assert shown_inputs(sample, features, CLASSES, ("mass",)) == ("mass",)
    assert shown_inputs(sample, features, CLASSES, ()) == ("lifetime", "mass", "noise")  # the integer cannot move
    with pytest.raises(AdvtagError, match="no input 'lifetme' in feature card 'toy'; did you mean lifetime"):
        shown_inputs(sample, features, CLASSES, ("lifetme",))


def test_loss_along_the_attack_and_a_random_direction(page, tagger, sample, moved) -> None:
    found = page["surfaces"]["taggers"]["nominal"]["fgsm"]
    assert page["surfaces"]["jets"] == JETS
    clean = cross_entropy(logits_of(tagger, sample.inputs), sample.target, reduction="none").double()
    attacked = cross_entropy(logits_of(tagger, moved), sample.target, reduction="none").double()
    rise = (attacked - clean).numpy()
    end, start = LINE.index(1.0), LINE.index(0.0)
    assert found["clean"] == pytest.approx(float(clean.mean()), rel=1e-3)
    assert found["attack"]["mean"][end] == pytest.approx(rise.mean(), rel=2e-3)
    assert [q[end] for q in found["attack"]["quantiles"]] == pytest.approx(
        np.quantile(rise, [0.16, 0.5, 0.84]), rel=2e-3
    )
    assert found["attack"]["mean"][start] == found["random"]["mean"][start] == 0.0
    assert found["attack"]["mean"][end] > 5 * abs(found["random"]["mean"][end])
    jet = found["jet"]
    assert rise[jet["place"]] == pytest.approx(sorted(rise)[(JETS - 1) // 2])
    assert (jet["class"], jet["pt"]) == (
        int(sample.target[jet["place"]]),
        pytest.approx(float(sample.pt[jet["place"]]), rel=1e-3),
    )
    plane, middle = np.array(found["plane"]), GRID.index(0.0)
    for x, mean in zip(GRID, plane[middle], strict=True):
        if x in LINE:
            assert mean == pytest.approx(found["attack"]["mean"][LINE.index(x)], rel=1e-3)
    for y, mean in zip(GRID, plane[:, middle], strict=True):
        if y in LINE:
            assert mean == pytest.approx(found["random"]["mean"][LINE.index(y)], rel=2e-3)
    assert jet["plane"][middle][GRID.index(1.0)] == pytest.approx(rise[jet["place"]], rel=1e-3)


def test_the_same_jet_for_all_taggers(page) -> None:
    for attack in page["attacks"]:
        assert len({found[attack]["jet"]["place"] for found in page["surfaces"]["taggers"].values()}) == 1


def test_directions(tagger, sample) -> None:
    attack = FGSM(Budget(epsilon=0.1))
    interval, along, random = directions(attack, tagger, sample, seed=0)
    assert torch.equal(along.abs(), random.abs())
    fixed = ~sample.inputs.present
    fixed[:, 2] = True  # the integer
    assert not along[fixed].any()
    assert torch.equal(
        interval.project(sample.inputs.values + 2 * along + 2 * random)[fixed], sample.inputs.values[fixed]
    )
    free = along != 0
    ups = (random[free] == along[free]).double().mean()
    assert abs(ups - 0.5) < 4 * 0.5 / math.sqrt(free.sum())
    again = directions(attack, tagger, sample, seed=0)[2]
    other = directions(attack, tagger, sample, seed=1)[2]
    assert torch.equal(again, random)
    assert not torch.equal(other, random)
    order = torch.randperm(JETS, generator=torch.Generator().manual_seed(0))
    shuffled = type(sample)(sample.inputs[order], sample.target[order], sample.pt[order], sample.eta[order])
    assert torch.allclose(directions(attack, tagger, shuffled, seed=0)[2], random[order], atol=1e-6)


def test_tagger_is_left_as_it_was(tagger, sample) -> None:
    few = slice(20)
    some = type(sample)(sample.inputs[few], sample.target[few], sample.pt[few], sample.eta[few])
    tagger.train()
    try:
        first = surface_table(FGSM(Budget(epsilon=0.1)), tagger, some)
        assert tagger.training
        assert surface_table(FGSM(Budget(epsilon=0.1)), tagger, some, jet=3)["jet"]["place"] == 3
        assert surface_table(FGSM(Budget(epsilon=0.1)), tagger, some) == first  # no dropout
    finally:
        tagger.eval()


def test_the_snippet_of_the_docs(page) -> None:
    text = (Path(__file__).parents[2] / "docs" / "inspection.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"open": lambda path: StringIO(json.dumps(page)) if path == "output/inspection/inspection.json" else None}
    exec(snippet, names)
    assert names["js"] == dict(zip(NAMES, page["distances"]["taggers"]["nominal"]["fgsm"], strict=True))


def test_numbers_of_json() -> None:
    assert rounded({"a": [0.123456, math.nan, 3, (math.inf,)]}) == {"a": [0.1235, None, 3, [None]]}


def test_no_tagger(workplace, toys) -> None:
    workplace.write({"tt": [toys(300, 1)]}, data=())
    with pytest.raises(AdvtagError, match=r"taggers: no tagger there; make some with `advtag train CONFIG`"):
        inspect(workplace.analysis({"nominal": {}}), progress=False)


def test_taggers_and_attacks_are_those_of_the_histograms(analysis, shared_workplace) -> None:
    histograms = {"datasets": ["run"], "taggers": {"mine": "taggers/flat.safetensors"}, "attacks": ["noise"]}
    path = inspect(shared_workplace.analysis(TRAINING, histograms=histograms, output="out"), jets=50, progress=False)
    page = json.loads(path.read_text())
    assert (list(page["taggers"]), list(page["attacks"])) == (["mine"], ["noise"])
    assert list(page["surfaces"]["taggers"]["mine"]) == ["noise"]
