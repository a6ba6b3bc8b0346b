"""Variations of the simulation, `NAME_up` and `NAME_down`, as a band around a spectrum and as a covariance matrix.

A variation moves all bins together, so each source is fully correlated over the bins; sources are independent.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from plots.style import Array

Differences = tuple[tuple[Array, ...], ...]
"""For each source its one or two variations minus the nominal spectrum, [bins] each."""


def sources(variations: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Variations by source: `pileup_up` and `pileup_down` are two of `pileup`; any other name is its own source."""
    found: dict[str, tuple[str, ...]] = {}
    for name in variations:
        source = name.removesuffix("_up").removesuffix("_down")
        found[source] = (*found.get(source, ()), name)
    return found


def differences(nominal: Array, varied: Mapping[str, Array], *, area: bool = False) -> Differences:
    """How each variation differs from the nominal spectrum.

    Args:
        nominal: [bins].
        varied: the spectrum by variation, [bins] each.
        area: give every variation the area of the nominal first, so that only the change of shape is left.
    """

    def difference(values: Array) -> Array:
        factor = nominal.sum() / values.sum() if area and values.sum() > 0 else 1.0
        return values * factor - nominal

    return tuple(tuple(difference(varied[name]) for name in names) for names in sources(varied).values())


def band(nominal: Array, found: Differences) -> Array:
    """Distances down and up to the ends of the systematic band, [2, bins].

    On each side the sources are added in quadrature. A source counts on a side with the larger of its up and down
    variation that goes there, and with nothing if neither does; a source with one variation is symmetrised.
    """
    squares = np.zeros((2, len(nominal)))
    for members in found:
        both = np.stack([*members, -members[0]] if len(members) == 1 else members)
        squares += np.stack([-both, both]).max(axis=1).clip(0) ** 2
    distances: Array = np.sqrt(squares)
    return distances


def covariance(bins: int, found: Differences) -> Array:
    """Covariance matrix of all sources, [bins, bins].

    A source with differences u and d contributes (u u^T + d d^T)/2, which is u u^T where d = -u, and which does not
    cancel where both go to the same side, as (u - d)/2 would. One with a single variation u contributes u u^T.
    """
    total = np.zeros((bins, bins))
    for members in found:
        total += sum(np.outer(each, each) for each in members) / len(members)
    return total
