"""Tracks: which charged particles are found, and how well they are measured.

Track parameters are given with respect to the reconstructed primary vertex, lengths in cm from here on.
"""

from dataclasses import dataclass, fields

import numpy as np

from simulation.helix import perigee
from simulation.jets import Jets
from simulation.kinematics import Array, wrap_angle
from simulation.particles import ParticleClasses, Particles
from simulation.variants import Detector

MIN_PT = 0.7  # GeV; b tagging starts at 1 GeV, below that only the jet's track count would change
MAX_SINH_ETA = 6.05  # |eta| < 2.5
UM = 1e-4  # cm
MM = 0.1  # cm
# electric charge of the positive PDG number, for all charged particles that live long enough
_CHARGE = {11: -1, 13: -1, 211: 1, 321: 1, 2212: 1, 3112: -1, 3222: 1, 3312: -1, 3334: -1}
# pile-up: fraction of vertices within 3 mm of the primary vertex (beam spot of 3.5 cm) that also give tracks,
# and mean number of their tracks inside a cone of 0.4
_PILEUP_VERTICES_NEAR = 0.08 * 0.6
_PILEUP_TRACKS_IN_CONE = 0.16
_PILEUP_WINDOW = 0.3  # cm


@dataclass(frozen=True)
class PrimaryVertices:
    """The reconstructed primary vertex of each event: where it is and its uncertainty.

    Attributes:
        position: `[event, 3]`, mm, with respect to the true collision.
        sigma_xy, sigma_z: cm.
    """

    position: Array
    sigma_xy: Array
    sigma_z: Array


@dataclass(frozen=True)
class Tracks:
    """Measured tracks, one entry each; lengths in cm, pt in GeV.

    Attributes:
        d0, dz: impact parameters with respect to the primary vertex.
        sigma_d0, sigma_dz: their estimated uncertainties.
    """

    event: Array
    pt: Array
    eta: Array
    phi: Array
    d0: Array
    dz: Array
    sigma_d0: Array
    sigma_dz: Array
    charge: Array


def electric_charge(pdg_id: Array) -> Array:
    """Charge of final-state particles; 0 for neutral ones and for those no tracker sees."""
    number = np.abs(pdg_id)
    charge = np.zeros(len(number))
    for positive_id, sign in _CHARGE.items():
        charge[number == positive_id] = sign
    return charge * np.sign(pdg_id)


def find_charged(particles: Particles, classes: ParticleClasses, detector: Detector, rng: np.random.Generator) -> Array:
    """Indices of the charged particles whose track is found, given pt, eta and production radius."""
    in_acceptance = (particles.pt > MIN_PT) & (np.abs(particles.pz) < particles.pt * MAX_SINH_ETA)
    index = np.flatnonzero(classes.visible & in_acceptance & (electric_charge(particles.pdg_id) != 0))
    pt, eta = particles.pt[index], particles.eta[index]
    radius = np.hypot(particles.x[index], particles.y[index])  # mm
    efficiency = detector.track_efficiency * np.interp(np.abs(eta), [0, 1, 1.6, 2.5], [1, 0.99, 0.96, 0.88])
    efficiency *= 1 - 0.10 * np.exp(-(pt - MIN_PT) / 0.3)
    # particles born outside pixel layers leave too few hits
    efficiency *= np.interp(radius, [0, 15, 30, 70, 110, 160, 300], [1, 1, 0.93, 0.75, 0.55, 0.2, 0.0])
    efficiency *= 1 - detector.nuclear_loss
    efficiency *= np.where(np.abs(particles.pdg_id[index]) == 11, 0.9, 1.0)  # bremsstrahlung
    found: Array = index[rng.random(len(index)) < efficiency]
    return found


def reconstruct_vertices(event: Array, n_events: int, detector: Detector, rng: np.random.Generator) -> PrimaryVertices:
    """Smear the primary vertices; the more tracks (their `event` numbers are given), the less."""
    activity = np.sqrt(np.maximum(np.bincount(event, minlength=n_events), 4) / 60.0)
    sigma_xy = detector.vertex_sigma_xy * UM / activity
    sigma_z = detector.vertex_sigma_z * UM / activity
    spread = np.stack([sigma_xy, sigma_xy, sigma_z], axis=1) / MM
    return PrimaryVertices(rng.normal(size=(n_events, 3)) * spread, sigma_xy, sigma_z)


