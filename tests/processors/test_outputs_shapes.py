"""Templates for combine, read back and compared with sums over the histogram file, bin by bin."""

import json
import re

import correctionlib.schemav2 as schema
import hist
import numpy as np
import pytest
import uproot
import yaml

from common.errors import AdvtagError
from common.histograms import AXES, Dataset, HistogramFile, read_histograms
from configs.load import load_analysis
from processors.jobs import make_histograms
from processors.shapes import Wanted, channel, write_shapes
from tests.processors.small_card import write_card

FLAVOURS = ("b", "bb", "c", "udsg")
LUMINOSITY = 3.0


@pytest.fixture(scope="module")
def folder(simulated, tmp_path_factory):
    """Histograms of two weighted processes and of data, with a correction and an attack."""
    base = tmp_path_factory.mktemp("shapes")
    card, taggers = write_card(base)
    edges = {"nodetype": "binning", "input": "x", "flow": "clamp", "edges": [0.0, 24.5, 90.0]}
    content = [
        {"key": key, "value": {**edges, "content": values}}
        for key, values in (("nominal", [1.1, 0.9]), ("up", [1.2, 0.9]), ("down", [0.8, 1.1]))
    ]
    correction = schema.Correction.model_validate(
        {
            "name": "w",
            "version": 1,
            "inputs": [{"name": "systematic", "type": "string"}, {"name": "x", "type": "real"}],
            "output": {"name": "weight", "type": "real"},
            "data": {"nodetype": "category", "input": "systematic", "content": content},
        }
    )
    file = schema.CorrectionSet(schema_version=2, corrections=[correction])
    (base / "w.json").write_text(json.dumps(file.model_dump(mode="json", exclude_unset=True)))
    pileup = {
        "kind": "event",
        "file": "w.json",
        "key": "w",
        "systematic": "systematic",
        "inputs": {"x": "PV_npvs"},
    }
    config = {
        "name": "shapes",
        "output": "out",
        **card,
        "luminosity": LUMINOSITY,
        "datasets": {
            "tt-bar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0},
            "qcd": {"files": str(simulated / "qcd_mc_12_*.root"), "cross_section": 1e6},
            "data": {"files": str(simulated / "ttbar_data_13_*.root"), "data": True},
        },
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}},
        "corrections": {"pileup": {**pileup, "sources": {"total": {"up": "up", "down": "down"}}}},
        "histograms": {
            "datasets": ["tt-bar", "qcd", "data"],
            "taggers": taggers,
            "attacks": ["fgsm"],
            "regions": {"all": {}, "hard": {"jet_pt": 50}},
        },
        "run": {"executor": "iterative"},
    }
    (base / "shapes.yaml").write_text(yaml.safe_dump(config))
    return make_histograms(load_analysis(base / "shapes.yaml"), progress=False)


@pytest.fixture(scope="module")
def file(folder):
    return read_histograms(folder)


