"""The tagger: its arithmetic, and its file."""

import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AdvtagError
from models.features import FeatureSet, load_features
from models.inputs import Inputs
from models.tagger import Tagger, load_tagger, read_tagger, tagger_from_bytes, worker_tagger

CLASSES = ("b", "bb", "c", "udsg")


def make(card: str = "deepcsv", seed: int = 0, **options) -> Tagger:
    features = load_features(card)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mean = torch.from_numpy(rng.normal(size=len(features)))
    std = torch.from_numpy(rng.uniform(0.5, 20, len(features)))
    return Tagger(features, CLASSES, mean, std, **options).eval()


def jets(number: int, features: int = 67, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    present = torch.from_numpy(rng.random((number, features)) < 0.7)
    values = torch.from_numpy(rng.normal(0, 10, (number, features)).astype(np.float32))
    return torch.where(present, values, 0), present


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return make(training={"name": "toy", "epochs": 3, "attack": None, "nested": {"a": [1, 2.5, "x"]}})


@pytest.fixture(scope="module")
def content(tagger) -> bytes:
    return tagger.to_bytes()


@dataclass
class File:
    """A tagger file taken apart, to damage it: 8 bytes of header length, JSON, tensors."""

    header: dict
    page: dict
    tensors: bytes

    @classmethod
    def open(cls, content: bytes) -> "File":
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        return cls(header, json.loads(header["__metadata__"]["advtag"]), content[end:])

    def close(self) -> bytes:
        self.header["__metadata__"] = {"advtag": json.dumps(self.page)}
        return self.without_page()

    def without_page(self) -> bytes:
        text = json.dumps(self.header).encode()
        return len(text).to_bytes(8, "little") + text + self.tensors


def assert_refused(content: bytes) -> str:
    with pytest.raises(AdvtagError) as error:
        tagger_from_bytes(content, "some/place.safetensors")
    text = str(error.value)
    assert text.startswith("some/place.safetensors: ")
    assert "\n" not in text
    return text


def test_forward_against_numpy(tagger) -> None:
    values, present = jets(40)
    mean, std = tagger.mean.double().numpy(), tagger.std.double().numpy()
    x = np.full((40, 67), -0.5)
    for jet in range(40):
        for k in range(67):
            if present[jet, k]:
                x[jet, k] = (float(values[jet, k]) - mean[k]) / std[k]
    state = {name: tensor.double().numpy() for name, tensor in tagger.network.state_dict().items()}
    linear = sorted({int(name.split(".")[1]) for name in state})
    for layer in linear:
        x = x @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
        if layer != linear[-1]:
            x = np.maximum(x, 0)
    np.testing.assert_allclose(tagger(values, present).detach().numpy(), x, rtol=1e-4, atol=1e-5)


def test_absent_entries_mean_nothing(tagger) -> None:
    values, present = jets(60)
    clean = tagger(values, present)
    for other in (1.0, -999.0, 7e31, -1.5e25):
        assert torch.equal(tagger(torch.where(present, values, other), present), clean)
    assert not torch.equal(tagger(values, torch.ones_like(present)), clean)


def test_gradient_of_absent_entries_is_zero(tagger) -> None:
    values, present = jets(60)
    values.requires_grad_()
    (gradient,) = torch.autograd.grad(tagger(values, present).exp().sum(), values)
    assert torch.isfinite(gradient).all()
    assert (gradient[~present] == 0).all()
    assert (gradient[present] != 0).float().mean() > 0.95


def test_presence_itself_is_information(tagger) -> None:
    """An absent entry sits at the card's place, which a present value can take too."""
    values, present = jets(1)
    place = tagger.mean - 0.5 * tagger.std
    torch.testing.assert_close(
        tagger(torch.where(present, values, place), torch.ones_like(present)), tagger(values, present)
    )


@pytest.mark.parametrize("card", ["deepcsv", "nanoaod"])
def test_file_round_trips_bit_by_bit(tmp_path, card) -> None:
    tagger = make(card, training={"name": "toy", "epochs": 3})
    path = tmp_path / "new" / "tagger.safetensors"
    tagger.save(path)
    back = load_tagger(path, tagger.features)
    assert back.to_bytes() == tagger.to_bytes() == path.read_bytes() == read_tagger(path)
    values, present = jets(200, len(tagger.features))
    assert torch.equal(back(values, present), tagger(values, present))
    assert back.features == tagger.features
    assert back.classes == CLASSES
    assert back.provenance == {"name": "toy", "epochs": 3}
    assert back.architecture == tagger.architecture
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_loaded_tagger_is_frozen_and_in_evaluation_mode(content) -> None:
    loaded = tagger_from_bytes(content, "x")
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_other_architectures_round_trip() -> None:
    tagger = make("nanoaod", parameters={"width": 11, "hidden": 2, "dropout": 0.0})
    back = tagger_from_bytes(tagger.to_bytes(), "x")
    assert sum(parameter.numel() for parameter in back.parameters()) == 20 * 11 + 11 + 11 * 11 + 11 + 11 * 4 + 4
    assert back.to_bytes() == tagger.to_bytes()


def test_no_pickle_in_the_file(content) -> None:
    """The file is a JSON header and the tensors' bytes, nothing else."""
    file = File.open(content)
    spans = sorted(entry["data_offsets"] for name, entry in file.header.items() if name != "__metadata__")
    assert spans[0][0] == 0
    assert [start for start, _ in spans[1:]] == [end for _, end in spans[:-1]]
    assert spans[-1][1] == len(file.tensors)
    assert {entry["dtype"] for name, entry in file.header.items() if name != "__metadata__"} == {"F32"}
    assert file.page["format"] == 1
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, UnicodeDecodeError)):
        pickle.loads(content)


