"""Taggers as ONNX files, run by onnxruntime."""

import json
import math
import sys

import numpy as np
import pytest
import torch

import models.onnx
from common.errors import AdvtagError
from models.features import load_features
from models.networks import NETWORKS
from models.onnx import export_onnx, physical_jets
from models.tagger import Tagger

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = ("b", "bb", "c", "udsg")
PARAMETERS = {"particle_transformer": {"layers": 1}}  # exporting takes long
CARDS = {"deepjet": "deepjet", "particlenet": "particles", "particle_transformer": "particles"}


def new_tagger(network: str = "deepcsv", seed: int = 1) -> Tagger:
    """Untrained, with means and widths of the order of the card's plot ranges."""
    features = load_features(CARDS.get(network, "deepcsv"))
    low, high = torch.tensor([feature.bins[1:] for feature in features.inputs]).T
    torch.manual_seed(seed)
    parameters = PARAMETERS.get(network)
    tagger = Tagger(features, CLASSES, (low + high) / 2, (high - low) / 4, network=network, parameters=parameters)
    return tagger.eval().requires_grad_(False)


def run(path, values, present):
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits", "probabilities"], {"values": values.numpy(), "present": present.numpy()})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return new_export("deepcsv", tmp_path_factory)


def new_export(network: str, tmp_path_factory):
    tagger = new_tagger(network)
    path = tmp_path_factory.mktemp("onnx") / "tagger.onnx"
    export_onnx(tagger, path)
    return tagger, path


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_for_any_number_of_jets(tmp_path_factory, exported, network) -> None:
    tagger, path = exported if network == "deepcsv" else new_export(network, tmp_path_factory)
    for number in (1, 2, 7, 300):
        jets = physical_jets(tagger, number)
        logits, probabilities = run(path, *jets)
        expected = tagger(*jets)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), rtol=1e-5, atol=1e-5)
        assert logits.shape == (number, 4)
        assert logits.dtype == probabilities.dtype == np.float32


def test_it_is_standardisation_and_network_by_hand(exported) -> None:
    """Jet by jet and number by number, in float64, from the tagger's weights."""
    tagger, path = exported
    state = {name: tensor.double().numpy() for name, tensor in tagger.state_dict().items()}
    values, present = physical_jets(tagger, 5)
    logits, probabilities = run(path, values, present)
    for jet in range(5):
        x = []
        for k, feature in enumerate(tagger.features.inputs):
            there = (float(values[jet, k]) - state["mean"][k]) / state["std"][k]
            x.append(there if present[jet, k] else feature.absent_at)
        for layer in (0, 3, 6, 9, 12, 14):
            weight, bias = (state[f"network.layers.{layer}.{part}"] for part in ("weight", "bias"))
            x = [bias[i] + sum(w * value for w, value in zip(weight[i], x, strict=True)) for i in range(len(bias))]
            x = x if layer == 14 else [max(value, 0) for value in x]
        np.testing.assert_allclose(logits[jet], x, rtol=1e-4, atol=1e-5)
        total = sum(math.exp(value) for value in x)
        np.testing.assert_allclose(probabilities[jet], [math.exp(value) / total for value in x], rtol=1e-4)


def test_values_and_presence_reach_the_network(exported) -> None:
    """Each present value counts, the value of an absent entry does not, and presence itself does."""
    tagger, path = exported
    values, present = physical_jets(tagger, 1)
    values, present = values.repeat(68, 1), present.repeat(68, 1)
    values[torch.arange(67), torch.arange(67)] += tagger.std
    logits, _ = run(path, values, present)
    moved = (logits[:67] != logits[67]).any(1)
    np.testing.assert_array_equal(moved, present[0].numpy())
    values, present = values[67:].repeat(68, 1), present[67:].repeat(68, 1)
    present[torch.arange(67), torch.arange(67)] ^= True
    logits, _ = run(path, values, present)
    assert (logits[:67] != logits[67]).any(1).all()


def test_no_jets(exported) -> None:
    logits, probabilities = run(exported[1], torch.zeros(0, 67), torch.zeros(0, 67, dtype=torch.bool))
    assert logits.shape == probabilities.shape == (0, 4)


