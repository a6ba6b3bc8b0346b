"""A 64-bit key per jet, and random numbers that depend on nothing else.

Counter-based: a number is a hash of (jet, feature, seed), so a jet gets the same noise whatever the chunking, the
worker or the machine. The hash is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, doi
10.1145/2660193.2660195), in int64 arithmetic that wraps alike in numpy and in torch, on CPU and GPU.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def mix(x: Tensor) -> Tensor:
    """Scramble int64 [...] into int64 [...]: the SplitMix64 finaliser, a bijection."""
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch has only the arithmetic one for int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def jet_keys(
    run: NDArray[np.integer], lumi: NDArray[np.integer], event: NDArray[np.integer], jet: NDArray[np.integer]
) -> Tensor:
    """Hash (run, luminosity block, event, jet index), each int [jets], into int64 [jets]."""
    key = torch.zeros(len(run), dtype=torch.int64)
    for part in (run, lumi, event, jet):
        key = mix(key + GOLDEN + torch.from_numpy(np.asarray(part).astype(np.int64)))
    return key


def reseed(key: Tensor, number: int) -> Tensor:
    """Other keys, int64 [jets], for the same jets: what is random differs (per epoch, say) and is reproducible."""
    return mix(key ^ mix(torch.tensor(number + 1, dtype=torch.int64, device=key.device) * GOLDEN))


def uniform(key: Tensor, features: int, stream: int) -> Tensor:
    """Uniform numbers in (0, 1), float64 [jets, features]; another `stream` gives independent ones."""
    counter = torch.arange(features, dtype=torch.int64, device=key.device) + (stream << 32)
    bits = mix(mix(key)[:, None] + (counter + 1) * GOLDEN)
    return (_shift(bits, 11).to(torch.float64) + 0.5) * 2.0**-53


def normal(key: Tensor, features: int, seed: int) -> Tensor:
    """Standard normal numbers, float64 [jets, features], by Box and Muller (Ann. Math. Stat. 29 (1958) 610)."""
    key = reseed(key, seed)
    radius = torch.sqrt(-2.0 * torch.log(uniform(key, features, 0)))
    return radius * torch.cos(2.0 * math.pi * uniform(key, features, 1))
