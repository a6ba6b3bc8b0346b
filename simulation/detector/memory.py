"""Undefined memory in absent slots, as in real PFNano files."""

import numpy as np

from simulation.detector.deepcsv import ETA_REL_SLOTS, TRACK_SLOTS
from simulation.kinematics import Array

_DENORMAL, _HUGE = 3e-39, 7e31


def leave_undefined(deepcsv: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Overwrite the absent slots of jets with at least one track.

    PFNano fills the slots of a jet from 0 to its number of tracks and leaves the others as they were in memory; jets
    without any track get -999 everywhere. Seen in its files: zeros, numbers of other jets, denormal and huge numbers,
    not-a-number.

    Args:
        deepcsv: the variables of `deepcsv_variables`.
        rng: random numbers.

    Returns:
        The variables, changed beyond `jetNSelectedTracks` and (for `trackEtaRel`) `jetNTracksEtaRel` only.
    """
    changed = dict(deepcsv)
    for counter, names in (("jetNSelectedTracks", TRACK_SLOTS), ("jetNTracksEtaRel", ETA_REL_SLOTS)):
        count = deepcsv[counter]
        for name in names:
            slot, values = int(name.rpartition("_")[2]), deepcsv[name]
            absent = np.flatnonzero((count > 0) & (count <= slot))
            stale = values[rng.integers(0, len(values), len(absent))]
            left = np.choose(rng.integers(0, 5, len(absent)), [stale, 0.0, _DENORMAL, _HUGE, np.nan])
            changed[name] = values.copy()
            changed[name][absent] = left
    return changed
