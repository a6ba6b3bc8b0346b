"""The verbs that attack taggers and derive uncertainties, from the command line; in this process, which is quick."""

import json
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import advtag
from tests.conftest import NANO, make_tagger


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the command line; returns exit code, stdout and stderr."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["advtag", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "150")
        capsys.readouterr()
        try:
            advtag.main()
            code = 0
        except SystemExit as leaving:
            code = 0 if leaving.code is None else leaving.code
        return code, *capsys.readouterr()

    yield call
    signal.signal(signal.SIGTERM, before)


def sections(**more):
    sample = str(NANO / "nanov5_sample.root")
    return {
        "features": "nanoaod",
        "datasets": {
            "mc": {"files": sample, "cross_section": 1.0},
            "run": {"files": str(NANO / "nano_dimuon.root"), "data": True},
        },
        "columns": {"datasets": ["mc"], "split": {"train": 0.45, "validation": 0.05}},
        "run": {"executor": "iterative", "workers": 1},
        **more,
    }


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """Columns of real events, and taggers with random weights whose inputs have about the right size."""
    from configs.load import load_analysis
    from models.tagger import Tagger
    from processors.jobs import make_columns
    from training.columns import read_columns
    from training.standardise import scales, standardisation

    folder = tmp_path_factory.mktemp("robustness")
    (folder / "a.yaml").write_text(yaml.safe_dump({"name": "a", "output": "out", **sections()}))
    found = read_columns(make_columns(load_analysis(folder / "a.yaml"), progress=False))
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        inputs = found.train.inputs
        tagger = Tagger(found.features, found.classes, *standardisation(inputs), scales=scales(inputs))
        last = tagger.eval().network.layers[-1]
        with torch.no_grad():  # an untrained network has hardly an opinion, and the same one of all jets
            last.weight *= 40
            last.bias -= tagger(inputs.values, inputs.present).mean(0)
        tagger.save(folder / f"{name}.safetensors")
    return folder


def refused(answer: tuple[int, str, str], *words: str) -> None:
    code, _, told = answer
    assert code == 1
    (line,) = told.strip().splitlines()
    assert line.startswith("advtag: ")
    for word in words:
        assert word in line


def test_evaluate(cli, columns, tmp_path) -> None:
    tagger = columns / "one.safetensors"
    options = ["--suite", "quick", "--jets", 150, "--epsilon", 0.2, "--scale", "core", "--no-capped", "--seed", 3]
    transfer = ["--transfer", columns / "two.safetensors", "--output", tmp_path / "new", "--no-progress"]
    code, told, errors = cli("evaluate", tagger, columns / "out/columns", *options, *transfer)
    assert (code, errors) == (0, "")
    page = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert page["settings"] == {
        "suite": "quick",
        "epsilon": 0.2,
        "scale": "core",
        "capped": False,
        "seed": 3,
        "jets": 150,
    }
    assert list(page["transfer"]) == ["two"]
    assert pq.read_metadata(tmp_path / "new" / "jets.parquet").num_rows == 150
    assert "150 jets, epsilon 0.2 core" in told
    assert "worst case" in told
    assert "Masking checks" in told
    assert told.splitlines()[-1] == str(tmp_path / "new")


def test_evaluate_writes_beside_the_tagger(cli, columns) -> None:
    tagger = columns / "two.safetensors"
    code, told, _ = cli("evaluate", tagger, columns / "out/columns", "--suite", "quick", "--jets", 40, "--no-progress")
    assert code == 0
    assert told.splitlines()[-1] == str(columns / "two.evaluation")
    assert (columns / "two.evaluation" / "evaluation.json").exists()


