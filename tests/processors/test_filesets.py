"""Finding files, looking into all of them, telling all problems at once, and remembering."""

import json
import os
import shutil
import time
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from typer.testing import CliRunner

import advtag
from common.errors import AdvtagError
from configs.fileset import Grid
from configs.load import load_analysis
from configs.schema import Dataset, Run
from models.features import load_features
from processors import preflight
from processors.fileset import open_fileset
from processors.records import read_record
from tests.conftest import NANO

CARD = load_features("nanoaod")


def open_one(*entries, data=False, tree="Events", **options):
    return open_fileset(
        {"d": Dataset(files=[str(entry) for entry in entries], data=data, tree=tree)}, CARD, (), **options
    )


def names(files):
    return [file.path.rpartition("/")[2] for file in files]


@pytest.fixture
def folder(tmp_path):
    """Like the output of CRAB: files in numbered folders, those of failed jobs and logs beside them."""
    for place, source in (
        ("crab/0000/a.root", "nano_dy"),
        ("crab/0000/failed/b.root", "nano_tree"),
        ("crab/0001/c.root", "nano_tt_v12"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(NANO / f"{source}.root", tmp_path / place)
    (tmp_path / "crab" / "0000" / "log.txt").write_text("a log, not a list")
    return tmp_path


def write_events(path, **branches):
    """A file that looks like NanoAOD; `runs` holds the tree Runs."""
    runs = branches.pop("runs", None)
    held = {
        "run": np.ones(3, np.uint32),
        "luminosityBlock": np.ones(3, np.uint32),
        "event": np.arange(3, dtype=np.uint64),
        "genWeight": np.array([2.0, -1.0, 2.0], np.float32),
        "Jet": ak.zip({name: ak.Array([[30.0], [], [40.0, 50.0]]) for name in ("pt", "eta", "phi", "hadronFlavour")}),
        **branches,
    }
    held = {name: array for name, array in held.items() if array is not None}
    with uproot.recreate(path) as file:
        file.mktree("Events", {name: getattr(array, "dtype", None) or ak.type(array) for name, array in held.items()})
        file["Events"].extend(held)
        if runs is not None:
            file.mktree("Runs", {name: array.dtype for name, array in runs.items()})
            file["Runs"].extend(runs)
    return path


def open_plain(*paths, data=False, **options):
    return open_fileset({"d": Dataset(files=[str(path) for path in paths], data=data)}, None, (), **options)


# ---- finding


def test_a_folder_gives_its_root_files_but_not_those_of_failed_jobs(folder):
    assert names(open_one(folder / "crab")) == ["a.root", "c.root"]
    assert names(open_one(folder / "cra[b]")) == ["a.root", "c.root"]
    assert names(open_one(folder / "crab" / "*" / "*.root")) == ["a.root", "c.root"]


def test_a_list_may_hold_comments_blank_lines_globs_and_relative_paths(folder):
    (folder / "files.txt").write_text(f"# mine\n\ncrab/0000/*.root  # the first\r\n  {NANO / 'nano_tree.root'}\n\n")
    assert names(open_one(folder / "files.txt")) == ["a.root", "nano_tree.root"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# nothing\n\n", "names no file"),
        ("gone.root\n", r"gone\.root: no such file"),
        ("other.txt\n", "names another list"),
        (b"\xff\xfe", "cannot read the list"),
        (None, "cannot read the list"),
    ],
)
def test_lists_that_are_refused(tmp_path, text, words):
    path = tmp_path / "files.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AdvtagError, match=words) as told:
        open_one(path)
    assert "files.txt" in str(told.value) or "gone.root" in str(told.value)


def test_an_empty_folder_and_one_that_may_not_be_read(tmp_path):
    with pytest.raises(AdvtagError, match=f"no ROOT file in {tmp_path}"):
        open_one(tmp_path)
    if os.getuid() == 0:
        pytest.skip("root may read every folder; behind xrootd the same is tested")
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(AdvtagError, match="shut cannot be listed"):
        open_one(tmp_path)


# ---- all problems at once


def test_every_problem_is_told_before_anything_starts(tmp_path, capsys):
    half = tmp_path / "half.root"
    half.write_bytes((NANO / "nano_tt_v12.root").read_bytes()[:500_000])
    (tmp_path / "text.root").write_text("not ROOT")
    (tmp_path / "empty.root").touch()
    shutil.copy(NANO / "nano_dy.root", tmp_path / "copy.root")
    wrong = [
        half,
        tmp_path / "text.root",
        tmp_path / "empty.root",
        tmp_path / "gone.root",
        NANO / "missing_luminosityBlock.root",
    ]
    good = [NANO / "nano_dy.root", NANO / "nano_dy_empty.root"]
    with pytest.raises(AdvtagError, match="9 problems in 10 files, all listed above; nothing was started") as told:
        open_one(*wrong, *good, tmp_path / "copy.root", NANO / "nano_dimuon.root", tmp_path / "no_*.root", good[1])
    listed = capsys.readouterr().err.splitlines()
    assert len(listed) == 9
    assert "\n" not in str(told.value)
    for words in (
        "half.root: cannot be read as a ROOT file",
        "text.root: cannot be read as a ROOT file",
        "empty.root: cannot be read as a ROOT file",
        "gone.root: no such file",
        "missing_luminosityBlock.root: no branch luminosityBlock, which dataset 'd' needs",
        "nano_dimuon.root: no branch genWeight, nor any other of simulation, so it is data, in the dataset 'd' of MC",
        "no file matches",
        "nano_dy_empty.root is listed twice",
        "copy.root: a copy of",
    ):
        assert sum(words in line for line in listed) == 1, words


def test_a_file_cut_after_its_events_is_truncated_too(tmp_path):
    """The trees can still be read, and uproot does: what is missing is something else, written later."""
    path = write_events(tmp_path / "a.root")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert uproot.open(path)["Events"].num_entries == 3
    with pytest.raises(AdvtagError, match=rf"{len(whole) - 1} bytes of {len(whole)}\); it may be truncated"):
        open_plain(path)


def test_simulation_among_data_is_refused():
    with pytest.raises(
        AdvtagError, match=r"nano_dy\.root: has GenJet_pt, so it is simulation, in the dataset 'd' of data"
    ):
        open_one(NANO / "nano_dy.root", data=True)
    assert open_one(NANO / "nano_dimuon.root", data=True)[0].events == 40


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    weights = np.array([1, np.nan, 1], np.float32)
    with pytest.raises(AdvtagError, match="genWeight holds values that are not finite"):
        open_plain(write_events(tmp_path / "a.root", genWeight=weights), cache=tmp_path / "cache.json")


def test_rntuples_and_empty_trees_are_fine():
    rntuple, empty = open_one(NANO / "pfnano_rntuple.root", NANO / "nano_dy_empty.root")
    assert (rntuple.events, empty.events) == (10, 0)
    assert rntuple.sum_weights == pytest.approx(10)


def test_a_wrong_tree_is_told_with_those_that_are_there():
    with pytest.raises(AdvtagError, match="no tree 'Evnts'; there are: Events, Runs; so not NanoAOD"):
        open_one(NANO / "nano_dy.root", tree="Evnts")


# ---- sums of weights


def test_runs_normalises_where_it_is_and_both_sums_are_kept(tmp_path):
    runs = {"genEventSumw": np.array([10.0, 5.0]), "genEventCount": np.array([12, 6])}
    (file,) = open_plain(write_events(tmp_path / "skim.root", runs=runs))
    assert (file.sum_weights, file.record.sum_weights_runs, file.record.sum_weights_events) == (15.0, 15.0, 3.0)
    assert file.record.generated == 18
    (file,) = open_plain(write_events(tmp_path / "plain.root"))
    assert (file.sum_weights, file.record.sum_weights_runs, file.record.generated) == (3.0, None, None)


def test_sums_of_real_files_against_a_loop():
    """nano_dy (v6, with an underscore in the names) and nano_tree (v7) are skims of larger files."""
    for name in ("nano_dy", "nano_tree"):
        with uproot.open(NANO / f"{name}.root") as file:
            key = "genEventSumw_" if name == "nano_dy" else "genEventSumw"
            runs = sum(float(value) for value in file["Runs"][key].array())
            events = sum(float(value) for value in file["Events"]["genWeight"].array())
        record = read_record(str(NANO / f"{name}.root"), "Events")
        assert (record.sum_weights_runs, record.sum_weights_events) == pytest.approx((runs, events), rel=1e-12)
        assert record.sum_weights == runs


# ---- remembering


def opened(monkeypatch):
    """The paths opened from now on."""
    paths = []
    real = preflight.read_record
    monkeypatch.setattr(preflight, "read_record", lambda path, tree: (paths.append(path), real(path, tree))[1])
    return paths


def test_a_file_is_opened_once_and_again_only_if_it_changed(tmp_path, monkeypatch):
    cache = tmp_path / "out" / "cache.json"
    for name in ("a", "b"):
        write_events(tmp_path / f"{name}.root")
    first = open_plain(tmp_path / "*.root", cache=cache)
    paths = opened(monkeypatch)
    assert open_plain(tmp_path / "*.root", cache=cache) == first
    assert paths == []
    write_events(tmp_path / "b.root", run=np.full(3, 2, np.uint32))
    files = open_plain(tmp_path / "*.root", cache=cache)
    assert [path.rpartition("/")[2] for path in paths] == ["b.root"]
    assert files[1].uuid != first[1].uuid
    open_plain(tmp_path / "*.root", cache=cache, check=True)
    assert len(paths) == 3
    (tmp_path / "a.root").unlink()
    with pytest.raises(AdvtagError, match=r"a\.root: no such file"):
        open_plain(tmp_path / "a.root", cache=cache)
    # what the cache knows is not what another job needs
    with pytest.raises(AdvtagError, match=r"b\.root: no branch Jet_"):
        open_one(tmp_path / "b.root", cache=cache)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 0}', '{"format": 1, "branches": {}, "trees": {"Events": {"x": {}}}}']
)
def test_a_damaged_cache_costs_time_only(tmp_path, text):
    cache = tmp_path / "cache.json"
    cache.write_text(text)
    assert open_one(NANO / "nano_dy.root", cache=cache)[0].events == 40
    assert json.loads(cache.read_text())["format"] == 1


