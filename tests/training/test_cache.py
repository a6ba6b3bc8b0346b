"""The cache of columns against the columns themselves: every number, the order, and what is refused."""

import copy
import itertools
import json
import shutil
import threading
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import training.cache
import training.parquet
from common.errors import AdvtagError
from models.keys import jet_keys
from training.cache import Cache, Stored, open_cache
from training.columns import read_columns, some_jets
from training.disk_array import DiskArray
from training.parquet import Survey, find_columns

ARRAYS = ("values", "present", "key", "weight", "target", "pt", "eta")


def mixed(key: int) -> int:
    """The finaliser of SplitMix64 as published, of 64 bits without a sign; the result with one."""
    x = key % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    x ^= x >> 31
    return x - 2**64 if x >= 2**63 else x


def tensors(sample) -> tuple[torch.Tensor, ...]:
    inputs = sample.inputs
    return inputs.values, inputs.present, inputs.key, inputs.weight, sample.target, sample.pt, sample.eta


def all_of(stored: Stored) -> tuple[torch.Tensor, ...]:
    return tensors(stored.read(0, len(stored)))


def content(columns) -> dict[str, bytes]:
    """Bytes of every array of the only cache there."""
    (folder,) = (path for path in (columns.parent / "cache").iterdir() if path.is_dir())
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.rglob("*.npy")}


def rows_of(jets, rows):
    """Some rows of toy jets."""
    return {
        name: {key: array[rows] for key, array in column.items()} if isinstance(column, dict) else column[rows]
        for name, column in jets.items()
    }


@pytest.fixture
def small(monkeypatch) -> None:
    """Batches and buckets of a few jets, so that there are many of them."""
    monkeypatch.setattr(training.parquet, "BATCH", 64)
    monkeypatch.setattr(training.cache, "BUCKET", 50)


def test_every_jet_arrives_in_the_order_of_its_hash(workplace, toys, small) -> None:
    first, second = toys(300, 1), toys(200, 2)
    workplace.write({"tt": [first], "qcd": [second], "run": [toys(100, 3, data=True)]})
    cache = open_cache(workplace.columns)
    assert cache.classes == ("b", "bb", "c", "udsg")
    assert cache.features == workplace.features
    scale = {id(jets): np.abs(jets["weight"][jets["split"] < 2]).mean() for jets in (first, second)}
    for code, stored in enumerate((cache.train, cache.validation)):
        expected = []
        for jets in (first, second):
            identity = [jets[name] for name in ("run", "luminosityBlock", "event", "jet_index")]
            keys = jet_keys(*identity).tolist()
            expected += [(mixed(keys[row]), jets, row) for row in np.flatnonzero(jets["split"] == code)]
        expected.sort(key=lambda entry: entry[0])
        sample = stored.read(0, len(stored))
        assert len(sample) == len(stored) == len(expected) > 50
        assert [t.dtype for t in tensors(sample)] == [
            *(torch.float32, torch.bool, torch.int64, torch.float32, torch.int64, torch.float32, torch.float32)
        ]
        for place, (hashed, jets, row) in enumerate(expected):
            assert mixed(int(sample.inputs.key[place])) == hashed
            for k, name in enumerate(workplace.features.names):
                there = not jets["absent"][name][row]
                assert bool(sample.inputs.present[place, k]) is there
                assert float(sample.inputs.values[place, k]) == (np.float32(jets["values"][name][row]) if there else 0)
            assert int(sample.target[place]) == jets["flavour"][row]
            assert float(sample.pt[place]) == jets["jet_pt"][row]
            assert float(sample.eta[place]) == jets["jet_eta"][row]
            assert float(sample.weight[place]) == pytest.approx(jets["weight"][row] / scale[id(jets)], rel=1e-6)


@pytest.mark.parametrize("classes", [("b", "bb", "c", "udsg"), ("b", "c", "udsg")])
def test_same_jets_as_those_in_memory(workplace, toys, small, classes) -> None:
    jets = toys(600, 1)
    jets["weight"][::3] *= -1
    workplace.write({"tt": [jets, toys(100, 2)], "qcd": [toys(200, 3)]}, classes=classes)
    columns, cache = read_columns(workplace.columns), open_cache(workplace.columns)
    for split in ("train", "validation"):
        expected = some_jets(getattr(columns, split), None)
        for found, tensor in zip(all_of(getattr(cache, split)), tensors(expected), strict=True):
            assert found.dtype == tensor.dtype
            torch.testing.assert_close(found, tensor, rtol=3e-7, atol=0)
        for number in (1, 77):
            first = some_jets(getattr(columns, split), number)
            assert torch.equal(getattr(cache, split).read(0, number).inputs.key, first.inputs.key)


