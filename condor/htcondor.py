"""A job as HTCondor's submit description, item list and DAG.

Comments at the ends of lines are part of the value in these languages, so there are none.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from condor.job import CHECKPOINTED, CODE, OUT, TO_ITEMS, Item, Job
from condor.wrapper import ENVIRONMENT
from configs.sites import Site, megabytes

GRACE = 120
"""Seconds between SIGTERM and SIGKILL on eviction."""
LOST = "(HoldReasonCode == 12 || HoldReasonCode == 13)"
"""A file could not be brought there or back; the next machine may do better."""


def submit_description(job: Job, items: str | None = None) -> str:
    """The submit description of a stage.

    Args:
        job: the stage
        items: file of the labels; None: the one job of a DAG's node, which sets `label` (not `item`: that name is
            HTCondor's own, and empty where nothing is queued from a list)
    """
    site = job.site
    lines = {
        "universe": "container" if site.image and site.image_as == "container_image" else "vanilla",
        "executable": f"{job.stage}.sh",
        "batch_name": f"advtag-{job.name}",
        "initialdir": "items/$(label)",
        # with max_materialize, a log without a macro is that of the first job for all of them
        "log": "../$(label)/job.log",
        "output": "job.out",
        "error": "job.err",
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "transfer_input_files": ", ".join(_travelling(job)),
        "transfer_output_files": OUT,
        "job_max_vacate_time": str(GRACE),
        "periodic_release": f"{LOST} && (NumJobStarts < 5) && (time() - EnteredCurrentStatus > 600)",
        **_asked(site),
        "MY.AdvtagSubmission": quoted(job.identity),
        "MY.AdvtagItem": quoted("$(label)", macros=True),
        "MY.AdvtagStage": quoted(job.stage),
    }
    if job.checkpointed:
        lines |= {"checkpoint_exit_code": str(CHECKPOINTED), "transfer_checkpoint_files": OUT}
    if job.proxy:
        lines["use_x509userproxy"] = "true"
    if items is None:  # a held node holds its DAG for ever: it fails instead, and DAGMan retries it
        lines["periodic_remove"] = "(JobStatus == 5) && (time() - EnteredCurrentStatus > 7200)"
    else:
        lines["max_retries"] = str(site.retries)
        if site.at_once is not None:
            lines["max_materialize"] = str(site.at_once)
    lines |= site.directives
    queue = "queue" if items is None else f"queue label from {items}"
    return "".join(f"{key} = {value}\n" for key, value in lines.items()) + queue + "\n"


def _travelling(job: Job) -> list[str]:
    environment = [f"{TO_ITEMS}payload/{ENVIRONMENT}"] if job.site.archive else []
    return [f"{TO_ITEMS}payload/{CODE}", *environment, *job.inputs]


def _asked(site: Site) -> dict[str, str]:
    """What a machine must offer, and for how long."""
    lines = {"request_cpus": str(site.cpus), "request_memory": f"{megabytes(site.memory)}MB"}
    if site.disk is not None:
        lines["request_disk"] = f"{megabytes(site.disk)}MB"
    asked = {
        "request_gpus": site.gpus or None,
        "gpus_minimum_capability": site.gpu_capability,
        "gpus_minimum_memory": f"{megabytes(site.gpu_memory)}MB" if site.gpu_memory else None,
        "require_gpus": site.gpu_requirements,
    }
    lines |= {key: str(value) for key, value in asked.items() if value is not None}
    if site.job_flavour is not None:
        lines["MY.JobFlavour"] = quoted(site.job_flavour)
    elif site.seconds is not None:
        lines[f"MY.{site.walltime_as}"] = str(site.seconds)
    if site.image is not None and site.image_as == "container_image":
        lines["container_image"] = macro_free(site.image)
    elif site.image is not None:
        lines[f"MY.{site.image_as}"] = quoted(site.image)
    if site.accounting_group is not None:
        lines["accounting_group"] = macro_free(site.accounting_group)
    return lines


def quoted(text: str, *, macros: bool = False) -> str:
    """A string of the ClassAd language. Without the quotes, HTCondor takes it for the name of an attribute."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text if macros else macro_free(text)}"'


def macro_free(text: str) -> str:
    """A text of a submit description whose dollars mean themselves."""
    return re.sub(r"\$(?=[($A-Za-z])", "$(DOLLAR)", text)


def item_list(items: Iterable[Item]) -> str:
    """The labels, one a line."""
    return "".join(f"{item.label}\n" for item in items)


def dag(stages: Sequence[Job]) -> str:
    """One node for each item; a stage begins when all of the one before are done. A failed node runs again alone."""
    lines = []
    for job in stages:
        for item in job.items:
            lines.append(f"JOB {node(job, item)} {job.stage}.sub")
            lines.append(f'VARS {node(job, item)} label="{item.label}"')
            lines.append(f"RETRY {node(job, item)} {job.site.retries}")
    for before, after in pairwise(stages):
        parents, children = (" ".join(node(job, item) for item in job.items) for job in (before, after))
        lines.append(f"PARENT {parents} CHILD {children}")
    return "\n".join(lines) + "\n"


def node(job: Job, item: Item) -> str:
    """Name of an item's node."""
    return f"{job.stage}_{item.label}"
