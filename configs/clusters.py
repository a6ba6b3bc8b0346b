"""What a configuration may say about a cluster, and the profiles of sites: profile < configuration < command line."""

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dask.utils import parse_bytes, parse_timedelta
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from configs.attacks import Number, Section

FLAVOURS = {
    "espresso": 1200,
    "microcentury": 3600,
    "longlunch": 7200,
    "workday": 28800,
    "tomorrow": 86400,
    "testmatch": 259200,
    "nextweek": 604800,
}
"""Seconds of CERN's job flavours (batchdocs.web.cern.ch; the same table is in REANA's job controller)."""
BATCH = ("htcondor", "slurm")
KNOWN_TO = {
    **dict.fromkeys(("cores", "walltime", "ports", "host", "python", "directives"), BATCH),
    **dict.fromkeys(("disk", "job_flavour", "image", "submit_options"), ("htcondor",)),
}
"""Keys that only some kinds of cluster have a use for."""


def _bytes(text: str) -> str:
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise ValueError(f"expected a number and a unit, as in 2GB, not {text!r}") from error
    if size < 1_000_000:
        raise ValueError(f"{text!r} is less than a megabyte; write a unit, as in 2GB")
    return text


def _seconds(text: str) -> str:
    try:
        seconds = parse_timedelta(text)
    except (KeyError, ValueError) as error:
        raise ValueError(f"expected a number and a unit, as in 8h, not {text!r}") from error
    if seconds < 1:
        raise ValueError(f"{text!r} is less than a second; write a unit, as in 8h")
    return text