@given(data=st.data(), batch=st.integers(7, 400), bucket=st.sampled_from([1, 20, 10_000]))
@settings(max_examples=6, deadline=None)
def test_the_order_knows_nothing_of_the_files(tmp_path_factory, toys, data, batch, bucket) -> None:
    """However the jets are distributed over files, with keys that collide, the cache has the same bytes."""
    from conftest import Workplace

    jets, other = toys(240, 1), toys(60, 1)
    jets["weight"] = np.random.default_rng(1).normal(1, 0.7, 240)
    for name in ("event", "jet_index"):  # every fourth jet has the key of another
        jets[name][::4] = jets[name][1::4]
    contents = []
    for shuffled in (False, True):
        order = np.array(data.draw(st.permutations(range(240)))) if shuffled else np.arange(240)
        cuts = sorted(data.draw(st.lists(st.integers(0, 240), max_size=3))) if shuffled else []
        place = Workplace(tmp_path_factory.mktemp("files"))
        files = [rows_of(jets, order[start:stop]) for start, stop in itertools.pairwise([0, *cuts, 240])]
        place.write({"tt": files, "qcd": [other]})
        with pytest.MonkeyPatch.context() as patch:
            if shuffled:
                patch.setattr(training.parquet, "BATCH", batch)
                patch.setattr(training.cache, "BUCKET", bucket)
            open_cache(place.columns)
        contents.append(content(place.columns))
        shutil.rmtree(place.folder)
    assert len(contents[0]) == 14
    assert contents[0] == contents[1]


def test_mean_weights_are_exact(workplace, toys) -> None:
    """So they know nothing of the files either: of training and validation jets, and no others."""
    jets = [toys(300, seed) for seed in (1, 2)]
    for seed, some in enumerate(jets):
        some["weight"] = np.random.default_rng(seed).normal(0, 10.0 ** np.random.default_rng(seed).uniform(-5, 5, 300))
    workplace.write({"tt": jets, "qcd": jets[:1], "empty": []})
    found = Survey(find_columns(workplace.columns)).mean_weight
    for name, parts in {"tt": jets, "qcd": jets[:1]}.items():
        used = [abs(Fraction(w)) for some in parts for w in some["weight"][some["split"] < 2].tolist()]
        assert found[name] == float(sum(used)) / len(used)
    assert found["empty"] == 0


def test_datasets_are_mixed(workplace, toys) -> None:
    """Ranks of the jets of one dataset among all, as if drawn by lot."""
    jets = [toys(1000, 1), toys(3000, 2)]
    workplace.write({"tt": jets[:1], "qcd": jets[1:]})
    train = open_cache(workplace.columns).train
    of_first = jet_keys(*(jets[0][name] for name in ("run", "luminosityBlock", "event", "jet_index")))
    ranks = np.flatnonzero(np.isin(train.read(0, len(train)).inputs.key, of_first)) / len(train)
    assert len(ranks) == (jets[0]["split"] == 0).sum()
    assert abs(ranks.mean() - 0.5) < 4 / np.sqrt(12 * len(ranks))
    assert abs(ranks.std() - 1 / np.sqrt(12)) < 0.03


def test_memory_is_bounded(workplace, toys, small, monkeypatch) -> None:
    """No bucket and no batch holds much more jets than it may."""
    sizes = []
    for name in ("read", "write"):
        method = getattr(DiskArray, name)

        def counted(self, blocks, *rows, method=method):
            sizes.append(sum(stop - start for start, stop in blocks))
            return method(self, blocks, *rows)

        monkeypatch.setattr(DiskArray, name, counted)
    workplace.write({"tt": [toys(2000, 1)]})
    open_cache(workplace.columns)
    assert len(sizes) > 500
    assert 40 < max(sizes) <= 64


def test_the_test_split_does_not_matter(workplace, toys) -> None:
    clean, absurd = toys(300, 1), toys(300, 1)
    test = absurd["split"] == 2
    for values in absurd["values"].values():
        values[test] = 1e6
    absurd["weight"][test] = 1e9
    contents = []
    for jets in (clean, absurd):
        workplace.write({"tt": [jets]})
        open_cache(workplace.columns)
        contents.append(content(workplace.columns))
    assert contents[0] == contents[1]


