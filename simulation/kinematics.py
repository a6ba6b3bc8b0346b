"""Four-vectors as columns: angles, masses and charges, and segments of flattened per-event lists."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PION_MASS = 0.13957  # GeV, the mass that b tagging gives to every track
K_SHORT_MASS = 0.4976  # GeV
# electric charge of the positive PDG number, for all charged particles that live long enough
_CHARGE = {11: -1, 13: -1, 211: 1, 321: 1, 2212: 1, 3112: -1, 3222: 1, 3312: -1, 3334: -1}


def wrap_angle(angle: Array) -> Array:
    """Bring angles into [-pi, pi)."""
    wrapped: Array = (angle + np.pi) % (2 * np.pi) - np.pi
    return wrapped


def delta_r2(eta_1: Array, phi_1: Array, eta_2: Array, phi_2: Array) -> Array:
    """Squared distance in (eta, phi)."""
    squared: Array = (eta_1 - eta_2) ** 2 + wrap_angle(phi_1 - phi_2) ** 2
    return squared


def electric_charge(pdg_id: Array) -> Array:
    """Charge of final-state particles; 0 for neutral ones and for those no tracker sees."""
    number = np.abs(pdg_id)
    charge = np.zeros(len(number))
    for positive_id, sign in _CHARGE.items():
        charge[number == positive_id] = sign
    return charge * np.sign(pdg_id)


def pt_eta_phi(momentum: Array) -> tuple[Array, Array, Array]:
    """Return pt, pseudorapidity and azimuth of `[..., 3]` vectors; all 0 for the null vector, as in ROOT."""
    pt = np.hypot(momentum[..., 0], momentum[..., 1])
    eta = np.arcsinh(momentum[..., 2] / np.maximum(pt, 1e-9))
    return pt, eta, np.arctan2(momentum[..., 1], momentum[..., 0])


def unit_vector(eta: Array, phi: Array) -> Array:
    """Direction `[..., 3]` of a pseudorapidity and an azimuth."""
    return np.stack([np.cos(phi), np.sin(phi), np.sinh(eta)], axis=-1) / np.cosh(eta)[..., None]


def dot(first: Array, second: Array) -> Array:
    """Scalar product over the last axis."""
    product: Array = (first * second).sum(axis=-1)
    return product


def invariant_mass(momentum: Array, energy: Array) -> Array:
    """Mass of `[..., 3]` momenta with energies `[...]`; rounding below zero gives 0."""
    mass: Array = np.sqrt(np.maximum(energy**2 - dot(momentum, momentum), 0.0))
    return mass


def position_in_group(counts: Array) -> Array:
    """For groups of the given sizes laid end to end: 0, 1, ... inside each group."""
    ends = np.cumsum(counts)
    positions: Array = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    return positions


def pairs_in_event(first_event: Array, second_event: Array, n_events: int) -> tuple[Array, Array]:
    """Make every (first, second) pair of entries of the same event.

    Args:
        first_event: event number of each first entry, any order.
        second_event: event number of each second entry, any order.
        n_events: number of events.

    Returns:
        Two index arrays, ordered by the first index.
    """
    by_event = np.argsort(second_event, kind="stable")
    counts = np.bincount(second_event, minlength=n_events)
    starts = np.cumsum(counts) - counts
    repeats = counts[first_event]
    first = np.repeat(np.arange(len(first_event)), repeats)
    second = by_event[position_in_group(repeats) + np.repeat(starts[first_event], repeats)]
    return first, second
