"""Jobs on a real HTCondor pool through dask-jobqueue: workers evicted, removed and held; nothing lost, nothing left."""

import datetime
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import dask
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import processors.batch
from common.environment import MALLOC, ONE_THREAD
from common.errors import AdvtagError
from common.interrupts import children_without_interrupts
from configs.clusters import Cluster
from configs.load import load_analysis
from configs.schema import Run
from processors.batch import job_options
from processors.clusters import SELDOM, dask_client, worker_environment
from processors.jobs import make_columns, make_histograms
from processors.proxy import proxy_problem
from tests.batch import advtag, check_columns, check_histograms, small_analysis, wait_until
from tests.htcondor.conftest import jobs

with children_without_interrupts():  # importing it replaces the handler of SIGINT, for good
    from dask_jobqueue.htcondor import HTCondorJob

pytestmark = pytest.mark.htcondor


@pytest.fixture
def analysis(simulated, taggers, write_config):
    """A configuration of columns and histograms in many small chunks."""

    return lambda name: small_analysis(write_config, name, simulated, taggers, 15)


def registered(logs):
    """Workers that have connected, by their own logs."""
    return sum("Registered to" in path.read_text() for path in logs.glob("*.err"))


@pytest.mark.parametrize(("verb", "command"), [("columns", "condor_vacate_job"), ("histograms", "condor_rm")])
def test_a_lost_worker_loses_no_event(verb, command, profile, bare_python, analysis, tmp_path):
    """The output is that of the loop in one process, although one of two workers, which cannot import advtag, is
    evicted or removed under way.
    """
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(profile | {"python": str(bare_python)}))
    process = advtag(verb, analysis("there"), "--cluster", site)
    make = {"columns": make_columns, "histograms": make_histograms}[verb]
    make(load_analysis(analysis("here")), progress=False)
    wait_until(lambda: registered(tmp_path / "logs") == 2)
    subprocess.run([command, jobs(2)[0]], check=True, capture_output=True)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert "profile site" in errors  # the table of the cluster: where each value came from
    assert jobs() == []
    check = {"columns": check_columns, "histograms": check_histograms}[verb]
    check(tmp_path / "out_here", tmp_path / "out_there")


def test_a_removed_job_is_submitted_again_and_an_evicted_one_comes_back(profile, monkeypatch):
    monkeypatch.setattr(processors.batch, "INTERVAL", 1.0)
    with dask_client(Run.model_validate({"cluster": profile})) as client:
        client.wait_for_workers(2, timeout=30)
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        evicted, removed = sorted(jobs(2))
        tasks = client.map(time.sleep, [0.2] * 40, pure=False)
        subprocess.run(["condor_vacate_job", "-fast", evicted], check=True, capture_output=True)
        subprocess.run(["condor_rm", removed], check=True, capture_output=True)
        assert len(client.gather(tasks)) == 40
        running = wait_until(lambda: len(jobs(2)) == 2 and sorted(jobs(2)))
        assert evicted in running
        assert removed not in running
    assert jobs() == []


def test_when_all_jobs_are_held_under_way_the_reason_is_told(profile, monkeypatch):
    monkeypatch.setattr(processors.batch, "INTERVAL", 1.0)
    hold = threading.Timer(0.1, lambda: subprocess.run(["condor_hold", "-all"], capture_output=True))

    def work():
        with dask_client(Run.model_validate({"cluster": profile})) as client:
            hold.start()
            client.gather(client.map(time.sleep, [1] * 100, pure=False))

    with pytest.raises(AdvtagError, match=r"all 2 jobs are held: via condor_hold"):
        work()
    hold.join()
    assert jobs() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python": "/no/such/python"}, "all 2 jobs ended before their workers could connect .* logs are in"),
        ({"directives": {"hold": "true"}}, "all 2 jobs are held: submitted on hold"),
        ({"directives": {"request_cpus": "(("}}, r"cannot be submitted: .*RequestCpus = \(\("),
        ({"cores": 100, "timeout": "3s"}, r"no worker for 3s \(jobs: 2 idle\)"),
    ],
)
def test_no_worker_comes(profile, changes, message):
    settings = Run.model_validate({"cluster": profile | changes})
    with pytest.raises(AdvtagError, match=message), dask_client(settings):
        pass
    assert jobs() == []


def test_an_interrupt_leaves_no_job(profile, analysis, tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(profile))
    process = advtag("histograms", analysis("interrupted"), "--cluster", site, "run.chunksize=1")
    wait_until(lambda: registered(tmp_path / "logs"))
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert jobs() == []
    assert not list((tmp_path / "logs").glob(".credentials*"))