@pytest.fixture(scope="module")
def cache(shared_workplace) -> Cache:
    return open_cache(shared_workplace.columns)


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 3), (7, 2), (100, 10**9), (10**9, 10**9 + 1), (0, 10**9)])
def test_read_is_a_slice(cache, start, stop) -> None:
    for found, whole in zip(tensors(cache.train.read(start, stop)), all_of(cache.train), strict=True):
        assert torch.equal(found, whole[start:stop])
        found.zero_()  # fresh memory: the next reader does not see it
    assert cache.train.read(0, 10**9).pt.min() > 0


@given(size=st.integers(1, 2000))
@settings(max_examples=10, deadline=None)
def test_chunks_are_the_whole(cache, size) -> None:
    chunks = list(cache.validation.chunks(size))
    assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert 0 < len(chunks[-1]) <= size
    for found, whole in zip(zip(*map(tensors, chunks), strict=True), all_of(cache.validation), strict=True):
        assert torch.equal(torch.cat(found), whole)


@given(blocks=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60)), max_size=8))
@settings(max_examples=20, deadline=None)
def test_gather_is_slices_one_after_another(cache, blocks) -> None:
    found = cache.train.gather([(start, start + length) for start, length in blocks])
    rows = [row for start, length in blocks for row in range(start, start + length)]
    for tensor, whole in zip(tensors(found), all_of(cache.train), strict=True):
        assert torch.equal(tensor, whole[rows])


def test_size(cache) -> None:
    n = len(cache.train)
    assert cache.train.nbytes == n * (4 * 5 + 8 + 4 + 1 + 4 + 4)
    files = sum(path.stat().st_size for path in cache.train.arrays["key"].path.parent.iterdir())
    assert 0 < files - cache.train.nbytes < 7 * 200  # headers


def test_numpy_can_read_it(cache) -> None:
    folder = cache.train.arrays["key"].path.parent
    for name, tensor in zip(ARRAYS, all_of(cache.train), strict=True):
        assert np.array_equal(np.load(folder / f"{name}.npy"), tensor)


def test_a_second_opening_reads_no_parquet(workplace, toys, monkeypatch) -> None:
    workplace.write({"tt": [toys(200, 1)]})
    first = open_cache(workplace.columns)
    monkeypatch.setattr(pq, "ParquetFile", None)
    second = open_cache(workplace.columns)
    assert second.digest == first.digest
    for split in ("train", "validation"):
        for a, b in zip(all_of(getattr(first, split)), all_of(getattr(second, split)), strict=True):
            assert torch.equal(a, b)


def test_two_at_once_build_once(workplace, toys, monkeypatch) -> None:
    workplace.write({"tt": [toys(500, 1)]})
    built, build = [], training.cache.build
    monkeypatch.setattr(training.cache, "build", lambda *arguments: built.append(1) or build(*arguments))
    threads = [threading.Thread(target=open_cache, args=(workplace.columns,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]
    assert len(open_cache(workplace.columns).train) > 0


def folders(columns) -> set[str]:
    return {path.name for path in (columns.parent / "cache").iterdir() if path.is_dir()}


def test_other_columns_have_another_cache(workplace, toys) -> None:
    """New columns: a new cache, and the old one goes; that of another folder of columns stays."""
    workplace.write({"tt": [toys(200, 1)]})
    first = open_cache(workplace.columns)
    beside = workplace.columns.with_name("others")
    workplace.write({"tt": [toys(200, 1)]}, note="another page")
    shutil.copytree(workplace.columns, beside)
    workplace.write({"tt": [toys(200, 1)]})
    other = open_cache(beside)
    assert folders(workplace.columns) == {first.digest, other.digest}
    workplace.write({"tt": [toys(220, 2)]})
    second = open_cache(workplace.columns)
    assert folders(workplace.columns) == {second.digest, other.digest}
    assert len({first.digest, second.digest, other.digest}) == 3
    assert len(second.train) != len(first.train)
    with pytest.raises(AdvtagError, match="were the columns made again"):
        first.train.read(0, 10)


def test_the_digest_knows_the_card(workplace, toys) -> None:
    workplace.write({"tt": [toys(200, 1)]})
    digest = open_cache(workplace.columns).digest
    manifest = json.loads((workplace.columns / "manifest.json").read_text())
    manifest["features"]["inputs"][0]["cap"] = 0.3
    (workplace.columns / "manifest.json").write_text(json.dumps(manifest))
    assert find_columns(workplace.columns).digest != digest


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def garble_header(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:10] + b"(" * 60 + content[70:])


def as_another_type(path) -> None:
    np.save(path, np.load(path).astype(np.float16))


def shorten(path) -> None:
    np.save(path, np.load(path)[:-1])


DAMAGES = [lambda path: path.unlink(), cut, lengthen, garble_header, as_another_type, shorten]
DAMAGES += [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"something else" * 9)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["train/values.npy", "validation/target.npy"])
def test_a_damaged_cache_is_built_again(workplace, toys, damage, name) -> None:
    workplace.write({"tt": [toys(100, 1)]})
    digest = open_cache(workplace.columns).digest
    before = content(workplace.columns)
    damage(workplace.columns.parent / "cache" / digest / name)
    open_cache(workplace.columns)
    assert content(workplace.columns) == before


