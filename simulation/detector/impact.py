"""Impact parameters and jet-related variables of tracks, as CMS b tagging defines them.

A track is taken as the straight line x(u) = p + u t through its perigee p, with unit direction t; lengths in cm,
with respect to the primary vertex. (Over 1 cm a 1 GeV track bends away by 60 um, which is neglected.)
Two unit vectors at right angles to t span the plane in which a track's distance from a point is measured:
n1 = (-sin(phi), cos(phi), 0), in which d0 is measured, and n2 = t x n1, in which the distance is dz sin(theta).
Definitions and cuts follow CMSSW (CandIPProducer, TrackSelector of CombinedSecondaryVertex).
"""

from dataclasses import dataclass, fields

import numpy as np

from simulation.detector.association import JetTracks
from simulation.detector.jets import Jets
from simulation.detector.tracks import PrimaryVertices
from simulation.kinematics import PION_MASS, Array, dot


@dataclass(frozen=True)
class TrackVariables:
    """Derived columns `[jet, slot]` (vectors: `[jet, slot, 3]`), the tracks in falling order of `sip2d`.

    Attributes:
        track: index into `Tracks`, -1 where there is none.
        good: passes the cuts of the impact parameter producer (others come last).
        selected: good and passes the track selection of the tagger.
        point, direction: perigee p and unit direction t.
        normal_1, normal_2: n1 and n2.
        sigma_1, sigma_2: uncertainty of the position along n1 and n2, without the primary vertex.
        ip2d, ip3d: impact parameters, positive where the track crosses the jet axis ahead of the primary vertex.
        sip2d, sip3d: their significances, the primary vertex's uncertainty included.
        decay_length: from the primary vertex to the point of the track nearest to the jet axis.
        jet_distance: distance of track and jet axis there, negative by convention.
        momentum, energy: GeV, with the pion mass.
        pt_rel, pt_ratio: momentum across the jet axis, and its ratio to the momentum.
        eta_rel: pseudorapidity (with energy) along the jet axis.
    """

    track: Array
    good: Array
    selected: Array
    delta_r: Array
    charge: Array
    point: Array
    direction: Array
    normal_1: Array
    normal_2: Array
    sigma_1: Array
    sigma_2: Array
    ip2d: Array
    ip3d: Array
    sip2d: Array
    sip3d: Array
    decay_length: Array
    jet_distance: Array
    momentum: Array
    energy: Array
    pt_rel: Array
    pt_ratio: Array
    eta_rel: Array

    def order(self, order: Array) -> "TrackVariables":
        """Tracks of each jet re-ordered (or picked) by `order[jet, slot]`."""
        return TrackVariables(**{column.name: take_slots(getattr(self, column.name), order) for column in fields(self)})

    def rows(self, rows: Array) -> "TrackVariables":
        """Only these jets."""
        return TrackVariables(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


def take_slots(values: Array, order: Array) -> Array:
    """Pick slots `order[jet, slot]` of a column with or without a vector axis."""
    return np.take_along_axis(values, order if values.ndim == 2 else order[..., None], axis=1)


def passes_producer(tracks: JetTracks) -> Array:
    """Cuts of the impact parameter producer."""
    passes: Array = tracks.present & (tracks.pt > 1) & (np.abs(tracks.d0) < 0.2) & (np.abs(tracks.dz) < 17)
    return passes


def passes_axis_cuts(decay_length: Array, jet_distance: Array) -> Array:
    """Cuts of the tagger that reject tracks from far away: K0S, Lambda, interactions, pile-up."""
    passes: Array = (jet_distance > -0.07) & (decay_length < 5)
    return passes


def impact_parameters(
    tracks: JetTracks, axis: Array, normal_1: Array, normal_2: Array, sigma_xy: Array, sigma_z: Array
) -> tuple[Array, Array, Array, Array]:
    """Signed impact parameters and significances.

    Args:
        tracks: the jets' tracks.
        axis: jet directions `[jet, 1, 3]`.
        normal_1: n1 of the module's docstring.
        normal_2: n2.
        sigma_xy: transverse uncertainty of the primary vertex, `[jet, 1]`, cm.
        sigma_z: the same along the beam.

    Returns:
        2D value, 2D significance, 3D value, 3D significance.
    """
    sin_theta, cos_theta = 1 / np.cosh(tracks.eta), np.tanh(tracks.eta)
    across = tracks.dz * sin_theta  # along n2
    variance_1 = tracks.sigma_d0**2 + sigma_xy**2
    variance_2 = (tracks.sigma_dz**2 + sigma_z**2) * sin_theta**2 + sigma_xy**2 * cos_theta**2
    distance = np.sqrt(tracks.d0**2 + across**2) + 1e-9
    error = np.sqrt((tracks.d0**2 * variance_1 + across**2 * variance_2) / distance**2 + 1e-12)
    nearest = tracks.d0[..., None] * normal_1 + across[..., None] * normal_2
    ip2d = np.sign(tracks.d0 * dot(normal_1, axis)) * np.abs(tracks.d0)
    ip3d = np.sign(dot(nearest, axis)) * distance
    return ip2d, ip2d / np.sqrt(variance_1), ip3d, ip3d / error


def track_variables(jets: Jets, tracks: JetTracks, vertices: PrimaryVertices) -> TrackVariables:
    """Compute all track variables and order each jet's tracks by falling 2D significance."""
    sin_theta, cos_theta = 1 / np.cosh(tracks.eta), np.tanh(tracks.eta)
    sin_phi, cos_phi = np.sin(tracks.phi), np.cos(tracks.phi)
    direction = np.stack([cos_phi * sin_theta, sin_phi * sin_theta, cos_theta], axis=-1)
    normal_1 = np.stack([-sin_phi, cos_phi, np.zeros_like(sin_phi)], axis=-1)
    normal_2 = np.stack([-cos_phi * cos_theta, -sin_phi * cos_theta, sin_theta], axis=-1)
    point = tracks.d0[..., None] * normal_1
    point[..., 2] = tracks.dz
    axis = jets.direction[:, None, :]
    ip2d, sip2d, ip3d, sip3d = impact_parameters(
        tracks,
        axis,
        normal_1,
        normal_2,
        vertices.sigma_xy[jets.event][:, None],
        vertices.sigma_z[jets.event][:, None],
    )
    decay_length, jet_distance = approach_to_axis(point, direction, axis)
    momentum = tracks.pt * np.cosh(tracks.eta)
    energy = np.hypot(momentum, PION_MASS)
    cosine = dot(direction, axis)
    pt_ratio = np.sqrt(np.maximum(1 - cosine**2, 0.0))
    along = momentum * cosine
    good = passes_producer(tracks)
    variables = TrackVariables(
        track=tracks.track,
        good=good,
        selected=good & (tracks.delta_r < 0.3) & passes_axis_cuts(decay_length, jet_distance),
        delta_r=tracks.delta_r,
        charge=tracks.charge,
        point=point,
        direction=direction,
        normal_1=normal_1,
        normal_2=normal_2,
        sigma_1=tracks.sigma_d0,
        sigma_2=tracks.sigma_dz * sin_theta,
        ip2d=ip2d,
        ip3d=ip3d,
        sip2d=sip2d,
        sip3d=sip3d,
        decay_length=decay_length,
        jet_distance=jet_distance,
        momentum=momentum[..., None] * direction,
        energy=energy,
        pt_rel=momentum * pt_ratio,
        pt_ratio=pt_ratio,
        eta_rel=0.5 * np.log((energy + along) / np.maximum(energy - along, 1e-9)),
    )
    return variables.order(np.argsort(-np.where(good, sip2d, -np.inf), axis=1, kind="stable"))


def approach_to_axis(point: Array, direction: Array, axis: Array) -> tuple[Array, Array]:
    """Where a track passes nearest to the jet axis (a line through the primary vertex).

    Minimising |p + u t - w j| over u and w gives u = ((p.j)(t.j) - p.t) / (1 - (t.j)^2).

    Returns:
        Distance of that point of the track from the primary vertex, and minus its distance from the axis.
    """
    cosine = dot(direction, axis)
    step = (dot(point, axis) * cosine - dot(point, direction)) / np.maximum(1 - cosine**2, 1e-9)
    nearest = point + step[..., None] * direction
    across = nearest - dot(nearest, axis)[..., None] * axis
    return np.sqrt(dot(nearest, nearest)), -np.sqrt(dot(across, across))
