"""The Jensen-Shannon distance of histograms, for attacks and for plots."""

from typing import Any

import numpy as np
from scipy.special import rel_entr

Array = np.ndarray[Any, np.dtype[np.float64]]


def js_distance(first: Array, second: Array) -> Array:
    """Jensen-Shannon distance of two histograms in the same bins, along the last axis, in [0, 1].

    The square root of the divergence in bits (J. Lin, IEEE Trans. Inf. Theory 37 (1991) 145, doi 10.1109/18.61115).
    A negative bin, which no probability has, counts as empty. nan where one of the two is empty.
    """
    p, q = (np.clip(sums, 0, None) for sums in (first, second))
    with np.errstate(invalid="ignore"):  # 0/0, where there is no entry
        p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    middle = (p + q) / 2
    distance: Array = np.sqrt(((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / (2 * np.log(2))).clip(0, 1))
    return distance
