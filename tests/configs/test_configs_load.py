"""Configurations: what is accepted, what is refused, and in which words."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AdvtagError
from configs.load import load_analysis
from configs.schema import Analysis

CONFIGS = Path(__file__).parents[2] / "configs"
WRITTEN = {
    "name": "toy",
    "output": "out",
    "features": "deepcsv",
    "datasets": {
        "ttbar": {"files": ["tt/*.root", "/abs/x.root", "root://host//store/y.root"], "cross_section": 800.0},
        "data": {"files": "data.root", "data": True},
    },
    "columns": {"datasets": ["ttbar"], "split": {"train": 0.5, "validation": 0.2}},
    "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.05}},
    "training": {"nominal": {"evaluate_with": "fgsm"}, "adversarial": {"attack": "fgsm", "evaluate_with": "fgsm"}},
    "histograms": {
        "datasets": ["ttbar", "data"],
        "taggers": {"nominal": "taggers/nominal.safetensors", "theirs": "/abs/their.safetensors"},
        "attacks": ["fgsm"],
        "regions": {"pt30": {"jet_pt": 30}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("configs")


def load(folder: Path, written, overrides=()) -> Analysis:
    path = folder / "toy.yaml"
    path.write_text(written if isinstance(written, str) else yaml.safe_dump(written), encoding="utf-8")
    return load_analysis(path, overrides)


def refused(folder: Path, written, overrides=()) -> str:
    with pytest.raises(AdvtagError) as error:
        load(folder, written, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


def changed(place: str, value) -> dict:
    """WRITTEN with one key set, or deleted (value None)."""
    written = deepcopy(WRITTEN)
    *parents, last = place.split(".")
    node = written
    for parent in parents:
        node = node[parent]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return written


def test_demo_is_valid() -> None:
    analysis = load_analysis(CONFIGS / "demo.yaml")
    assert analysis.name == "demo"
    assert analysis.datasets["data"].data
    assert analysis.columns.datasets == ("ttbar_train",)
    assert set(analysis.training) == {"nominal", "adversarial"}
    assert analysis.output.resolve() == CONFIGS.resolve()
    assert not set(analysis.columns.datasets) & set(analysis.histograms.datasets)


def test_relative_paths_are_anchored_at_the_configuration(folder, monkeypatch) -> None:
    monkeypatch.chdir("/")
    analysis = load(folder, WRITTEN)
    assert analysis.output == folder / "out"
    assert analysis.datasets["ttbar"].files == (
        str(folder / "tt/*.root"),
        "/abs/x.root",
        "root://host//store/y.root",
    )
    assert analysis.datasets["data"].files == (str(folder / "data.root"),)
    assert analysis.histograms.taggers["nominal"] == folder / "out/taggers/nominal.safetensors"
    assert analysis.histograms.taggers["theirs"] == Path("/abs/their.safetensors")
    assert analysis.features == "deepcsv"
    assert load(folder, changed("features", "cards/mine.yaml")).features == str(folder / "cards/mine.yaml")
    assert load(folder, changed("output", "/abs/out")).output == Path("/abs/out")


def test_a_relative_configuration_path_gives_absolute_paths(folder, monkeypatch) -> None:
    load(folder, WRITTEN)
    monkeypatch.chdir(folder)
    analysis = load_analysis(Path("toy.yaml"))
    assert analysis.output == folder / "out"
    monkeypatch.chdir(folder.parent)
    assert load_analysis(Path(folder.name) / "toy.yaml").output == folder / "out"


def test_defaults(folder) -> None:
    analysis = load(folder, WRITTEN)
    assert analysis.selection.pt == (20, 1000)
    assert analysis.selection.abs_eta == 2.5
    assert analysis.training["nominal"].attack is None
    assert analysis.training["nominal"].learning_rate == 1e-3
    assert analysis.attacks["fgsm"].capped
    assert analysis.luminosity == 1
    assert analysis.run.chunksize == 50_000
    assert load(folder, changed("columns", {"datasets": ["ttbar"]})).columns.split.train == 0.72


@pytest.mark.parametrize(
    ("place", "suggested"),
    [
        ("luminosty", "luminosity"),
        ("datasets.ttbar.cros_section", "cross_section"),
        ("datasets.data.flies", "files"),
        ("histograms.regions.pt30.jet_ptt", "jet_pt"),
        ("histograms.tagger", "taggers"),
        ("columns.splt", "split"),
        ("columns.split.vaildation", "validation"),
        ("attacks.fgsm.epsilom", "epsilon"),
        ("training.nominal.epoch", "epochs"),
        ("selection.abseta", "abs_eta"),
        ("run.worker", "workers"),
    ],
)
def test_unknown_key_has_a_dotted_path_and_a_suggestion(folder, place, suggested) -> None:
    written = deepcopy(WRITTEN)
    written |= {"selection": {}, "run": {}}
    node = written
    *parents, last = place.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = 1
    text = refused(folder, written)
    assert f"toy.yaml: {place}: unknown key" in text
    assert f"did you mean {suggested!r}?" in text


def test_unknown_key_like_no_other_lists_the_known(folder) -> None:
    text = refused(folder, changed("histograms.regions.pt30.zzzzzz", 1))
    assert "histograms.regions.pt30.zzzzzz: unknown key; known: jet_pt, min_jets" in text


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("columns.datasets", ["ttbra"], "columns.datasets: no 'ttbra'; known: data, ttbar"),
        ("histograms.datasets", ["ttbar", "qcd"], "histograms.datasets: no 'qcd'"),
        ("histograms.attacks", ["pgd"], "histograms.attacks: no 'pgd'; known: fgsm"),
        ("training.nominal.evaluate_with", "pgd", "training.nominal.evaluate_with: no 'pgd'"),
        ("training.adversarial.attack", "pgd", "training.adversarial.attack: no 'pgd'"),
        ("attacks.raw", {"kind": "fgsm", "epsilon": 0.1}, "attacks: `raw`"),
        ("datasets.ttbar.cross_section", None, "datasets.ttbar: MC in histograms needs a cross_section (pb)"),
        ("datasets.ttbar.cross_section", -1, "datasets.ttbar.cross_section"),
        ("datasets.ttbar.files", [], "datasets.ttbar.files"),
        ("datasets.ttbar.files", None, "datasets.ttbar.files"),
        ("datasets", {}, "datasets"),
        ("name", "a/b", "name"),
        ("name", None, "name"),
        ("attacks.fgsm.kind", "pdg", "attacks.fgsm: Input tag 'pdg'"),
        ("attacks.fgsm.epsilon", -0.1, "attacks.fgsm.epsilon"),
        ("columns.split", {"train": 0.9, "validation": 0.1}, "columns.split: train + validation"),
        ("columns.split", {"train": 0.5, "validation": 0}, "columns.split.validation"),
        ("training.nominal.epochs", 0, "training.nominal.epochs"),
        ("training.nominal.network", "deepcvs", "training.nominal.network"),
        ("histograms.taggers", {}, "histograms.taggers"),
        ("histograms.precision", "float16", "histograms.precision"),
        ("luminosity", "much", "luminosity"),
        ("attacks.fgsm.seed", 2**63, "attacks.fgsm.seed"),
        ("training.nominal.seed", 2**63, "training.nominal.seed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_value_is_one_line_that_names_the_key(folder, place, value, named) -> None:
    text = refused(folder, changed(place, value))
    assert str(folder / "toy.yaml") in text
    assert named in text


def test_mc_outside_histograms_needs_no_cross_section(folder) -> None:
    written = changed("histograms.datasets", ["data"])
    del written["datasets"]["ttbar"]["cross_section"]
    assert load(folder, written).datasets["ttbar"].cross_section is None


def test_overrides(folder) -> None:
    analysis = load(
        folder,
        WRITTEN,
        [
            "luminosity=59.7e3",
            "training.nominal.epochs=2",
            "attacks.fgsm.capped=false",
            "run.executor=dask",
            "selection.pt=[30, 500]",
            "attacks.small={kind: noise, epsilon: 0.01}",
            "datasets.data.files=a=b.root",
            "training.adversarial.attack=null",
            "training.nominal.epochs=3",
        ],
    )
    assert analysis.luminosity == 59700
    assert analysis.training["nominal"].epochs == 3
    assert not analysis.attacks["fgsm"].capped
    assert analysis.run.executor == "dask"
    assert analysis.selection.pt == (30, 500)
    assert analysis.attacks["small"].kind == "noise"
    assert analysis.datasets["data"].files == (str(folder / "a=b.root"),)
    assert analysis.training["adversarial"].attack is None
    assert analysis.attacks["fgsm"].epsilon == 0.05


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.nominal.epoch=3", "training.nominal.epoch: unknown key; did you mean 'epochs'?"),
        ("luminosty=3", "did you mean 'luminosity'?"),
        ("luminosity", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("luminosity.value=3", "holds a value"),
        ("luminosity.value.more=3", "holds a value"),
        ("luminosity={a: [", "not YAML"),
        ("columns.datasets=[qcd]", "columns.datasets: no 'qcd'"),
    ],
)
def test_wrong_override_is_one_line(folder, override, named) -> None:
    assert named in refused(folder, {**WRITTEN, "luminosity": 2.0}, [override])


@pytest.mark.parametrize(
    "text", ["", "3", "just words", "- a\n- b\n", "a: [", "\t: x", "a: &x [*x, !!python/object:os.x 1]"]
)
def test_not_a_mapping(folder, text) -> None:
    assert "toy.yaml: " in refused(folder, text)


def test_not_text(folder) -> None:
    path = folder / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(AdvtagError, match=r"binary\.yaml: not YAML"):
        load_analysis(path)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_unreadable(folder, name) -> None:
    with pytest.raises(AdvtagError, match="cannot read the configuration"):
        load_analysis(folder / name)


def test_yaml_runs_no_code(folder) -> None:
    refused(folder, f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{folder}/x]]")
    assert not (folder / "x").exists()


def test_analysis_is_frozen_and_json_round_trips(folder) -> None:
    analysis = load(folder, WRITTEN)
    with pytest.raises(ValueError, match="frozen"):
        analysis.luminosity = 2
    assert Analysis.model_validate_json(analysis.model_dump_json()) == analysis


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc.", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=2),
    max_leaves=4,
)
places = st.sampled_from(
    [
        *WRITTEN,
        "run",
        "selection",
        "columns.split",
        "columns.datasets",
        "datasets.ttbar",
        "datasets.ttbar.files",
        "attacks.fgsm",
        "training.nominal",
        "histograms.regions",
        "histograms.regions.pt30",
        "histograms.taggers",
    ]
)


@given(place=places, value=junk)
@settings(max_examples=150, deadline=None)
def test_junk_anywhere_is_valid_or_one_line(folder, place, value) -> None:
    """Whatever stands where a section belongs: an analysis or an AdvtagError, never another exception."""
    written = deepcopy(WRITTEN)
    *parents, last = place.split(".")
    node = written
    for parent in parents:
        node = node[parent]
    node[last] = value
    message = ""
    try:
        load(folder, written)
    except AdvtagError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("luminosity=.inf", "luminosity"),
        ("attacks.fgsm.epsilon=.inf", "attacks.fgsm.epsilon"),
        ("datasets.ttbar.cross_section=.inf", "cross_section"),
        ("histograms.regions.pt30.opposite_sign=true", "even number of electrons and muons, not 0"),
        ("histograms.regions.pt30={muons: 1, opposite_sign: true}", "even number"),
        ("histograms.regions.pt30={min_jets: -3}", "min_jets"),
        ("selection.pt=[30, 20]", "30.0 is not below 20.0"),
        ("histograms.attacks=[fgsm, fgsm]", "'fgsm' is listed twice"),
        ("name=2020-13-45", "the value is not YAML"),
        ("training.../x={evaluate_with: fgsm}", "should match pattern"),
    ],
)
def test_numbers_and_names_that_cannot_be_meant(override: str, words: str) -> None:
    with pytest.raises(AdvtagError) as error:
        load_analysis(CONFIGS / "demo.yaml", [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)
