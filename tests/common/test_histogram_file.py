"""The histogram file: what is written comes back, what is not one is refused."""

import gc
import json
import warnings
import zipfile
from dataclasses import replace

import hist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AdvtagError
from common.histograms import AXES, PAGE, Dataset, HistogramFile, datasets_of, read_histograms


def toy(name: str, axis, seed: int) -> hist.Hist:
    categories = [
        hist.axis.StrCategory(["x", "y"] if k < 2 else ["x"], name=axis, growth=k == 0) for k, axis in enumerate(AXES)
    ]
    histogram = hist.Hist(*categories, axis, storage=hist.storage.Weight())
    rng = np.random.default_rng(seed)
    for dataset in "xy":
        for region in "xy":
            rest = dict.fromkeys(AXES[2:], "x")
            values, weights = rng.normal(0.5, 1, 200), rng.normal(1, 2, 200)
            values = np.round(2 * values).astype(int) if name == "n" else values
            histogram.fill(dataset=dataset, region=region, **rest, **{name: values}, weight=weights)
    return histogram


@pytest.fixture(scope="module")
def file() -> HistogramFile:
    return HistogramFile(
        histograms={
            "pt": toy("pt", hist.axis.Regular(10, 0, 1, name="pt", label="jet pT [GeV]"), 1),
            "n": toy("n", hist.axis.Integer(0, 3, name="n", label="number"), 2),
            "BvsL": toy("BvsL", hist.axis.Variable([0, 0.1, 0.5, 1], name="BvsL"), 3),
        },
        inputs=("pt", "n"),
        discriminators=("BvsL",),
        datasets={
            "tt": Dataset(data=False, cross_section=800.0, sum_weights=-3.5e9, events=10, jets=40),
            "run": Dataset(data=True, cross_section=None, sum_weights=7.0, events=7, jets=3),
        },
        luminosity=41.5,
        provenance={"config": {"a": [1, 2.5, None]}, "versions": {"numpy": "2"}},
    )


@pytest.fixture(scope="module")
def path(file, tmp_path_factory):
    path = tmp_path_factory.mktemp("histograms") / "new" / "histograms.zip"
    file.write(path)
    return path


def test_round_trip_with_flow(file, path) -> None:
    back = read_histograms(path)
    for field in ("inputs", "discriminators", "datasets", "luminosity", "provenance"):
        assert getattr(back, field) == getattr(file, field)
    assert list(back.histograms) == list(file.histograms)
    for name, histogram in file.histograms.items():
        other = back.histograms[name]
        assert isinstance(other, hist.Hist)
        assert other.axes == histogram.axes
        assert [axis.name for axis in other.axes] == [*AXES, name]
        assert other.axes[-1].label == histogram.axes[-1].label
        assert other.storage_type is hist.storage.Weight
        for read in (lambda h: h.values(flow=True), lambda h: h.variances(flow=True)):
            np.testing.assert_array_equal(read(other), read(histogram))
        flow = histogram.project(name).values(flow=True)
        assert flow[0] != 0
        assert flow[-1] != 0


