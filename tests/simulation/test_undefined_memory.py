"""Undefined memory in absent slots, and hidden truth: what may lie in or beside a file without being read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoEventsFactory

from common.histograms import read_histograms
from configs.load import load_analysis
from configs.schema import Analysis, Selection
from models.features import load_features
from processors.jets import read_jets
from processors.jobs import make_columns, make_histograms
from simulation.detector.memory import leave_undefined
from simulation.detector.reconstruct import Content
from simulation.run import simulate

N_EVENTS = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same events with -999 in absent slots, and with undefined memory there."""
    folder = tmp_path_factory.mktemp("memory")
    paths = []
    for name, content in (("plain", Content()), ("undefined", Content(undefined_memory=True))):
        (path,) = simulate("ttbar", N_EVENTS, folder, seed=5, content=content, progress=False)
        (folder / name).mkdir()
        paths.append(path.rename(folder / name / "events.root"))
        path.with_suffix(".json").unlink()
    return paths[0], paths[1]


def branches(path: Path) -> dict[str, np.ndarray]:
    with uproot.open(path) as file:
        arrays = file["Events"].arrays()
    return {name: ak.to_numpy(ak.flatten(arrays[name], axis=None)) for name in arrays.fields}


def test_only_absent_slots_of_jets_with_tracks_change(files: tuple[Path, Path]) -> None:
    plain, undefined = (branches(path) for path in files)
    assert plain.keys() == undefined.keys()
    changed = []
    for name, values in plain.items():
        other = undefined[name]
        assert other.dtype == values.dtype
        differs = values.view(f"u{values.itemsize}") != other.view(f"u{values.itemsize}")
        slot = name.rpartition("_")[2]
        if not slot.isdigit() or not name.startswith("Jet_DeepCSV_track"):
            assert not differs.any(), name
            continue
        counter = "jetNTracksEtaRel" if "EtaRel" in name else "jetNSelectedTracks"
        count = plain[f"Jet_DeepCSV_{counter}"]
        allowed = (count > 0) & (count <= int(slot))
        assert not np.any(differs & ~allowed), name
        assert np.all(values[allowed] == -999), name
        if allowed.sum() > 20:  # some take over -999 from another jet
            assert differs[allowed].mean() > 0.7, name
        changed.append(other[allowed])
    found = np.concatenate(changed)
    kinds = [
        np.isnan(found),
        found > 1e31,
        found == 0,
        (found > 0) & (found < np.finfo(np.float32).tiny),  # denormal
        np.isfinite(found) & (np.abs(found) > 1e-6) & (np.abs(found) < 1e4),  # of other jets
    ]
    assert np.sum(kinds, axis=0).max() == 1
    # one in five each
    assert [kind.mean() for kind in kinds] == pytest.approx([0.2] * 5, abs=4 * np.sqrt(0.16 / len(found)) + 0.005)


def test_what_is_stale_comes_from_the_same_branch() -> None:
    count = np.array([0, 1, 2, 6] * 500)
    columns = {"jetNSelectedTracks": count, "jetNTracksEtaRel": count}
    value = np.where(count > 1, 5.0, -999.0)
    columns |= {f"trackSip2dSig_{slot}": value for slot in range(6)}
    names = [f"{name}_{slot}" for name in _other_names() for slot in range(6)]
    columns |= dict.fromkeys([*names, *(f"trackEtaRel_{slot}" for slot in range(4))], value)
    found = leave_undefined(columns, np.random.default_rng(1))
    assert columns["trackSip2dSig_1"] is value  # the argument stays as it is
    filled = found["trackSip2dSig_1"][count == 1]
    known = filled[np.isfinite(filled) & (filled != 0)]
    assert {float(np.float32(number)) for number in known} == {
        5.0,
        -999.0,
        float(np.float32(3e-39)),
        float(np.float32(7e31)),
    }
    assert np.all(found["trackSip2dSig_5"][count == 0] == -999)
    assert np.all(found["trackSip2dSig_5"][count == 6] == 5)


def _other_names() -> tuple[str, ...]:
    return ("trackSip3dSig", "trackDecayLenVal", "trackDeltaR", "trackJetDistVal", "trackPtRatio", "trackPtRel")


def test_readers_do_not_care(files: tuple[Path, Path]) -> None:
    features = load_features("deepcsv")

    def jets(path: Path) -> Any:
        factory = NanoEventsFactory.from_root(
            {str(path): "Events"},
            schemaclass=BaseSchema,
            mode="virtual",
            metadata={"dataset": "ttbar", "filename": str(path)},
        )
        return read_jets(factory.events(), features, Selection(), data=False)

    plain, undefined = (jets(path) for path in files)
    assert len(plain) > 3 * N_EVENTS
    assert not plain.present.all()
    assert np.array_equal(plain.present, undefined.present)
    assert np.array_equal(plain.values, undefined.values)
    assert np.isfinite(undefined.values).all()


@pytest.fixture
def analysis(write_config: Callable[..., Path], taggers: dict[str, Path]) -> Callable[..., Analysis]:
    def make(name: str, path: Path, **dataset: Any) -> Analysis:
        config = write_config(
            name,
            features="deepcsv",
            datasets={"d": {"files": str(path), **(dataset or {"cross_section": 1.0})}},
            columns={"datasets": ["d"]},
            histograms={"datasets": ["d"], "taggers": {name: str(path) for name, path in taggers.items()}},
            run={"executor": "iterative"},
        )
        return load_analysis(config)

    return make


def parquet(analysis: Analysis) -> Any:
    (path,) = make_columns(analysis, progress=False).glob("d/*.parquet")
    return pq.read_table(path)


def test_columns_are_equal(files: tuple[Path, Path], analysis: Callable[..., Analysis]) -> None:
    plain, undefined = (parquet(analysis(path.parent.name, path)) for path in files)
    assert plain.num_rows > 3 * N_EVENTS
    assert plain.equals(undefined)


def test_hidden_truth_is_never_read(data_file: Path, tmp_path: Path, analysis: Callable[..., Analysis]) -> None:
    """Columns and histograms of data are the same where the truth is not there."""
    tables, histograms = [], []
    for name in ("with", "without"):
        folder = tmp_path / name
        shutil.copytree(data_file.parent, folder, ignore=shutil.ignore_patterns("generator"))
        assert (folder / "truth" / f"{data_file.stem}.parquet").exists()
        if name == "without":
            shutil.rmtree(folder / "truth")
        job = analysis(name, folder / data_file.name, data=True)
        tables.append(parquet(job))
        histograms.append(read_histograms(make_histograms(job, progress=False)).histograms)
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows > 100
    assert set(tables[0]["flavour"].to_pylist()) == {4}  # no truth
    assert all(histogram == histograms[1][name] for name, histogram in histograms[0].items())
