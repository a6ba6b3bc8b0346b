"""A small study from end to end: what it leaves, what it reuses, and that measurements do not know the truth."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
import yaml

from common.errors import AdvtagError
from configs.study import Study, load_study
from plots.catalogue import read_catalogue
from simulation.run import simulate
from study.agreement import agreement
from study.compare import compare
from study.counts import Bootstrap
from study.jets import read_jets
from study.measure import working_points
from study.output import write_outcome
from study.run import run_study
from study.samples import evaluation_analysis, make_samples, missing, training_analysis
from study.truth import true_flavours

EVENTS = {"ttbar-dilepton": 150, "wc": 150, "qcd": 100}


def settings(files, /, **changes):
    return {
        "output": "out",
        "mc": {"seed": 3, "events": EVENTS},
        "data": {"seed": 4, "events": EVENTS},
        "variants": ["mc", "ip-resolution"],
        "taggers": {name: str(path) for name, path in files.items()},
        "attacks": {"noise": {"kind": "noise", "epsilon": 0.05}},
        "evaluate_with": ["noise"],
        "working_points": {"loose": 0.5},
        "bootstrap": 10,
        "workers": 1,
        **changes,
    }


def write(folder, **keys):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, taggers):
    folder = tmp_path_factory.mktemp("study")
    study = load_study(write(folder, **settings(taggers)))
    run_study(study, progress=False)
    return study


def table(study):
    with (study.output / "study.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_scale_factor_is_in_the_table(finished):
    rows = table(finished)
    methods = {(row["method"], row["flavour"]) for row in rows}
    assert methods == {
        ("tag-and-probe", "b"),
        ("W+c, OS-SS", "c"),
        ("W+c, vertex mass", "c"),
        ("negative tags", "light"),
        ("multijet, vertex mass", "b"),
        ("truth", "b"),
        ("truth", "c"),
        ("truth", "light"),
    }
    assert len(rows) == 8 * 2 * 2  # methods, variants, taggers; one working point
    page = json.loads((finished.output / "study.json").read_text())
    assert page["config"]["bootstrap"] == 10
    assert {row["flavour"] for row in page["comparisons"]} == {"b", "c", "light", *EVENTS}
    assert len(page["uncertainty_from_attacks"]) == 3 * 2
    assert {row["variants"] for row in page["uncertainty_from_attacks"]} == {1}
    with (finished.output / "residual.csv").open() as stream:
        assert all(row["correlations"] != "not made" for row in csv.DictReader(stream))
    assert len(list((finished.output / "figures").glob("*.png"))) == 5


def test_true_scale_factors_are_counted_by_hand(finished):
    """From the scores and the folder of truth."""
    wanted = ("mc", "nominal", "truth")
    rows = [row for row in table(finished) if (row["variant"], row["tagger"], row["method"]) == wanted]
    found = {row["flavour"]: row for row in rows}
    page = json.loads((finished.output / "study.json").read_text())
    jets = read_jets(finished.output / "evaluated" / "data-mc", "wc", "BvsL", "deepcsv")
    flavour = true_flavours(sorted(finished.simulation.glob("wc_mc-hidden_4_*.root")), jets)
    passed = jets.scores["nominal", "raw"][flavour == 1] > page["cuts"]["nominal loose"]
    assert float(found["c"]["efficiency_data"]) == pytest.approx(passed.mean(), rel=1e-4)
    assert found["c"]["minus_true"] == "0"


def test_data_have_no_flavour_and_truth_is_that_of_the_simulation(finished, tmp_path):
    simulate("wc", EVENTS["wc"], tmp_path, seed=4, progress=False)
    jets = read_jets(finished.output / "evaluated" / "data-mc", "wc", "BvsL", "deepcsv")
    assert jets.flavour is None
    with uproot.open({tmp_path / "wc_mc_4_000.root": "Events"}) as tree:
        events = tree.arrays(["event", "Jet_hadronFlavour"])
    known = {
        (int(event), i): {5: 0, 4: 1}.get(int(hadron), 2)
        for event, hadrons in zip(events["event"], events["Jet_hadronFlavour"], strict=True)
        for i, hadron in enumerate(hadrons)
    }
    found = true_flavours(sorted(finished.simulation.glob("wc_mc-hidden_4_*.root")), jets)
    expected = [known[pair] for pair in zip(jets.event.tolist(), jets.index.tolist(), strict=True)]
    assert found.tolist() == expected
    assert len(set(expected)) > 1
    with uproot.open({finished.simulation / "wc_mc-hidden_4_000.root": "Events"}) as tree:
        names = tree.keys()
    assert not [name for name in names if "Flavour" in name or "Hadron" in name or "gen" in name.lower()]


def test_measurements_do_not_know_the_truth(finished, tmp_path):
    """With the flavours of the data scrambled, measured scale factors stay to the last bit, and true ones do not."""
    copy = tmp_path / "simulation"
    shutil.copytree(finished.simulation, copy, ignore=shutil.ignore_patterns("generator"))
    rng = np.random.default_rng(1)
    for path in (copy / "truth").glob("*.parquet"):
        whole = pq.read_table(path)
        place = whole.schema.get_field_index("hadronFlavour")
        pq.write_table(whole.set_column(place, "hadronFlavour", [rng.permutation(whole["hadronFlavour"])]), path)
    files = make_samples(finished, progress=False)
    scrambled = {
        name: {process: [copy / path.name for path in paths] for process, paths in sample.items()}
        for name, sample in files.items()
    }
    before, after = (compare(finished, each, finished.taggers) for each in (files, scrambled))
    assert before.results.keys() == after.results.keys()
    changed = {
        key for key in before.results if not np.array_equal(before.results[key], after.results[key], equal_nan=True)
    }
    assert {key[2] for key in changed} == {"truth"}


def test_truth_that_is_missing_is_told(finished, tmp_path):
    jets = read_jets(finished.output / "evaluated" / "data-mc", "wc", "BvsL", "deepcsv")
    with pytest.raises(AdvtagError, match=r"truth/wc_mc-hidden_4_000.parquet: no truth of the data here"):
        true_flavours([tmp_path / "wc_mc-hidden_4_000.root"], jets)


def test_a_study_goes_on_with_what_is_there(finished):
    """A second run makes only what is missing, and gives the same numbers."""
    csv_before = (finished.output / "study.csv").read_bytes()
    lost = sorted(finished.simulation.glob("qcd_ip-resolution-hidden_4_*"))
    for path in [*lost, *(finished.simulation / "truth").glob("qcd_ip-resolution-hidden_4_*")]:
        path.unlink()
    shutil.rmtree(finished.output / "evaluated" / "data-ip-resolution")
    kept = {path: path.stat().st_mtime_ns for path in finished.output.rglob("*.parquet")}
    run_study(finished, progress=False)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path.exists())
    assert (finished.output / "evaluated" / "data-ip-resolution" / "done.json").is_file()
    assert (finished.output / "study.csv").read_bytes() == csv_before


def test_samples_of_another_size_are_refused(finished):
    other = finished.model_copy(update={"mc": finished.mc.model_copy(update={"events": {"wc": 77}})})
    with pytest.raises(AdvtagError, match=r"1 files of wc mc 3 with 150 events, the study wants 77; give the key"):
        make_samples(other, progress=False)


def test_another_tagger_is_evaluated_anew(finished, taggers):
    """The same name and another file is another evaluation."""
    files = {"wc": sorted(finished.simulation.glob("wc_mc_3_*.root"))}
    first = evaluation_analysis(finished, "mc", files, taggers)
    assert first.datasets["wc"].data is False
    assert evaluation_analysis(finished, "data-mc", files, taggers).datasets["wc"].data is True
    assert first.histograms.attacks == ("noise",)
    assert evaluation_analysis(finished, "data-mc", files, taggers).histograms.attacks == ()


def test_columns_of_other_events_are_made_anew(finished, tmp_path):
    """Those to train on: as long as the events are the same they stay, whatever is trained."""

    def wanted(sample, **recipe):
        settings = json.loads(finished.model_dump_json())
        changes = {"train": {"seed": 5, "events": {"wc": 150}}, "training": {"new": recipe}, "output": tmp_path}
        study = Study.model_validate({**settings, **changes})
        analysis = training_analysis(study, {"wc": [tmp_path / f"{sample}.root"]})
        with missing(analysis, {"run", "attacks", "training"}) as found:
            return found

    for path in finished.simulation.glob("wc_mc_3_000.*"):
        for sample in ("first", "second"):
            shutil.copyfile(path, tmp_path / f"{sample}{path.suffix}")
    assert wanted("first", epochs=1)
    assert not wanted("first", epochs=2)
    assert wanted("second", epochs=2)
    assert not wanted("second", epochs=2)


def test_what_failed_is_made_anew(finished, tmp_path):
    files = {"wc": sorted(finished.simulation.glob("wc_mc_3_*.root"))}
    analysis = evaluation_analysis(finished, "mc", files, finished.taggers).model_copy(update={"output": tmp_path})
    with pytest.raises(KeyboardInterrupt), missing(analysis, {"run"}):
        raise KeyboardInterrupt
    with missing(analysis, {"run"}) as found:
        assert found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"varants": ["mc"]}, r"varants: unknown key; did you mean 'variants'\?"),
        ({"variants": ["ip-resolutoin"]}, "variants: unknown simulation variant 'ip-resolutoin'"),
        ({"mc": {"seed": 3, "events": {"z-jets": 5}}}, "mc.events: nothing is measured in 'z-jets'"),
        ({"data": {"seed": 3, "events": EVENTS}}, "must have different seeds"),
        ({"data": {"seed": 4, "events": {"wc": 5}}}, "must name the same processes"),
        ({"reference": "mine"}, "reference: no tagger 'mine'; known: nominal, adversarial"),
        ({"evaluate_with": ["pgd"]}, "evaluate_with: no attack 'pgd'; known: noise"),
        ({"taggers": {}}, "no tagger"),
        ({"training": {"robust": {"epochs": 1}}}, "`training` needs the key `train`"),
        ({"pt_bins": [50, 40]}, "pt_bins: must rise"),
        ({"working_points": {"loose": 1.5}}, "working_points.loose"),
    ],
)
def test_wrong_configurations(tmp_path, taggers, changes, words):
    with pytest.raises(AdvtagError, match=words) as error:
        load_study(write(tmp_path, **settings(taggers, **changes)))
    assert "\n" not in str(error.value)


def test_a_tagger_that_is_not_there(finished, tmp_path):
    lost = finished.model_copy(update={"taggers": {"nominal": tmp_path / "none.safetensors"}})
    with pytest.raises(AdvtagError, match=r"none.safetensors: no such tagger file"):
        run_study(lost, progress=False)


def test_other_cards_are_refused_before_anything_is_simulated(taggers, tmp_path):
    study = load_study(write(tmp_path, **settings(taggers, features="nanoaod")))
    with pytest.raises(
        AdvtagError, match="features: card 'nanoaod' has no input 'vertexMass', which the measurements"
    ) as error:
        run_study(study, progress=False)
    assert "\n" not in str(error.value)
    assert not study.output.exists()


def test_samples_that_are_too_small_are_told(finished):
    """No light jets in the simulation, and none at the pt of the data."""
    with pytest.raises(AdvtagError, match="no light jets of ttbar-dilepton in the sample 'mc', which define"):
        working_points(finished, {}, np.zeros(0))
    jets = read_jets(finished.output / "evaluated" / "data-mc", "wc", "BvsL", "deepcsv")
    nowhere = replace(jets, weights=dict.fromkeys(jets.weights, np.zeros(len(jets))))
    scores = jets.scores["nominal", "raw"]
    with pytest.raises(AdvtagError, match="wc: no jets of the sample 'mc' in the pt bins of those of 'data-data'"):
        agreement(("data", "wc", "nominal"), (jets, nowhere), (), (scores, scores), Bootstrap(10, 1))


def test_samples_without_jets_are_told(finished, tmp_path):
    folder = finished.output / "evaluated" / "data-mc"
    for part in ("scores", "columns"):
        (tmp_path / part).mkdir()
        pq.write_table(pq.read_table(folder / part / "wc").slice(0, 0), tmp_path / part / "wc")
    with pytest.raises(AdvtagError, match="no jets of wc in this sample; simulate more events of it"):
        read_jets(tmp_path, "wc", "BvsL", "deepcsv")
    (path,) = (finished.simulation / "truth").glob("wc_mc-hidden_4_*.parquet")
    (tmp_path / "truth").mkdir()
    pq.write_table(pq.read_table(path).slice(0, 0), tmp_path / "truth" / path.name)
    with pytest.raises(AdvtagError, match=r"wc_mc-hidden_4_000.parquet: no jets in this sample"):
        true_flavours([tmp_path / "wc_mc-hidden_4_000.root"], read_jets(folder, "wc", "BvsL", "deepcsv"))


def test_without_attacks_nothing_is_left_of_them(finished, tmp_path):
    """What an earlier run with attacks wrote."""
    study = finished.model_copy(update={"evaluate_with": (), "output": tmp_path, "workers": 1})
    (tmp_path / "figures").mkdir()
    for name in ("residual.csv", "figures/residual.png", "figures/residual.pdf"):
        (tmp_path / name).write_text("old")
    files = make_samples(finished, progress=False)
    write_outcome(study, compare(finished, files, finished.taggers))
    assert not list(tmp_path.rglob("residual.*"))
    listed = {each.file for each in read_catalogue(tmp_path / "figures")}
    assert listed == {path.name for path in (tmp_path / "figures").glob("*.png")}


def test_taggers_are_trained(finished, tmp_path):
    """One epoch of a nominal and of an adversarial tagger, on their own events."""
    raw = json.loads(finished.model_dump_json())
    keys = {name: raw[name] for name in ("working_points", "workers", "bootstrap")}
    trained = {
        "output": "out",
        "simulation": str(finished.simulation),
        "mc": {"seed": 3, "events": {"wc": 150}},
        "data": {"seed": 4, "events": {"wc": 150}},
        "train": {"seed": 5, "events": {"ttbar": 500}},
        "variants": ["mc"],
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.01}},
        "training": {"nominal": {"epochs": 1}, "robust": {"epochs": 1, "attack": "fgsm"}},
    }
    study = load_study(write(tmp_path, **trained, **keys))
    run_study(study, progress=False)
    assert {row["tagger"] for row in table(study)} == {"nominal", "robust"}
    assert (study.output / "training" / "taggers" / "robust.safetensors").is_file()
