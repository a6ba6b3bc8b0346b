"""Tracks: which charged particles are found, and how well they are measured.

Track parameters are given with respect to the reconstructed primary vertex, lengths in cm from here on.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import poisson

from simulation.detector.helix import perigee
from simulation.detector.jets import Jets
from simulation.generation.events import MAX_ETA, MIN_PT, VisibleParticles
from simulation.kinematics import Array, electric_charge, wrap_angle
from simulation.knobs import Detector

UM = 1e-4  # cm
MM = 0.1  # cm
# pile-up: fraction of vertices within 3 mm of the primary vertex (beam spot of 3.5 cm) that also give tracks,
# and mean number of their charged particles inside a cone of 0.4
_PILEUP_VERTICES_NEAR = 0.08 * 0.6
_PILEUP_TRACKS_IN_CONE = 0.17
_MAX_PILEUP_TRACKS = 12  # per jet; more never happens
_PILEUP_WINDOW = 0.3  # cm
_FIRST_LAYER = 2.9  # cm, radius of the first pixel layer (CMS Phase 1, CERN-LHCC-2012-016)


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
        pdg_id: as identified: electron, muon or pion, with the sign of the charge.
        d0, dz: impact parameters with respect to the primary vertex.
        sigma_d0, sigma_dz: their estimated uncertainties.
    """

    event: Array
    pdg_id: Array
    pt: Array
    eta: Array
    phi: Array
    d0: Array
    dz: Array
    sigma_d0: Array
    sigma_dz: Array
    charge: Array

    def take(self, index: Array) -> "Tracks":
        """Tracks at these positions, or where a mask is true."""
        return Tracks(**{column.name: getattr(self, column.name)[index] for column in fields(self)})


def reconstruct_vertices(n_charged: Array, detector: Detector, rng: np.random.Generator) -> PrimaryVertices:
    """Smear the primary vertices; the more charged particles an event has, the less."""
    activity = np.sqrt(np.maximum(detector.track_efficiency * n_charged, 4) / 60.0)
    sigma_xy = detector.vertex_sigma_xy * UM / activity
    sigma_z = detector.vertex_sigma_z * UM / activity
    spread = np.stack([sigma_xy, sigma_xy, sigma_z], axis=1) / MM
    return PrimaryVertices(rng.normal(size=(len(n_charged), 3)) * spread, sigma_xy, sigma_z)


def impact_resolution(pt: Array, eta: Array, detector: Detector) -> tuple[Array, Array]:
    """Mean resolution of d0 and dz in cm: intrinsic part and multiple scattering in quadrature."""
    sin_theta = 1 / np.cosh(eta)
    sigma_d0 = np.hypot(detector.d0_constant, detector.d0_scattering / (pt * np.sqrt(sin_theta)))
    sigma_dz = np.hypot(detector.dz_constant * (1 + 0.25 * eta**2), detector.dz_scattering / (pt * sin_theta**1.5))
    return sigma_d0 * UM, sigma_dz * UM


def reconstruct(
    particles: VisibleParticles,
    exists: Array,
    vertices: PrimaryVertices,
    detector: Detector,
    rng: np.random.Generator,
) -> Tracks:
    """Find and measure the tracks of charged particles.

    Random numbers are drawn for all of them, so that the tracks that two variants both find have the same ones.

    Args:
        particles: charged ones only.
        exists: those that come through the pixel detector; the others leave no track.
        vertices: the reconstructed primary vertices.
        detector: for efficiency and resolution.
        rng: random numbers.
    """
    found = (rng.random(len(particles)) < efficiency(particles, detector)) & exists
    return measure(particles, vertices, detector, rng).take(found)


def efficiency(particles: VisibleParticles, detector: Detector) -> Array:
    """Probability that a charged particle leaves a track, given pt, eta and production radius."""
    pt, eta = particles.pt, particles.eta
    radius = np.hypot(particles.x, particles.y)  # mm
    probability = detector.track_efficiency * np.interp(np.abs(eta), [0, 1, 1.6, 2.5], [1, 0.99, 0.96, 0.88])
    probability *= 1 - 0.10 * np.exp(-(pt - MIN_PT) / 0.3)
    # particles born outside pixel layers leave too few hits
    probability *= np.interp(radius, [0, 15, 30, 70, 110, 160, 300], [1, 1, 0.93, 0.75, 0.55, 0.2, 0.0])
    probability *= np.where(np.abs(particles.pdg_id) == 11, 0.9, 1.0)  # bremsstrahlung
    inside: Array = np.where((pt > MIN_PT) & (np.abs(eta) < MAX_ETA), probability, 0.0)
    return inside