def by_hand(file, variable, region, dataset, *, flavours=FLAVOURS, variation="nominal", attack="raw", merged=1):
    """Values and variances, one bin of one flavour after another."""
    histogram = file.histograms[variable]
    axis = histogram.axes[-1]
    page = file.datasets[dataset]
    scale = 1.0 if page.data else page.cross_section * LUMINOSITY / page.sum_weights
    where = {"dataset": dataset, "region": region, "variation": variation, "tagger": "adversarial", "attack": attack}
    values, variances = np.zeros(axis.size // merged), np.zeros(axis.size // merged)
    for flavour in flavours:
        one = histogram[{**where, "flavour": flavour}]
        flow = one.view(flow=True)
        for place in range(len(flow)):
            bin_ = place - 1
            if bin_ < 0 and variable in file.discriminators:
                continue  # undefined
            bin_ = min(max(bin_, 0), axis.size - 1) // merged
            values[bin_] += scale * flow[place]["value"]
            variances[bin_] += scale**2 * flow[place]["variance"]
    return values, variances


def assert_holds(histogram, values, variances):
    assert histogram.classname == "TH1D"
    np.testing.assert_allclose(histogram.values(), values, rtol=1e-12)
    np.testing.assert_allclose(histogram.variances(), variances, rtol=1e-12)
    assert histogram.values(flow=True)[[0, -1]].tolist() == [0, 0]


@pytest.mark.parametrize(("variable", "merged"), [("BvsL", 2), ("pt", 1), ("nTracks", 1)])
def test_templates_against_sums_by_hand(folder, file, tmp_path, variable, merged):
    wanted = Wanted("adversarial", ["fgsm"], bins=500 if variable == "BvsL" else None)
    path = write_shapes(folder, tmp_path / "new" / "shapes.root", ["all", "hard"], [variable], wanted)
    with uproot.open(path) as root:
        assert set(root.keys(recursive=False, cycle=False)) == {f"all_{variable}", f"hard_{variable}"}
        for region in ("all", "hard"):
            found = root[f"{region}_{variable}"]
            names = {f"{side}{tail}" for side in ("pileup", "fgsm") for tail in ("Up", "Down")}
            expected = {"data_obs", *(p if n == "" else f"{p}_{n}" for p in ("tt_bar", "qcd") for n in {"", *names})}
            assert set(found.keys(cycle=False)) == expected
            assert_holds(found["data_obs"], *by_hand(file, variable, region, "data", flavours=["data"], merged=merged))
            edges = file.histograms[variable].axes[-1].edges[::merged]
            np.testing.assert_allclose(found["data_obs"].axis().edges(), edges)
            for process, dataset in (("tt_bar", "tt-bar"), ("qcd", "qcd")):
                hand = {
                    name: by_hand(file, variable, region, dataset, merged=merged, **chosen)
                    for name, chosen in (
                        ("", {}),
                        ("_pileupUp", {"variation": "pileup_up"}),
                        ("_pileupDown", {"variation": "pileup_down"}),
                        ("_fgsmUp", {"attack": "fgsm"}),
                    )
                }
                for name, (values, variances) in hand.items():
                    assert_holds(found[process + name], values, variances)
                mirrored = 2 * hand[""][0] - hand["_fgsmUp"][0]
                kept = np.maximum(mirrored, 0) * mirrored.sum() / np.maximum(mirrored, 0).sum()
                assert_holds(found[f"{process}_fgsmDown"], kept, hand["_fgsmUp"][1])
                moved = not np.allclose(hand[""][0], hand["_fgsmUp"][0])
                assert moved == (variable != "nTracks")  # whole numbers are not attacked
                assert not np.allclose(hand[""][0], hand["_pileupUp"][0])


def test_flavours_are_processes_that_add_up(file):
    whole = channel(file, "all", "CvsL", Wanted("nominal", bins=10)).named()
    parts = channel(file, "all", "CvsL", Wanted("nominal", (), True, 10)).named()
    for name in ("", "_pileupUp"):
        total = sum(parts[f"tt_bar_{flavour}{name}"].values() for flavour in FLAVOURS)
        np.testing.assert_allclose(total, whole[f"tt_bar{name}"].values(), rtol=1e-12)


def test_luminosity_scales_simulation_alone(folder, tmp_path):
    made = [
        write_shapes(folder, tmp_path / f"{n}.root", ["all"], ["pt"], Wanted(), luminosity)
        for n, luminosity in enumerate((None, 10 * LUMINOSITY))
    ]
    with uproot.open(made[0]) as one, uproot.open(made[1]) as ten:
        for name, factor in (("qcd", 10), ("qcd_pileupUp", 10), ("data_obs", 1)):
            np.testing.assert_allclose(ten[f"all_pt/{name}"].values(), factor * one[f"all_pt/{name}"].values())
            np.testing.assert_allclose(ten[f"all_pt/{name}"].variances(), factor**2 * one[f"all_pt/{name}"].variances())


def parse(card):
    """The datacard as combine reads it: words of each line, comments dropped."""
    lines = [line.split() for line in card.read_text().splitlines() if not line.startswith("#")]
    found = {}
    for words in lines:
        found.setdefault(words[0], []).append(words[1:])
    return found


def test_every_template_that_the_datacard_asks_for_is_there(folder, tmp_path):
    path = write_shapes(folder, tmp_path / "s.root", ["all", "hard"], ["pt", "BvsC"], Wanted("nominal", ["fgsm"], True))
    card = parse(path.with_suffix(".txt"))
    assert card["imax"] == card["jmax"] == card["kmax"] == [["*"]]
    assert card["shapes"] == [["*", "*", "s.root", "$CHANNEL/$PROCESS", "$CHANNEL/$PROCESS_$SYSTEMATIC"]]
    channels, columns = card["bin"]
    processes, numbers = card["process"]
    assert channels == ["all_pt", "all_BvsC", "hard_pt", "hard_BvsC"]
    assert len(columns) == len(processes) == len(numbers) == len(card["rate"][0])
    assert len(set(zip(processes, numbers, strict=True))) == len(set(processes)) == len(set(numbers))
    with uproot.open(path) as root:
        for name in channels:
            bins = root[f"{name}/data_obs"].values()
            assert bins.sum() > 0
            assert len(bins) == (20 if name.endswith("BvsC") else 50)
        for name, process, *effects in zip(columns, processes, card["pileup"][0][1:], card["fgsm"][0][1:], strict=True):
            nominal = root[f"{name}/{process}"].values()
            assert nominal.sum() > 0
            assert (nominal >= 0).all()
            for systematic, effect in zip(("pileup", "fgsm"), effects, strict=True):
                sides = [root[f"{name}/{process}_{systematic}{side}"].values() for side in ("Up", "Down")]
                moved = any(not np.allclose(side, nominal, rtol=1e-9) for side in sides)
                assert effect == ("1" if moved else "-")
                assert all((side >= 0).all() and side.sum() > 0 for side in sides)


@pytest.mark.parametrize(
    ("region", "variable", "wanted", "words"),
    [
        ("al", "pt", Wanted(), "no region 'al' in the histograms; did you mean 'all'?"),
        ("all", "BvL", Wanted(), "no variable 'BvL' in the histograms; did you mean 'BvsL'?"),
        ("all", "BvsL", Wanted(), "which tagger? choose one by --tagger: adversarial, nominal"),
        ("all", "BvsL", Wanted("nominl"), "no tagger 'nominl' in the histograms; did you mean 'nominal'?"),
        ("all", "BvsL", Wanted("nominal", ["fgms"]), "no attack 'fgms' in the histograms; did you mean 'fgsm'?"),
        ("all", "BvsL", Wanted("nominal", bins=7), "variable 'BvsL': 1000 bins make no 7; choose from 1, 2, 4"),
    ],
)
def test_mistakes(file, region, variable, wanted, words):
    with pytest.raises(AdvtagError, match=re.escape(words)):
        channel(file, region, variable, wanted)


def test_nothing_is_left_where_something_is_wrong(folder, tmp_path):
    with pytest.raises(AdvtagError, match="did you mean 'hard'"):
        write_shapes(folder, tmp_path / "s.root", ["all", "hrd"], ["pt"], Wanted())
    with pytest.raises(AdvtagError, match=r"s\.txt: expected a name that ends with \.root"):
        write_shapes(folder, tmp_path / "s.txt", ["all"], ["pt"], Wanted())
    assert list(tmp_path.iterdir()) == []


def small(tmp_path, **datasets):
    """A histogram file of three bins: dataset -> (values, variances) or, of data, the same."""
    categories = [hist.axis.StrCategory(list(datasets), name="dataset", growth=True)]
    others = (["r"], [*FLAVOURS, "data"], ["nominal"], ["t"], ["raw"])
    categories += [hist.axis.StrCategory(names, name=axis) for axis, names in zip(AXES[1:], others, strict=True)]
    axis = hist.axis.Regular(3, 0, 3, name="x", label="x")
    histogram = hist.Hist(*categories, axis, storage=hist.storage.Weight())
    pages = {}
    for name, (values, variances) in datasets.items():
        data = name.startswith("data")
        place = {"dataset": name, "region": "r", "flavour": "data" if data else "b", "variation": "nominal"}
        index = [histogram.axes[axis].index(value) for axis, value in place.items()]
        histogram.view()[(*index, 0, 0)]["value"] = values
        histogram.view()[(*index, 0, 0)]["variance"] = variances
        pages[name] = Dataset(data, None if data else 1.0, 1.0, 1, 1)
    HistogramFile({"x": histogram}, ("x",), (), pages, 1.0, {}).write(tmp_path / "h.zip")
    return tmp_path / "h.zip"


def test_bins_below_zero_are_set_to_zero_and_the_rate_stays(tmp_path, capsys):
    path = small(tmp_path, tt=([4.0, -1.0, 2.0], [1.0, 2.0, 3.0]), data=([1.0, 0.0, 2.0],) * 2)
    with uproot.open(write_shapes(path, tmp_path / "s.root", ["r"], ["x"], Wanted())) as root:
        np.testing.assert_allclose(root["r_x/tt"].values(), [10 / 3, 0, 5 / 3])
        np.testing.assert_allclose(root["r_x/tt"].variances(), [1, 2, 3])
    assert "process 'tt', nominal: 1 bins below zero (20.0% of the rate) are set to 0" in capsys.readouterr().err


def test_a_process_without_a_rate_is_left_out_and_named(tmp_path, capsys):
    path = small(tmp_path, tt=([4.0, 1, 2], [1.0] * 3), w=([1.0, -3, 0], [1.0] * 3), data=([1.0, 0, 2],) * 2)
    with uproot.open(write_shapes(path, tmp_path / "s.root", ["r"], ["x"], Wanted())) as root:
        assert set(root["r_x"].keys(cycle=False)) == {"data_obs", "tt"}
    assert "process 'w' is left out, its rate is -2" in capsys.readouterr().err


def test_data_that_are_no_counts_are_refused(tmp_path):
    path = small(tmp_path, tt=([4.0, 1, 2], [1.0] * 3), data=([1.0, -1, 2], [3.0, 1, 2]))
    with pytest.raises(AdvtagError, match=r"region 'r', variable 'x', dataset 'data': the data are a difference"):
        write_shapes(path, tmp_path / "s.root", ["r"], ["x"], Wanted())


def test_without_data_the_simulation_is_observed(tmp_path, capsys):
    path = small(tmp_path, tt=([4.0, 1, 2], [1.0] * 3), w=([1.0, 3, 0], [2.0] * 3))
    with uproot.open(write_shapes(path, tmp_path / "s.root", ["r"], ["x"], Wanted())) as root:
        np.testing.assert_allclose(root["r_x/data_obs"].values(), [5, 4, 2])
    assert "data_obs is the sum of the simulation" in capsys.readouterr().err


def test_names_that_would_collide_are_refused(tmp_path):
    path = small(tmp_path, **{"t-t": ([4.0, 1, 2], [1.0] * 3), "t.t": ([4.0, 1, 2], [1.0] * 3)})
    with pytest.raises(AdvtagError, match=r"dataset 't\.t': the process name 't_t' is taken"):
        write_shapes(path, tmp_path / "s.root", ["r"], ["x"], Wanted())
