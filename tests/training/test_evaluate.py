"""Evaluations of small taggers: every figure again with other means, what a kill and a change leave valid, errors."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from sklearn.metrics import roc_auc_score

from attacks import FGSM, Budget
from attacks.pgd import PGD
from common.errors import AdvtagError
from models.features import FeatureSet
from models.tagger import Tagger, load_tagger
from training import bench as bench_module
from training.columns import read_splits, some_jets
from training.evaluate import Evaluation, check_table, evaluate, table
from training.suite import suite
from training.train import train_all

ROOT = Path(__file__).parents[2]
SETTINGS = Evaluation("standard", epsilon=0.1, jets=500)
QUICK = Evaluation("quick", epsilon=0.1, jets=300)
SIGNALS = {"BvsL": ((0, 1), (3,)), "BvsC": ((0, 1), (2,)), "CvsL": ((2,), (3,)), "CvsB": ((2,), (0, 1))}


@pytest.fixture(scope="module")
def place(shared_workplace):
    """Columns, and two taggers trained on them."""
    threads = torch.get_num_threads()
    training = {
        name: {"learning_rate": 3e-3, "epochs": 6, "seed": seed} for name, seed in (("nominal", 1), ("other", 2))
    }
    train_all(shared_workplace.analysis(training), progress=False)
    yield shared_workplace
    torch.set_num_threads(threads)


def tagger_file(place, name="nominal") -> Path:
    return place.folder / "out" / "taggers" / f"{name}.safetensors"


def run(place, output, settings=QUICK, others=(), tagger=None, columns=None):
    tagger = tagger_file(place) if tagger is None else tagger
    columns = place.columns if columns is None else columns
    return evaluate(tagger, columns, output, settings, list(others), progress=False)


@pytest.fixture(scope="module")
def evaluated(place, tmp_path_factory):
    """A whole standard suite: its result and its folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    return run(place, folder, SETTINGS, [tagger_file(place, "other")]), folder


@pytest.fixture(scope="module")
def sample(place):
    samples, _, _ = read_splits(place.columns, ("test",))
    return some_jets(samples["test"], SETTINGS.jets)


@pytest.fixture(scope="module")
def jets(evaluated) -> dict[str, np.ndarray]:
    found = pq.read_table(evaluated[1] / "jets.parquet")
    return {name: found[name].to_numpy() for name in found.column_names}


