"""Columns into memory: every number and every null where it belongs."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from common.errors import AdvtagError
from models.inputs import Inputs
from models.keys import jet_keys
from training.columns import Sample, read_columns

CLASSES = ("b", "bb", "c", "udsg")


def test_every_jet_arrives(workplace, toys) -> None:
    jets = toys(300, 1)
    workplace.write({"tt": [jets]})
    columns = read_columns(workplace.columns)
    assert columns.classes == CLASSES
    assert columns.features == workplace.features
    ratios = []
    for code, sample in enumerate((columns.train, columns.validation)):
        rows = np.flatnonzero(jets["split"] == code)
        assert len(sample) == len(rows) > 0
        assert sample.inputs.values.dtype == torch.float32
        for place, row in enumerate(rows):
            for k, name in enumerate(workplace.features.names):
                there = not jets["absent"][name][row]
                assert bool(sample.inputs.present[place, k]) is there
                expected = np.float32(jets["values"][name][row]) if there else 0
                assert float(sample.inputs.values[place, k]) == expected
            assert int(sample.target[place]) == jets["flavour"][row]
            assert float(sample.pt[place]) == jets["jet_pt"][row]
            assert float(sample.eta[place]) == jets["jet_eta"][row]
            ratios.append(float(sample.weight[place]) / jets["weight"][row])
        identity = [jets[name][rows] for name in ("run", "luminosityBlock", "event", "jet_index")]
        assert torch.equal(sample.inputs.key, jet_keys(*identity))
        assert sample.inputs.weight.dtype == torch.float32
        assert sample.weight is sample.inputs.weight
        assert torch.equal(sample.inputs[rows.size // 2 :].weight, sample.weight[rows.size // 2 :])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)
    assert float(columns.train.weight.mean()) == pytest.approx(1, rel=0.05)


def test_event_numbers_up_to_the_last(workplace, toys) -> None:
    """The event is uint64: its key must be the one that the histogram processor computes."""
    jets = toys(50, 1)
    jets["event"] += np.uint64(2**64 - 50)
    workplace.write({"tt": [jets]})
    rows = jets["split"] == 0
    identity = [jets[name][rows].astype(np.int64) for name in ("run", "luminosityBlock", "event", "jet_index")]
    assert torch.equal(read_columns(workplace.columns).train.inputs.key, jet_keys(*identity))


def test_several_datasets_and_files(workplace, toys) -> None:
    """Each dataset's weights average 1 on their own; data do not take part."""
    first, second, third = toys(200, 1), toys(100, 2), toys(150, 3)
    third["weight"] = 1e6 * third["weight"]
    workplace.write({"tt": [first, second], "qcd": [third], "run": [toys(400, 4, data=True)]})
    train = read_columns(workplace.columns).train
    rows = [(jets["split"] == 0).sum() for jets in (first, second, third)]
    assert len(train) == sum(rows)
    assert int(train.target.max()) == 3
    assert float(train.weight.max()) < 2
    assert float(train.weight[-rows[2] :].mean()) == pytest.approx(1, rel=0.05)
    assert float(train.weight[: -rows[2]].mean()) == pytest.approx(1, rel=0.05)


def test_without_weights_every_jet_weighs_one() -> None:
    inputs = Inputs(torch.zeros(4, 2), torch.ones(4, 2, dtype=torch.bool), torch.arange(4))
    sample = Sample(inputs, torch.zeros(4, dtype=torch.int64), torch.ones(4), torch.ones(4))
    assert sample.weight.tolist() == [1, 1, 1, 1]
    assert sample.to(torch.device("cpu")).inputs.weight is None
    weighted = Sample(dataclasses.replace(inputs, weight=torch.arange(4.0)), sample.target, sample.pt, sample.eta)
    assert weighted.to(torch.device("cpu")).weight.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sign", [1, -1])
def test_negative_weights_keep_their_sign(workplace, toys, sign) -> None:
    jets = toys(200, 1)
    jets["weight"][::3] *= -1
    jets["weight"] *= sign
    workplace.write({"tt": [jets]})
    weight = read_columns(workplace.columns).train.weight.numpy()
    np.testing.assert_array_equal(np.sign(weight), np.sign(jets["weight"][jets["split"] == 0]))
    assert np.isfinite(weight).all()