def test_a_pickle_is_refused_and_not_run(tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    assert_refused(pickle.dumps(Bomb()))
    torch.save(Bomb(), tmp_path / "bomb.pt")
    assert_refused((tmp_path / "bomb.pt").read_bytes())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("garbage", [b"", b"\0", b"garbage", b"\xff" * 64, b"\0" * 64, b"{}", b"\2\0\0\0\0\0\0\0{}"])
def test_garbage_is_refused(garbage) -> None:
    assert "not a tagger file" in assert_refused(garbage)


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_truncated_file_is_refused(content, cut) -> None:
    assert_refused(content[: int(cut * len(content))])


@given(place=st.integers(0, 30_000), byte=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_damaged_header_is_refused_or_harmless(content, place, byte) -> None:
    """One wrong byte: a tagger of the same shape or one line, never another exception."""
    end = 8 + int.from_bytes(content[:8], "little")
    damaged = bytearray(content)
    damaged[place % end] = byte
    message = "x: "
    try:
        tagger = tagger_from_bytes(bytes(damaged), "x")
        assert len(tagger.mean) == len(tagger.features)
    except AdvtagError as error:
        message = str(error)
    assert message.startswith("x: ")


def test_other_format_is_refused(content) -> None:
    file = File.open(content)
    file.page["format"] = 2
    assert "format 2" in assert_refused(file.close())


def test_safetensors_of_somebody_else_is_refused(content) -> None:
    file = File.open(content)
    del file.header["__metadata__"]
    assert "not a tagger file" in assert_refused(file.without_page())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", {"network": "transformer", "parameters": {}}),
        ("architecture", {"network": "deepcsv", "parameters": {"depth": 3}}),
        ("architecture", {"network": "deepcsv", "parameters": {"width": 99}}),
        ("architecture", None),
        ("classes", ["b", "udsg"]),
        ("classes", 4),
        ("features", {"name": "x", "inputs": []}),
        ("features", None),
        ("training", 3),
    ],
    ids=str,
)
def test_wrong_page_is_refused(content, key, value) -> None:
    file = File.open(content)
    file.page[key] = value
    assert_refused(file.close())


