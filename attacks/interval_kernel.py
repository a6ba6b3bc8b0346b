"""What `budget` and `coupling` compute with torch, compiled for the CPU: one pass over the jets instead of twenty.

FGSM should cost little more than one pass forward and one back through a small network, and every pass over a batch of
jets counts. Results are equal to the last bit.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@njit(cache=True, nogil=True, error_model="numpy")
def fill_interval(
    values: Floats,
    movable: NDArray[np.bool_],
    step: Floats,
    caps: Floats,
    bounds: Floats,
    pinned: Floats,
    low: Floats,
    high: Floats,
) -> None:
    """Fill low and high, [jets, features], as `budget.Budget.interval` says.

    Args:
        values: clean jets
        movable: entries that are not frozen, [jets, features]
        step: largest move of each feature
        caps: largest relative move of each feature, inf where there is none
        bounds: lowest and highest value of each feature, [2, features]
        pinned: pinned values of each feature, [pins, features], NaN where there is none
        low: what is filled, [jets, features], and
        high: what is filled
    """
    zero = values.dtype.type(0)
    for jet in range(values.shape[0]):
        for k in range(values.shape[1]):
            x = values[jet, k]
            reach = step[k]
            cap = caps[k] * abs(x)  # not a number for inf 0: no cap
            reach = cap if cap < reach else reach
            reach = reach if movable[jet, k] else zero
            below, above = x - reach, x + reach
            below = below if below > bounds[0, k] else bounds[0, k]
            above = above if above < bounds[1, k] else bounds[1, k]
            low[jet, k] = below if below < x else x
            high[jet, k] = above if above > x else x
        for row in range(pinned.shape[0]):
            for k in range(values.shape[1]):
                if values[jet, k] == pinned[row, k]:
                    low[jet, k] = high[jet, k] = values[jet, k]


@njit(cache=True, nogil=True, error_model="numpy")
def fill_sources(
    values: Floats,
    present: NDArray[np.bool_],
    columns: NDArray[np.int64],
    others: NDArray[np.int64],
    same: NDArray[np.bool_],
    source: NDArray[np.int64],
) -> None:
    """Fill the followed input of each coupled entry, [jets, coupled], as `coupling.Coupling` says.

    Args:
        values: clean jets, [jets, features]
        present: their presence
        columns: the coupled inputs
        others: inputs that each of them may follow, [coupled, most], -1 where there are fewer
        same: whether it may be the same quantity, or else a multiple
        source: what is filled
    """
    for jet in range(values.shape[0]):
        for i in range(columns.shape[0]):
            k = columns[i]
            own = values[jet, k]
            source[jet, i] = k
            if not present[jet, k]:
                continue
            for other in others[i]:
                if other < 0:
                    break
                if not present[jet, other]:
                    continue
                followed = values[jet, other]
                if followed == own if same[i] else followed != 0 and np.isfinite(own / followed):
                    source[jet, i] = other
                    break