def test_the_file_says_what_it_is(exported) -> None:
    tagger, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["features"]) == list(tagger.features.names)
    assert json.loads(found["classes"]) == ["b", "bb", "c", "udsg"]
    assert (found["card"], found["card_digest"]) == ("deepcsv", tagger.features.digest)
    assert found["advtag"][0].isdigit()
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == found
    shapes = [(entry.name, entry.type, entry.shape[1]) for entry in [*session.get_inputs(), *session.get_outputs()]]
    floats, bools = "tensor(float)", "tensor(bool)"
    assert shapes == [
        ("values", floats, 67),
        ("present", bools, 67),
        ("logits", floats, 4),
        ("probabilities", floats, 4),
    ]
    assert [entry.shape[0] for entry in session.get_inputs()] == ["jets", "jets"]


def test_tagger_stays_as_it_was(tmp_path, capfd, exported) -> None:
    """In training, in double precision: the file is that of the tagger at rest, and the tagger trains on."""
    rested, path = exported
    tagger = new_tagger().double().requires_grad_().train()
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    export_onnx(tagger, tmp_path / "t.onnx")
    assert capfd.readouterr() == ("", "")
    assert tagger.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in tagger.parameters())
    for name, tensor in tagger.state_dict().items():
        assert tensor.dtype == torch.float64
        assert torch.equal(tensor, before[name])
    jets = physical_jets(rested, 20)
    np.testing.assert_array_equal(run(tmp_path / "t.onnx", *jets)[0], run(path, *jets)[0])


def test_a_graph_that_differs_is_refused(tmp_path, monkeypatch, exported) -> None:
    """One mean of 67 moved by a hundredth of a width; what was there before stays."""
    tagger, path = exported
    moved = new_tagger()
    moved.mean[5] += 0.01 * moved.std[5]
    monkeypatch.setattr(models.onnx, "_graph", lambda module: onnx.load(path))
    (tmp_path / "t.onnx").write_bytes(b"earlier")
    said = r"t\.onnx: onnxruntime finds other logits than torch for \d+ of \d+ jets, by up to"
    with pytest.raises(AdvtagError, match=said) as error:
        export_onnx(moved, tmp_path / "t.onnx")
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.onnx"]
    assert (tmp_path / "t.onnx").read_bytes() == b"earlier"
    export_onnx(tagger, tmp_path / "t.onnx")


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, exported, name) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AdvtagError, match=rf"'{name}': pip install advtag\[export\]$"):
        export_onnx(exported[0], tmp_path / "t.onnx")
    assert not list(tmp_path.iterdir())


def test_jets_of_the_check_are_physical(exported) -> None:
    features = exported[0].features
    values, present = physical_jets(exported[0], 500)
    for k, feature in enumerate(features.inputs):
        for value in values[:, k].tolist():
            assert np.float32(feature.bounds[0]) <= value <= np.float32(feature.bounds[1])
            assert not feature.integer or value == int(value)
    assert 0.15 < 1 - float(present.float().mean()) < 0.25
    assert present[-1].all()
    assert not present[-2].any()
    place = features.names.index
    assert torch.equal(present[:, place("trackDeltaR_2")], present[:, place("trackSip3dSig_2")])
    assert not torch.equal(present[:, place("trackDeltaR_2")], present[:, place("trackDeltaR_3")])


def test_rare_jumps_are_allowed_and_no_more(monkeypatch, exported, tmp_path) -> None:
    """Of 1000 jets two may differ, three may not; of three none."""
    tagger, path = exported
    monkeypatch.setattr(models.onnx, "_graph", lambda module: onnx.load(path))
    forward = Tagger.forward
    for size, jumps, refused in ((1000, 2, False), (1000, 3, True), (3, 1, True)):

        def jumping(self, values, present, size=size, jumps=jumps):
            logits = forward(self, values, present)
            return logits + 1e-3 * (torch.arange(len(values)) < jumps)[:, None] * (len(values) == size)

        monkeypatch.setattr(Tagger, "forward", jumping)
        if refused:
            with pytest.raises(AdvtagError, match=f"than torch for {jumps} of {size} jets, by up to 0.001"):
                export_onnx(tagger, tmp_path / "t.onnx")
        else:
            export_onnx(tagger, tmp_path / "t.onnx")