def impact_resolution(pt: Array, eta: Array, detector: Detector) -> tuple[Array, Array]:
    """Mean resolution of d0 and dz in cm: intrinsic part and multiple scattering in quadrature."""
    sin_theta = 1 / np.cosh(eta)
    sigma_d0 = np.hypot(detector.d0_constant, detector.d0_scattering / (pt * np.sqrt(sin_theta)))
    sigma_dz = np.hypot(detector.dz_constant * (1 + 0.25 * eta**2), detector.dz_scattering / (pt * sin_theta**1.5))
    return sigma_d0 * UM, sigma_dz * UM


def measure(
    particles: Particles,
    index: Array,
    vertices: PrimaryVertices,
    detector: Detector,
    rng: np.random.Generator,
) -> Tracks:
    """Measure the tracks of the particles at `index`: helix to the primary vertex, resolution, tails and fakes."""
    event, pt, eta = particles.event[index], particles.pt[index], particles.eta[index]
    charge, n = electric_charge(particles.pdg_id[index]), len(index)
    x, y, z = (getattr(particles, axis)[index] - vertices.position[event, number] for number, axis in enumerate("xyz"))
    d0, dz, phi = perigee((x, y, z), pt, eta, particles.phi[index], charge)

    spread = np.exp(detector.resolution_spread * rng.normal(size=n))
    sigma_d0, sigma_dz = (sigma * spread for sigma in impact_resolution(pt, eta, detector))
    tail = detector.tail_scale * (1 + rng.exponential(0.5, n))
    widening = np.where(rng.random(n) < detector.tail_fraction, tail, 1.0) * detector.resolution_scale
    fake = rng.random(n) < detector.fake_fraction * (1 + 2 * np.exp(-pt))
    return Tracks(
        event=event,
        pt=pt * (1 + rng.normal(size=n) * np.hypot(0.008, 1e-4 * pt)),
        eta=eta + rng.normal(size=n) * np.hypot(4e-4, 2e-3 / pt),
        phi=wrap_angle(phi + rng.normal(size=n) * np.hypot(2e-4, 1.5e-3 / pt)),
        d0=np.where(fake, rng.laplace(0, 0.05, n), d0 * MM + sigma_d0 * widening * rng.normal(size=n)),
        dz=np.where(fake, rng.laplace(0, 0.08, n), dz * MM + sigma_dz * widening * rng.normal(size=n)),
        sigma_d0=sigma_d0 * np.exp(detector.uncertainty_spread * rng.normal(size=n)),
        sigma_dz=sigma_dz * np.exp(detector.uncertainty_spread * rng.normal(size=n)),
        charge=charge,
    )


def pileup_tracks(jets: Jets, pileup: Array, detector: Detector, rng: np.random.Generator) -> Tracks:
    """Tracks of pile-up vertices close to the primary vertex, thrown inside the jets' cones only.

    Args:
        jets: the jets.
        pileup: mean number of interactions of each event.
        detector: for the resolution.
        rng: random numbers.
    """
    mean = pileup[jets.event] * _PILEUP_VERTICES_NEAR * _PILEUP_TRACKS_IN_CONE
    jet = np.repeat(np.arange(len(jets)), rng.poisson(mean))
    n = len(jet)
    radius, angle = 0.4 * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    pt = MIN_PT + rng.exponential(0.6, n)
    sigma_d0 = np.hypot(detector.d0_constant, detector.d0_scattering / pt) * UM
    return Tracks(
        event=jets.event[jet],
        pt=pt,
        eta=jets.eta[jet] + radius * np.cos(angle),
        phi=wrap_angle(jets.phi[jet] + radius * np.sin(angle)),
        d0=sigma_d0 * rng.normal(size=n),
        dz=rng.uniform(-_PILEUP_WINDOW, _PILEUP_WINDOW, n),
        sigma_d0=sigma_d0,
        sigma_dz=2 * sigma_d0,
        charge=rng.choice([-1.0, 1.0], n),
    )


def concatenate(first: Tracks, second: Tracks) -> Tracks:
    """Both lists, one after the other."""
    return Tracks(
        **{
            column.name: np.concatenate([getattr(first, column.name), getattr(second, column.name)])
            for column in fields(Tracks)
        }
    )
