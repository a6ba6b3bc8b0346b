"""The sequential part of CONSERVAttack: one jet after the other, one entry after the other, compiled.

After each accepted move the distribution of all jets of the cell is known again: two bins of one histogram change, and
one row and column of the second moments. So a candidate costs the same whatever the number of jets, and a pass is
linear in it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
compiled = njit(cache=True)

GOLDEN, MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
ENOUGH = 2.0
"""A jet is pushed until its linearised objective has moved by this many times what it needs: where every jet was
pushed as far as it can go, fewer were fooled (toy: 0.33 instead of 0.37)."""


class Features(NamedTuple):
    """What is common to all chunks, [features, ...]; float64."""

    mean: Array
    std: Array
    least: Array
    """smallest move, in physical units"""
    integer: NDArray[np.bool_]
    bins: NDArray[np.int64]
    """number of bins between underflow and overflow"""
    edges: Array
    """[features, edges], of bins of equal width, filled up with inf"""


class Jets(NamedTuple):
    """Jets of one cell, in the order of their visits."""

    values: NDArray[np.floating]
    """[jets, features], physical; moved in place, and rounded to this type before anything is decided"""
    present: NDArray[np.bool_]
    low: NDArray[np.floating]
    high: NDArray[np.floating]
    weight: Array
    """[jets], 0 or more"""
    key: NDArray[np.uint64]
    """[jets], seeds the candidates"""
    gradient: Array
    """[jets, features], of the objective in the physical values"""
    need: Array
    """[jets], by how much the objective has to rise, above 0; or 0: the jet is left alone"""


class Distribution(NamedTuple):
    """Of one cell."""

    histograms: Array
    """[features, bins], of the present entries, each of sum 1 (or 0: nothing there)"""
    totals: Array
    """[features], sum of weights of the present entries"""
    moments: Array
    """[1 + features, 1 + features], mean of a a^T with a = (1, u)"""
    rows: Array
    """[jets, 1 + features], a: u is the standardised value, 0 where absent"""


class Rule(NamedTuple):
    """What is admissible and what it costs, in one pass."""

    candidates: int
    iteration: int
    divergence_cap: float
    """of each feature's JS divergence, in bits"""
    moments_cap: float
    """of the squared Frobenius norm of the change of the moments"""
    divergence_price: float
    """cost of one bit of JS divergence, in fooled fractions of the cell"""
    moments_price: float
    """cost of one unit of the squared norm, likewise"""


class State(NamedTuple):
    """How far the cell is from its clean distribution."""

    now: Distribution
    divergence: Array
    """[features], JS divergence, bits"""
    change: Array
    """[1 + features, 1 + features], D = moments - clean moments"""
    norm2: Array
    """[1], squared Frobenius norm of D"""


@compiled
def uniform(key: Any, feature: int, candidate: int, iteration: int) -> float:
    """A number in (0, 1): SplitMix64 of (jet, feature, candidate, iteration), see `models.keys`."""
    counter = np.uint64(1 + feature) + (np.uint64(candidate) << np.uint64(20)) + (np.uint64(iteration) << np.uint64(40))
    bits = key + GOLDEN * counter
    bits = (bits ^ (bits >> np.uint64(30))) * MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * MIX_2
    bits = bits ^ (bits >> np.uint64(31))
    return (np.float64(bits >> np.uint64(11)) + 0.5) * 2.0**-53


@compiled
def term(p: float, q: float) -> float:
    """A bin's part of the Jensen-Shannon divergence, in bits."""
    found = 0.0
    if p > 0.0:
        found += 0.5 * p * math.log2(2.0 * p / (p + q))
    if q > 0.0:
        found += 0.5 * q * math.log2(2.0 * q / (p + q))
    return found


@compiled
def bin_of(value: float, edges: Array, bins: int) -> int:
    """Number of edges at or below a value: 0 is the underflow, 1 + bins the overflow."""
    guess = bins * (value - edges[0]) / (edges[bins] - edges[0])
    place = int(min(max(guess, -1.0), np.float64(bins))) + 1
    # the edges decide, not the rounding of their spacing
    while place <= bins and edges[place] <= value:
        place += 1
    while place > 0 and edges[place - 1] > value:
        place -= 1
    return place


@compiled
def describe(values: Any, present: Any, weight: Array, features: Features) -> Distribution:
    """Histograms and moments of jets, values [jets, features]."""
    jets, number = values.shape
    histograms = np.zeros((number, 1 + features.edges.shape[1]))
    totals, rows = np.zeros(number), np.zeros((jets, number + 1))
    for i in range(jets):
        rows[i, 0] = 1.0
        for k in range(number):
            if present[i, k]:
                value = np.float64(values[i, k])
                rows[i, k + 1] = (value - features.mean[k]) / features.std[k]
                histograms[k, bin_of(value, features.edges[k], features.bins[k])] += weight[i]
                totals[k] += weight[i]
    for k in range(number):
        if totals[k] > 0.0:
            histograms[k] /= totals[k]
    weighted = rows * (weight / weight.sum()).reshape(jets, 1)
    return Distribution(histograms, totals, weighted.T @ rows, rows)


