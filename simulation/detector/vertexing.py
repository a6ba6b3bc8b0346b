r"""Secondary vertices inside jets: a seed pair of tracks, then an annealed adaptive fit, for all jets at once.

Each track measures two coordinates of a vertex v, along its normals n1 and n2 (see `impact`):

    chi2(v) = ((v - p).n1 / sigma_1)^2 + ((v - p).n2 / sigma_2)^2

The fit minimises sum_i w_i chi2_i(v), whose solution is linear, A v = b with

    A = sum_i w_i (n1 n1^T / sigma_1^2 + n2 n2^T / sigma_2^2)
    b = sum_i w_i (n1 (n1.p) / sigma_1^2 + n2 (n2.p) / sigma_2^2)

and A^-1 is the covariance. The weights are those of an adaptive fit,

    w_i = 1 / (1 + exp((chi2_i - 9) / (2 T)))

so that tracks beyond three standard deviations fade out as the temperature T falls from 16 to 1 in five steps; a
track that fits the primary vertex better than v is left out altogether.

The fit starts from the pair of displaced tracks whose midpoint of closest approach attracts most of the other
displaced tracks. A second vertex is looked for among the tracks that the first left over. The cuts follow the
inclusive vertex finder and the vertex filter of CMSSW.
"""

from dataclasses import dataclass, fields

import numpy as np

from simulation.detector.impact import TrackVariables
from simulation.detector.jets import Jets
from simulation.detector.tracks import PrimaryVertices
from simulation.kinematics import K_SHORT_MASS, Array, dot, invariant_mass, pt_eta_phi, wrap_angle

MAX_SEEDS = 9  # displaced tracks of a jet from which pairs are made
TEMPERATURES = (16.0, 4.0, 1.0, 1.0, 1.0)
CHI2_CUT = 9.0
MIN_SEED_SIGNIFICANCE = 1.2
MIN_SEED_DISTANCE = 0.005  # cm


@dataclass(frozen=True)
class Vertices:
    """At most one vertex per jet, one row per jet; columns mean nothing where `found` is false.

    Attributes:
        found: whether there is a vertex.
        direction: unit vector `[jet, 3]` from the primary to the secondary vertex.
        distance_2d, distance_3d: flight distance in cm, negative for vertices behind the primary one.
        significance_2d, significance_3d: the same over its uncertainty.
        error_3d: uncertainty of the flight distance, cm.
        mass: of its tracks, GeV.
        delta_r: between flight direction and jet axis.
        tracks: `[jet, slot]`, which tracks belong to it.
    """

    found: Array
    direction: Array
    distance_2d: Array
    distance_3d: Array
    significance_2d: Array
    significance_3d: Array
    error_3d: Array
    mass: Array
    delta_r: Array
    tracks: Array


def chi2_to_point(tracks: TrackVariables, point: Array) -> Array:
    """chi2 of every track `[jet, slot]` with respect to one point per jet `[jet, 3]`."""
    difference = point[:, None] - tracks.point
    chi2: Array = (dot(difference, tracks.normal_1) / tracks.sigma_1) ** 2 + (
        dot(difference, tracks.normal_2) / tracks.sigma_2
    ) ** 2
    return chi2


def _midpoints(seeds: TrackVariables, first: Array, second: Array) -> tuple[Array, Array]:
    """Points halfway between each two tracks where they are closest, and their distance there.

    With d = p_a - p_b and c = t_a.t_b the minimum of |d + u t_a - v t_b| lies at
    u = (c t_b.d - t_a.d) / (1 - c^2), v = (t_b.d - c t_a.d) / (1 - c^2).
    """
    point_a, point_b = seeds.point[:, first], seeds.point[:, second]
    direction_a, direction_b = seeds.direction[:, first], seeds.direction[:, second]
    difference = point_a - point_b
    cosine = dot(direction_a, direction_b)
    along_a, along_b = dot(direction_a, difference), dot(direction_b, difference)
    determinant = np.maximum(1 - cosine**2, 1e-8)
    nearest_a = point_a + ((cosine * along_b - along_a) / determinant)[..., None] * direction_a
    nearest_b = point_b + ((along_b - cosine * along_a) / determinant)[..., None] * direction_b
    gap = nearest_a - nearest_b
    return 0.5 * (nearest_a + nearest_b), np.sqrt(dot(gap, gap))