def test_ten_thousand_known_files_take_seconds(tmp_path):
    """None is opened: they are not there."""
    record = read_record(str(NANO / "nano_tree.root"), "Events")
    from processors.records import to_json

    def page(number):
        branches = {}
        entry = to_json(record, branches)
        files = {
            f"root://far.example:1094//store/{index:05d}.root": {
                "object_path": "Events",
                **entry,
                "uuid": f"00000000-0000-0000-0000-{index:012d}",
            }
            for index in range(number)
        }
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({"d": {"files": files, "metadata": {}, "branches": branches}}))
        return path

    seconds = {}
    for number in (1000, 10_000):
        path = page(number)
        start = time.perf_counter()
        files = open_one(path)
        seconds[number] = time.perf_counter() - start
        assert len(files) == number
    assert seconds[10_000] < 5
    assert seconds[10_000] < 30 * seconds[1000] + 0.5


def test_workers_of_a_cluster_give_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("processors.preflight.MANY", 2)
    entries = [NANO / "nano_dy.root", NANO / "nano_tree.root", NANO / "pfnano.root"]
    run = Run(executor="dask", workers=1)
    assert open_one(*entries, run=run, cache=tmp_path / "c.json") == open_one(*entries)
    with pytest.raises(AdvtagError, match=r"2 problems in 3 files"):
        open_one(entries[0], tmp_path / "gone.root", NANO / "nano_dimuon.root", run=run)


