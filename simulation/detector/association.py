"""Which tracks belong to which jet: padded columns, one row per jet."""

from dataclasses import dataclass

import numpy as np

from simulation.detector.jets import Jets
from simulation.detector.tracks import Tracks
from simulation.kinematics import Array, delta_r2, pairs_in_event, position_in_group

CONE = 0.4
MAX_TRACKS = 40  # per jet; beyond, the softest are dropped


@dataclass(frozen=True)
class JetTracks:
    """Tracks within the cone of each jet, `[jet, slot]` with at most `MAX_TRACKS` slots, falling in pt.

    Attributes:
        present: whether the slot holds a track; the other columns are harmless numbers where it does not.
        track: index into `Tracks`, -1 where there is none.
        delta_r: distance to the jet axis.

    The rest is as in `Tracks`.
    """

    present: Array
    track: Array
    delta_r: Array
    pt: Array
    eta: Array
    phi: Array
    d0: Array
    dz: Array
    sigma_d0: Array
    sigma_dz: Array
    charge: Array


def associate(jets: Jets, tracks: Tracks, n_events: int) -> JetTracks:
    """Give each jet all tracks of its event that lie in its cone; a track may belong to two jets."""
    jet, track = pairs_in_event(jets.event, tracks.event, n_events)
    distance2 = delta_r2(tracks.eta[track], tracks.phi[track], jets.eta[jet], jets.phi[jet])
    inside = distance2 < CONE**2
    jet, track, distance2 = jet[inside], track[inside], distance2[inside]
    order = np.lexsort((-tracks.pt[track], jet))
    jet, track, distance2 = jet[order], track[order], distance2[order]
    counts = np.bincount(jet, minlength=len(jets))
    slot = position_in_group(counts)
    kept = slot < MAX_TRACKS
    jet, slot, track, distance2 = jet[kept], slot[kept], track[kept], distance2[kept]
    shape = (len(jets), min(int(counts.max(initial=1)), MAX_TRACKS))

    def pad(values: Array, empty: float | bool) -> Array:
        padded = np.full(shape, empty)
        padded[jet, slot] = values
        return padded

    return JetTracks(
        present=pad(np.ones(len(jet), dtype=bool), False),
        track=pad(track, -1),
        delta_r=pad(np.sqrt(distance2), 0.0),
        pt=pad(tracks.pt[track], 1e-3),
        eta=pad(tracks.eta[track], 0.0),
        phi=pad(tracks.phi[track], 0.0),
        d0=pad(tracks.d0[track], 0.0),
        dz=pad(tracks.dz[track], 0.0),
        sigma_d0=pad(tracks.sigma_d0[track], 1e-3),
        sigma_dz=pad(tracks.sigma_dz[track], 1e-3),
        charge=pad(tracks.charge[track], 0.0),
    )
