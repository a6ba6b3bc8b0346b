"""A real Slurm on loopback; Debian's packages are installed into .slurm-pool first."""

import os
from pathlib import Path

import pytest

from scripts import slurm_pool
from tests.batch import ROOT, running


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Folder of a running Slurm, whose commands come first on the PATH."""
    prefix = Path(os.environ.get("ADVTAG_SLURM_POOL", ROOT / ".slurm-pool"))
    with running(slurm_pool, prefix, tmp_path_factory.mktemp("slurm")) as local:
        yield local