# ---- the fileset


@pytest.fixture
def config(write_config):
    return lambda name="analysis", **sections: write_config(
        name, features="nanoaod", columns={"datasets": ["dy", "ttbar"]}, run={"executor": "iterative"}, **sections
    )


def fileset(*arguments):
    result = CliRunner().invoke(advtag.app, ["fileset", "--no-progress", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Path(result.output.strip())


DATASETS = {
    "dy": {"files": str(NANO / "nano_dy.root"), "cross_section": 6077.0},
    "ttbar": {"files": str(NANO / "nano_tt_v1[2].root"), "cross_section": 923.6},
}


def test_coffea_reads_the_fileset(config, tmp_path):
    from coffea.dataset_tools import DataGroupSpec, PreprocessedFiles, max_chunks
    from coffea.nanoevents import BaseSchema
    from coffea.processor import IterativeExecutor, ProcessorABC, Runner

    path = fileset(config(datasets=DATASETS), "--chunksize", 80, "--output", tmp_path / "f.json")
    page = json.loads(path.read_text())
    group = DataGroupSpec(page)
    assert {name: type(dataset.files) for name, dataset in group.items()} == dict.fromkeys(group, PreprocessedFiles)
    assert (group["dy"].num_entries, group["ttbar"].num_selected_entries) == (40, 200)
    assert len(group["ttbar"].steps[str(NANO / "nano_tt_v12.root")]) > 1
    assert group["dy"].metadata["cross_section"] == 6077.0
    assert max_chunks(group, 1)["ttbar"].num_selected_entries < 200

    class Count(ProcessorABC):
        def process(self, events):
            return {events.metadata["dataset"]: len(events), "sum": float(events.metadata["sum_weights"] > 0)}

        def postprocess(self, accumulator):
            return accumulator

    counted = Runner(IterativeExecutor(status=False), schema=BaseSchema)(str(path), Count(), treename="Events")
    assert (counted["dy"], counted["ttbar"]) == (40, 200)


def test_what_the_fileset_says_of_weights(config, tmp_path):
    page = json.loads(fileset(config(datasets=DATASETS), "--output", tmp_path / "f.json").read_text())
    with uproot.open(NANO / "nano_tt_v12.root") as file:
        weights = [float(weight) for weight in file["Events"]["genWeight"].array()]
    dy, ttbar = page["dy"]["metadata"], page["ttbar"]["metadata"]
    assert (dy["sum_weights_from"], ttbar["sum_weights_from"]) == ("Runs", "Events")
    assert dy["sum_weights"] == dy["sum_weights_runs"] == pytest.approx(15166686735.858717)
    assert dy["sum_weights_events"] == pytest.approx(578762.25, rel=1e-6)
    assert ttbar["sum_weights"] == ttbar["sum_weights_events"] == pytest.approx(sum(weights), rel=1e-12)
    assert ttbar["sum_weights_runs"] is None


def test_a_job_from_a_fileset_opens_nothing_before_and_gives_the_same(config, tmp_path, monkeypatch):
    import pyarrow.dataset as ds

    from processors.jobs import make_columns

    written = config("written", datasets=DATASETS)
    path = fileset(written, "--output", tmp_path / "f.json")
    first = make_columns(load_analysis(written), progress=False)
    paths = opened(monkeypatch)
    second = load_analysis(config("known", fileset="f.json", datasets={"dy": {"cross_section": 6000.0}}))
    assert second.datasets["dy"].cross_section == 6000.0
    assert second.datasets["ttbar"].cross_section == 923.6
    assert second.datasets["ttbar"].files == (str(path),)
    folder = make_columns(second, progress=False)
    assert paths == []
    keys = [("event", "ascending"), ("jet_index", "ascending"), ("jet_pt", "ascending")]
    tables = [
        ds.dataset(place, format="parquet", exclude_invalid_files=True).to_table().sort_by(keys)
        for place in (first, folder)
    ]
    assert tables[0].num_rows > 100
    assert tables[0].equals(tables[1])


def test_datasets_of_a_fileset_and_of_the_configuration(config, tmp_path):
    fileset("--mc", f"dy={NANO / 'nano_dy.root'}", "--output", tmp_path / "f.json")
    more = {"ttbar": {"files": str(NANO / "nano_tt_v12.root")}}
    assert list(load_analysis(config(fileset="f.json", datasets=more)).datasets) == ["ttbar", "dy"]
    with pytest.raises(AdvtagError, match=r"datasets\.dy\.files: its files are in the fileset .*f\.json, too"):
        load_analysis(config(fileset="f.json", datasets={**more, "dy": {"files": "x.root"}}))
    with pytest.raises(AdvtagError, match=r"gone\.json: cannot read the fileset"):
        load_analysis(config(fileset="gone.json", datasets=more))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"d": {}}', '{"d": {"files": []}}', '{"d": {"files": {"a": {}}}}'])
def test_what_is_no_fileset(tmp_path, text):
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(AdvtagError, match=r"f\.json: (not JSON|no datasets|dataset 'd')"):
        open_one(path)


def test_a_fileset_of_another_tool_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"d": {"files": {str(NANO / "nano_dy.root"): "Events"}}}))
    paths = opened(monkeypatch)
    assert open_one(path)[0].events == 40
    assert len(paths) == 1
    path.write_text(json.dumps({"x": {"files": {"a.root": "Events"}}}))
    with pytest.raises(AdvtagError, match="dataset 'd': not in the fileset"):
        open_one(path)


