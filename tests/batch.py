"""What the tests on real batch systems share: a small analysis, waiting, and what one process makes of the same."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest

from common.histograms import read_histograms
from condor.state import ENDED
from condor.status import queue, states
from scripts.pool import PoolError

ROOT = Path(__file__).parent.parent


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.3)
    return found


@contextmanager
def running(module, prefix, local):
    """A batch system, whose commands come first on the PATH; the tests are skipped, or on CI fail, if there is none."""
    before = dict(os.environ)
    try:
        module.install(prefix)
        os.environ.update(module.start(prefix, local))
    except PoolError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    try:
        yield local
    finally:
        module.stop(local)
        os.environ.clear()
        os.environ.update(before)


def advtag(*arguments):
    return subprocess.Popen(
        [sys.executable, ROOT / "advtag.py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(folder, ledger, seconds=120):
    """States of all jobs, once all have ended."""

    def all_ended():
        found = states(folder, ledger)
        return found if all(state.word in ENDED for state in found.values()) and not queue(folder, ledger) else None

    return wait_until(all_ended, seconds)


def uninterrupted(folder, label, target):
    """The tagger that the script of the job makes here, without a pause."""
    target.mkdir()
    script = (folder / "train.sh").read_text()
    before, _, after = script.partition("--exit-after ")
    (target / "train.sh").write_text(f"{before}--exit-after 600 {after.partition(' ')[2]}")
    for path in [
        *(folder / "payload").iterdir(),
        folder / "items" / label / "config.yaml",
        folder.parents[1] / "columns",
    ]:
        (target / path.name).symlink_to(path)
    subprocess.run(["/bin/sh", "train.sh"], cwd=target, check=True, capture_output=True)
    return target / "out/taggers" / f"{label}.safetensors"


def small_analysis(write_config, name, simulated, taggers, chunksize, **histograms):
    """A configuration of columns and histograms."""
    return write_config(
        name,
        features="deepcsv",
        datasets={"ttbar": {"files": str(simulated / "ttbar_mc_11_*.root"), "cross_section": 500.0}},
        columns={"datasets": ["ttbar"]},
        attacks={"fgsm": {"kind": "fgsm", "epsilon": 0.05}},
        histograms={
            "datasets": ["ttbar"],
            "taggers": {"nominal": str(taggers["nominal"])},
            "attacks": ["fgsm"],
            "precision": "float64",
            **histograms,
        },
        run={"executor": "iterative", "chunksize": chunksize},
    )


def check_columns(here, there):
    expected, found = (
        pyarrow.dataset.dataset(folder / "columns/ttbar", format="parquet")
        .to_table()
        .sort_by([("event", "ascending"), ("jet_index", "ascending")])
        for folder in (here, there)
    )
    assert len(expected) > 500
    assert found.equals(expected)


def check_histograms(here, there):
    files = sorted(path.relative_to(here) for path in here.rglob("*.zip"))
    assert files
    for file in files:
        expected, found = read_histograms(here / file), read_histograms(there / file)
        assert found.datasets == expected.datasets
        assert found.histograms.keys() == expected.histograms.keys()
        for name, histogram in expected.histograms.items():
            assert histogram.sum(flow=True).value != 0
            for what in ("values", "variances"):
                np.testing.assert_allclose(
                    getattr(found.histograms[name], what)(flow=True), getattr(histogram, what)(flow=True), rtol=1e-9
                )