@compiled
def move_jets(jets: Jets, clean: Distribution, features: Features, rule: Rule) -> None:
    """One pass over the jets of a cell, in their order; moves `jets.values`.

    Args:
        jets: all jets of the cell; those that need nothing count in the distribution and stay
        clean: distribution of the same jets before any move; its rows are not read
        features: standardisation and bins
        rule: what may be done
    """
    now = describe(jets.values, jets.present, jets.weight, features)
    change = now.moments - clean.moments
    divergence = np.zeros(len(features.mean))
    for k in range(len(divergence)):
        for b in range(clean.histograms.shape[1]):
            divergence[k] += term(clean.histograms[k, b], now.histograms[k, b])
    state = State(now, divergence, change, np.array([(change * change).sum()]))
    total = jets.weight.sum()
    for i in range(len(jets.values)):
        if jets.need[i] <= 0.0:
            continue
        left, square = ENOUGH * jets.need[i], (now.rows[i] * now.rows[i]).sum()
        for k in range(len(divergence)):
            if jets.low[i, k] < jets.high[i, k] and now.totals[k] > 0.0:
                gain, square = move_entry(
                    i, k, left, square, jets.weight[i] / total, jets, state, clean, features, rule
                )
                left -= gain


@compiled
def move_entry(
    i: int,
    k: int,
    left: float,
    square: float,
    share: float,
    jets: Jets,
    state: State,
    clean: Distribution,
    features: Features,
    rule: Rule,
) -> tuple[float, float]:
    """Give entry (i, k) its best admissible value, or none; return its gain and the jet's |a|^2 after it.

    With a step t in u_k the moments change by share (t (e_k a^T + a e_k^T) + t^2 e_k e_k^T), so that |D|^2 is a
    polynomial in t whose coefficients need one row of D.
    """
    # not float(), which leaves a float32 as it is in compiled code
    old, slope, own = np.float64(jets.values[i, k]), jets.gradient[i, k], state.now.rows[i, k + 1]
    low, high, weight = np.float64(jets.low[i, k]), np.float64(jets.high[i, k]), jets.weight[i] / state.now.totals[k]
    here, before, edges = state.now.histograms[k], clean.histograms[k], features.edges[k]
    home = bin_of(old, edges, features.bins[k])
    emptied = max(here[home] - weight, 0.0)
    without = state.divergence[k] - term(before[home], here[home]) + term(before[home], emptied)
    linear = 0.0
    for j in range(len(state.change)):
        linear += 4.0 * share * state.change[k + 1, j] * state.now.rows[i, j]
    quadratic = 2.0 * share * state.change[k + 1, k + 1] + 2.0 * share**2 * (square + own**2)
    worth, stay = share / jets.need[i], state.norm2[0]

    best = rule.divergence_price * state.divergence[k] + rule.moments_price * stay
    chosen, place, divergence, norm2, gain = old, home, state.divergence[k], stay, 0.0
    for c in range(rule.candidates):
        # even candidates raise the objective, odd ones lower it
        up = (slope >= 0.0) == (c % 2 == 0)
        room = high - old if up else old - low
        if room < features.least[k]:
            continue
        step = length(room, features.least[k], features.integer[k], uniform(jets.key[i], k, c, rule.iteration))
        # through the array: a move is what is left of it in the type of the inputs
        jets.values[i, k] = min(max(old + step if up else old - step, low), high)
        value = np.float64(jets.values[i, k])
        t = (value - old) / features.std[k]
        new, js = bin_of(value, edges, features.bins[k]), state.divergence[k]
        if new != home:
            js = without - term(before[new], here[new]) + term(before[new], here[new] + weight)
        d2 = stay + t * (linear + t * (quadratic + share**2 * t * (4.0 * own + t)))
        if js > rule.divergence_cap or (d2 > rule.moments_cap and d2 > stay):
            continue
        risen = slope * (value - old)
        cost = rule.divergence_price * js + rule.moments_price * d2 - worth * min(risen, left)
        if cost < best:
            best, chosen, place, divergence, norm2, gain = cost, value, new, js, d2, risen
    jets.values[i, k] = chosen
    if chosen == old:
        return 0.0, square
    if place != home:
        here[home] = emptied
        here[place] += weight
    t = (chosen - old) / features.std[k]
    state.divergence[k], state.norm2[0] = divergence, norm2
    shift_moments(state.change, state.now.rows[i], k + 1, share, t)
    return gain, square + t * (2.0 * own + t)


@compiled
def length(room: float, least: float, integer: bool, draw: float) -> float:
    """Of a step to try, between the least and all the room; `draw` in (0, 1)."""
    return 1.0 + math.floor(draw * room) if integer else least + draw * (room - least)


@compiled
def shift_moments(change: Array, a: Array, k: int, share: float, t: float) -> None:
    """Add what a step t of a_k does to the moments, in place."""
    for j in range(len(a)):
        change[k, j] += share * t * a[j]
        change[j, k] += share * t * a[j]
    change[k, k] += share * t * t
    a[k] += t
