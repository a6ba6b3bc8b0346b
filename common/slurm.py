"""What Slurm means by the reasons that it names for a job which waits."""

REASONS = {
    "AssocMaxJobsLimit": "your account runs as many as it may",
    "BadConstraints": "no node has the features asked for",
    "BeginTime": "its time has not come; one that was put back into the queue goes on in two minutes",
    "Dependency": "until all trainings have ended",
    "DependencyNeverSatisfied": "what it waits for will never end; --remove, and submit anew",
    "InvalidAccount": "no such account; set --option accounting_group=...",
    "InvalidQOS": "no such quality of service; change directives.qos",
    "JobArrayTaskLimit": "at_once others run",
    "JobHeldAdmin": "an administrator held it",
    "JobHeldUser": "you held it; `scontrol release` lets it go",
    "PartitionDown": "the partition is closed",
    "PartitionNodeLimit": "asks for more than the partition has; change directives.partition",
    "PartitionTimeLimit": "asks for more time than the partition gives; --remove, and submit with a shorter walltime",
    "Priority": "others are before it",
    "QOSMaxJobsPerUserLimit": "you run as many as you may",
    "Resources": "no node is free",
}
"""Why a job waits, in plain words (manual, squeue, JOB REASON CODES)."""
STUCK = {
    *("BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS", "JobHeldAdmin", "JobHeldUser"),
    *("PartitionNodeLimit", "PartitionTimeLimit", "launch failed requeued held"),
}
"""Reasons of jobs that wait until somebody does something."""


def plain(reason: str) -> str:
    """A reason of squeue in plain words; nothing, if there is none."""
    if reason in REASONS:
        return f"{REASONS[reason]} ({reason})"
    return "" if reason == "None" else reason