def make_proxy(path, hours):
    """A certificate and its key in one file, as a grid proxy is."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now = datetime.datetime.now(datetime.UTC)
    start, end = sorted((now, now + datetime.timedelta(hours=hours)))
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, start, end).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    path.chmod(0o600)
    return path


def test_the_proxy_reaches_the_workers_and_no_log(profile, pool, tmp_path, monkeypatch):
    proxy = make_proxy(tmp_path / "proxy", 2)
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    certificate, end, _ = proxy.read_bytes().partition(b"-----END CERTIFICATE-----\n")
    certificate += end
    monkeypatch.setenv("X509_CERT_DIR", "/somewhere/certificates")
    keys = profile | {"workers": 1, "cores": 2, "submit_options": ["-spool"]}

    def look():
        return Path(os.environ["X509_USER_PROXY"]).read_bytes(), os.environ["X509_CERT_DIR"]

    with dask_client(Run.model_validate({"cluster": keys})) as client:
        found, certificates = client.submit(look).result()
        assert certificate in found  # HTCondor gives the job a proxy of the proxy: the key itself stays here
        assert certificates == "/somewhere/certificates"
        for name, value in (MALLOC | ONE_THREAD).items():  # although HTCondor sets OMP_NUM_THREADS to the cores
            assert set(client.run(os.getenv, name).values()) == {value}
        assert next(iter(client.run(lambda: {key: dask.config.get(key) for key in SELDOM}).values())) == SELDOM
        client.wait_for_workers(2, timeout=30)  # a process per core
        assert set(client.nthreads().values()) == {1}
    secret = proxy.read_bytes().splitlines()[-3]
    written = [path for folder in (tmp_path / "logs", pool / "log") for path in folder.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if secret in path.read_bytes()]


def test_a_proxy_is_looked_at_before_anything_runs(tmp_path, monkeypatch):
    files = ["/local.root", "root://cms-xrd-global.cern.ch//store/a.root"]
    monkeypatch.setenv("X509_USER_PROXY", str(make_proxy(tmp_path / "good", 2)))
    assert proxy_problem(files) is None
    monkeypatch.setenv("X509_USER_PROXY", str(make_proxy(tmp_path / "short", 0.5)))
    assert "lasts only" in proxy_problem(files)
    monkeypatch.setenv("X509_USER_PROXY", str(make_proxy(tmp_path / "old", -3)))
    assert "expired" in proxy_problem(files)
    assert proxy_problem(["/local.root", "root://localhost:1094//a.root"]) is None
    (tmp_path / "none").write_text("nothing")
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "none"))
    with pytest.raises(AdvtagError, match="not a grid proxy"):
        proxy_problem(files)
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "missing"))
    with pytest.raises(AdvtagError, match="there is no file"):
        proxy_problem(files)


@pytest.mark.parametrize("name", ["htcondor", "lxplus", "lpc"])
def test_condor_submit_understands_every_line(name, pool, tmp_path, monkeypatch):
    monkeypatch.setenv("X509_USER_PROXY", str(make_proxy(tmp_path / "proxy", 2)))
    for file in ("dask.crt", "dask.key"):
        (tmp_path / file).touch()
    keys = {"profile": name, "image": "/cvmfs/image", "logs": str(tmp_path), "environment": {"WITH": "a 'quoted' word"}}
    cluster = Run.model_validate({"cluster": keys}).cluster
    options = job_options(cluster, "advtag-test", worker_environment(cluster), tmp_path)
    del options["scheduler_options"]
    job = HTCondorJob("tls://submit.example.org:10000", name="worker", **options)
    script = tmp_path / "job.sub"
    script.write_text(job.job_script())
    told = subprocess.run(["condor_submit", "-dry-run", tmp_path / "ad", script], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "WARNING" not in told.stdout + told.stderr
    ad = dict(line.split("=", 1) for line in (tmp_path / "ad").read_text().splitlines() if "=" in line)
    assert ad["JobBatchName"] == '"advtag-test"'
    assert ad["SingularityImage"] == '"/cvmfs/image"'
    assert ad["x509userproxy"].strip('"').endswith("proxy")
    assert ad["DaskWorkerMemory"] == "2000000000"
    assert "MALLOC_MMAP_THRESHOLD_=33554432" in ad["Arguments"]
    assert "exec" in ad["Arguments"]
    if name == "lxplus":
        assert ad["JobFlavour"] == '"workday"'
        assert ad["Arguments"].count("10000:10100") == 2
        assert "--lifetime 28500s" in ad["Arguments"].replace("'", "")
        assert ad["IsDaskWorker"] == "true"
        assert "StreamOut=true" not in script.read_text()
    assert Cluster.model_validate({"kind": "local"}).image is None