Size = Annotated[str, AfterValidator(_bytes)]
Duration = Annotated[str, AfterValidator(_seconds)]
Port = Annotated[int, Field(ge=1024, le=65535)]
Line = Annotated[str, Field(coerce_numbers_to_str=True, pattern=r"^[^\n\r]*$")]
"""One line: these end up in job files."""
Directive = Annotated[str, Field(pattern=r"^[\w.+-]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


class Cluster(Section):
    """Where the workers of a job run. A worker process has one thread, a batch job one process per core."""

    profile: str | None = None
    """What the other keys were laid upon: a shipped profile (`configs/clusters`), or the path of one."""
    kind: Literal["local", "htcondor", "slurm"]
    workers: Number = 2
    """Batch jobs, or processes of this machine. `run.workers` says the same and wins."""
    cores: Number = 1
    """Of a job."""
    memory: Size | None = None
    """Of a job; None: only on this machine, which is then divided."""
    disk: Size | None = None
    """Of a job, on the worker."""
    walltime: Duration | None = None
    """Of a job; for HTCondor it is written as MaxRuntime."""
    job_flavour: (
        Literal["espresso", "microcentury", "longlunch", "workday", "tomorrow", "testmatch", "nextweek"] | None
    ) = None
    """CERN's classes of wall time."""
    ports: tuple[Port, Port] | None = None
    """First and last of the ports at which scheduler and workers can reach each other; None: all are open."""
    host: str | None = None
    """Address of this machine, for the workers; None: the one that it has in the network."""
    image: Line | None = None
    """Container image with the dependencies of advtag, as SingularityImage."""
    python: Line | None = None
    """Python of the worker; None: the one that runs here, or `python3` of the image."""
    shared: bool = True
    """Workers see the files of this machine."""
    submit_options: tuple[Line, ...] = ()
    """Of condor_submit."""
    directives: dict[Directive, Line] = Field(default_factory=dict)
    """More lines of the job file: `key = value` for HTCondor; `--key=value` for Slurm, `--key` if there is no value."""
    environment: dict[Variable, Line] = Field(default_factory=dict)
    """More environment variables of the workers. No secrets: the job file holds them."""
    logs: Path = Path("cluster-logs")
    """Folder of the batch system's logs; a relative path is relative to the output folder."""
    timeout: Duration = "30m"
    """How long there may be no worker at all."""
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def seconds(self) -> int | None:
        """Wall time of a job, seconds."""
        if self.walltime is not None:
            return int(parse_timedelta(self.walltime))
        return FLAVOURS[self.job_flavour] if self.job_flavour else None

    @property
    def origins(self) -> dict[str, str]:
        """Where the value of each key came from."""
        return {key: self._origins.get(key, "default") for key in type(self).model_fields}

    def remember(self, configuration: Mapping[str, Any], all_layers: Mapping[str, Any]) -> None:
        """Note where each value came from.

        Args:
            configuration: keys that the configuration wrote
            all_layers: the same with those of the command line on top
        """
        if self.profile is not None:
            self._origins.update(dict.fromkeys(_read_profile(self.profile), f"profile {Path(self.profile).stem}"))
        for key, value in all_layers.items():
            same = key in configuration and configuration[key] == value
            self._origins[key] = "configuration" if same else "command line"

    @model_validator(mode="after")
    def _keys_are_of_use(self) -> "Cluster":
        for key, kinds in KNOWN_TO.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"{key}: of no use for `kind: {self.kind}`, only for {' and '.join(kinds)}")
        needed = {"memory": BATCH, "disk": ("htcondor",)}
        for key, kinds in needed.items():
            if self.kind in kinds and getattr(self, key) is None:
                raise ValueError(f"{key}: `kind: {self.kind}` needs it, as in `{key}: 2GB`")
        if self.walltime is not None and self.job_flavour is not None:
            raise ValueError("walltime: the job_flavour says it already; drop one")
        if self.ports is not None and self.ports[1] - self.ports[0] < 2:
            raise ValueError("ports: first and last of a range of at least three")
        if not self.shared and self.image is None and self.python is None:
            raise ValueError(
                "image: workers do not see this machine's Python. Name a container image that has the dependencies of "
                "advtag, or `python`, one that workers do see (docs/clusters.md)"
            )
        return self


def expanded(written: Any) -> dict[str, Any]:
    """`run.cluster` as keys: a name alone is that of a profile."""
    if isinstance(written, str):
        return {"profile": written}
    return dict(written) if isinstance(written, Mapping) else {}


def cluster_keys(run: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the cluster in a section `run` as written, `run.workers` among them; without a cluster, none."""
    keys = expanded(run.get("cluster"))
    return keys | {"workers": run["workers"]} if keys and run.get("workers") is not None else keys


def choose_cluster(run: dict[str, Any], written: Any) -> None:
    """Set `run.cluster` as the command line does; keys that were written for another profile do not apply to this."""
    if isinstance(written, str) and expanded(run.get("cluster")).get("profile") != written:
        run.pop("workers", None)
        run["cluster"] = {"profile": written}
    elif not isinstance(written, str):
        run["cluster"] = written


def _on_profile(written: Any) -> Any:
    """Lay the written keys on those of the profile; `directives` and `environment` are joined."""
    keys = expanded(written)
    name = keys.get("profile")
    if name is None:
        return written
    if not isinstance(name, str):
        raise ValueError(f"profile: expected a name or a path, not {name!r}")
    base = _read_profile(name)
    for key in ("directives", "environment"):
        if isinstance(base.get(key), dict) and isinstance(keys.get(key), dict):
            keys[key] = base[key] | keys[key]
    return base | keys


def _read_profile(name: str) -> dict[str, Any]:
    shipped = {path.name.removesuffix(".yaml"): path for path in (files("configs") / "clusters").iterdir()}
    if name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the profile {name} ({error})") from error
    else:
        near = difflib.get_close_matches(name, shipped, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "or the path of a YAML file"
        raise ValueError(f"no profile {name!r}; known: {', '.join(sorted(shipped))}; {hint}")
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"the profile {name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(written, dict):
        raise ValueError(f"the profile {name} holds no keys")
    return {key: value for key, value in written.items() if key != "source"}


ProfiledCluster = Annotated[Cluster | None, BeforeValidator(_on_profile)]
"""A cluster, the name or path of a profile, or a profile with changes on top."""
