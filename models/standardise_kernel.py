"""Standardisation compiled for the CPU: one pass, where torch needs three and takes long over the mask."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@njit(cache=True, nogil=True, error_model="numpy")
def fill_standardised(
    values: Floats, present: NDArray[np.bool_], mean: Floats, std: Floats, absent_at: Floats, seen: Floats
) -> None:
    """Fill seen, [jets, features], with (values - mean) / std, or absent_at; equal to torch's to the last bit."""
    for jet in range(values.shape[0]):
        for k in range(values.shape[1]):
            seen[jet, k] = (values[jet, k] - mean[k]) / std[k] if present[jet, k] else absent_at[k]


@njit(cache=True, nogil=True, error_model="numpy")
def to_physical_gradient(gradient: Floats, present: NDArray[np.bool_], std: Floats) -> None:
    """Divide the gradient in standardised space, [jets, features], by std, in place; 0 where absent."""
    for jet in range(gradient.shape[0]):
        for k in range(gradient.shape[1]):
            gradient[jet, k] = gradient[jet, k] / std[k] if present[jet, k] else 0
