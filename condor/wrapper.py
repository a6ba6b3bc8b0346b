"""The script that runs in the folder of a job, on whatever machine."""

import shlex

from common.environment import MALLOC
from condor.job import CHECKPOINTED, CODE, OUT, Job

ENVIRONMENT = "environment.tar.gz"
RUN = """\
run() {
    child= asked=
    trap 'asked=yes; [ -z "$child" ] || kill -TERM "$child"' TERM
    "$python" code/advtag.py "$@" < /dev/null &
    child=$!
    [ -z "$asked" ] || kill -TERM "$child"
    wait "$child"; code=$?
    while kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done
    trap - TERM
    [ "$code" = 0 ] || finish
}
finish() {
    [ "$code" = CHECKPOINTED ] || echo "$code" > OUT/exit_code
    exit "$code"
}
"""


def wrapper(job: Job) -> str:
    """The script of a stage. It takes no argument: what differs between jobs is in their config.yaml."""
    site = job.site
    links = {**job.links, **(job.shared_links if site.in_place else {})}
    lines = [
        "#!/bin/sh",
        f"# One job of {job.stage}, made by advtag. Its folder is the working directory.",
        "set -u",
        f"mkdir -p {OUT} work  # before anything can fail: HTCondor holds a job that lacks what it should bring back",
        f"rm -f {OUT}/exit_code",
        f'echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) {job.stage} on $(hostname)" >> {OUT}/hosts.txt',
        *(
            f"export {name}={shlex.quote(value)}"
            for name, value in {**MALLOC, **job.environment, **site.environment}.items()
        ),
        *RUN.replace("CHECKPOINTED", str(CHECKPOINTED)).replace("OUT", OUT).splitlines(),
        *_python(job),
        f'[ -d code ] || {{ rm -rf code.aside; "$python" -m zipfile -e {CODE} code.aside && mv code.aside code; }}',
        *_columns(job),
        *(_link(name, target) for name, target in links.items()),
        *(f"run {shlex.join(command)}" for command in job.commands),
        "code=0",
        *(["rm -rf code work"] if site.in_place else []),
        "finish",
    ]
    return "\n".join(lines) + "\n"


def _python(job: Job) -> list[str]:
    if job.site.archive is None:
        return [f"python=${{ADVTAG_PYTHON:-{shlex.quote(job.site.python or 'python3')}}}"]
    return [
        f"[ -d env ] || {{ mkdir env.aside && tar -xzf {ENVIRONMENT} -C env.aside && mv env.aside env; }} || exit 1",
        "[ ! -x env/bin/conda-unpack ] || env/bin/python env/bin/conda-unpack",
        "python=env/bin/python",
    ]


def _columns(job: Job) -> list[str]:
    if job.fetch is None:
        return []
    fetch = f'(cd code && "$python" -m common.fetch {shlex.quote(job.fetch)} ../columns)'
    return [f"[ -d columns ] || {fetch} || {{ code=$?; finish; }}"]


def _link(name: str, target: str) -> str:
    return f"mkdir -p {shlex.quote(target)} && ln -sfn {shlex.quote(f'../{target}')} {shlex.quote(name)}"
