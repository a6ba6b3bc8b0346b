"""Profiles of sites: what is shipped is valid, layers lie in their order, and what is wrong is said in one line."""

from importlib.resources import files

import pytest

from common.errors import AdvtagError
from configs.sites import load_site, megabytes

NAMES = sorted(path.name.removesuffix(".yaml") for path in (files("configs") / "sites").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_shipped_profiles(name):
    site = load_site(name, [] if name == "local" else ["image=/cvmfs/image"])
    assert site.kind == {"local": "local", "slurm": "slurm"}.get(name, "htcondor")
    assert site.in_place == (name in ("local", "slurm"))


def test_layers(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{base: cern, image: /x, job_flavour: tomorrow, directives: {a: 1, b: 2}, environment: {ONE: 1}, source: me}"
    )
    site = load_site(str(path), ["memory=9GB", "directives.b=3", "environment={TWO: 2}"])
    assert (site.job_flavour, site.seconds, site.image_as) == ("tomorrow", 86400, "SingularityImage")
    assert (site.memory, megabytes(site.memory)) == ("9GB", 8583)
    assert site.directives == {"a": "1", "b": "3"}
    assert site.environment == {"TWO": "2"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("crn", [], "no site 'crn'; known: cern, desy, generic, local, lpc, slurm; did you mean 'cern'"),
        ("none.yaml", [], "none.yaml: cannot read it"),
        ("cern", [], "site cern: image: a job does not see the Python of this machine"),
        ("local", ["memroy=1GB"], "memroy: unknown key; did you mean 'memory'"),
        ("local", ["memory=3"], "memory: "),
        ("local", ["memory"], "expected key=value"),
        ("local", ["spool=true"], "spool: of no use for `kind: local`, only for htcondor"),
        ("cern", ["image=/x", "walltime=1h"], "walltime: the job_flavour says it already"),
        ("generic", ["image=/x", "gpu_memory=8GB"], "gpus: is 0"),
        ("cern", ["image=/x", "job_flavour=espresso"], "checkpoint: 30m is more than half of the wall time of 1200 s"),
        ("local", ["environment={'A B': 1}"], "environment.A B"),
        ("local", ["directives={a: b}"], "directives: of no use"),
        ("generic", ['image="a\\nb"'], "image: "),
    ],
)
def test_wrong_sites(name, options, message):
    with pytest.raises(AdvtagError) as error:
        load_site(name, options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
