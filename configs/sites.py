"""What may be said about the place where batch jobs run, and the profiles of sites: profile < file < command line."""

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dask.utils import parse_bytes, parse_timedelta
from pydantic import Field, ValidationError, model_validator

from common.errors import AdvtagError
from configs.attacks import Number, Positive, Section
from configs.clusters import FLAVOURS, Directive, Duration, Line, Size, Variable

BATCH = ("htcondor", "slurm")
KNOWN_TO = {
    **dict.fromkeys(("walltime", "image", "directives", "accounting_group"), BATCH),
    **dict.fromkeys(
        ("disk", "gpu_memory", "gpu_capability", "gpu_requirements", "job_flavour", "spool", "unwritable", "archive"),
        ("htcondor",),
    ),
}
"""Keys that only some kinds of batch system have a use for."""


class Site(Section):
    """Where and with what a job runs. One job is one training, or one part of the files of a processor."""

    base: str | None = None
    """What the other keys are laid upon: a shipped profile (`configs/sites`)."""
    kind: Literal["htcondor", "slurm", "local"]
    cpus: Number = 1
    memory: Size = "4GB"
    disk: Size | None = None
    """On the worker: code, columns, and the shuffled copy that the training makes of them."""
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_memory: Size | None = None
    """At least this much, of each GPU."""
    gpu_capability: Positive | None = None
    """CUDA compute capability, at least."""
    gpu_requirements: Line | None = None
    """More of them, a ClassAd expression: `require_gpus`."""
    walltime: Duration | None = None
    walltime_as: Literal["MaxRuntime", "RequestRuntime"] = "MaxRuntime"
    """Attribute in which HTCondor is told of it."""
    job_flavour: Literal[tuple(FLAVOURS)] | None = None  # type: ignore[valid-type]
    """CERN's classes of wall time."""
    image: Line | None = None
    """Container image with the dependencies of advtag."""
    image_as: Literal["container_image", "SingularityImage", "MySingularityImage"] = "container_image"
    """How the pool wants to be told of it: its own container universe, or an attribute."""
    python: Line | None = None
    """Python that workers see, such as one on /cvmfs; None: `python3` of the image or of the archive."""
    archive: Path | None = None
    """A packed environment (conda-pack, venv-pack; .tar.gz) that travels with each job."""
    accounting_group: Line | None = None
    spool: bool = False
    """Hand all files to the schedd, which need not see this disk; `advtag jobs` fetches them back."""
    unwritable: tuple[str, ...] = ()
    """Folders below which the schedd cannot write."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a job that failed runs again."""
    checkpoint: Duration = "30m"
    """A training saves and steps aside this often: an evicted one goes on from there."""
    at_once: Number | None = None
    """Jobs that run at the same time, at most; None: as many as the site lets. On this machine: 1."""
    max_jobs: Number = 5000
    """In one submission; more is taken for a mistake."""
    shared: bool = False
    """Workers see the data of this machine under the same names."""
    directives: dict[Directive, Line] = Field(default_factory=dict)
    """More lines of the job file: `key = value` for HTCondor; `--key=value` for Slurm, `--key` if there is no value."""
    environment: dict[Variable, Line] = Field(default_factory=dict)
    """More environment variables of the jobs. No secrets: the job file holds them."""

    @property
    def seconds(self) -> int | None:
        """Wall time of a job, seconds."""
        if self.walltime is not None:
            return int(parse_timedelta(self.walltime))
        return FLAVOURS[self.job_flavour] if self.job_flavour else None

    @property
    def in_place(self) -> bool:
        """Jobs run in the folders of the submission, instead of in a copy."""
        return self.kind != "htcondor"

    @property
    def minutes(self) -> float:
        """Between two checkpoints."""
        return float(parse_timedelta(self.checkpoint)) / 60

    @model_validator(mode="after")
    def _keys_are_of_use(self) -> "Site":
        for key, kinds in KNOWN_TO.items():
            field = type(self).model_fields[key]
            if self.kind not in kinds and getattr(self, key) != field.get_default(call_default_factory=True):
                raise ValueError(f"{key}: of no use for `kind: {self.kind}`, only for {' and '.join(kinds)}")
        if self.walltime is not None and self.job_flavour is not None:
            raise ValueError("walltime: the job_flavour says it already; drop one")
        if not self.gpus and (self.gpu_memory or self.gpu_capability or self.gpu_requirements):
            raise ValueError("gpus: is 0, so that gpu_memory, gpu_capability and gpu_requirements say nothing")
        if self.kind in BATCH and not (self.image or self.python or self.archive):
            raise ValueError(
                "image: a job does not see the Python of this machine. Name a container image with the dependencies "
                "of advtag, or `python`, one that workers see"
                + (", or `archive`, a packed environment" if self.kind in KNOWN_TO["archive"] else "")
                + " (docs/clusters.md)"
            )
        if self.kind in BATCH and self.seconds is not None and 60 * self.minutes > self.seconds / 2:
            raise ValueError(f"checkpoint: {self.checkpoint} is more than half of the wall time of {self.seconds} s")
        return self