def measure(
    particles: VisibleParticles, vertices: PrimaryVertices, detector: Detector, rng: np.random.Generator
) -> Tracks:
    """Measure charged particles: helix to the primary vertex, resolution, tails and fakes.

    Impact parameter and azimuth are those of a line through the first hit, at radius r: an error of the azimuth turns
    the line about it, and moves d0 by -r times that error. The rest of the resolution of d0 is independent.
    """
    event, pt, eta = particles.event, particles.pt, particles.eta
    charge, n = electric_charge(particles.pdg_id), len(particles)
    x, y, z = (getattr(particles, axis) - vertices.position[event, number] for number, axis in enumerate("xyz"))
    d0, dz, phi = perigee((x, y, z), pt, eta, particles.phi, charge)

    spread = np.exp(detector.resolution_spread * rng.normal(size=n))
    sigma_d0, sigma_dz = (sigma * spread for sigma in impact_resolution(pt, eta, detector))
    tail = detector.tail_scale * (1 + rng.exponential(0.5, n))
    widening = np.where(rng.random(n) < detector.tail_fraction, tail, 1.0) * detector.resolution_scale
    fake = rng.random(n) < detector.fake_fraction * (1 + 2 * np.exp(-pt))
    fake_d0, fake_dz = rng.laplace(0, 0.05, n), rng.laplace(0, 0.08, n)
    sigma_phi = np.hypot(2e-4, 1.5e-3 / pt)
    turn = rng.normal(size=n)
    correlation = -np.minimum(_FIRST_LAYER * sigma_phi / sigma_d0, 0.95)
    error_d0 = correlation * turn + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    return Tracks(
        event=event,
        pdg_id=_identify(particles.pdg_id, charge),
        pt=pt * (1 + rng.normal(size=n) * np.hypot(0.008, 1e-4 * pt)),
        eta=eta + rng.normal(size=n) * np.hypot(4e-4, 2e-3 / pt),
        phi=wrap_angle(phi + sigma_phi * turn),
        d0=np.where(fake, fake_d0, d0 * MM + sigma_d0 * widening * error_d0),
        dz=np.where(fake, fake_dz, dz * MM + sigma_dz * widening * rng.normal(size=n)),
        sigma_d0=sigma_d0 * np.exp(detector.uncertainty_spread * rng.normal(size=n)),
        sigma_dz=sigma_dz * np.exp(detector.uncertainty_spread * rng.normal(size=n)),
        charge=charge,
    )


def _identify(pdg_id: Array, charge: Array) -> Array:
    """Electrons and muons as such, everything else as a charged pion, as particle flow does."""
    is_lepton = (np.abs(pdg_id) == 11) | (np.abs(pdg_id) == 13)
    return np.where(is_lepton, pdg_id, 211 * charge).astype(int)


def pileup_tracks(jets: Jets, n_generated: int, pileup: Array, detector: Detector, rng: np.random.Generator) -> Tracks:
    """Tracks of pile-up vertices close to the primary vertex, thrown inside the jets' cones only.

    Random numbers are drawn for so many tracks of each generated jet, whether it is measured or not, so that those of
    one jet do not depend on the others.

    Args:
        jets: the measured jets.
        n_generated: number of generated jets, which `jets.generated` counts.
        pileup: number of interactions of each event.
        detector: for efficiency and resolution.
        rng: random numbers.
    """
    shape = (n_generated, _MAX_PILEUP_TRACKS)
    mean = pileup[jets.event] * _PILEUP_VERTICES_NEAR * _PILEUP_TRACKS_IN_CONE
    # the quantile function: more pile-up adds tracks and takes none away
    count = poisson.ppf(rng.random(n_generated)[jets.generated], mean)
    found = rng.random(shape)[jets.generated] < detector.track_efficiency
    jet, slot = np.nonzero((np.arange(_MAX_PILEUP_TRACKS) < count[:, None]) & found)

    def draw(numbers: Array) -> Array:
        drawn: Array = numbers[jets.generated[jet], slot]
        return drawn

    radius, angle = 0.4 * np.sqrt(draw(rng.random(shape))), draw(rng.uniform(0, 2 * np.pi, shape))
    pt = MIN_PT + draw(rng.exponential(0.6, shape))
    eta = jets.eta[jet] + radius * np.cos(angle)
    sigma_d0, sigma_dz = impact_resolution(pt, eta, detector)
    charge = np.where(draw(rng.random(shape)) < 0.5, -1.0, 1.0)
    tracks = Tracks(
        event=jets.event[jet],
        pdg_id=211 * charge.astype(int),
        pt=pt,
        eta=eta,
        phi=wrap_angle(jets.phi[jet] + radius * np.sin(angle)),
        d0=sigma_d0 * detector.resolution_scale * draw(rng.normal(size=shape)),
        dz=draw(rng.uniform(-_PILEUP_WINDOW, _PILEUP_WINDOW, shape)),
        sigma_d0=sigma_d0,
        sigma_dz=sigma_dz,
        charge=charge,
    )
    return tracks.take(np.abs(eta) < MAX_ETA)


def concatenate(*parts: Tracks) -> Tracks:
    """All lists, one after the other."""
    names = [column.name for column in fields(Tracks)]
    return Tracks(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