def test_evaluate_refuses(cli, columns, tmp_path) -> None:
    tagger, there, out = columns / "one.safetensors", columns / "out/columns", ["--output", tmp_path / "out"]
    refused(cli("evaluate", tagger, tmp_path, *out), "no columns there", "advtag columns")
    refused(cli("evaluate", tmp_path / "x.safetensors", there, *out), "cannot read the tagger")
    refused(cli("evaluate", tagger, there, *out, "--scale", "cores"), "cores: cannot read the table of uncertainties")
    make_tagger("deepcsv").save(tmp_path / "other.safetensors")
    refused(cli("evaluate", tmp_path / "other.safetensors", there, *out), "'deepcsv'", "'nanoaod'")
    refused(
        cli("evaluate", tagger, there, *out, "--transfer", tmp_path / "other.safetensors"), "'deepcsv'", "'nanoaod'"
    )
    for wrong in (["--suite", "fast"], ["--epsilon", "-1"], ["--epsilon", "nan"], ["--jets", "0"], ["--seed", "-1"]):
        code, _, told = cli("evaluate", tagger, there, *out, *wrong)
        assert code in (1, 2)
        assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_detect(cli, columns, tmp_path) -> None:
    taggers = [columns / f"{name}.safetensors" for name in ("one", "two")]
    options = ["--attack", "bhive2025-pip-pgd", "--jets", 600, "--output", tmp_path / "d.json"]
    code, told, errors = cli("detect", columns / "out/columns", *taggers, *options)
    assert (code, errors) == (0, "")
    page = json.loads((tmp_path / "d.json").read_text())
    assert list(page["taggers"]) == ["one", "two"]
    assert set(page["taggers"]["one"]["detectors"]) == {"one", "two"}
    assert told.splitlines()[-1] == str(tmp_path / "d.json")
    assert told.count("detector of") == 4


def test_detect_refuses(cli, columns, tmp_path) -> None:
    tagger, there, out = columns / "one.safetensors", columns / "out/columns", ["--output", tmp_path / "d.json"]
    refused(cli("detect", there, tagger, *out, "--attack", "fgsm"), "no preset 'fgsm'; known: ", "conserv2026")
    refused(cli("detect", tmp_path, tagger, *out), "no columns there")
    refused(
        cli("detect", there, tagger, *out, "--attack", "stein2021-noise", "--jets", 30), "fooled", "needs 20 of each"
    )
    refused(cli("detect", there, tagger, tagger, *out, "--attack", "stein2021"), "two taggers with the name 'one'")
    assert not (tmp_path / "d.json").exists()


def test_envelope_of_real_files_and_back_into_histograms(cli, columns, write_config, tmp_path) -> None:
    """Histograms with (a stand-in for) data, a table of uncertainties from them, an attack of that size."""
    taggers = {"one": str(columns / "one.safetensors")}
    histograms = {
        "datasets": ["mc", "run"],
        "taggers": taggers,
        "regions": {"soft": {"min_jets": 1}, "none": {"min_jets": 40}},
    }
    config = write_config(**sections(histograms=histograms))
    assert cli("histograms", config, "--no-progress")[0] == 0
    made = tmp_path / "out_analysis" / "histograms"
    table = tmp_path / "table.yaml"
    code, told, _ = cli("envelope", made, "--region", "soft", "--output", table)
    assert (code, told.strip()) == (0, str(table))
    page = yaml.safe_load(table.read_text())
    assert page["source"] == {"histograms": "histograms", "region": "soft"}
    names = set(page["uncertainties"])
    assert {"pt", "eta", "mass"} <= names
    assert not names & {"nConstituents", "npvs"}  # integers
    assert all(0 < value < 1e5 for value in page["uncertainties"].values())
    refused(cli("envelope", made, "--region", "hard"), "no region 'hard'", "soft")
    refused(cli("envelope", made, "--region", "none"), "region 'none': 0 entries of ")
    refused(cli("envelope", tmp_path / "nothing.zip", "--region", "soft"), "no such histogram file")
    attack = "attacks.syst={kind: systematic, epsilon: 0.5, scale: table.yaml, capped: false}"
    assert cli("histograms", config, attack, "histograms.attacks=[syst]", "--no-progress")[0] == 0
    from common.histograms import read_histograms

    mass = read_histograms(made).histograms["mass"]["mc", "soft", :, 0, "one", :, :].project("attack", "mass")
    raw, moved = (mass[name, :].values(flow=True) for name in ("raw", "syst"))
    centres = np.concatenate([[-1], mass.axes["mass"].centers, [61]])
    assert raw.sum() == pytest.approx(moved.sum())
    shift = (moved @ centres - raw @ centres) / raw.sum()
    assert shift == pytest.approx(0.5 * page["uncertainties"]["mass"], rel=0.35)