def megabytes(size: str) -> int:
    """A size in the binary megabytes that batch systems count in."""
    return max(1, round(int(parse_bytes(size)) / 2**20))


def load_site(name: str, options: Sequence[str] = ()) -> Site:
    """The site of a name or of a YAML file.

    Args:
        name: a shipped profile, or the path of a file of your own
        options: `key=value`, the value in YAML, laid on top

    Raises:
        AdvtagError: there is none of that name, or a key is wrong
    """
    written = _on_base(name)
    for option in options:
        key, equals, value = option.partition("=")
        *parents, last = key.split(".")
        if not equals or not key or len(parents) > 1:
            raise AdvtagError(f"--option {option!r}: expected key=value, such as memory=8GB")
        try:
            chosen = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise AdvtagError(f"--option {option!r}: the value is not YAML") from error
        place = written
        if parents:
            place = written[parents[0]] = dict(written.get(parents[0]) or {})
        place[last] = chosen
    try:
        return Site.model_validate(written)
    except ValidationError as error:
        raise AdvtagError(f"site {name}: {_described(error)}") from error


def _described(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, Site.model_fields, n=1)
        return f"{where}: unknown key; " + (
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(Site.model_fields)}"
        )
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _on_base(name: str) -> dict[str, Any]:
    """The keys of a file, laid on those of its base; `directives` and `environment` are joined."""
    keys = _read(name)
    if (base := keys.get("base")) is None:
        return keys
    if not isinstance(base, str) or base.endswith((".yaml", ".yml")):
        raise AdvtagError(f"site {name}: base: expected the name of a shipped profile, not {base!r}")
    below = _read(base)
    for key in ("directives", "environment"):
        if isinstance(below.get(key), Mapping) and isinstance(keys.get(key), Mapping):
            keys[key] = {**below[key], **keys[key]}
    return below | keys


def _read(name: str) -> dict[str, Any]:
    shipped = {path.name.removesuffix(".yaml"): path for path in (files("configs") / "sites").iterdir()}
    if name not in shipped and not name.endswith((".yaml", ".yml")):
        near = difflib.get_close_matches(name, shipped, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "or the path of a YAML file"
        raise AdvtagError(f"no site {name!r}; known: {', '.join(sorted(shipped))}; {hint}")
    try:
        written = yaml.safe_load((shipped[name] if name in shipped else Path(name).expanduser()).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise AdvtagError(f"site {name}: cannot read it ({error})") from error
    except yaml.YAMLError as error:
        raise AdvtagError(f"site {name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(written, dict):
        raise AdvtagError(f"site {name}: holds no keys")
    return {key: value for key, value in written.items() if key != "source"}