def test_only_the_file_is_left(path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_no_pickle(path) -> None:
    """The archive holds JSON and numbers in the UHI serialisation only."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            assert name.endswith((".json", ".npy"))
            if name.endswith(".json"):
                json.loads(archive.read(name))
            else:
                with archive.open(name) as numbers:
                    assert np.load(numbers, allow_pickle=False).dtype.kind in "fi"


def test_scale() -> None:
    mc = Dataset(data=False, cross_section=800.0, sum_weights=4e6, events=1000, jets=5)
    assert mc.scale(59_700) == pytest.approx(800 * 59_700 / 4e6)
    assert mc.scale(2.0) == 2 * mc.scale(1.0)
    assert Dataset(data=True, cross_section=None, sum_weights=123.0, events=123, jets=5).scale(59_700) == 1
    assert Dataset(data=True, cross_section=5.0, sum_weights=123.0, events=123, jets=5).scale(59_700) == 1


def test_scale_of_a_dataset_without_events() -> None:
    """A file without events is accepted by the processors: its empty histograms stay empty."""
    assert np.isfinite(Dataset(data=False, cross_section=5.0, sum_weights=0.0, events=0, jets=0).scale(1000.0))


def zip_of(path, pages: dict[str, str]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in pages.items():
            archive.writestr(name, text)
    return path


def assert_refused(path) -> str:
    with pytest.raises(AdvtagError) as error:
        read_histograms(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_missing_file_says_how_to_make_it(tmp_path) -> None:
    assert "advtag histograms" in assert_refused(tmp_path / "histograms.zip")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4", b"\0" * 1000])
def test_not_a_zip(tmp_path, content) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert "not a histogram file" in assert_refused(tmp_path / "x.zip")


def test_an_empty_folder(tmp_path) -> None:
    assert "no histogram file in this folder" in assert_refused(tmp_path)


def alone(histogram, axis, category):
    """The histogram with one category of an axis."""
    axes = [hist.axis.StrCategory([category], name=axis, growth=True) if a.name == axis else a for a in histogram.axes]
    found = hist.Hist(*axes, storage=hist.storage.Weight())
    place = [histogram.axes[a.name].index(category) if a.name == axis else slice(None) for a in axes]
    found.view(flow=True)[tuple(0 if a.name == axis else slice(None) for a in axes)] = histogram.view(flow=True)[
        tuple(place)
    ]
    return found


def only(file, name):
    """The file with one of its datasets, as a job writes it."""
    place = {"tt": "x", "run": "y"}[name]
    histograms = {key: alone(histogram, "dataset", place) for key, histogram in file.histograms.items()}
    return replace(file, histograms=histograms, datasets={name: file.datasets[name]})


def test_a_folder_is_its_datasets_side_by_side(file, tmp_path) -> None:
    for name in ("tt", "run"):
        only(file, name).write(tmp_path / f"{name}.zip")
    back = read_histograms(tmp_path)
    assert back.datasets == file.datasets
    assert datasets_of(tmp_path / "run.zip") == ("run",)
    for name, histogram in file.histograms.items():
        for place in "xy":
            ours = back.histograms[name][{"dataset": place}].view(flow=True)
            assert np.array_equal(ours, histogram[{"dataset": place}].view(flow=True))


def test_a_folder_of_different_jobs(file, tmp_path) -> None:
    only(file, "tt").write(tmp_path / "a.zip")
    fewer = {name: histogram for name, histogram in only(file, "run").histograms.items() if name != "n"}
    replace(only(file, "run"), histograms=fewer, inputs=("pt",)).write(tmp_path / "b.zip")
    with pytest.raises(AdvtagError, match=r"b\.zip: other variables than .*a\.zip"):
        read_histograms(tmp_path)
    only_one_region = {name: alone(h, "region", "x") for name, h in only(file, "run").histograms.items()}
    replace(only(file, "run"), histograms=only_one_region).write(tmp_path / "b.zip")
    with pytest.raises(AdvtagError, match="different axes"):
        read_histograms(tmp_path)


GOOD = {"format": 1, "inputs": [], "discriminators": [], "datasets": {}, "luminosity": 1, "provenance": {}}


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"other.json": "{}"},
        {PAGE: "nonsense"},
        {PAGE: "[]"},
        {PAGE: "3"},
        {PAGE: '{"format": 1}'},
        {PAGE: json.dumps({**GOOD, "inputs": ["pt"]})},
        {PAGE: json.dumps({key: value for key, value in GOOD.items() if key != "provenance"})},
        {PAGE: json.dumps({**GOOD, "datasets": {"tt": {"xs": 1}}})},
    ],
    ids=["empty", "other", "not JSON", "list", "number", "format", "no histogram", "no provenance", "dataset"],
)
def test_a_zip_of_something_else(tmp_path, pages) -> None:
    assert "not a histogram file" in assert_refused(zip_of(tmp_path / "x.zip", pages))


def test_other_format(tmp_path) -> None:
    assert "format 2" in assert_refused(zip_of(tmp_path / "x.zip", {PAGE: '{"format": 2}'}))


def test_a_damaged_file_is_refused_or_harmless(path, tmp_path) -> None:
    """One wrong byte anywhere: never another exception than AdvtagError."""
    rng, content = np.random.default_rng(0), path.read_bytes()
    refusals = []
    for place in rng.integers(0, len(content), 200):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "x.zip").write_bytes(damaged)
        try:
            read_histograms(tmp_path / "x.zip")
        except AdvtagError as error:
            refusals.append(str(error))
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # uhi leaves a member of the archive open when it cannot be read
    assert refusals
    assert all(text.startswith(str(tmp_path)) for text in refusals)


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None)
def test_a_truncated_file_is_refused(path, tmp_path_factory, cut) -> None:
    content = path.read_bytes()
    short = tmp_path_factory.getbasetemp() / "short.zip"
    short.write_bytes(content[: int(cut * len(content))])
    assert_refused(short)


def test_write_below_a_file(tmp_path, file) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdvtagError, match="cannot write"):
        file.write(tmp_path / "file" / "histograms.zip")


def test_correlations_come_back(file, path, tmp_path) -> None:
    """Arrays of any shape by dataset and category; a file without any says None, also in a folder."""
    rng = np.random.default_rng(4)
    blocks = {("x", "", "raw"): rng.normal(size=(13, 2, 2)), ("a|b/c", "t", "fgsm"): rng.normal(size=(26, 2, 2))}
    replace(file, correlations={"tt": blocks, "run": {}}).write(tmp_path / "with.zip")
    back = read_histograms(tmp_path / "with.zip").correlations
    assert back is not None
    assert list(back) == ["tt", "run"]
    assert list(back["tt"]) == list(blocks)
    for category, block in blocks.items():
        assert np.array_equal(back["tt"][category], block)
    assert read_histograms(path).correlations is None
    one = replace(file, datasets={"tt": file.datasets["tt"]}, correlations={"tt": blocks})
    other = replace(file, datasets={"run": file.datasets["run"]}, correlations={"run": {}})
    (tmp_path / "both").mkdir()
    one.write(tmp_path / "both" / "tt.zip")
    other.write(tmp_path / "both" / "run.zip")
    both = read_histograms(tmp_path / "both").correlations
    assert both is not None
    assert set(both) == {"tt", "run"}
    replace(other, correlations=None).write(tmp_path / "both" / "run.zip")
    with pytest.raises(AdvtagError, match=r"run\.zip: no correlations, and .*tt\.zip has them"):
        read_histograms(tmp_path / "both")


def test_damaged_correlations_are_refused(file, tmp_path) -> None:
    """No pickle is read."""
    replace(file, correlations={"tt": {("x", "", "raw"): np.zeros((13, 2, 2))}}).write(tmp_path / "h.zip")
    with zipfile.ZipFile(tmp_path / "h.zip") as source, zipfile.ZipFile(tmp_path / "bad.zip", "w") as target:
        for name in source.namelist():
            if name != "correlations/0.npy":
                target.writestr(name, source.read(name))
        with target.open("correlations/0.npy", "w") as member:
            np.lib.format.write_array(member, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(AdvtagError, match=r"bad\.zip: not a histogram file of advtag"):
        read_histograms(tmp_path / "bad.zip")
