"""Provenance: versions of what can change a number, and the commit."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from common import provenance as module
from common.provenance import provenance


def test_versions_are_those_of_the_process() -> None:
    found = provenance()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["torch"] == version("torch")
    assert torch.__version__.startswith(found["torch"])
    assert json.loads(json.dumps(found)) == found


def test_commit_is_that_of_the_checkout() -> None:
    checkout = Path(module.__file__).parents[1]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False
    ).stdout.strip()
    if head:
        assert head.startswith(provenance()["git"].removesuffix("-dirty").rpartition("-g")[2])
    else:
        assert provenance()["git"] == "unknown"


def test_no_checkout_and_no_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "common" / "provenance.py"))
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "surely-not-installed"))
    found = provenance()
    assert found["git"] == "unknown"
    assert found["surely-not-installed"] == "absent"


def test_somebody_elses_repository_is_not_ours(tmp_path, monkeypatch) -> None:
    """An installed wheel can lie inside another project's checkout."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    site = tmp_path / "venv" / "site-packages" / "common"
    site.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(site / "provenance.py"))
    assert provenance()["git"] == "unknown"
