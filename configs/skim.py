"""Regions of a skim that are those of the histograms."""

from typing import Any


def with_regions(written: Any) -> Any:
    """The configuration, the regions that its skim names filled in from `histograms.regions`."""
    skim = written.get("skim") if isinstance(written, dict) else None
    if not isinstance(skim, dict) or isinstance(skim.get("regions"), dict):
        return written
    histograms = written.get("histograms")
    if not isinstance(histograms, dict):
        if isinstance(skim.get("regions"), list):
            raise ValueError("skim.regions: names regions of `histograms`, and there is no such section")
        return written
    known = histograms.get("regions", {"inclusive": {}})
    names = skim.get("regions", list(known) if isinstance(known, dict) else None)
    if not isinstance(names, list) or not isinstance(known, dict):
        return written
    for name in names:
        if name not in known:
            raise ValueError(f"skim.regions: no {name!r} in histograms.regions; known: {', '.join(known)}")
    return {**written, "skim": {**skim, "regions": {name: known[name] for name in names}}}
