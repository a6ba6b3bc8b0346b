"""Floats with fewer digits, which compress better."""

import numpy as np

from simulation.kinematics import Array


def round_mantissa(values: Array, bits: int) -> Array:
    """float32 values rounded to so many bits after the leading one, as NanoAOD's `precision` does."""
    pattern = values.astype(np.float32).view(np.uint32)
    dropped = 23 - bits
    half = np.uint32(1 << (dropped - 1))
    mask = np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    return ((pattern + half) & mask).view(np.float32)
