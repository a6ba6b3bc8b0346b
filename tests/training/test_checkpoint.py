"""Trainings that are killed, asked to leave, or find a checkpoint that is not theirs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import AdvtagError
from configs.load import load_analysis
from models.tagger import load_tagger
from training.cache import open_cache
from training.checkpoint import Checkpoint
from training.distributed import World
from training.records import Records
from training.stopping import CHECKPOINTED, TERMINATED, Stopping
from training.train import train, train_all

CHECKOUT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SETTINGS = {"attack": "noise", "epochs": 6, "batch": 40}
JOB = """
import sys
from pathlib import Path
import training.train as job
from configs.load import load_analysis
job.SAVE_EVERY = float(sys.argv[2])
minutes = float(sys.argv[3]) if len(sys.argv) > 3 else None
job.train_all(load_analysis(Path(sys.argv[1])), minutes=minutes, progress=False)
"""


@pytest.fixture(scope="module")
def jets(tmp_path_factory, toys):
    return toys(2000, 1)


@pytest.fixture
def place(workplace, jets):
    """Columns, and a configuration beside them."""
    workplace.write({"tt": [jets]})
    open_cache(workplace.columns)
    return workplace


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, jets):
    """Bytes of the tagger of a training that nobody disturbed."""
    from tests.training.conftest import Workplace

    place = Workplace(tmp_path_factory.mktemp("uninterrupted"))
    place.write({"tt": [jets]})
    (path,) = train_all(place.analysis({"t": SETTINGS}), progress=False)
    return path.read_bytes()


def start(place, *, every: float = 0.0, minutes: float | None = None) -> subprocess.Popen[bytes]:
    """The job in a process of its own; `every` 0 saves after each step."""
    place.analysis({"t": SETTINGS})
    arguments = [str(place.folder / "analysis.yaml"), str(every), *([] if minutes is None else [str(minutes)])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", JOB, *arguments], cwd=CHECKOUT, env=environment)


def last(place) -> Path:
    return place.folder / "out/taggers/checkpoints/t/last.safetensors"


def wait_for(changed, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not changed() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_at_random_points_and_bit_identical(place, uninterrupted) -> None:
    rng = np.random.default_rng()
    kills = 0
    for _ in range(50):
        before = last(place).stat().st_mtime_ns if last(place).exists() else 0
        process = start(place)
        wait_for(lambda before=before: last(place).exists() and last(place).stat().st_mtime_ns > before, process)
        time.sleep(float(rng.uniform(0, 0.5)))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
        if kills == 3:
            assert start(place).wait() == 0
            break
    assert kills >= 1
    assert (place.folder / "out/taggers/t.safetensors").read_bytes() == uninterrupted


@pytest.mark.parametrize(("minutes", "code"), [(None, TERMINATED), (60.0, CHECKPOINTED)], ids=["plain", "htcondor"])
def test_sigterm_saves_and_leaves(place, uninterrupted, minutes, code) -> None:
    process = start(place, every=0.0, minutes=minutes)
    wait_for(last(place).exists, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == code
    assert not (place.folder / "out/taggers/t.safetensors").exists()
    assert start(place, every=600.0).wait() == 0
    assert (place.folder / "out/taggers/t.safetensors").read_bytes() == uninterrupted


def test_leaves_with_85_when_its_time_is_up_until_it_is_done(place, uninterrupted) -> None:
    """Each run gets almost no time, and one step further."""
    analysis = place.analysis({"t": SETTINGS})
    for _ in range(20):
        with pytest.raises(SystemExit) as left:
            train_all(analysis, minutes=1e-9, progress=False)
        assert left.value.code == CHECKPOINTED
    (path,) = train_all(analysis, progress=False)
    assert path.read_bytes() == uninterrupted


def test_a_training_that_is_done_is_left_alone_and_can_be_made_longer(place) -> None:
    (path,) = train_all(place.analysis({"t": {**SETTINGS, "epochs": 2}}), progress=False)
    short, time_of = path.read_bytes(), last(place).stat().st_mtime_ns
    train_all(place.analysis({"t": {**SETTINGS, "epochs": 2}}), progress=False)
    assert path.read_bytes() == short
    assert last(place).stat().st_mtime_ns == time_of
    (longer,) = train_all(place.analysis({"t": {**SETTINGS, "epochs": 3}}), progress=False)
    (anew,) = train_all(place.analysis({"t": {**SETTINGS, "epochs": 3}}), restart=True, progress=False)
    for name, tensor in load_tagger(anew).state_dict().items():
        assert torch.equal(tensor, load_tagger(longer).state_dict()[name])


@pytest.mark.parametrize(
    "change", [{"batch": 41}, {"seed": 2}, {"attack": "fgsm"}, {"learning_rate": 2e-3}, {"loss": {"gamma": 1}}]
)
def test_the_checkpoint_of_another_configuration_is_refused_and_kept(place, change) -> None:
    settings = {**SETTINGS, "epochs": 1}
    train_all(place.analysis({"t": settings}), progress=False)
    before = {path: path.read_bytes() for path in (place.folder / "out/taggers").rglob("*.safetensors")}
    with pytest.raises(AdvtagError, match="another configuration") as error:
        train_all(place.analysis({"t": {**settings, **change}}), progress=False)
    assert "--restart" in str(error.value)
    assert str(last(place)) in str(error.value)
    for path, content in before.items():
        assert path.read_bytes() == content
    train_all(place.analysis({"t": {**settings, **change}}), restart=True, progress=False)


def test_an_attack_that_only_its_section_changed_is_another_configuration(place) -> None:
    settings = {**SETTINGS, "epochs": 1}
    train_all(place.analysis({"t": settings}), progress=False)
    attacks = {"noise": {"kind": "noise", "epsilon": 0.2}, "fgsm": {"kind": "fgsm", "epsilon": 0.1}}
    with pytest.raises(AdvtagError, match="another configuration"):
        train_all(place.analysis({"t": settings}, attacks=attacks), progress=False)


def test_a_damaged_checkpoint_is_refused_wherever_the_damage_is(place) -> None:
    settings = {**SETTINGS, "epochs": 1}
    analysis = place.analysis({"t": settings})
    train_all(analysis, progress=False)
    good = last(place).read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"garbage", good[:1000], good[: len(good) // 2]]
    for byte in rng.integers(8, len(good), 20):
        damaged.append(good[:byte] + bytes([good[byte] ^ 0x10]) + good[byte + 1 :])
    for content in damaged:
        last(place).write_bytes(content)
        with pytest.raises(AdvtagError, match="damaged checkpoint") as error:
            train_all(analysis, progress=False)
        assert str(last(place)) in str(error.value)
        assert "\n" not in str(error.value)
        assert last(place).read_bytes() == content


def test_a_full_disk_leaves_the_earlier_checkpoint(place, monkeypatch) -> None:
    settings = {**SETTINGS, "epochs": 1}
    train_all(place.analysis({"t": settings}), progress=False)
    before = last(place).read_bytes()

    def full(self, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AdvtagError, match="cannot write"):
        train_all(place.analysis({"t": {**settings, "epochs": 2}}), progress=False)
    assert last(place).read_bytes() == before
    assert not list(last(place).parent.glob(".*aside"))


def test_a_checkpoint_holds_everything(place) -> None:
    """Optimiser, schedule, random state and progress come back as they were."""
    cache = open_cache(place.columns)
    analysis = place.analysis({"t": {**SETTINGS, "epochs": 1}})
    kept = {}

    class Spy(Checkpoint):
        def save(self, progress) -> None:
            super().save(progress)
            kept["now"] = (self, progress, torch.get_rng_state(), self.optimiser.state_dict())

    import training.train as module

    module.Checkpoint, original = Spy, module.Checkpoint
    try:
        records = Records(place.folder / "spied", "t")
        train(cache, analysis.training["t"], analysis, records, World(CPU), Stopping())
    finally:
        module.Checkpoint = original
    checkpoint, progress, random, optimiser = kept["now"]
    torch.rand(5)
    for parameter in checkpoint.tagger.network.parameters():
        parameter.data.zero_()
    found = checkpoint.restore(CPU)
    assert torch.equal(torch.get_rng_state(), random)
    assert found.epoch == progress.epoch == 2
    assert found.history == progress.history
    for place_of, state in optimiser["state"].items():
        for name, tensor in state.items():
            assert torch.equal(checkpoint.optimiser.state_dict()["state"][place_of][name], tensor)
    assert any(parameter.abs().sum() > 0 for parameter in checkpoint.tagger.network.parameters())


TOGETHER = """
import sys
from pathlib import Path
from training.train import train_all
from configs.load import load_analysis
train_all(load_analysis(Path(sys.argv[1])), progress=False)
"""


def test_two_processes_train_what_one_trains(workplace, toys, tmp_path) -> None:
    """Without dropout, and with one weight for all, averaged gradients of half batches are those of the batch."""
    jets = toys(2000, 1)
    jets["weight"][:] = 1
    jets["split"][np.flatnonzero(jets["split"] == 0)[1000:]] = 2
    workplace.write({"tt": [jets]})
    place = workplace
    place.analysis({"t": {"epochs": 1, "batch": 100, "parameters": {"dropout": 0.0}, "weights": "none"}})
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(script), str(place.folder / "analysis.yaml")], env=environment, check=True)
    both = load_tagger(place.folder / "out/taggers/t.safetensors")
    cache = open_cache(place.columns)
    analysis = load_analysis(place.folder / "analysis.yaml")
    records = Records(tmp_path / "alone", "t")
    alone = train(cache, analysis.training["t"], analysis, records, World(CPU), Stopping())
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(both.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)
