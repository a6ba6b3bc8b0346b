"""The GPU benchmark on the CPU: its card, its attack and its steps are advtag's, and it runs by itself."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import attacks.budget
import attacks.coupling
from attacks import FGSM, Budget
from models.features import load_features
from models.inputs import Inputs
from models.tagger import Tagger

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_gpu.py"
CPU = torch.device("cpu")
FEATURES = load_features("deepcsv")


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("training_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def jets(gpu):
    return gpu.random_jets(3000, CPU)


@pytest.fixture(scope="module")
def card(gpu, jets):
    return gpu.fitted_card(jets)


@pytest.fixture(scope="module")
def network(gpu):
    torch.manual_seed(2)
    return gpu.new_network(0.1)


@pytest.fixture(scope="module")
def tagger(network, card) -> Tagger:
    tagger = Tagger(FEATURES, ("b", "bb", "c", "udsg"), card.mean, card.std)
    tagger.network.load_state_dict({f"layers.{name}": tensor for name, tensor in network.state_dict().items()})
    return tagger


def test_card_is_that_of_advtag(gpu, card) -> None:
    np.testing.assert_array_equal(torch.stack([card.low, card.high], 1).numpy(), FEATURES.bounds.astype(np.float32))
    np.testing.assert_array_equal(np.isin(np.arange(67), gpu.INTEGER), FEATURES.integer)
    np.testing.assert_array_equal((card.step == 0).numpy(), FEATURES.integer)
    assert {*FEATURES.caps} == {gpu.CAP}
    assert {*FEATURES.absent_at} == {gpu.ABSENT_AT}
    assert not FEATURES.frozen.any()
    assert FEATURES.pins == ((gpu.PIN, gpu.PINNED),)
    coupled, sources = FEATURES.followers
    assert (coupled, sources) == (gpu.FOLLOWERS, tuple(map(tuple, gpu.SOURCES)))
    assert not any(feature.proportional_to for feature in FEATURES.inputs)


@pytest.mark.parametrize("compiled", [True, False])
def test_attack_is_that_of_advtag(gpu, jets, card, network, tagger, monkeypatch, compiled) -> None:
    """Bit by bit, of advtag's passes for the CPU and of those for the GPU."""
    if not compiled:
        monkeypatch.setattr(attacks.budget, "_between_compiled", attacks.budget._between)
        monkeypatch.setattr(attacks.coupling, "_sources_compiled", attacks.coupling._sources)
        monkeypatch.setattr(Tagger, "_compiled", lambda self, values: False)
    inputs = Inputs(jets.values, jets.present, torch.arange(len(jets.target)))
    expected = FGSM(Budget(epsilon=gpu.EPSILON))(tagger, inputs, jets.target).values
    found = gpu.Training(network, card, adversarial=True).attacked(jets)
    assert torch.equal(found, expected)


def test_toy_jets_have_all_cases(gpu, jets, card, network) -> None:
    """Else the comparison above would show nothing: entries at caps, bounds, pins, coupled, absent, integer."""
    moved = gpu.Training(network, card, adversarial=True).attacked(jets)
    change = (moved - jets.values).abs()
    follows = card.followed(jets.values, jets.present) != card.columns
    assert 0.2 < float(follows.float().mean()) < 0.8
    for column, follower in enumerate(gpu.FOLLOWERS):
        followed = card.followed(jets.values, jets.present)[:, column]
        together = moved[:, follower] == moved.gather(1, followed[:, None])[:, 0]
        assert together[follows[:, column]].all()
    free = ~torch.from_numpy(FEATURES.integer)
    assert not change[:, ~free].any()
    assert not change[~jets.present].any()
    pinned = jets.present[:, gpu.PIN] & (jets.values[:, gpu.PIN] == gpu.PINNED)
    assert pinned.sum() > 100
    assert not change[pinned, gpu.PIN].any()
    present = jets.present & free
    full, cap = change / card.full, change / jets.values.abs()
    assert (present & torch.isclose(full, torch.tensor(1.0), rtol=1e-3)).float().mean() > 0.2
    assert (present & torch.isclose(cap, torch.tensor(0.2), rtol=1e-3)).sum() > 1000
    at_bound = ((jets.values == card.low) | (jets.values == card.high)) & (jets.values != 0)
    assert (present & at_bound & (change == 0)).sum() > 100
    assert (present & at_bound & (change > 0)).sum() > 100


