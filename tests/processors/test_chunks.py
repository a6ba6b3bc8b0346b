"""One chunk or many, one process or two Dask workers: the same columns, the same histograms."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from common.histograms import read_histograms
from configs.load import load_analysis
from models.tagger import worker_tagger
from processors.jobs import make_columns, make_histograms

WAYS = {
    "one chunk": ["run.executor=iterative"],
    "many chunks": ["run.executor=iterative", "run.chunksize=12"],
    "processes": ["run.executor=futures", "run.chunksize=60"],
    "dask": ["run.executor=dask", "run.chunksize=40"],
}


@pytest.fixture(scope="module")
def config(simulated, taggers, tmp_path_factory):
    import yaml

    folder = tmp_path_factory.mktemp("chunks")
    path = folder / "chunks.yaml"
    sections = {
        "name": "chunks",
        "output": "out",
        "features": "deepcsv",
        "datasets": {
            "ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0},
            "qcd": {"files": str(simulated / "qcd_mc_12_*.root"), "cross_section": 1e6},
            "data": {"files": str(simulated / "ttbar_data_13_*.root"), "data": True},
        },
        "columns": {"datasets": ["ttbar", "qcd"]},
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.1}, "noise": {"kind": "noise", "epsilon": 0.1}},
        "histograms": {
            "datasets": ["ttbar", "qcd", "data"],
            "taggers": {name: str(path) for name, path in taggers.items()},
            "attacks": ["noise", "fgsm"],
            "regions": {"all": {}, "emu": {"jet_pt": 30, "electrons": 1, "muons": 1, "lepton_pt": 10}},
            "precision": "float64",
            "correlations": True,
        },
    }
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture(scope="module")
def outputs(config):
    """Histograms and sorted columns of every way, and the float32 histograms of two of them."""
    found = {}
    for way, overrides in WAYS.items():
        analysis = load_analysis(config, [*overrides, f"output={way.replace(' ', '_')}"])
        folder = make_columns(analysis, progress=False)
        table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*/*.parquet")))
        keys = [(name, "ascending") for name in ("run", "event", "jet_index")]
        histograms = read_histograms(make_histograms(analysis, progress=False))
        single = None
        if way == "one chunk":
            single = load_analysis(config, [*overrides, "output=single", "histograms.precision=float32"])
            single = read_histograms(make_histograms(single, progress=False))
        if way == "many chunks":
            single = load_analysis(
                config, [*overrides, "run.chunksize=40", "output=single", "histograms.precision=float32"]
            )
            single = read_histograms(make_histograms(single, progress=False))
        found[way] = (table.sort_by(keys), histograms, single)
    return found


@pytest.mark.parametrize("way", [way for way in WAYS if way != "one chunk"])
def test_columns_do_not_depend_on_how_they_were_made(outputs, way):
    assert outputs[way][0].num_rows > 1000
    assert outputs[way][0].equals(outputs["one chunk"][0])


@pytest.mark.parametrize("way", [way for way in WAYS if way != "one chunk"])
def test_histograms_do_not_depend_on_how_they_were_made(outputs, way):
    ours, reference = outputs[way][1], outputs["one chunk"][1]
    assert ours.datasets["ttbar"].events == 300
    for name, expected in reference.histograms.items():
        found = ours.histograms[name]
        for dataset in reference.datasets:
            a, b = (h[{"dataset": dataset}].view(flow=True) for h in (found, expected))
            if dataset != "qcd":  # weight 1: the sums are counts
                np.testing.assert_array_equal(a["value"], b["value"], err_msg=name)
            np.testing.assert_allclose(a["value"], b["value"], rtol=1e-9, atol=0, err_msg=name)
            np.testing.assert_allclose(a["variance"], b["variance"], rtol=1e-9, atol=0, err_msg=name)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "one chunk"])
def test_correlations_do_not_depend_on_how_they_were_made(outputs, way):
    ours, reference = outputs[way][1].correlations, outputs["one chunk"][1].correlations
    raw, fgsm = ("all", "", "raw"), ("all", "adversarial", "fgsm")
    assert len(reference["ttbar"]) == 2 * (1 + 2 * 2)  # regions, raw, taggers, attacks
    assert set(reference["data"]) == {raw, ("emu", "", "raw")}
    assert reference["ttbar"][fgsm].shape == (26, 67, 67)
    for dataset, blocks in reference.items():
        assert blocks[raw].shape == (13, 67, 67)
        assert blocks[raw].any()
        for category, block in blocks.items():
            size = 1e-9 * np.abs(block).max()
            np.testing.assert_allclose(ours[dataset][category], block, rtol=1e-9, atol=size, err_msg=str(category))


def test_float32_moves_fewer_than_one_jet_in_ten_thousand(outputs):
    reference, ours = outputs["one chunk"][2], outputs["many chunks"][2]
    moved = total = 0.0
    for name, expected in reference.histograms.items():
        a, b = (h.histograms[name][{"dataset": "ttbar"}].values(flow=True) for h in (ours, reference))
        moved += np.abs(a - b).sum() / 2
        total += expected[{"dataset": "ttbar"}].values(flow=True).sum()
    assert total > 1e5
    assert moved < 1e-4 * total


def test_raw_and_attacked_hold_the_same_jets_and_data_is_never_attacked(outputs):
    result = outputs["dask"][1]
    for name, histogram in result.histograms.items():
        for dataset in ("ttbar", "qcd"):
            totals = histogram[{"dataset": dataset, "region": "all"}].view(flow=True)
            totals = totals[:, 0].sum(axis=-1)
            for attack in (1, 2):
                for field in ("value", "variance"):
                    np.testing.assert_allclose(
                        totals[:, :2, attack][field], totals[:, :2, 0][field], rtol=1e-12, err_msg=name
                    )
        data = histogram[{"dataset": "data"}].view(flow=True)["value"]
        assert data[:, :, :, :, 0].sum() > 0
        assert data[:, :, :, :, 1:].sum() == 0


def test_attacks_and_taggers_have_their_own_scores(outputs):
    histogram = outputs["one chunk"][1].histograms["BvsL"][{"dataset": "ttbar", "region": "all"}]
    raw, fgsm = (histogram[{"tagger": "nominal", "attack": attack}].values() for attack in ("raw", "fgsm"))
    other = histogram[{"tagger": "adversarial", "attack": "raw"}].values()
    assert not np.array_equal(raw, fgsm)
    assert not np.array_equal(raw, other)


def test_a_tagger_is_built_once_per_worker_process_not_per_chunk(config):
    with (
        LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        overrides = ["run.executor=dask", f"run.scheduler={cluster.scheduler_address}", "run.chunksize=25"]
        make_histograms(load_analysis(config, [*overrides, "output=once"]), progress=False)
        built = client.run(worker_tagger.cache_info)
    hits = sum(info.hits for info in built.values())
    assert all(info.misses <= 2 for info in built.values())  # two taggers
    assert hits > 20
