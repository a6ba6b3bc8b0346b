"""Parts of files put together: nothing twice, nothing lost, and nothing of another job."""

import json
import shutil

import pytest

from common.errors import AdvtagError
from configs.load import load_analysis
from processors.jobs import make_columns
from processors.parts import expected, merge_rows, parts_of


@pytest.fixture(scope="module")
def made(simulated, tmp_path_factory):
    """Output folder of each of two parts, and what they should make together."""
    folder = tmp_path_factory.mktemp("parts")
    common = {
        "features": "deepcsv",
        "columns": {"datasets": ["ttbar"]},
        "run": {"executor": "iterative", "chunksize": 100},
    }
    whole = folder / "whole.yaml"
    dataset = {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0}
    whole.write_text(json.dumps({"name": "x", "output": "whole", "datasets": {"ttbar": dataset}, **common}))
    parts = parts_of(load_analysis(whole), "columns", 1, progress=False)
    outputs = []
    for number, part in enumerate(parts):
        (folder / f"part{number}.json").write_text(json.dumps(part.fileset))
        config = folder / f"{number}.yaml"
        changed = {"ttbar": {**dataset, "files": f"part{number}.json"}}
        config.write_text(json.dumps({"name": "x", "output": f"out{number}", "datasets": changed, **common}))
        outputs.append(make_columns(load_analysis(config), progress=False))
    return outputs, expected(parts)


def test_parts_are_all_files_once(made, simulated):
    _, files = made
    assert list(files) == ["ttbar"]
    assert set(files["ttbar"]) == {str(path) for path in simulated.glob("ttbar_mc_11_*.root")}
    assert set(files["ttbar"].values()) == {150}


def test_put_together(made, tmp_path):
    outputs, files = made
    merged = merge_rows(outputs, tmp_path / "columns", files, {"name": "whole"})
    page = json.loads((merged / "manifest.json").read_text())
    pages = [json.loads((output / "manifest.json").read_text())["datasets"]["ttbar"] for output in outputs]
    total = page["datasets"]["ttbar"]
    for key in ("jets", "events", "sum_weights", "expected_events"):
        assert total[key] == pytest.approx(sum(part[key] for part in pages), rel=1e-12)
    assert total["events"] == 300
    assert page["config"] == {"name": "whole"}
    assert page["missing"] == []


def test_a_part_that_is_not_there(made, tmp_path):
    outputs, files = made
    with pytest.raises(AdvtagError, match=r"150 events are missing, the first of .*_001\.root"):
        merge_rows(outputs[:1], tmp_path / "columns", files, {})
    assert list(tmp_path.iterdir()) == []
    merged = merge_rows(outputs[:1], tmp_path / "columns", files, {}, allow_missing=True)
    page = json.loads((merged / "manifest.json").read_text())
    assert page["datasets"]["ttbar"]["expected_events"] == 300
    (lost,) = page["missing"]
    assert (lost["start"], lost["stop"]) == (0, 150)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda page: page.update(splits=["train"]), "other splits than the other parts"),
        (lambda page: page["datasets"]["ttbar"].update(jets=1), "rows came back"),
    ],
)
def test_parts_that_do_not_belong_together(made, tmp_path, spoil, message):
    outputs, files = made
    copy = shutil.copytree(outputs[1], tmp_path / "copy")
    page = json.loads((copy / "manifest.json").read_text())
    spoil(page)
    (copy / "manifest.json").write_text(json.dumps(page))
    with pytest.raises(AdvtagError, match=message):
        merge_rows([outputs[0], copy], tmp_path / "columns", files, {})
    assert not (tmp_path / "columns").exists()


def test_the_same_part_twice(made, tmp_path):
    outputs, files = made
    with pytest.raises(AdvtagError, match="events 0 to 150 were processed twice"):
        merge_rows([*outputs, shutil.copytree(outputs[0], tmp_path / "copy")], tmp_path / "columns", files, {})


def test_no_parts(tmp_path):
    with pytest.raises(AdvtagError, match="no part to put together"):
        merge_rows([], tmp_path / "columns", {}, {})
    with pytest.raises(AdvtagError, match="no manifest there"):
        merge_rows([tmp_path], tmp_path / "columns", {}, {})
