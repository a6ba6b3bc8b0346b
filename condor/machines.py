"""What the machines of a pool have: a request that none of them meets would wait for ever."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from common.errors import AdvtagError
from condor.tell import tell
from configs.sites import Site, megabytes

Ad = Mapping[str, Any]


def refuse_unmet(site: Site) -> None:
    """Refuse what no machine has, and say which requirement it is. A pool that shows no machine is believed.

    Raises:
        AdvtagError: no schedd or collector answers, or a requirement is not met
    """
    tell(["condor_q", "-totals"], what="no schedd answers")
    told = tell(["condor_status", "-json", "-constraint", 'SlotType != "Dynamic"'], what="no collector answers")
    machines = json.loads(told or "[]")
    if (problem := unmet(site, machines)) is not None:
        raise AdvtagError(
            f"no machine of this pool meets the request: {problem}; see `condor_status`, or submit --anyway"
        )


def unmet(site: Site, machines: Iterable[Ad]) -> str | None:
    """The first requirement that none of the machines meets which met those before it; None if there are such."""
    left = list(machines)
    if not left:
        return None
    requirements: list[tuple[str, Callable[[Ad], float], float, str]] = [
        ("cpus", lambda ad: ad.get("TotalSlotCpus", ad.get("Cpus", 0)), site.cpus, ""),
        ("memory", lambda ad: ad.get("TotalSlotMemory", ad.get("Memory", 0)), megabytes(site.memory), " MB"),
        ("disk", lambda ad: ad.get("TotalSlotDisk", ad.get("Disk", 0)) / 1024, megabytes(site.disk or "1MB"), " MB"),
        ("gpus", lambda ad: ad.get("TotalSlotGPUs", ad.get("TotalGPUs", 0)), site.gpus, ""),
        ("gpu_capability", lambda ad: _best(ad, "Capability"), site.gpu_capability or 0, ""),
        ("gpu_memory", lambda ad: _best(ad, "GlobalMemoryMb"), megabytes(site.gpu_memory or "1MB"), " MB"),
    ]
    for key, has, wanted, unit in requirements:
        if key.startswith("gpu") and not site.gpus:
            continue
        best = max(map(has, left))
        left = [ad for ad in left if has(ad) >= wanted]
        if not left:
            return f"{key}: {wanted:g}{unit} asked for, {best:g}{unit} is the most that a machine has"
    return None


def _best(ad: Ad, name: str) -> float:
    """The largest of a property among the GPUs of a machine, which has one ad for each kind or for each GPU."""
    nested = [value for value in ad.values() if isinstance(value, Mapping)]
    return max((float(gpu[name]) for gpu in nested if name in gpu), default=float(ad.get(f"GPUs_{name}", 0)))