def test_replicas_are_tried_in_turn(tmp_path):
    path = tmp_path / "f.json"
    entry = {"object_path": "Events", "replicas": [str(NANO / "nano_dy.root"), str(tmp_path / "c.root")]}
    path.write_text(json.dumps({"d": {"files": {str(tmp_path / "gone.root"): entry}}}))
    (file,) = open_one(path)
    assert file.path == str(NANO / "nano_dy.root")
    assert file.replicas == (str(tmp_path / "gone.root"), str(tmp_path / "c.root"))
    entry["replicas"] = [str(tmp_path / "c.root")]
    path.write_text(json.dumps({"d": {"files": {str(tmp_path / "gone.root"): entry}}}))
    with pytest.raises(AdvtagError, match=r"gone\.root: no such file.*c\.root: no such file"):
        open_one(path)


def test_the_command_line_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(NANO / "nano_dy.root", tmp_path)
    path = fileset("--mc", "dy=nano_dy.root", "--cross-section", "dy=6077", "--data", f"mu={NANO / 'nano_dimuon.root'}")
    page = json.loads(path.read_text())
    assert page["dy"]["metadata"]["cross_section"] == 6077.0
    assert page["mu"]["metadata"] == {"data": True, "cross_section": None, "era": None, "events": 40}
    assert list(page["dy"]["files"]) == [str(tmp_path / "nano_dy.root")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no datasets"),
        (["--mc", "dy"], "expected NAME=VALUE"),
        (["--mc", "a/b=x.root"], "expected NAME=VALUE"),
        (["--mc", "a=x.root", "--data", "a=y.root"], "both --mc and --data"),
        (["--mc", "a=x.root", "--cross-section", "b=1"], "no such dataset"),
        (["--mc", "a=x.root", "--cross-section", "a=minus"], "dataset 'a': cross_section"),
        (["--mc", "a=x.root", "--workers", "3"], "need a CONFIG"),
    ],
)
def test_command_lines_that_are_refused(arguments, words):
    with pytest.raises(AdvtagError, match=words):
        CliRunner().invoke(advtag.app, ["fileset", *arguments], catch_exceptions=False)


