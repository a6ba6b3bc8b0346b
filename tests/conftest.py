"""What several rooms' tests share: real NanoAOD files, a small simulated sample, an untrained tagger."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XRD_CONNECTIONWINDOW", "2")  # s; loopback answers at once, and servers die in the tests

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.features import load_features
from models.tagger import Tagger

NANO = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """Folder of simulated events: 300 ttbar in two files, 200 weighted QCD, 100 of data."""
    from simulation.run import simulate

    folder = tmp_path_factory.mktemp("simulated")
    simulate("ttbar", 300, folder, seed=11, events_per_file=150, progress=False)
    simulate("qcd", 200, folder, seed=12, progress=False)
    simulate("ttbar", 100, folder, variant="data", seed=13, progress=False)
    return folder


def make_tagger(card: str = "deepcsv", seed: int = 0) -> Tagger:
    """A tagger with random weights: its scores mean nothing, and depend on every input."""
    features = load_features(card)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mean = torch.from_numpy(rng.normal(size=len(features)).astype(np.float32))
    std = torch.from_numpy(rng.uniform(0.5, 20, len(features)).astype(np.float32))
    return Tagger(features, ("b", "bb", "c", "udsg"), mean, std).eval()


@pytest.fixture(scope="session")
def taggers(tmp_path_factory):
    """Files of two untrained deepcsv taggers, by name."""
    folder = tmp_path_factory.mktemp("taggers")
    paths = {name: folder / f"{name}.safetensors" for name in ("nominal", "adversarial")}
    for seed, path in enumerate(paths.values()):
        make_tagger(seed=seed).save(path)
    return paths


@pytest.fixture
def xrootd():
    """A running xrootd server on loopback, with no files yet."""
    from tests.processors.xrootd_server import XrootdServer

    if shutil.which("xrootd") is None:
        pytest.skip("no xrootd server here: make programs")
    server = XrootdServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def write_config(tmp_path):
    """Writes a configuration into tmp_path and returns its path."""

    def write(name: str = "analysis", **sections) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "output": f"out_{name}", **sections}))
        return path

    return write
