"""The detector of fooled jets: what it must find, its figures by hand, and errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks import FGSM, Attack, Budget
from attacks.build import build_attack
from common.errors import AdvtagError
from configs.attacks import attack_config
from models.features import FeatureSet, Input
from models.inputs import Inputs
from models.tagger import Tagger, load_tagger
from training.columns import Sample, read_splits, some_jets
from training.detector import Detector, detect, detector_study, fooled_jets
from training.train import train_all

CARD = FeatureSet(
    name="toy",
    inputs=tuple(
        Input(name=f"x{k}", branch=f"Jet_x{k}", label=f"x{k}", bins=(1, 0, 1), absent_at=-0.5) for k in range(3)
    ),
)
CLASSES = ("b", "c", "udsg")


class ByFirst(torch.nn.Module):
    """b above 1, light below -1, c between: of the first standardised input."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor(sign))

    def forward(self, standardised: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        x = self.sign * standardised[:, 0]
        return torch.stack([4 * (x - 1), torch.zeros_like(x), -4 * (x + 1)], dim=1)


def toy_tagger(sign: float = 1.0) -> Tagger:
    tagger = Tagger(CARD, CLASSES, torch.tensor([10.0, 0, 0]), torch.tensor([2.0, 1, 1]), parameters={"width": 2})
    tagger.network = ByFirst(sign)
    return tagger.eval()


def toy_sample(number: int, seed: int, sign: float = 1.0) -> Sample:
    """Jets that the toy tagger is right about, but for 5 %; the first input at 7, 10 and 13, x2 is nothing."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, number)
    values = rng.normal(0, 1, (number, 3)) * [0.3, 1, 1]
    values[:, 0] += 10 + 3 * sign * (1 - target)
    target = np.where(rng.random(number) < 0.05, (target + 1) % 3, target)
    present = np.ones((number, 3), bool)
    present[:, 1] = rng.random(number) < 0.8
    key = torch.arange(number) + 100_000 * seed
    inputs = Inputs(torch.from_numpy(values).float(), torch.from_numpy(present), key)
    return Sample(inputs, torch.from_numpy(target), torch.full((number,), 50.0), torch.zeros(number))


class Marks(Attack):
    """Moves the first input to another class in every second jet, and leaves a mark in the third."""

    def __init__(self, mark: float) -> None:
        super().__init__(Budget(epsilon=1000, capped=False))
        self.mark = mark

    def perturb(self, tagger, inputs, target, interval):
        values = inputs.values.clone()
        second = inputs.key % 2 == 0
        values[second, 0] = 20 - values[second, 0] + 3 * float(tagger.network.sign) * (target[second] == 1)
        values[second, 2] += self.mark
        return values


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_fooled_jets() -> None:
    """Of those that the tagger is right about: all of them clean, and moved those that it is wrong about then."""
    tagger, sample = toy_tagger(), toy_sample(400, 1)
    clean, fooled = fooled_jets(tagger, Marks(9), sample.inputs, sample.target)
    keys, moved = [], []
    for i in range(400):
        one, truth = sample.inputs[i : i + 1], sample.target[i : i + 1]
        if int(tagger(one.values, one.present).argmax(1)) != int(truth):
            continue
        keys.append(int(one.key))
        after = Marks(9)(tagger, one, truth)
        if int(tagger(after.values, after.present).argmax(1)) != int(truth):
            moved.append(after)
    assert 0.9 < len(keys) / 400 < 0.98
    assert clean.key.tolist() == keys
    assert torch.equal(clean.values, sample.inputs.values[torch.isin(sample.inputs.key, clean.key)])
    assert fooled.key.tolist() == [int(jet.key) for jet in moved]
    assert torch.equal(fooled.values, torch.cat([jet.values for jet in moved]))
    assert 0.4 < len(fooled) / len(clean) < 0.6


def test_finds_what_is_clearly_separated_and_not_what_is_not() -> None:
    tagger, train, test = toy_tagger(), toy_sample(1500, 1), toy_sample(1500, 2)
    found = {}
    for mark in (0.0, 6.0):
        study = detector_study({"a": tagger}, Marks(mark), train, test)
        found[mark] = study["a"]["detectors"]["a"]
    assert found[6.0]["fooled_found"] > 0.97
    assert found[6.0]["clean_taken_for_fooled"] < 0.03
    assert found[6.0]["corrected_fooling_ratio"] < 0.015
    # without a mark a moved jet looks as one of another class does; only as c does none
    assert 0.15 < found[0.0]["fooled_found"] - found[0.0]["clean_taken_for_fooled"] < 0.5


def test_figures_of_a_study() -> None:
    taggers = {"a": toy_tagger(), "b": toy_tagger(-1.0)}
    train, test = toy_sample(500, 1), toy_sample(250, 2)
    mirrored = Sample(train.inputs, 2 - train.target, train.pt, train.eta)
    both = Sample(
        train.inputs, torch.where(train.inputs.key % 3 == 0, mirrored.target, train.target), train.pt, train.eta
    )
    some = Sample(test.inputs, torch.where(test.inputs.key % 3 == 0, 2 - test.target, test.target), test.pt, test.eta)
    study = detector_study(taggers, Marks(1.5), both, some, seed=3)
    assert list(study) == ["a", "b"]
    detectors = {
        name: Detector(tagger, *fooled_jets(tagger, Marks(1.5), both.inputs, both.target), 3)
        for name, tagger in taggers.items()
    }
    for name, tagger in taggers.items():
        clean, fooled = fooled_jets(tagger, Marks(1.5), some.inputs, some.target)
        assert study[name]["right"] == len(clean)
        assert study[name]["fooled"] == len(fooled)
        assert study[name]["fooling_ratio"] == len(fooled) / len(clean)
        for maker, detector in detectors.items():
            seen = [bool(detector.finds(fooled[i : i + 1])[0]) for i in range(len(fooled))]
            alarms = [bool(detector.finds(clean[i : i + 1])[0]) for i in range(len(clean))]
            assert study[name]["detectors"][maker] == {
                "corrected_fooling_ratio": pytest.approx((len(seen) - sum(seen)) / len(clean)),
                "fooled_found": pytest.approx(sum(seen) / len(seen)),
                "clean_taken_for_fooled": pytest.approx(sum(alarms) / len(alarms)),
            }
    assert study["a"]["right"] > study["b"]["right"] > 50  # cross-run: each has jets of its own
    assert study["a"]["detectors"]["a"] != study["a"]["detectors"]["b"]


def test_sees_what_the_tagger_sees() -> None:
    """Standardised with the tagger's numbers, and absent inputs at their place, whatever they hold."""
    tagger, sample = toy_tagger(), toy_sample(600, 1)
    clean, fooled = fooled_jets(tagger, Marks(3), sample.inputs, sample.target)
    detector = Detector(tagger, clean, fooled, 0)
    expected = detector.finds(fooled)
    assert expected.sum() > 0
    rubbish = torch.where(fooled.present, fooled.values, 1e6)
    assert np.array_equal(detector.finds(fooled.moved(rubbish)), expected)
    z = (fooled.values.numpy() - [10, 0, 0]) / [2, 1, 1]
    z[~fooled.present.numpy()] = -0.5
    assert np.array_equal(detector.network.predict(z.astype(np.float32)) == 0, expected)


def test_same_seed_same_detector() -> None:
    taggers, train, test = {"a": toy_tagger()}, toy_sample(500, 1), toy_sample(500, 2)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - global state must not matter
    first = detector_study(taggers, Marks(0.7), train, test, seed=5)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert detector_study(taggers, Marks(0.7), train, test, seed=5) == first
    assert detector_study(taggers, Marks(0.7), train, test, seed=6) != first


def test_both_kinds_count_the_same_however_few_are_fooled() -> None:
    """With 1 jet in 12 fooled, a detector that ignored the weights would call all jets clean."""
    tagger, sample = toy_tagger(), toy_sample(3000, 1)
    clean, fooled = fooled_jets(tagger, Marks(1.5), sample.inputs, sample.target)
    few = fooled[: len(clean) // 12]
    detector = Detector(tagger, clean, few, 0)
    assert detector.finds(fooled[len(few) :]).mean() > 0.6
    assert detector.finds(clean).mean() < 0.5


@pytest.mark.parametrize(("mark", "jets"), [(6, 30), (6, 0)])
def test_too_few_fooled_jets(mark, jets) -> None:
    with pytest.raises(AdvtagError, match=r"\d+ fooled and \d+ clean jets; a detector needs 20 of each"):
        detector_study({"a": toy_tagger()}, Marks(mark), toy_sample(jets, 1), toy_sample(500, 2))
    with pytest.raises(AdvtagError, match=r"0 fooled and .* take a stronger attack"):
        detector_study({"a": toy_tagger()}, FGSM(Budget(epsilon=0)), toy_sample(500, 1), toy_sample(500, 2))


def test_nothing_to_test_on_is_none() -> None:
    nothing = toy_sample(0, 2)
    study = detector_study({"a": toy_tagger()}, Marks(6), toy_sample(500, 1), nothing)
    assert study["a"]["fooling_ratio"] is None
    assert set(study["a"]["detectors"]["a"].values()) == {None}
    right_but_never_fooled = toy_sample(500, 2)
    odd = right_but_never_fooled.inputs.key % 2 == 1
    test = Sample(
        *(
            part[odd]
            for part in (
                right_but_never_fooled.inputs,
                right_but_never_fooled.target,
                right_but_never_fooled.pt,
                right_but_never_fooled.eta,
            )
        )
    )
    figures = detector_study({"a": toy_tagger()}, Marks(6), toy_sample(500, 1), test)["a"]
    assert figures["fooling_ratio"] == 0
    assert figures["detectors"]["a"]["fooled_found"] is None
    assert figures["detectors"]["a"]["corrected_fooling_ratio"] == 0


@pytest.fixture(scope="module")
def place(shared_workplace):
    training = {name: {"learning_rate": 3e-3, "seed": seed} for name, seed in (("one", 1), ("two", 2))}
    train_all(shared_workplace.analysis(training), progress=False)
    return shared_workplace


def test_detect_learns_from_training_jets_and_is_tested_on_test_jets(place, tmp_path) -> None:
    files = [place.folder / "out" / "taggers" / f"{name}.safetensors" for name in ("one", "two")]
    lines = detect(place.columns, files, "bhive2024-ngm-evaluation", 900, tmp_path / "new" / "d.json", 4)
    page = json.loads((tmp_path / "new" / "d.json").read_text())
    attack = build_attack(attack_config({"preset": "bhive2024-ngm-evaluation", "seed": 4}))
    samples, _, _ = read_splits(place.columns, ("train", "test"))
    train, test = (some_jets(samples[split], 900) for split in ("train", "test"))
    taggers = {path.stem: load_tagger(path) for path in files}
    study = detector_study(taggers, attack, train, test, seed=4)
    assert page == {"attack": repr(attack), "taggers": json.loads(json.dumps(study))}
    assert lines[-1] == str(tmp_path / "new" / "d.json")
    assert lines[0] == f"one: {study['one']['fooled']} of {study['one']['right']} jets fooled"
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["detector of one", "detector of two"]
    assert f"finds {study['one']['detectors']['one']['fooled_found']:.1%} of them" in lines[1]


def test_detect_tells_of_no_fooled_test_jets(place, tmp_path, monkeypatch) -> None:
    """Figures of nothing are words, not an error."""
    file = place.folder / "out" / "taggers" / "one.safetensors"
    none = {"right": 5, "fooled": 0, "fooling_ratio": 0.0}
    figures = {"corrected_fooling_ratio": 0.0, "fooled_found": None, "clean_taken_for_fooled": 0.25}
    monkeypatch.setattr(
        "training.detector.detector_study", lambda *_, **__: {"one": {**none, "detectors": {"one": figures}}}
    )
    lines = detect(place.columns, [file], "csbs2022", 100, tmp_path / "d.json", 0)
    assert lines[1].endswith("finds none of them (corrected fooling ratio 0.0%), takes 25.0% of clean jets for fooled")


def test_detect_refuses(place, tmp_path) -> None:
    file = place.folder / "out" / "taggers" / "one.safetensors"

    def refused(match: str, files=(file,), preset="csbs2022", columns=place.columns, jets=500) -> None:
        with pytest.raises(AdvtagError, match=match) as error:
            detect(columns, list(files), preset, jets, tmp_path / "d.json", 0)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "d.json").exists()

    refused("^attack: no preset 'fgsm'; known: stein2021, ", preset="fgsm")
    refused("no columns there", columns=tmp_path)
    refused("cannot read the tagger", files=[tmp_path / "x.safetensors"])
    refused("fooled and .* clean jets; a detector needs 20", preset="stein2021-noise", jets=100)
    Tagger(place.features, CLASSES, torch.zeros(4), torch.ones(4)).save(tmp_path / "three.safetensors")
    refused(
        "three.safetensors: classes b, c, udsg, but the columns have b, bb, c, udsg",
        files=[tmp_path / "three.safetensors"],
    )
    Tagger(CARD, CLASSES, torch.zeros(3), torch.ones(3)).save(tmp_path / "card.safetensors")
    refused("card.safetensors: trained on feature card", files=[file, tmp_path / "card.safetensors"])
    (tmp_path / "again").mkdir()
    refused("two taggers with the name 'one'", files=[file, Path(shutil.copy(file, tmp_path / "again"))])