# ---- the grid, as far as there is none

RUCIO = [
    ["root://a.fr:1094//pnfs/store/mc/X/1.root", "root://b.de//eos/cms/store/mc/X/1.root"],
    ["root://a.fr:1094//pnfs/store/mc/X/2.root", "root://b.de//eos/cms/store/mc/X/2.root"],
]
"""As coffea's get_dataset_files_replicas(mode="full") gives them."""


def test_places_go_round_the_sites_then_to_the_redirectors():
    from processors.grid import places

    first, second = places(RUCIO, Grid(redirectors=["r.ch", "s.it"]))
    assert first == (*RUCIO[0], "root://r.ch//store/mc/X/1.root", "root://s.it//store/mc/X/1.root")
    assert second[:2] == (RUCIO[1][1], RUCIO[1][0])
    ordered = places(RUCIO, Grid(allow_sites=["T2_FR_A", "T2_DE_B"], redirectors=[]))
    assert ordered == [tuple(urls) for urls in RUCIO]
    with pytest.raises(AdvtagError, match="file 2 of 2 is at none of the sites"):
        places([RUCIO[0], []], Grid())


def test_sites_are_chosen_by_coffea_itself(monkeypatch, tmp_path):
    """The answer of Rucio is written down from its documentation; coffea's own code chooses from it."""
    import sys
    import types

    rucio = types.ModuleType("rucio.client")
    rucio.Client = object
    monkeypatch.setitem(sys.modules, "rucio", types.ModuleType("rucio"))
    monkeypatch.setitem(sys.modules, "rucio.client", rucio)
    monkeypatch.delitem(sys.modules, "coffea.dataset_tools.rucio_utils", raising=False)
    from coffea.dataset_tools import rucio_utils

    from processors.grid import replicas

    name = "/TTto2L2Nu_TuneCP5/Run3Summer22NanoAODv12-130X_v5-v2/NANOAODSIM"
    sites = {"T2_FR_A": "root://a.fr//cms", "T2_DE_B": "root://b.de/", "T1_US_Tape": "root://t.us/"}

    class Client:
        def list_replicas(self, dids):
            assert dids == [{"scope": "cms", "name": name}]
            return [
                {
                    "name": f"/store/mc/{index}.root",
                    "rses": {site: [f"{site}{index}"] for site in sites},
                    "pfns": {
                        f"{site}{index}": {"type": "TAPE" if "Tape" in site else "DISK", "volatile": False}
                        for site in sites
                    },
                    "states": dict.fromkeys(sites, "AVAILABLE"),
                }
                for index in range(2)
            ]

    monkeypatch.setattr(rucio_utils, "get_xrootd_sites_map", lambda: sites)
    monkeypatch.setattr(rucio_utils, "get_rucio_client", Client)
    none = {"redirectors": ()}
    assert replicas(name, Grid(**none))[0] == ("root://a.fr//cms/store/mc/0.root", "root://b.de//store/mc/0.root")
    assert replicas(name, Grid(block_sites=["T2_FR_A"], **none))[0] == ("root://b.de//store/mc/0.root",)
    both = Grid(allow_sites=["T2_DE_B", "T2_FR_A"], block_sites=["T2_FR_A"])
    assert replicas(name, both)[1] == (
        "root://b.de//store/mc/1.root",
        *(f"root://{host}//store/mc/1.root" for host in Grid().redirectors),
    )
    with pytest.raises(AdvtagError, match="No SITE available in the allowlist"):
        replicas(name, Grid(allow_sites=["T1_US_Tape"]))
    with pytest.raises(AdvtagError, match="every site of `allow_sites`"):
        replicas(name, Grid(allow_sites=["T2_FR_A"], block_sites=["T2_FR_A"]))


