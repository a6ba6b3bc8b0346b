"""The snippets of docs/outputs.md, on outputs that the verbs have made."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from configs.load import load_analysis
from processors.jobs import make_columns, make_histograms
from processors.shapes import Wanted, write_shapes
from processors.skim import make_skim
from tests.processors.small_card import write_card

PAGE = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text()


@pytest.fixture(scope="module")
def folder(simulated, tmp_path_factory):
    """A folder in which `output` is."""
    base = tmp_path_factory.mktemp("outputs")
    card, taggers = write_card(base)
    sections = {
        "name": "outputs",
        "output": "output",
        **card,
        "datasets": {"ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0}},
        "columns": {"datasets": ["ttbar"]},
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
        "histograms": {
            "datasets": ["ttbar"],
            "taggers": {"nominal": taggers["nominal"]},
            "attacks": ["fgsm"],
            "regions": {"all": {}},
            "scores": True,
        },
        "skim": {"datasets": ["ttbar"], "keep": ["Jet_pt"]},
        "run": {"executor": "iterative"},
    }
    (base / "outputs.yaml").write_text(yaml.safe_dump(sections))
    analysis = load_analysis(base / "outputs.yaml")
    make_columns(analysis, progress=False)
    made = make_histograms(analysis, progress=False)
    make_skim(analysis, progress=False)
    write_shapes(made, base / "output" / "shapes.root", ["all"], ["BvsL"], Wanted("nominal", ["fgsm"]))
    failed = {"missing": [{"file": "a.root", "start": 0, "stop": 9}], "failed": []}
    (base / "output" / "failed.json").write_text(json.dumps(failed))
    return base


def test_snippets(folder, monkeypatch, capsys, recwarn):
    monkeypatch.chdir(folder)
    names = {}
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 7
    for snippet in snippets:
        assert len(snippet.splitlines()) <= 8
        exec(snippet, names)
    recwarn.clear()  # the snippets leave files open
    jets = names["b_jets"].num_rows
    assert 0 < jets < len(names["fooled"])
    assert names["shape"].sum(flow=True).value == len(names["fooled"])
    assert len(names["jets"]) == sum(stop - start for (ranges) in names["events"].values() for start, stop in ranges)
    assert sum(names["generated"]) == len(names["jets"])  # no event was dropped, and the weights are 1
    assert np.allclose(names["nominal"].sum(), names["up"].sum())
    assert capsys.readouterr().out == "a.root 0 9\n"


def test_every_output_is_in_the_table(folder):
    rows = re.findall(r"^\| `([^|]*)` \|", PAGE, re.MULTILINE)
    listed = [name for row in rows for name in re.split(r"`, `", row)]
    for path in (folder / "output").iterdir():
        assert any(
            re.fullmatch(name.rstrip("/").replace(".", r"\.").replace("*", ".*"), path.name) for name in listed
        ), path