def find_seed(tracks: TrackVariables, usable: Array, axis: Array) -> tuple[Array, Array]:
    """Choose the best pair of displaced tracks.

    Args:
        tracks: track variables.
        usable: tracks that may be used, `[jet, slot]`.
        axis: jet directions `[jet, 3]`.

    Returns:
        Whether there is a seed, and its position `[jet, 3]`.
    """
    displaced = usable & (tracks.sip3d > MIN_SEED_SIGNIFICANCE) & (np.abs(tracks.ip3d) > MIN_SEED_DISTANCE)
    significance = np.where(displaced, tracks.sip3d, -1.0)
    order = np.argsort(-significance, axis=1, kind="stable")[:, :MAX_SEEDS]
    seeds = tracks.order(order)
    is_seed = np.take_along_axis(displaced, order, axis=1)
    first, second = np.triu_indices(order.shape[1], 1)
    if len(first) == 0:  # no jet has two tracks
        return np.zeros(len(axis), dtype=bool), np.zeros((len(axis), 3))
    middle, gap = _midpoints(seeds, first, second)

    radius = np.hypot(middle[..., 0], middle[..., 1])
    alignment = dot(middle, axis[:, None]) / np.sqrt(dot(middle, middle) + 1e-12)
    smaller_sigma = np.minimum(seeds.sigma_1, seeds.sigma_2)
    error = np.hypot(smaller_sigma[:, first], smaller_sigma[:, second])
    allowed = is_seed[:, first] & is_seed[:, second] & (gap < 0.05) & (gap / error < 3.5)
    allowed &= (radius > 0.008) & (radius < 2.6) & (alignment > 0.85)

    # score: seeds near the midpoint, each with its significance (at most 10)
    difference = middle[:, :, None, :] - seeds.point[:, None]  # [jet, pair, seed, 3]
    chi2 = (dot(difference, seeds.normal_1[:, None]) / seeds.sigma_1[:, None]) ** 2
    chi2 += (dot(difference, seeds.normal_2[:, None]) / seeds.sigma_2[:, None]) ** 2
    importance = np.where(is_seed, np.minimum(seeds.sip3d, 10.0), 0.0)
    score = np.where(allowed, (np.exp(-chi2 / 8) * importance[:, None]).sum(axis=-1), -1.0)
    best = score.argmax(axis=1)
    row = np.arange(len(axis))
    return score[row, best] > 0, middle[row, best]


def fit(tracks: TrackVariables, usable: Array, start: Array) -> tuple[Array, Array, Array]:
    """Adaptive fit from a starting point `[jet, 3]`.

    Returns:
        Position `[jet, 3]`, covariance `[jet, 3, 3]` (primary vertex not included) and the weights `[jet, slot]`.
    """
    position = start
    along_1, along_2 = dot(tracks.point, tracks.normal_1), dot(tracks.point, tracks.normal_2)
    for temperature in TEMPERATURES:
        chi2 = chi2_to_point(tracks, position)
        not_primary = chi2 < tracks.sip3d**2 + 4
        exponent = np.clip((chi2 - CHI2_CUT) / (2 * temperature), -40, 40)
        weight = np.where(usable & not_primary, 1 / (1 + np.exp(exponent)), 0.0)
        weight_1, weight_2 = weight / tracks.sigma_1**2, weight / tracks.sigma_2**2
        scaled_1, scaled_2 = weight_1[..., None] * tracks.normal_1, weight_2[..., None] * tracks.normal_2
        matrix = scaled_1.transpose(0, 2, 1) @ tracks.normal_1 + scaled_2.transpose(0, 2, 1) @ tracks.normal_2
        matrix += 1e-3 * np.eye(3)  # keeps jets without tracks solvable: a prior of 30 cm
        vector = (along_1[..., None] * scaled_1 + along_2[..., None] * scaled_2).sum(axis=1)
        position = np.linalg.solve(matrix, vector[..., None])[..., 0]
    return position, np.linalg.inv(matrix), weight