def test_without_rucio_a_dataset_name_is_told_as_such():
    name = "/TTto2L2Nu_TuneCP5/Run3Summer22NanoAODv12-130X_v5-v2/NANOAODSIM"
    with pytest.raises(AdvtagError, match=r"NANOAODSIM: (needs `pip install rucio-clients`|Rucio gives no files)"):
        open_one(name)


@pytest.mark.parametrize(
    ("entry", "is_one"),
    [
        ("/Muon/Run2022C-22Sep2023-v1/NANOAOD", True),
        ("/QCD_PT-15to30/me-PFNano-0123abcd/USER", True),
        ("/home/me/NANOAOD", False),
        ("/data/a-b/c/NANOAODSIM", False),
        ("/data/a-b/x.root", False),
    ],
)
def test_names_of_datasets(entry, is_one):
    from processors.grid import is_dataset_name

    assert is_dataset_name(entry) is is_one


def test_a_logical_name_is_read_at_the_redirectors(monkeypatch):
    from processors.find import find_files

    lfn = "/store/mc/X/1.root"
    datasets = {"d": Dataset(files=lfn)}
    found, problems = find_files(datasets, Grid(redirectors=["r.ch", "s.it:1094"]))
    assert (found[0].places, problems) == (
        ("root://r.ch//store/mc/X/1.root", "root://s.it:1094//store/mc/X/1.root"),
        [],
    )
    found, _ = find_files(datasets, Grid(redirectors=[]))
    assert found[0].places == (lfn,)