@pytest.mark.parametrize("key", ["format", "architecture", "features", "classes", "training"])
def test_missing_page_key_is_refused(content, key) -> None:
    file = File.open(content)
    del file.page[key]
    assert_refused(file.close())


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(1)], ids=["3", "1"])
def test_standardisation_of_another_length_is_refused(tagger, wrong) -> None:
    """A single number would be broadcast over all features without a word."""
    other = make()
    other.mean = wrong
    assert_refused(other.to_bytes())


def test_wrong_card_is_refused_by_name(tmp_path, tagger) -> None:
    path = tmp_path / "t.safetensors"
    tagger.save(path)
    with pytest.raises(AdvtagError) as error:
        load_tagger(path, load_features("nanoaod"))
    text = str(error.value)
    assert text.startswith(str(path))
    for word in ("'deepcsv'", "'nanoaod'", tagger.features.digest):
        assert word in text


def test_a_card_with_other_labels_is_the_same_card(tmp_path, tagger) -> None:
    path = tmp_path / "t.safetensors"
    tagger.save(path)
    card = json.loads(tagger.features.model_dump_json())
    card["inputs"][3]["label"] = "another label"
    load_tagger(path, FeatureSet.model_validate(card))
    card["inputs"][3]["cap"] = 0.3
    with pytest.raises(AdvtagError):
        load_tagger(path, FeatureSet.model_validate(card))


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_unreadable_file(tmp_path, kind) -> None:
    path = tmp_path / "t.safetensors" if kind == "missing" else tmp_path
    with pytest.raises(AdvtagError, match="cannot read the tagger") as error:
        load_tagger(path)
    assert str(path) in str(error.value)


def test_save_below_a_file(tmp_path, tagger) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdvtagError, match="cannot write"):
        tagger.save(tmp_path / "file" / "t.safetensors")


def test_worker_tagger_is_built_once_per_type(content) -> None:
    first = worker_tagger(content, "x", torch.float64)
    assert worker_tagger(content, "x", torch.float64) is first
    assert worker_tagger(content, "x", torch.float32) is not first
    assert {tensor.dtype for tensor in first.state_dict().values()} == {torch.float64}
    values, present = jets(50)
    single = tagger_from_bytes(content, "x")(values, present)
    torch.testing.assert_close(first(values.double(), present).float(), single, rtol=1e-4, atol=1e-5)


def test_inputs_slice_move_and_convert() -> None:
    values, present = jets(10, 3)
    inputs = Inputs(values, present, torch.arange(10))
    assert len(inputs) == 10
    part = inputs[torch.tensor([4, 2])]
    assert torch.equal(part.values, values[[4, 2]])
    assert torch.equal(part.present, present[[4, 2]])
    assert part.key.tolist() == [4, 2]
    assert len(inputs[2:5]) == 3
    double = inputs.to(dtype=torch.float64)
    assert (double.values.dtype, double.present.dtype, double.key.dtype) == (
        torch.float64,
        torch.bool,
        torch.int64,
    )
    moved = inputs.moved(values + 1)
    assert moved.present is inputs.present
    assert moved.key is inputs.key
    assert torch.equal(inputs.values, values)


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_go_where_their_jets_go(weighted) -> None:
    values, present = jets(10, 3)
    weight = torch.linspace(-1, 3.5, 10) if weighted else None
    inputs = Inputs(values, present, torch.arange(10), weight)
    order = torch.tensor([7, 0, 7])
    parts = (inputs[order], inputs[2:5], inputs.moved(values + 1), inputs.to(dtype=torch.float64), inputs.to("cpu"))
    if not weighted:
        assert all(part.weight is None for part in parts)
        return
    assert torch.equal(parts[0].weight, weight[order])
    assert torch.equal(parts[1].weight, weight[2:5])
    assert parts[2].weight is weight
    assert torch.equal(parts[3].weight, weight)
    assert parts[4].weight.device.type == "cpu"


