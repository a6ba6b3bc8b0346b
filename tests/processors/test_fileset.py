"""The check before any job starts."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import AdvtagError
from configs.schema import Dataset, Region
from models.features import load_features
from processors.books import chunks_left
from processors.fileset import open_fileset, read_list
from processors.jobs import insist_on_rows
from tests.conftest import NANO

CARD = load_features("nanoaod")


def open_one(*patterns, card=CARD, regions=(), **options):
    return open_fileset({"d": Dataset(files=patterns, **options)}, card, regions)


def test_globs_and_counts():
    files = open_one(str(NANO / "nano_tt_v1*.root"))
    assert [(file.events, file.splits_b) for file in files] == [(200, False), (200, False)]
    assert open_one(str(NANO / "pfnano.root"), card=load_features("deepcsv"))[0].splits_b


@pytest.mark.parametrize(("events", "chunksize"), [(200, 1000), (200, 60), (200, 1), (0, 50)])
def test_chunks_cover_every_event_once(events, chunksize):
    name = "nano_tt_v12.root" if events else "nano_dy_empty.root"
    (file,) = open_one(str(NANO / name))
    chunks = chunks_left(file, {}, chunksize)
    covered = [event for chunk in chunks for event in range(chunk.entrystart, chunk.entrystop)]
    assert covered == list(range(events))
    assert len(chunks) >= 1


@pytest.mark.parametrize(
    ("patterns", "options", "words"),
    [
        (["nowhere_*.root"], {}, "no file matches"),
        (["nano_dy.root", "nano_d[y].root"], {}, "listed twice"),
        (["nothing.root"], {}, "no such file"),
        (["nano_dy.root"], {"tree": "Evnts"}, "no tree 'Evnts'"),
        (["nano_dimuon.root"], {}, "no branch genWeight"),
    ],
)
def test_what_is_refused(patterns, options, words):
    with pytest.raises(AdvtagError, match=words):
        open_one(*(str(NANO / pattern) for pattern in patterns), **options)


def test_data_needs_no_truth():
    (file,) = open_one(str(NANO / "nano_dimuon.root"), data=True)
    assert file.events == 40


def test_a_copy_of_a_file_is_refused(tmp_path):
    """Copies share their UUID: their events would count twice, and their columns would overwrite each other."""
    for name in ("a.root", "b.root"):
        shutil.copy(NANO / "nano_dy.root", tmp_path / name)
    with pytest.raises(AdvtagError, match=r"b\.root: a copy of .*a\.root"):
        open_one(str(tmp_path / "*.root"))


def test_rows_that_are_not_on_disk_fail_the_run(tmp_path):
    """As when workers write to a disk of their own."""
    (tmp_path / "d").mkdir()
    counts = {"d": {"f.root": {"events": 5, "jets": 7, "sum_weights": 5.0}}}
    output = {"counts": counts, "parts": ["d/part.parquet"]}
    with pytest.raises(AdvtagError, match="7 jets were selected, 0 rows are on disk"):
        insist_on_rows(tmp_path, output)
    pq.write_table(pa.table({"x": range(7)}), tmp_path / "d" / "part.parquet")
    pq.write_table(pa.table({"x": range(3)}), tmp_path / "d" / "left_by_a_killed_job.parquet")
    insist_on_rows(tmp_path, output)


def test_leptons_are_read_only_for_regions_that_look_at_them():
    assert "Muon_pt" not in read_list(CARD, [Region(jet_pt=30)], {"d": False})["d"]
    assert "Jet_hadronFlavour" not in read_list(CARD, (), {"d": True})["d"]
    assert {"Muon_pt", "nMuon"} <= read_list(CARD, [Region(muons=1)], {"d": False})["d"]
