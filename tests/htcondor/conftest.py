"""A real HTCondor pool on loopback, started once; Debian's packages are installed into .condor-pool first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import condor_pool
from tests.batch import ROOT, running

BARE = """\
#!{python} -I
import runpy, sys
sys.path[:] = [path for path in sys.path if path != {root!r}]
assert sys.argv.pop(1) == "-m"
sys.argv[0] = sys.argv.pop(1)
if __name__ == "__main__":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def jobs(*states):
    """Numbers of the jobs in the queue that are in one of the states (1 idle, 2 running, 5 held; none: any but X)."""
    wanted = f"member(JobStatus, {{{','.join(map(str, states))}}})" if states else "JobStatus =!= 3"
    told = subprocess.run(["condor_q", "-constraint", wanted, "-af", "ClusterId"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """Folder of a running pool, whose commands come first on the PATH."""
    prefix = Path(os.environ.get("ADVTAG_CONDOR_POOL", ROOT / ".condor-pool"))
    with running(condor_pool, prefix, tmp_path_factory.mktemp("condor")) as local:
        yield local


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """A Python with all dependencies of advtag that cannot import advtag itself."""
    path = tmp_path_factory.mktemp("bare") / "python"
    path.write_text(BARE.format(python=sys.executable, root=str(ROOT)))
    path.chmod(0o755)
    tried = subprocess.run([path, "-m", "processors.work"], capture_output=True, text=True, cwd=path.parent)
    assert "No module named" in tried.stderr, tried.stderr
    return path


@pytest.fixture
def profile(pool, tmp_path):
    """Keys of `run.cluster` for the pool."""
    return {
        "kind": "htcondor",
        "workers": 2,
        "memory": "2GB",
        "disk": "100MB",
        "host": "127.0.0.1",
        "timeout": "60s",
        "logs": str(tmp_path / "logs"),
    }