def test_without_bb_the_classes_merge(workplace, toys) -> None:
    """Codes stay indices into (b, bb, c, udsg); a bb of another file is a b."""
    jets = toys(300, 1)
    workplace.write({"tt": [jets]}, classes=("b", "c", "udsg"))
    columns = read_columns(workplace.columns)
    assert columns.classes == ("b", "c", "udsg")
    for code, sample in enumerate((columns.train, columns.validation)):
        flavours = jets["flavour"][jets["split"] == code]
        assert set(flavours) == {0, 1, 2, 3}
        assert [columns.classes[target] for target in sample.target.tolist()] == [
            {0: "b", 1: "b", 2: "c", 3: "udsg"}[flavour] for flavour in flavours.tolist()
        ]


def test_the_test_split_is_not_read(workplace, toys) -> None:
    """Nothing of it may reach a tagger, its weights included."""
    jets, absurd = toys(300, 1), toys(300, 1)
    test = absurd["split"] == 2
    for name, values in absurd["values"].items():
        values[test] = 1e6
        absurd["absent"][name] = jets["absent"][name] & ~test
    absurd["weight"] = np.where(test, 1e9, absurd["weight"])
    absurd["jet_pt"][test] = 1e6
    workplace.write({"tt": [jets]})
    clean = read_columns(workplace.columns)
    workplace.write({"tt": [absurd]})
    dirty = read_columns(workplace.columns)
    for one, other in ((clean.train, dirty.train), (clean.validation, dirty.validation)):
        assert torch.equal(one.inputs.values, other.inputs.values)
        assert torch.equal(one.inputs.present, other.inputs.present)
        assert torch.equal(one.pt, other.pt)
        assert torch.equal(one.target, other.target)
        torch.testing.assert_close(one.weight, other.weight)


def assert_refused(workplace) -> str:
    with pytest.raises(AdvtagError) as error:
        read_columns(workplace.columns)
    text = str(error.value)
    assert str(workplace.columns) in text
    return text


def test_no_columns(workplace) -> None:
    assert "advtag columns" in assert_refused(workplace)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[]", "{}", '{"features": {}}'])
def test_damaged_manifest(workplace, toys, text) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    (workplace.columns / "manifest.json").write_text(text, encoding="latin-1")
    assert_refused(workplace)


def test_only_data(workplace, toys) -> None:
    workplace.write({"run": [toys(50, 1, data=True)]})
    assert "no MC jets" in assert_refused(workplace)


def test_a_dataset_without_jets(workplace, toys) -> None:
    """A dataset whose files held no jet has no folder; the others are trained on."""
    workplace.write({"tt": [toys(100, 1)], "empty": []})
    assert len(read_columns(workplace.columns).train) > 0
    workplace.write({"empty": []})
    assert "no MC jets" in assert_refused(workplace)


@pytest.mark.parametrize(("split", "name"), [(0, "validation"), (1, "train")])
def test_an_empty_split(workplace, toys, split, name) -> None:
    jets = toys(50, 1)
    jets["split"][:] = split
    workplace.write({"tt": [jets]})
    assert f"the {name} split" in assert_refused(workplace)


@pytest.mark.parametrize("column", ["weight", "input_mass"])
def test_a_missing_column(workplace, toys, column) -> None:
    workplace.write({"tt": [toys(50, 1), toys(50, 2)]})
    path = sorted((workplace.columns / "tt").glob("*.parquet"))[1]
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    assert_refused(workplace)


def test_a_column_of_another_type(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1), toys(50, 2)]})
    path = sorted((workplace.columns / "tt").glob("*.parquet"))[1]
    table = pq.read_table(path)
    place = table.column_names.index("weight")
    pq.write_table(table.set_column(place, "weight", table["weight"].cast("string")), path)
    assert_refused(workplace)


def test_a_truncated_file(workplace, toys) -> None:
    workplace.write({"tt": [toys(50, 1)]})
    path = next((workplace.columns / "tt").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(workplace)


def test_the_manifest_of_the_test_is_that_of_the_job(workplace, toys) -> None:
    """The keys that are read here are written by processors.jobs under the same names."""
    from pathlib import Path

    import processors.jobs

    workplace.write({"tt": [toys(50, 1)]})
    source = Path(processors.jobs.__file__).read_text()
    for key in json.loads((workplace.columns / "manifest.json").read_text()):
        assert f'"{key}":' in source