SCALES = {"core": torch.linspace(0, 2, 67), "quantile": torch.linspace(3, 0, 67)}


def test_scales_survive_the_file_and_the_type(tmp_path) -> None:
    tagger = make(scales=SCALES)
    assert tagger.scale("std") is tagger.std
    tagger.save(tmp_path / "t.safetensors")
    loaded = load_tagger(tmp_path / "t.safetensors")
    for name, width in SCALES.items():
        assert torch.equal(loaded.scale(name), width)
        assert loaded.double().scale(name).dtype == torch.float64
        loaded.float()
    assert loaded.to_bytes() == tagger.to_bytes()
    values, present = jets(20)
    assert torch.equal(loaded(values, present), make()(values, present))


@pytest.mark.parametrize("name", ["core", "mean", "scale_core", "absent_at", ""])
def test_an_unknown_scale_is_refused(tagger, name) -> None:
    """A tagger file of before knows its standard deviation alone."""
    loaded = tagger_from_bytes(tagger.to_bytes(), "x")
    with pytest.raises(AdvtagError, match=f"scale '{name}'; use `std`"):
        loaded.scale(name)
    assert torch.equal(loaded.scale("std"), tagger.std)


@pytest.mark.parametrize(
    "wrong", [torch.ones(66), torch.ones(1), torch.full((67,), -1.0), torch.full((67,), torch.nan)]
)
def test_scales_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="scale 'core': expected 67 finite numbers"):
        make(scales={"core": wrong})
    other = make(scales=SCALES)
    other.scale_core = wrong
    assert "scale 'core'" in assert_refused(other.to_bytes())


@pytest.mark.parametrize(("mean", "std"), [(float("nan"), 1.0), (0.0, 0.0), (0.0, float("inf")), (0.0, -1.0)])
def test_standardisation_that_cannot_be_is_refused(mean: float, std: float) -> None:
    features = load_features("nanoaod")
    with pytest.raises(ValueError, match="means and widths"):
        Tagger(features, ("b", "c", "udsg"), torch.full((20,), mean), torch.full((20,), std))


@pytest.mark.parametrize("classes", [("b", "c"), ("b", "c", "udsg", "tau"), ("bb", "c", "udsg")])
def test_classes_that_discriminators_cannot_use_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected b, c, udsg"):
        Tagger(load_features("nanoaod"), classes, torch.zeros(20), torch.ones(20))


@pytest.mark.parametrize("hidden", [1, 5])
@pytest.mark.parametrize("mixed", [False, True])
def test_vjp_is_that_of_autograd(hidden, mixed) -> None:
    tagger = make(parameters={"hidden": hidden})
    values, present = jets(300)
    slope = torch.randn(300, len(CLASSES), generator=torch.manual_seed(2))
    seen = tagger.standardise(values, present)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        free = seen.clone().requires_grad_()
        expected = tagger.network(free, present)
        (expected_back,) = torch.autograd.grad(expected, free, slope.to(expected.dtype))
        logits, back = tagger.vjp(seen, present)
        found = back(slope.to(logits.dtype))
    assert logits.dtype == (torch.bfloat16 if mixed else torch.float32)
    assert torch.equal(logits, expected)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected_back)
    assert not logits.requires_grad
    assert all(parameter.grad is None for parameter in tagger.parameters())


def test_vjp_of_a_network_that_trains_has_dropout() -> None:
    tagger = make(parameters={"dropout": 0.5}).train()
    values, present = jets(50)
    first, second = (tagger.vjp(tagger.standardise(values, present), present) for _ in range(2))
    assert not torch.equal(first[0], second[0])
    slopes = [back(torch.ones(50, len(CLASSES))) for _, back in (first, second)]
    assert slopes[0].shape == values.shape
    assert not torch.equal(*slopes)
