"""The helix of a charged particle in the solenoid, and its point of closest approach to the beam line."""

import numpy as np

from simulation.kinematics import Array, wrap_angle

FIELD = 3.8  # T, along +z
RADIUS_PER_PT = 1000.0 / (0.299792458 * FIELD)  # mm of transverse curvature radius per GeV, for unit charge


def perigee(
    position: tuple[Array, Array, Array], pt: Array, eta: Array, phi: Array, charge: Array
) -> tuple[Array, Array, Array]:
    r"""Track parameters at the point of the helix that is nearest, in the transverse plane, to the origin.

    The transverse trajectory is a circle of radius R around C = (x + q R sin(phi), y - q R cos(phi)). Its point
    nearest to the origin is P = C (1 - R / |C|), where the azimuth phi_0 of the motion is at right angles to C
    - P. The particle has turned by phi - phi_0 = -q s / R on the transverse path s from P to its production
    point, so z_0 = z + q R (phi - phi_0) sinh(eta). The impact parameter is signed, d_0 = -P_x sin(phi_0) + P_y
    cos(phi_0).

    Args:
        position: production point x, y, z with respect to the reference point, mm.
        pt: GeV.
        eta: pseudorapidity.
        phi: azimuth at the production point.
        charge: +1 or -1.

    Returns:
        d_0 and z_0 in mm, and phi_0.
    """
    x, y, z = position
    signed_radius = charge * pt * RADIUS_PER_PT
    centre_x = x + signed_radius * np.sin(phi)
    centre_y = y - signed_radius * np.cos(phi)
    shrink = 1 - np.abs(signed_radius) / np.hypot(centre_x, centre_y)
    nearest_x, nearest_y = centre_x * shrink, centre_y * shrink
    phi_0 = np.arctan2((centre_x - nearest_x) / signed_radius, -(centre_y - nearest_y) / signed_radius)
    d_0 = -nearest_x * np.sin(phi_0) + nearest_y * np.cos(phi_0)
    z_0 = z + signed_radius * wrap_angle(phi - phi_0) * np.sinh(eta)
    return d_0, z_0, phi_0