def assert_refused(workplace, *words: str) -> None:
    """One line that says so, and nothing is left."""
    for _ in range(2):
        with pytest.raises(AdvtagError) as error:
            open_cache(workplace.columns)
        text = str(error.value)
        assert "\n" not in text
        for word in (str(workplace.columns), *words):
            assert word in text
    left = (workplace.columns.parent / "cache").glob("*")
    assert [path.name for path in left] in ([], [".lock"])


@pytest.mark.parametrize("text", [None, "", "{", "\xff", "[]", "{}", '{"features": {}}', '{"features": []}'])
def test_no_columns(workplace, toys, text) -> None:
    if text is not None:
        workplace.write({"tt": [toys(50, 1)]})
        (workplace.columns / "manifest.json").write_text(text, encoding="latin-1")
    assert_refused(workplace, "advtag columns CONFIG")


def test_only_data(workplace, toys) -> None:
    workplace.write({"run": [toys(50, 1, data=True)]})
    assert_refused(workplace, "no MC jets")


def test_a_dataset_without_jets(workplace, toys) -> None:
    workplace.write({"tt": [toys(100, 1)], "empty": []})
    assert len(open_cache(workplace.columns).train) > 0


@pytest.mark.parametrize(("split", "name"), [(0, "validation"), (1, "train")])
def test_an_empty_split(workplace, toys, split, name) -> None:
    jets = toys(50, 1)
    jets["split"][:] = split
    workplace.write({"tt": [jets]})
    assert_refused(workplace, f"the {name} split holds no jet")


def test_a_class_without_training_jets(workplace, toys) -> None:
    """It may be missing from validation; without bb among the classes, bb is b."""
    jets = toys(200, 1)
    jets["flavour"][(jets["split"] == 1) & (jets["flavour"] == 2)] = 0
    workplace.write({"tt": [jets]})
    assert 2 not in open_cache(workplace.columns).validation.read(0, 200).target
    jets["flavour"][jets["flavour"] == 2] = 1
    shutil.rmtree(workplace.columns.parent / "cache")
    workplace.write({"tt": [jets]})
    assert_refused(workplace, "the train split holds no jet of class c;")
    workplace.write({"tt": [jets]}, classes=("b", "c", "udsg"))
    assert_refused(workplace, "the train split holds no jet of class c;")


def changed(workplace, toys, change) -> str:
    """Columns of two files, the second one changed; its path."""
    workplace.write({"tt": [toys(50, 1), toys(50, 2)]})
    path = sorted((workplace.columns / "tt").glob("*.parquet"))[1]
    pq.write_table(change(pq.read_table(path)), path)
    return str(path)


@pytest.mark.parametrize("column", ["weight", "input_mass", "jet_pt", "split"])
def test_a_missing_column(workplace, toys, column) -> None:
    path = changed(workplace, toys, lambda table: table.drop_columns([column]))
    assert_refused(workplace, path, f"no column '{column}'")


@pytest.mark.parametrize(("column", "kind"), [("weight", "string"), ("input_mass", "int32"), ("flavour", "float32")])
def test_a_column_of_another_type(workplace, toys, column, kind) -> None:
    def cast(table):
        values = table[column].cast("float64").fill_null(0).to_numpy().astype(int)
        return table.set_column(table.column_names.index(column), column, pa.array(values).cast(kind))

    path = changed(workplace, toys, cast)
    assert_refused(workplace, path, repr(column))


