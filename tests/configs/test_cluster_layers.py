"""Profile < configuration < command line, and what each mistake is told."""

import pickle
from importlib.resources import files

import pytest
import yaml

from common.errors import AdvtagError
from configs.clusters import FLAVOURS
from configs.load import load_analysis
from configs.schema import Run

SHIPPED = sorted(path.name for path in (files("configs") / "clusters").iterdir())


@pytest.fixture
def load(write_config):
    def run(overrides=(), **settings):
        path = write_config(features="nanoaod", datasets={"a": {"files": "a.root"}}, run=settings)
        return load_analysis(path, overrides).run

    return run


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_say_where_their_numbers_come_from(name):
    text = (files("configs") / "clusters" / name).read_text()
    assert text.startswith("# ")
    assert yaml.safe_load(text)["source"]
    needs_image = {"image": "/cvmfs/image"} if "shared: false" in text else {}
    run = Run.model_validate({"cluster": {"profile": name.removesuffix(".yaml"), **needs_image}})
    assert run.executor == "dask"


def test_values_of_three_layers(load):
    run = load(
        ["run.cluster.memory=4GB", "run.cluster.environment.A=1"],
        cluster={"profile": "lxplus", "image": "/mine", "environment": {"B": "2"}, "directives": {"MY.Mine": "3"}},
        workers=7,
    )
    cluster, origins = run.cluster, run.cluster.origins
    assert (cluster.memory, origins["memory"]) == ("4GB", "command line")
    assert (cluster.image, origins["image"]) == ("/mine", "configuration")
    assert (cluster.workers, origins["workers"]) == (7, "configuration")
    assert (cluster.ports, origins["ports"]) == ((10000, 10100), "profile lxplus")
    assert (cluster.cores, origins["cores"]) == (1, "default")
    assert cluster.environment == {"A": "1", "B": "2"}
    assert cluster.directives == {"MY.IsDaskWorker": "true", "MY.SpoolOnEvict": "false", "MY.Mine": "3"}
    assert cluster.seconds == FLAVOURS["workday"] == 8 * 3600
    assert cluster.logs.is_absolute()
    assert run.executor == "dask"
    assert pickle.loads(pickle.dumps(run)).cluster.origins == origins


def test_a_name_alone_takes_overrides(load):
    assert load(["run.cluster.memory=4GB"], cluster="slurm").cluster.memory == "4GB"
    assert load(["run.cluster=slurm", "run.cluster.walltime=2h"]).cluster.seconds == 7200


def test_another_profile_on_the_command_line_forgets_what_was_written_for_the_first(load):
    written = {"cluster": {"profile": "lxplus", "image": "/mine", "job_flavour": "espresso"}, "workers": 100}
    run = load(["run.cluster=local"], **written)
    assert (run.cluster.kind, run.cluster.workers, run.cluster.image) == ("local", 2, None)
    assert load(["run.cluster=lxplus"], **written).cluster.job_flavour == "espresso"
    assert load(["run.cluster=lxplus"], **written).cluster.workers == 100


def test_a_resolved_configuration_resolves_to_itself(load):
    run = load(["run.cluster.memory=4GB"], cluster={"profile": "lxplus", "image": "/mine"})
    assert Run.model_validate(run.model_dump(mode="json")).model_dump() == run.model_dump()


def test_a_profile_of_ones_own_lies_beside_the_configuration(load, tmp_path):
    (tmp_path / "site.yaml").write_text("{kind: htcondor, memory: 1GB, disk: 1GB}")
    run = load(["run.cluster.disk=3GB"], cluster="site.yaml")
    assert (run.cluster.memory, run.cluster.disk) == ("1GB", "3GB")
    assert run.cluster.origins["memory"] == "profile site"


def test_a_scheduler_implies_dask_and_other_executors_stay(load):
    assert load(scheduler="tcp://127.0.0.1:1").executor == "dask"
    assert load(["run.executor=iterative"], cluster="local").executor == "iterative"
    assert load().executor == "futures"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster": "lxpls"}, "run.cluster: no profile 'lxpls'.*did you mean 'lxplus'"),
        ({"cluster": "nowhere.yaml"}, "cannot read the profile .*nowhere.yaml"),
        ({"cluster": {"profile": "slurm", "memry": "1GB"}}, "run.cluster.memry: unknown key; did you mean 'memory'"),
        ({"cluster": {"profile": "slurm", "memory": "2"}}, "run.cluster.memory: '2' is less than a megabyte"),
        ({"cluster": {"profile": "slurm", "memory": "much"}}, "run.cluster.memory: expected a number and a unit"),
        ({"cluster": {"profile": "slurm", "walltime": "soon"}}, "run.cluster.walltime: expected a number and a unit"),
        ({"cluster": {"profile": "slurm", "job_flavour": "workday"}}, "job_flavour: of no use for `kind: slurm`"),
        ({"cluster": {"profile": "local", "ports": [10000, 10100]}}, "ports: of no use for `kind: local`"),
        ({"cluster": {"profile": "htcondor", "ports": [10100, 10000]}}, "ports: first and last"),
        ({"cluster": {"kind": "htcondor", "memory": "2GB"}}, "disk: `kind: htcondor` needs it"),
        ({"cluster": "lxplus"}, "image: workers do not see this machine's Python"),
        ({"cluster": {"profile": "lxplus", "image": "/i", "walltime": "1h"}}, "walltime: the job_flavour says it"),
        ({"cluster": {"profile": "slurm", "environment": {"A": "1\nexport B=2"}}}, "run.cluster.environment.A"),
        ({"cluster": {"profile": "slurm", "environment": {"A;B": "1"}}}, "run.cluster.environment"),
        ({"cluster": "local", "scheduler": "tcp://127.0.0.1:1"}, "cluster, scheduler: .* drop one"),
    ],
)
def test_mistakes_name_the_key(load, settings, message):
    with pytest.raises(AdvtagError, match=message):
        load(**settings)