def kept(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Jets and logits of a run on disk."""
    found = pq.read_table(folder / "runs" / f"{name}.parquet")
    return found["jet"].to_numpy(), np.stack([found[f"logit_{k}"].to_numpy() for k in range(4)], axis=1)


def by_hand(tagger: Tagger, inputs) -> np.ndarray:
    with torch.no_grad():
        return tagger(inputs.values, inputs.present).numpy()


def right(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    flavours = np.stack([p[:, 0] + p[:, 1], p[:, 2], p[:, 3]], axis=1)
    return flavours.argmax(1) == np.array([0, 0, 1, 2])[target]


def scores(logits: np.ndarray) -> dict[str, np.ndarray]:
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    total = {name: tuple(p[:, list(classes)].sum(1) for classes in sides) for name, sides in SIGNALS.items()}
    return {name: np.clip(s / (s + b), 1e-47, 1 - 6e-8) for name, (s, b) in total.items()}  # what float32 tells apart


def area(name: str, score: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    signal_, background = (np.isin(target, classes) for classes in SIGNALS[name])
    both = signal_ | background
    return roc_auc_score(signal_[both], score[both], sample_weight=weight[both])


def test_jets_are_those_of_the_test_split(jets, sample, place) -> None:
    written = [pq.read_table(path) for path in sorted(place.columns.glob("tt/*.parquet"))]
    pt = np.concatenate([part["jet_pt"].to_numpy()[part["split"].to_numpy() == 2] for part in written])
    assert len(jets["key"]) == len(set(jets["key"])) == 500 < len(pt)
    assert set(jets["pt"]) <= set(pt)
    assert np.array_equal(jets["key"], sample.inputs.key.numpy())
    assert np.array_equal(jets["target"], sample.target.numpy())
    assert np.allclose(jets["weight"], sample.weight.numpy())
    assert 0.2 < (jets["target"] == 3).mean() < 0.6  # mixed: no file or flavour comes first


def test_clean_figures(evaluated, jets, sample, place) -> None:
    result, _ = evaluated
    logits = by_hand(load_tagger(tagger_file(place)), sample.inputs)
    assert np.array_equal(jets["right"], right(logits, jets["target"]))
    for name, score in scores(logits).items():
        np.testing.assert_allclose(jets[f"{name}_clean"], score, rtol=1e-4)
        figures = result["clean"][name]
        assert figures["auc"] == pytest.approx(area(name, score, jets["target"], jets["weight"]), abs=5e-4)
        signal_, background = (np.isin(jets["target"], classes) for classes in SIGNALS[name])
        assert figures["efficiency"] == pytest.approx(0.8, abs=1e-9)
        for side, figure, tolerance in ((signal_, "efficiency", 0.012), (background, "mistag", 0.012)):
            passing = jets["weight"][side & (score >= figures["threshold"])].sum() / jets["weight"][side].sum()
            assert figures[figure] == pytest.approx(passing, abs=tolerance)
        assert figures["mistag_at_efficiency"] == pytest.approx(figures["mistag"], abs=1e-9)
    light = jets["BvsL_clean"][jets["target"] == 3]
    cut = result["working_point"]
    assert cut["discriminator"] == "BvsL"
    assert (light >= cut["threshold"]).mean() == pytest.approx(0.01, abs=1 / len(light))


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "transfer-other"])
def test_attacks_made_by_hand(evaluated, sample, place, name) -> None:
    """The logits on disk are those of the tagger for examples that the named attack makes."""
    _, folder = evaluated
    tagger, other = (load_tagger(tagger_file(place, name)) for name in ("nominal", "other"))
    budget = Budget(epsilon=0.1)
    attack = {
        "fgsm": FGSM(budget),
        "pgd": PGD(budget),
        "apgd-ce": suite("standard", 4, epsilon=0.1, scale="std", capped=True, seed=0)["apgd-ce"].attack,
        "transfer-other": PGD(budget, random_start=False),
    }[name]
    places, logits = kept(folder, name)
    assert len(places) > 100
    inputs, target = sample.inputs[torch.tensor(places)], sample.target[torch.tensor(places)]
    moved = attack(other if name == "transfer-other" else tagger, inputs, target)
    np.testing.assert_allclose(logits, by_hand(tagger, moved), rtol=1e-4, atol=1e-4)
    assert np.abs(logits - by_hand(tagger, inputs)).max() > 0.05


def test_figures_of_attacks(evaluated, jets, sample, place) -> None:
    """Areas with scikit-learn, and fooling ratios by counting, from the logits on disk."""
    result, folder = evaluated
    records = {**result["attacks"], **{f"transfer-{name}": record for name, record in result["transfer"].items()}}
    assert len(records) == 16
    cut = result["working_point"]["threshold"]
    for name, record in records.items():
        places, logits = kept(folder, name)
        target, weight = jets["target"][places], jets["weight"][places]
        assert record["jets"] == len(places)
        before, after = jets["right"][places], right(logits, target)
        ratios = record["fooled"]["argmax"]
        for flavour, classes in (("all", (0, 1, 2, 3)), ("b", (0, 1)), ("c", (2,)), ("udsg", (3,))):
            chosen = np.isin(target, classes)
            fooled = chosen & before & ~after
            assert (ratios[flavour]["right"], ratios[flavour]["fooled"]) == ((chosen & before).sum(), fooled.sum())
            if ratios[flavour]["right"]:
                expected = weight[fooled].sum() / weight[chosen & before].sum()
                assert ratios[flavour]["weighted_ratio"] == pytest.approx(expected, rel=1e-6)
        counted = target != 2
        tagged = [
            score[places] if len(score) == 500 else score for score in (jets["BvsL_clean"], scores(logits)["BvsL"])
        ]
        # not near the cut, where float32 and float64 differ
        sure = counted & np.all([np.abs(score - cut) > 1e-5 for score in tagged], axis=0)
        were, are = (((score >= cut) == (target < 2)) & sure for score in tagged)
        assert record["fooled"]["working_point"]["all"]["fooled"] == pytest.approx(
            (were & ~are).sum(), abs=int((counted & ~sure).sum())
        )
        if name in ("apgd-ce", "apgd-dlr-targeted", "square"):
            assert "performance" not in record  # of survivors: an area would mean nothing
            continue
        for score_name, score in scores(logits).items():
            figures = record["performance"][score_name]
            assert figures["auc"] == pytest.approx(area(score_name, score, target, weight), abs=5e-4)
            lost = result["clean"][score_name]["auc"] - figures["auc"]
            assert figures["susceptibility"]["difference"] == pytest.approx(lost)


def test_worst_case_is_at_least_as_bad_as_each_attack_for_each_jet(evaluated, jets, sample, place) -> None:
    result, folder = evaluated
    target = jets["target"]
    clean = by_hand(load_tagger(tagger_file(place)), sample.inputs)
    wrong = {"": ~right(clean, target)}
    loss = {"": -np.log(np.take_along_axis(softmax(clean), target[:, None].astype(int), 1))[:, 0]}
    order = list(result["attacks"])
    for name in order:
        places, logits = kept(folder, name)
        found = np.full(500, -1.0)
        found[places] = -np.log(np.take_along_axis(softmax(logits), target[places, None].astype(int), 1))[:, 0]
        loss[name] = found
        wrong[name] = np.zeros(500, bool)
        wrong[name][places] = ~right(logits, target[places])
    # of the jets that anything makes wrong, the highest loss among what does; of the others, the highest loss
    ever = np.any(list(wrong.values()), axis=0)
    assert 0.1 < (ever & jets["right"]).mean() < 0.9
    expected = np.max([np.where(ever & ~wrong[name], -1, loss[name]) for name in loss], axis=0)
    probability = np.exp(-expected)
    # the score of the true class against all others is not in the file: what is, follows from it for light and b
    worst = {name: jets[f"{name}_worst"] for name in SIGNALS}
    for i in range(500):
        s = {name: worst[name][i] for name in SIGNALS}
        if target[i] in (2, 3) and max(s.values()) < 1:
            b_to_light, c_to_light = (s[name] / (1 - s[name]) for name in ("BvsL", "CvsL"))
            light = 1 / (1 + b_to_light + c_to_light)
            found = light if target[i] == 3 else c_to_light * light
            assert found == pytest.approx(probability[i], rel=2e-3, abs=1e-6)
    called = np.stack([worst["BvsL"] >= 0.5, worst["BvsC"] >= 0.5, worst["CvsL"] >= 0.5], axis=1)
    is_b, is_c = called[:, 0] & called[:, 1], ~called[:, 1] & called[:, 2]
    answer = np.where(is_b, 0, np.where(is_c, 1, 2))
    assert np.array_equal(answer != np.array([0, 0, 1, 2])[target], ever)
    first = np.full(500, "", dtype=object)
    for name in reversed(order):
        first[wrong[name]] = name
    first[~jets["right"]] = ""
    assert jets["fooled_by"].tolist() == first.tolist()
    counts = {name: int((first == name).sum()) for name in order}
    assert result["worst_case_with_integers"]["first_to_fool"] == counts
    assert (
        sum(counts.values())
        == (ever & jets["right"]).sum()
        == result["worst_case_with_integers"]["fooled"]["argmax"]["all"]["fooled"]
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def test_worst_case_within_the_budget_leaves_integers_out(evaluated) -> None:
    result, _ = evaluated
    within, with_integers = (
        result[name]["fooled"]["argmax"]["all"] for name in ("worst_case", "worst_case_with_integers")
    )
    assert {"pip", "pip-pgd"} == set(result["worst_case_with_integers"]["first_to_fool"]) - set(
        result["worst_case"]["first_to_fool"]
    )
    assert within["fooled"] < with_integers["fooled"]
    for name, record in result["attacks"].items():
        if name not in ("pip", "pip-pgd"):
            assert record["fooled"]["argmax"]["all"]["fooled"] <= within["fooled"]


def test_worst_case_figures(evaluated, jets) -> None:
    result, _ = evaluated
    ratio = (jets["fooled_by"] != "").sum() / jets["right"].sum()
    assert result["worst_case_with_integers"]["fooled"]["argmax"]["all"]["ratio"] == pytest.approx(ratio)
    for name in SIGNALS:
        auc = area(name, jets[f"{name}_worst"], jets["target"], jets["weight"])
        assert result["worst_case_with_integers"]["performance"][name]["auc"] == pytest.approx(auc, abs=5e-4)
    worst = result["worst_case_with_integers"]["fooled"]["argmax"]
    for record in result["attacks"].values():
        for flavour, figures in record["fooled"]["argmax"].items():
            assert figures["fooled"] <= worst[flavour]["fooled"]


def test_searches_look_at_survivors_only(evaluated, jets) -> None:
    result, folder = evaluated
    standing, order = jets["right"].copy(), list(result["attacks"])
    for name in order:
        places, logits = kept(folder, name)
        if name in ("apgd-ce", "apgd-dlr-targeted", "square"):
            assert np.array_equal(places, np.flatnonzero(standing))
            assert len(places) < 500
        else:
            assert np.array_equal(places, np.arange(500))
        standing[places] &= right(logits, jets["target"][places])
    assert not set(order) & {"pgd-restarts", "unbounded", "pgd@1"}


def test_checks_are_of_what_was_run(evaluated, jets) -> None:
    result, folder = evaluated
    found = {}
    for name in ("noise", "fgsm", "pgd@1", "unbounded", "transfer-other", "pgd@0.25", "pgd@0.5", "pgd@2", "pgd@4"):
        places, logits = kept(folder, name)
        assert np.array_equal(places, np.arange(500))
        found[name] = area("BvsL", scores(logits)["BvsL"], jets["target"], jets["weight"])
    raw = area("BvsL", jets["BvsL_clean"], jets["target"], jets["weight"])
    numbers = {
        "iterative at least as strong as one step": [found["pgd@1"], found["fgsm"]],
        "damage grows with epsilon": [found[f"pgd@{factor}"] for factor in ("0.25", "0.5", "1", "2", "4")],
        "no bound, no tagging": [found["unbounded"]],
        "noise much weaker than a gradient": [raw - found["noise"], raw - found["fgsm"]],
        "white box at least as strong as transfer from other": [found["pgd@1"], found["transfer-other"]],
    }
    for name, expected in numbers.items():
        told = result["checks"][name]["found"].replace(" against ", ", ").split(", ")
        assert [float(number) for number in told] == pytest.approx(expected, abs=3e-4)
    for run_name in ("pgd", "pgd-restarts"):
        places, logits = kept(folder, run_name)
        fooled = jets["right"] & ~right(logits, jets["target"])
        ratio = f"{fooled.sum() / jets['right'].sum():.3f}"
        assert ratio in result["checks"]["more restarts change little"]["found"].split(" to ")
    assert len(result["checks"]) == 10
    failed = [check["name"] for check in result["checks"].values() if check["passed"] is False]
    assert result["verdict"].startswith("suspicious" if failed else "no sign of gradient masking in 10 checks")


def test_check_runs_take_few_jets(place, tmp_path, monkeypatch) -> None:
    for module in ("training.bench", "training.evaluate"):
        monkeypatch.setattr(f"{module}.CHECK_JETS", 60)
    result = run(place, tmp_path)
    for name in ("pgd-restarts", "unbounded", "pgd@1", "fgsm"):
        assert np.array_equal(kept(tmp_path, name)[0], np.arange(300 if name == "fgsm" else 60))
    found = pq.read_table(tmp_path / "jets.parquet")
    target, weight = (found[name].to_numpy()[:60] for name in ("target", "weight"))
    areas = [area("BvsL", scores(kept(tmp_path, name)[1][:60])["BvsL"], target, weight) for name in ("pgd@1", "fgsm")]
    told = result["checks"]["iterative at least as strong as one step"]["found"].split(" against ")
    assert [float(number) for number in told] == pytest.approx(areas, abs=1e-3)


def test_json_is_the_result_without_nan(evaluated) -> None:
    result, folder = evaluated
    text = (folder / "evaluation.json").read_text()
    page = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert page == json.loads(json.dumps(result))
    assert page["settings"] == {
        "suite": "standard",
        "epsilon": 0.1,
        "scale": "std",
        "capped": True,
        "seed": 0,
        "jets": 500,
    }
    assert page["jets"] == 500
    assert "js_max" in page["attacks"]["fgsm"]["distances"]
    assert page["attacks"]["fgsm"]["attack"] == repr(FGSM(Budget(epsilon=0.1)))


def printed(thing) -> list[str]:
    console = Console(file=io.StringIO(), width=130)
    console.print(thing)
    return console.file.getvalue().splitlines()


def test_tables(evaluated) -> None:
    result, _ = evaluated
    lines = printed(table(result))
    for name in ("clean", *result["attacks"], "from other", "worst case", "with integers"):
        (line,) = [line for line in lines if line.strip().startswith(f"{name} ")]
        if name in result["attacks"]:
            record = result["attacks"][name]
            # of the survivors a ratio would look weak beside those of all jets
            assert (f" {record['fooled']['argmax']['all']['ratio']:.3f} " in line) != record["survivors"]
            assert line.split()[-1] == str(result["worst_case_with_integers"]["first_to_fool"][name])
            if "performance" in record:
                assert f"{record['performance']['BvsL']['auc']:.4f}" in line
    assert "500 jets, epsilon 0.1 std" in lines[0]
    text = " ".join(" ".join(printed(check_table(result))).split())
    assert result["verdict"] in text
    assert text.count(" ok") == sum(check["passed"] is True for check in result["checks"].values())


def test_table_of_what_failed_or_was_not_run(evaluated) -> None:
    result = deepcopy(evaluated[0])
    names = list(result["checks"])
    result["checks"][names[0]]["passed"], result["checks"][names[1]]["passed"] = False, None
    text = " ".join(printed(check_table(result)))
    assert text.count(" failed ") == 1 + evaluated[0]["verdict"].count(" failed ") + sum(
        check["passed"] is False for check in evaluated[0]["checks"].values()
    )
    assert text.count("not run") == 1


def without_seconds(result: dict) -> dict:
    found = deepcopy(result)
    for part in ("attacks", "transfer"):
        for record in found[part].values():
            del record["seconds"]
    return found


def stamps(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}


@pytest.fixture
def same_commit(monkeypatch) -> None:
    """Whatever happens to the checkout while a test runs."""
    monkeypatch.setattr(bench_module, "provenance", lambda: {"git": "fixed"})


def test_finished_runs_are_not_repeated(place, tmp_path, same_commit) -> None:
    small = replace(QUICK, jets=120)
    first = run(place, tmp_path, small)
    before, written = stamps(tmp_path), (tmp_path / "jets.parquet").read_bytes()
    again = run(place, tmp_path, small)
    assert stamps(tmp_path) == before
    assert again == first  # seconds, too
    assert (tmp_path / "jets.parquet").read_bytes() == written
    # another suite shares what is the same attack on the same jets, and another tagger to transfer from adds one run
    run(place, tmp_path, replace(small, suite="standard"), [tagger_file(place, "other")])
    after = stamps(tmp_path)
    assert {name for name in before if after[name] != before[name]} == {"apgd-ce", "apgd-dlr-targeted", "square"}
    assert {"transfer-other", "conserv", "rdsa"} <= set(after)


@pytest.fixture(scope="module")
def before(place, tmp_path_factory):
    """A quick suite on 100 jets, with its own tagger and columns, to be copied."""
    folder = tmp_path_factory.mktemp("before")
    shutil.copy(tagger_file(place), folder / "t.safetensors")
    shutil.copytree(place.columns, folder / "columns")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module, "provenance", lambda: {"git": "fixed"})
        result = run_in(folder)
    return result, folder


def run_in(folder: Path, **changes) -> dict:
    settings = replace(QUICK, jets=100, **changes) if "jets" not in changes else replace(QUICK, **changes)
    return evaluate(folder / "t.safetensors", folder / "columns", folder / "out", settings, [], progress=False)


@pytest.fixture
def copied(before, tmp_path, same_commit) -> Path:
    """The folder of `before`, to be spoilt."""
    return shutil.copytree(before[1], tmp_path / "copied")


@pytest.mark.parametrize(
    "changes", [{"epsilon": 0.11}, {"capped": False}, {"scale": "core"}, {"jets": 101}, {"seed": 1}], ids=str
)
def test_other_settings_are_run_again(copied, changes) -> None:
    earlier = stamps(copied / "out")
    old = {name: kept(copied / "out", name)[1] for name in ("noise", "fgsm", "pgd@1")}
    run_in(copied, **changes)
    # the unbounded check has a size and a unit of its own
    same = {"unbounded"} if set(changes) & {"epsilon", "capped", "scale"} else set()
    assert unchanged(copied / "out", earlier) == same
    for name, logits in old.items():
        if "seed" not in changes or name == "noise":
            new = kept(copied / "out", name)[1]
            assert new.shape != logits.shape or (new != logits).any()


@pytest.mark.parametrize("change", ["tagger", "column", "commit"])
def test_other_files_are_run_again(copied, monkeypatch, change) -> None:
    earlier, old = stamps(copied / "out"), kept(copied / "out", "fgsm")[1]
    if change == "tagger":
        changed = load_tagger(copied / "t.safetensors")
        with torch.no_grad():
            changed.network.layers[-1].bias += 1e-3
        changed.save(copied / "t.safetensors")
    elif change == "column":
        for path in copied.glob("columns/tt/*.parquet"):
            whole = pq.read_table(path)
            mass = pa.array(whole["input_mass"].to_numpy() * np.float32(1.01), from_pandas=True)
            pq.write_table(whole.set_column(whole.column_names.index("input_mass"), "input_mass", mass), path)
    else:
        monkeypatch.setattr(bench_module, "provenance", lambda: {"git": "another"})
    run_in(copied)
    assert unchanged(copied / "out", earlier) == set()
    assert (kept(copied / "out", "fgsm")[1] != old).any() == (change != "commit")


def unchanged(folder: Path, earlier: dict[str, int]) -> set[str]:
    return {name for name, stamp in stamps(folder).items() if stamp == earlier.get(name)}


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "page", "foreign", "keys", "missing"])
def test_a_broken_run_is_done_again(before, copied, damage) -> None:
    path = copied / "out" / "runs" / "pgd.parquet"
    whole, earlier = path.read_bytes(), stamps(copied / "out")
    if damage in ("foreign", "keys"):
        metadata = {} if damage == "foreign" else {"advtag": '{"record": {}}'}
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    elif damage == "missing":
        path.unlink()
    else:
        half, page = whole[: len(whole) // 2], whole[:4] + bytes(60) + whole[64:]
        path.write_bytes({"truncated": half, "empty": b"", "text": b"PAR1 no", "page": page}[damage])
    again = run_in(copied)
    assert set(earlier) - unchanged(copied / "out", earlier) == {"pgd"}
    expected = without_seconds(before[0])
    assert without_seconds(again) == {**expected, "tagger": again["tagger"], "columns": again["columns"]}
    assert all(
        np.array_equal(*pair) for pair in zip(kept(copied / "out", "pgd"), kept(before[1] / "out", "pgd"), strict=True)
    )


def test_kill_and_go_on(place, evaluated, tmp_path) -> None:
    """SIGKILL after the first runs; what is on disk then is used, and the result is that of an undisturbed run."""
    output = tmp_path / "out"
    code = f"""
from pathlib import Path
from training.evaluate import Evaluation, evaluate
evaluate(Path({str(tagger_file(place))!r}), Path({str(place.columns)!r}), Path({str(output)!r}),
         {SETTINGS!r}, [Path({str(tagger_file(place, "other"))!r})], progress=False)
"""
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while len(list(output.glob("runs/*.parquet"))) < 7:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert job.returncode == -signal.SIGKILL
    assert not (output / "evaluation.json").exists()
    assert not (output / "jets.parquet").exists()
    done = {path.stem: path.read_bytes() for path in output.glob("runs/*.parquet")}
    assert 7 <= len(done) < 20
    result = run(place, output, SETTINGS, [tagger_file(place, "other")])
    for name, content in done.items():
        assert (output / "runs" / f"{name}.parquet").read_bytes() == content
        seconds = json.loads(pq.read_table(output / "runs" / f"{name}.parquet").schema.metadata[b"advtag"])["record"][
            "seconds"
        ]
        assert result["attacks"][name]["seconds"] == seconds
    undisturbed, folder = evaluated
    assert without_seconds(result) == without_seconds(undisturbed)
    assert pq.read_table(output / "jets.parquet").equals(pq.read_table(folder / "jets.parquet"))


def test_of_size_nought_nothing_happens(place, tmp_path) -> None:
    result = run(place, tmp_path, replace(QUICK, epsilon=0.0, jets=100))
    for record in (*result["attacks"].values(), result["worst_case"]):
        assert record["fooled"]["argmax"]["all"]["fooled"] == 0
    assert result["worst_case"]["performance"]["BvsL"]["auc"] == result["clean"]["BvsL"]["auc"]


@pytest.mark.parametrize("missing", ["udsg", "c", "b"])
def test_a_flavour_is_missing(place, tmp_path, missing) -> None:
    """What cannot be said is None, in JSON and in the table; the rest is as usual."""
    codes = {"b": (0, 1), "c": (2,), "udsg": (3,)}[missing]
    columns = tmp_path / "columns"
    shutil.copytree(place.columns, columns)
    for path in columns.glob("tt/*.parquet"):
        whole = pq.read_table(path)
        pq.write_table(whole.filter(~np.isin(whole["flavour"].to_numpy(), codes)), path)
    result = run(place, tmp_path / "out", replace(SETTINGS, jets=120), columns=columns)
    lost = {"b": {"BvsL", "BvsC", "CvsB"}, "c": {"BvsC", "CvsL", "CvsB"}, "udsg": {"BvsL", "CvsL"}}[missing]
    for figures in (result["clean"], result["attacks"]["fgsm"]["performance"], result["worst_case"]["performance"]):
        assert {name for name in figures if figures[name]["auc"] is None} == lost
    assert result["attacks"]["fgsm"]["fooled"]["argmax"][missing]["ratio"] is None
    json.loads((tmp_path / "out" / "evaluation.json").read_text(), parse_constant=lambda _: pytest.fail("NaN"))
    assert any("worst case" in line for line in printed(table(result)))
    unknown = {check["name"] for check in result["checks"].values() if check["passed"] is None}
    assert ("damage grows with epsilon" in unknown) == (missing != "c")


def test_three_classes(place, toys, tmp_path) -> None:
    jets = toys(800, 4)
    jets["flavour"] = np.where(jets["flavour"] == 1, 0, jets["flavour"]).astype(np.int8)
    three = type(place)(tmp_path)
    three.write({"tt": [jets]}, classes=("b", "c", "udsg"), data=())
    torch.manual_seed(0)
    Tagger(three.features, ("b", "c", "udsg"), torch.zeros(4), torch.ones(4)).save(tmp_path / "three.safetensors")
    result = run(three, tmp_path / "evaluation", replace(QUICK, jets=100), tagger=tmp_path / "three.safetensors")
    assert "apgd-dlr" in result["attacks"]
    assert "apgd-dlr-targeted" not in result["attacks"]
    with pytest.raises(AdvtagError, match="classes b, bb, c, udsg, but the columns have b, c, udsg"):
        run(place, tmp_path / "evaluation", tagger=tagger_file(place), columns=three.columns)


def other_tagger(folder: Path, features: FeatureSet, classes=("b", "bb", "c", "udsg"), **scales) -> Path:
    n = len(features)
    Tagger(features, classes, torch.zeros(n), torch.ones(n), scales=scales).save(folder / "x.safetensors")
    return folder / "x.safetensors"


def test_files_that_do_not_fit_together(place, tmp_path) -> None:
    def refused(match: str, **keys) -> None:
        with pytest.raises(AdvtagError, match=match) as error:
            run(place, tmp_path / "out", **keys)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out" / "evaluation.json").exists()

    refused("no columns there; make them with `advtag columns", columns=tmp_path / "nowhere")
    refused("cannot read the tagger", tagger=tmp_path / "nothing.safetensors")
    card = FeatureSet(name="toy", inputs=place.features.inputs[:3])
    small = other_tagger(tmp_path, card)
    refused("x.safetensors: trained on feature card 'toy'", tagger=small)
    refused("x.safetensors: trained on feature card 'toy'", others=[small])
    three = other_tagger(tmp_path, place.features, ("b", "c", "udsg"))
    refused("x.safetensors: classes b, c, udsg, but the columns have b, bb, c, udsg", tagger=three)
    refused("x.safetensors: classes b, c, udsg, but the columns have b, bb, c, udsg", others=[three])
    (tmp_path / "twin").mkdir()
    twins = [shutil.copy(tagger_file(place), tmp_path / "twin" / "other.safetensors"), tagger_file(place, "other")]
    refused("two taggers with the name 'other'", others=twins)
    assert not list(tmp_path.glob("out/runs/*"))  # all of that is told before anything is run
    bare = other_tagger(tmp_path, place.features)
    refused("does not know the scale 'core'", tagger=bare, settings=replace(QUICK, scale="core"))
    (tmp_path / "t.yaml").write_text("uncertainties: {lifetime: 1, mass: 1, pt: 1}")
    refused("not among the inputs: pt; missing: noise", settings=replace(QUICK, scale=tmp_path / "t.yaml"))
    refused("cannot read the table of uncertainties", settings=replace(QUICK, scale=tmp_path / "u.yaml"))
    for epsilon in (-0.1, float("nan"), float("inf")):
        refused(r"attack\.noise\.epsilon", settings=replace(QUICK, epsilon=epsilon))


def test_columns_without_test_jets(place, toys, tmp_path) -> None:
    jets = toys(50, 4)
    jets["split"][:] = 0
    empty = type(place)(tmp_path)
    empty.write({"tt": [jets]}, data=())
    with pytest.raises(AdvtagError, match="no MC jets of the splits test"):
        run(empty, tmp_path / "evaluation", tagger=tagger_file(place))
    empty.write({"run": [toys(50, 4, data=True)]})
    with pytest.raises(AdvtagError, match="no MC jets of the splits test"):
        run(empty, tmp_path / "evaluation", tagger=tagger_file(place))
    shutil.rmtree(tmp_path / "out")
    whole = toys(50, 4)
    empty.write({"tt": [whole]}, data=())
    (path,) = empty.columns.glob("tt/*.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AdvtagError, match="cannot read the columns"):
        run(empty, tmp_path / "evaluation", tagger=tagger_file(place))


def test_scale_table(place, tmp_path) -> None:
    (tmp_path / "t.yaml").write_text("uncertainties: {lifetime: 0.5, mass: 0, noise: 0.1}")
    settings = replace(QUICK, scale=tmp_path / "t.yaml", epsilon=1.0, jets=100)
    result = run(place, tmp_path / "out", settings)
    moved = result["attacks"]["fgsm"]["distances"]["features"]
    assert moved["mass"]["free"] == 0
    assert moved["lifetime"]["touched"] > 0.5
    assert result["settings"]["scale"] == str(tmp_path / "t.yaml")


def test_not_enough_disk_leaves_nothing_half_written(place, tmp_path, monkeypatch) -> None:
    def full(*arguments, **keys):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench_module.pq, "write_table", full)
    with pytest.raises(AdvtagError, match="cannot write"):
        run(place, tmp_path, replace(QUICK, jets=50))
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("*.json"))