def _fit_jets(jets: Jets, tracks: TrackVariables, usable: Array, sigma_xy: Array, sigma_z: Array) -> Vertices:
    """One vertex per jet: seed, fit, and the cuts."""
    axis = jets.direction
    has_seed, seed = find_seed(tracks, usable, axis)
    position, covariance, weight = fit(tracks, usable, seed)
    member = (weight > 0.5) & usable
    n_tracks = member.sum(axis=1)
    zero = np.zeros_like(sigma_z)
    covariance = covariance + np.stack([sigma_xy**2, sigma_xy**2, sigma_z**2], axis=1)[..., None] * np.eye(3)

    radius = np.hypot(position[:, 0], position[:, 1]) + 1e-9
    length = np.sqrt(dot(position, position)) + 1e-9
    direction_2d = np.stack([position[:, 0] / radius, position[:, 1] / radius, zero], axis=1)
    direction = position / length[:, None]
    error_2d, error_3d = (
        np.sqrt(np.maximum(np.einsum("ja,jab,jb->j", unit, covariance, unit), 1e-12))
        for unit in (direction_2d, direction)
    )
    momentum = (tracks.momentum * member[..., None]).sum(axis=1)
    mass = invariant_mass(momentum, (tracks.energy * member).sum(axis=1))
    _, eta, phi = pt_eta_phi(position)
    delta_r = np.hypot(eta - jets.eta, wrap_angle(phi - jets.phi))

    chi2 = (chi2_to_point(tracks, position) * member).sum(axis=1) / np.maximum(2 * n_tracks - 3, 1)
    pointing = dot(momentum, direction) / np.sqrt(dot(momentum, momentum) + 1e-12)
    from_primary = (member & (np.abs(tracks.sip3d) < 1.5)).sum(axis=1) / np.maximum(n_tracks, 1)
    neutral = np.abs((tracks.charge * member).sum(axis=1)) < 0.5
    k_short = (n_tracks == 2) & neutral & (np.abs(mass - K_SHORT_MASS) < 0.05)
    found = has_seed & (n_tracks >= 2) & (chi2 < 10) & (pointing > 0.95) & (from_primary < 0.66) & ~k_short
    found &= (radius > 0.01) & (radius < 2.5) & (radius / error_2d > 2) & (mass < 6.5) & (delta_r < 0.3)

    sign = np.sign(dot(direction, axis))
    return Vertices(
        found=found,
        direction=direction,
        distance_2d=radius * sign,
        distance_3d=length * sign,
        significance_2d=radius / error_2d * sign,
        significance_3d=length / error_3d * sign,
        error_3d=error_3d,
        mass=mass,
        delta_r=delta_r,
        tracks=member & found[:, None],
    )


def find_vertex(jets: Jets, tracks: TrackVariables, usable: Array, primary: PrimaryVertices) -> Vertices:
    """Look for one vertex in each jet among the usable tracks `[jet, slot]`."""
    candidates = np.flatnonzero((usable & (tracks.sip3d > MIN_SEED_SIGNIFICANCE)).sum(axis=1) >= 2)
    some_jets = jets.take(candidates)
    fitted = _fit_jets(
        some_jets,
        tracks.rows(candidates),
        usable[candidates],
        primary.sigma_xy[some_jets.event],
        primary.sigma_z[some_jets.event],
    )

    def scatter(values: Array) -> Array:
        full = np.zeros((len(jets), *values.shape[1:]), dtype=values.dtype)
        full[candidates] = values
        return full

    return Vertices(**{column.name: scatter(getattr(fitted, column.name)) for column in fields(Vertices)})


def find_vertices(jets: Jets, tracks: TrackVariables, primary: PrimaryVertices) -> tuple[Vertices, Vertices]:
    """Find up to two vertices in each jet, the second one without the tracks of the first."""
    first = find_vertex(jets, tracks, tracks.good, primary)
    second = find_vertex(jets, tracks, tracks.good & ~first.tracks & first.found[:, None], primary)
    return first, second