def with_entry(table, column: str, value: float | None):
    """The first training jet has another value."""
    values = table[column].to_pylist()
    values[table["split"].to_pylist().index(0)] = value
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize("column", ["input_mass", "input_noise", "jet_eta"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_although_present(workplace, toys, column, value) -> None:
    path = changed(workplace, toys, lambda table: with_entry(table, column, value))
    assert_refused(workplace, path, f"{column}: not finite although present")


@pytest.mark.parametrize("column", ["weight", "flavour", "event"])
def test_an_empty_entry_where_none_may_be(workplace, toys, column) -> None:
    path = changed(workplace, toys, lambda table: with_entry(table, column, None))
    assert_refused(workplace, path, repr(column), "empty")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_none(workplace, toys, value) -> None:
    changed(workplace, toys, lambda table: with_entry(table, "weight", value))
    assert_refused(workplace, "tt: the generator weights")


def test_weights_that_are_all_zero(workplace, toys) -> None:
    jets = toys(50, 1)
    jets["weight"][:] = 0
    workplace.write({"tt": [jets]})
    assert_refused(workplace, "tt: the generator weights")


@pytest.mark.parametrize("code", [-1, 4])
def test_a_flavour_that_is_none(workplace, toys, code) -> None:
    path = changed(workplace, toys, lambda table: with_entry(table, "flavour", code))
    assert_refused(workplace, path, "flavour codes", str(code))


@pytest.mark.parametrize("metadata", [None, {"features": "toy", "features_digest": "0123456789abcdef"}])
def test_columns_of_another_card(workplace, toys, metadata) -> None:
    path = changed(workplace, toys, lambda table: table.replace_schema_metadata(metadata))
    assert_refused(workplace, path, "another feature card", workplace.features.digest)


def test_a_truncated_file(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    path = next((workplace.columns / "tt").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(workplace, str(path), "cannot read")


@pytest.mark.parametrize("last", [0, 5, 15])
def test_a_full_disk_leaves_nothing_and_spares_what_is_there(workplace, toys, monkeypatch, last) -> None:
    """It fills up while files are made, filled, and sorted."""
    workplace.write({"tt": [toys(200, 1)]})
    kept = open_cache(workplace.columns)
    before = copy.copy(content(workplace.columns))
    workplace.write({"tt": [toys(300, 1)]})
    calls = itertools.count()
    write = DiskArray.write

    def fill_up(self, blocks, rows) -> None:
        if next(calls) >= last:
            raise OSError(28, "No space left on device")
        write(self, blocks, rows)

    monkeypatch.setattr(DiskArray, "write", fill_up)
    with pytest.raises(AdvtagError, match=r"cannot write .*No space left") as error:
        open_cache(workplace.columns)
    assert "\n" not in str(error.value)
    assert folders(workplace.columns) == {kept.digest}
    assert content(workplace.columns) == before
    monkeypatch.setattr(DiskArray, "write", write)
    assert len(open_cache(workplace.columns).train) > len(before)


def test_nowhere_to_write(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    (workplace.columns.parent / "cache").write_text("a file")
    with pytest.raises(AdvtagError, match="cannot write"):
        open_cache(workplace.columns)


def test_datasets_mixed_by_cross_section(workplace, toys) -> None:
    """1 pb of a few jets beside 100 pb of many: sums of weights are as the cross-sections, the average is 1."""
    few, many = toys(300, 1), toys(900, 2)
    events = {"few": 120.0, "many": 77.0}
    config = {
        "datasets": {
            name: {"files": ["x.root"], "data": False, "cross_section": pb}
            for name, pb in (("few", 1.0), ("many", 100.0))
        },
        "columns": {"mix": "cross_section"},
    }
    datasets = {name: {"sum_weights": total} for name, total in events.items()}
    workplace.write({"few": [few], "many": [many]}, config=config, datasets=datasets)
    cache = open_cache(workplace.columns)
    found = np.concatenate([stored.read(0, len(stored)).weight.numpy() for stored in (cache.train, cache.validation)])
    assert np.abs(found).mean() == pytest.approx(1, rel=1e-5)
    expected = []
    for jets, pb, total in ((few, 1.0, 120.0), (many, 100.0, 77.0)):
        expected.append(jets["weight"][jets["split"] < 2] * pb / total)
    expected = np.concatenate(expected)
    np.testing.assert_allclose(np.sort(found), np.sort(expected / np.abs(expected).mean()), rtol=1e-5)


def test_mixing_by_cross_section_needs_one(workplace, toys) -> None:
    with pytest.raises(AdvtagError, match="needs a cross_section"):
        workplace.analysis({"t": {}}, columns={"datasets": ["tt"], "mix": "cross_section"})