@pytest.mark.parametrize("adversarial", [False, True])
def test_step_is_that_of_advtag(gpu, jets, card, tagger, adversarial) -> None:
    """Loss, gradients and weights after a step, written down with advtag's parts; no dropout."""
    quiet = gpu.new_network(0.0)
    state = tagger.network.state_dict()
    quiet.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in state.items()})
    training = gpu.Training(quiet, card, adversarial=adversarial)
    training.step(jets)
    reference = Tagger(FEATURES, tagger.classes, card.mean, card.std, parameters={"dropout": 0.0})
    reference.network.load_state_dict(state)
    inputs = Inputs(jets.values, jets.present, torch.arange(len(jets.target)))
    if adversarial:
        inputs = FGSM(Budget(epsilon=gpu.EPSILON))(reference, inputs, jets.target)
    losses = cross_entropy(reference(inputs.values, inputs.present), jets.target, reduction="none")
    loss = sum(losses[k] * jets.weight[k] for k in range(3000)) / sum(abs(jets.weight[k]) for k in range(3000))
    optimiser = torch.optim.Adam(reference.network.parameters(), lr=1e-4)
    loss.backward()
    optimiser.step()
    torch.testing.assert_close(training.loss, loss.detach(), rtol=1e-5, atol=0)
    for mine, theirs in zip(training.network.parameters(), reference.network.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()
    assert all(parameter.grad is None for parameter in training.rested.parameters())
    for shared, parameter in zip(training.rested.parameters(), training.network.parameters(), strict=True):
        assert torch.equal(shared, parameter)


class Log(TorchDispatchMode):
    """Names of the operations, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.bytes = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        self.names.add(function.name())
        if not function.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.itemsize for tensor in tensors)
        return found


@pytest.mark.parametrize("adversarial", [False, True])
def test_step_can_be_captured_and_moves_as_many_bytes_as_it_says(gpu, jets, card, adversarial) -> None:
    """No value is asked for and no number becomes a tensor: on a GPU, both break a capture. Without dropout, which is
    other kernels on the CPU.
    """
    training = gpu.Training(gpu.new_network(0.0), card, adversarial=adversarial)
    order = torch.arange(3000)
    training.step(jets.at(order))
    with Log() as log:
        training.step(jets.at(order))
    assert "aten::addmm" in log.names
    forbidden = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select")
    assert not log.names & {f"aten::{name}" for name in forbidden}
    # Adam, whose share depends on the batch, is not counted per jet: 47,604 parameters, read and written
    adam = 7 * 4 * 47_604 / 3000
    expected = gpu.step_bytes("fp32", adversarial) - 16 * 100 * 4 - 8 * 100
    assert log.bytes / 3000 - adam == pytest.approx(expected, rel=0.08)


def test_check_fails_loudly(gpu, jets, card, monkeypatch) -> None:
    """An attack that moves integers on the device, and not in the reference."""
    assert all(apart < 0.05 for apart in gpu.check(jets, card).values())
    broken = gpu.fitted_card(jets)
    interval = gpu.Card.interval

    def careless(self, values, present, source):
        low, high = interval(self, values, present, source)
        return (low - self.full, high + self.full) if self is broken else (low, high)

    monkeypatch.setattr(gpu.Card, "interval", careless)
    with pytest.raises(SystemExit, match="check: eager fp32 adversarial: away from float64"):
        gpu.check(jets, broken)


def run(*options: str) -> subprocess.CompletedProcess:
    """Away from the checkout, so that nothing of advtag can be imported."""
    command = [sys.executable, "-P", str(SCRIPT), *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd="/", check=False)


def test_runs_by_itself(gpu, jets, tmp_path) -> None:
    columns = {"values": jets.values, "present": jets.present, "target": jets.target}
    save_file(columns, tmp_path / "jets.safetensors")
    done = run("--device", "cpu", "--jets", "2000", "--data", str(tmp_path / "jets.safetensors"))
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout.splitlines()[-1])
    assert page["name"] == "training_gpu"
    figures = page["figures"]
    assert "2,000 jets" in done.stderr
    rates = [
        figures[f"eager_{p}_1000_{kind}_mjets_per_s"] for p in ("fp32", "bf16") for kind in ("nominal", "adversarial")
    ]
    assert all(rate > 0 for rate in rates)
    assert figures["nominal_mjets_per_s"] == max(rates[0], rates[2])
    assert figures["adversarial_mjets_per_s"] == max(rates[1], rates[3])
    assert figures["epoch_10m_s"] == pytest.approx(10 / figures["nominal_mjets_per_s"], rel=0.01)
    assert figures["epoch_10m_adversarial_s"] == pytest.approx(10 / figures["adversarial_mjets_per_s"], rel=0.01)
    minutes = 672e6 * 200 / (figures["nominal_mjets_per_s"] * 1e6) / 60
    assert figures["seed_study_nominal_minutes"] == pytest.approx(minutes, rel=0.01)
    assert figures["of_memory_bound"] > 0
    assert figures["copy_tb_per_s"] > 0


def test_says_that_there_is_no_gpu() -> None:
    done = run()
    assert done.returncode == 0
    assert "no GPU here" in done.stderr
    assert json.loads(done.stdout) == {"name": "training_gpu", "figures": None}
