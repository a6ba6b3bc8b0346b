r"""Photon conversions and nuclear interactions in the beam pipe and the pixel layers: secondary vertices of light jets.

The detector is five cylinders around the beam line. Their material is approximate, and so is the physics:

- Beam pipe: 0.8 mm of beryllium at 22.1 mm (CMS, arXiv:1807.03289, after the exchange of 2014), with X0 = 353 mm and
  lambda_I = 421 mm (Particle Data Group).
- Pixel layers: radii of the Phase-1 barrel (CERN-LHCC-2012-016; CMS, arXiv:2012.14304). X/X0 is that of the middle of
  the ladders in the material that CMS reconstruction assumes (CMSSW, Geometry/TrackerRecoData, PhaseI). The last
  module on each side has 1.4 to 1.9 times as much, which is left out, as are shields and supports.
- lambda_I = 3.3 X0 in the layers, for nucleons of several GeV, as in CMS fast simulation (CMSSW,
  FastSimulation/SimplifiedGeometryPropagator, NuclearInteraction), which also gives the relative cross sections
  below. They are the same at all energies here, and for antiparticles. The tracker as a whole: arXiv:1405.6569.

Forward of a barrel layer a particle meets disks instead. Here the layer goes on, but with no more material than at its
end: of the same order, at the wrong place.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from simulation.detector.helix import RADIUS_PER_PT
from simulation.generation.events import MIN_PT, VisibleParticles, take
from simulation.kinematics import PION_MASS, Array, electric_charge, pt_eta_phi, unit_vector, wrap_angle

# radius in mm, X/X0 and X/lambda_I at normal incidence: beam pipe and four layers
_LAYERS = np.array(
    [
        (22.1, 0.0023, 0.0019),
        (29.0, 0.018, 0.0054),
        (68.0, 0.017, 0.0051),
        (109.0, 0.018, 0.0054),
        (160.0, 0.021, 0.0063),
    ]
)
RADII, RADIATION_LENGTHS, INTERACTION_LENGTHS = _LAYERS.T
HALF_LENGTH = 267.0  # mm, of the barrel layers
MAX_SCALE = 3.0
# PDG number: inelastic cross section relative to that of nucleons
_HADRONS = {
    211: 0.72,
    321: 0.65,
    130: 0.7,
    310: 0.7,
    2212: 1.0,
    2112: 1.0,
    3122: 1.0,
    3112: 1.0,
    3222: 1.0,
    3312: 1.0,
    3322: 1.0,
    3334: 1.0,
}
_PROTON_MASS = 0.93827  # GeV
_PROTON_FRACTION = 0.1  # of fast charged secondaries
_MEAN_KT = 0.35  # GeV
_HELIX_ITERATIONS = 6  # to better than 0.1 um, for the lowest pt


class _Draws(NamedTuple):
    """Secondaries with respect to their parents, one entry each.

    Attributes:
        parent: index of the parent.
        share: of the parent's energy.
        kt, azimuth: momentum at right angles to the parent, GeV, and its direction there.
    """

    parent: Array
    pdg_id: Array
    share: Array
    kt: Array
    azimuth: Array


def interact(
    particles: VisibleParticles, scale: float, rng: np.random.Generator
) -> tuple[VisibleParticles, Array, Array]:
    """Let photons convert and hadrons interact inelastically, on their way outwards from where they were produced.

    Each layer is crossed once. Secondaries do not interact again; what is neutral or soft among them is dropped.

    Random numbers: with the same `rng` state another `scale` changes only particles whose fate it changes. So each
    crossing has its own depth, in units of the mean free path, at which it would interact; all are drawn, for all
    particles. And what comes out is drawn for each particle that would interact if `scale` were `MAX_SCALE`, and
    returned for all of them, so that whoever measures it can keep the order of random numbers, too.

    Args:
        particles: final particles, ordered by event.
        scale: material relative to nominal, 0 to `MAX_SCALE`.
        rng: random numbers.

    Returns:
        Secondaries, ordered as their parents, with event, jet and hadron of the parent and produced where it
        interacted; the mask over them of those that there are with this `scale`; and the mask over `particles` of
        those that interacted and are no more.

    Raises:
        ValueError: `scale` is out of range.
    """
    if not 0 <= scale <= MAX_SCALE:
        raise ValueError(f"scale of the material is {scale}, not within 0 to {MAX_SCALE}")
    free_paths = mean_free_paths(particles)
    depth = rng.standard_exponential(free_paths.shape)
    candidate = np.flatnonzero((depth < MAX_SCALE * free_paths).any(axis=0))
    could, hit = (depth[:, candidate] < factor * free_paths[:, candidate] for factor in (MAX_SCALE, scale))
    interacts = np.asarray(hit.any(axis=0))
    layer = np.where(interacts, hit.argmax(axis=0), could.argmax(axis=0))

    energy = particles.pt[candidate] * np.cosh(particles.eta[candidate])  # masses neglected
    photon = particles.pdg_id[candidate] == 22
    pairs = _draw_pairs(np.flatnonzero(photon), rng)
    hadrons = _draw_hadrons(np.flatnonzero(~photon), energy, rng)
    drawn = _Draws(*(np.concatenate(columns) for columns in zip(pairs, hadrons, strict=True)))
    drawn = _Draws(*(column[np.argsort(drawn.parent, kind="stable")] for column in drawn))
    parents = transport(take(particles, candidate), RADII[layer])
    secondaries = _emit(take(parents, drawn.parent), drawn, energy[drawn.parent])
    hard = secondaries.pt > MIN_PT  # whatever the layer: turning the parent does not change it
    destroyed = np.zeros(len(particles), dtype=bool)
    destroyed[candidate[interacts]] = True
    return take(secondaries, hard), interacts[drawn.parent][hard], destroyed


def mean_free_paths(particles: VisibleParticles) -> Array:
    """Nominal material on the way of each particle, `[layer, particle]`, in units of its mean free path.

    For photons this is 7/9 X/X0, the limit of complete screening (Particle Data Group, passage of particles through
    matter), about 10 % too much at 1 GeV. The way is 1 / sin(theta) longer than at normal incidence.
    """
    number = np.abs(particles.pdg_id)
    hadronic = np.zeros(len(particles))
    for pdg_id, cross_section in _HADRONS.items():
        hadronic[number == pdg_id] = cross_section
    longest = np.hypot(1, HALF_LENGTH / RADII)
    slant = np.minimum(np.cosh(particles.eta), longest[:, None])
    slant *= RADII[:, None] > np.hypot(particles.x, particles.y)
    paths: Array = slant * (
        np.outer(RADIATION_LENGTHS, 7 / 9 * (particles.pdg_id == 22)) + np.outer(INTERACTION_LENGTHS, hadronic)
    )
    return paths


def transport(particles: VisibleParticles, radius: Array) -> VisibleParticles:
    r"""Move particles along their helix to the first point at this distance from the beam line, outside of the present.

    In the field along +z the azimuth falls by the turn q s / R on the transverse path s. The chord points along phi
    - turn / 2 and has the length 2 R sin(turn / 2). Chord and turn depend on each other only weakly, because R is
    some times the radius at least: iterating converges fast, and for neutral particles the first step is exact.
    """
    curvature = electric_charge(particles.pdg_id) / (particles.pt * RADIUS_PER_PT)
    x, y = particles.x, particles.y
    turn = np.zeros(len(particles))
    for _ in range(_HELIX_ITERATIONS):
        direction = particles.phi - turn / 2
        along = x * np.cos(direction) + y * np.sin(direction)
        chord = np.sqrt(along**2 + radius**2 - x**2 - y**2) - along
        turn = 2 * np.arcsin(curvature * chord / 2)
    path = chord / np.sinc(turn / (2 * np.pi))
    return replace(
        particles,
        phi=wrap_angle(particles.phi - turn),
        x=x + chord * np.cos(direction),
        y=y + chord * np.sin(direction),
        z=particles.z + path * np.sinh(particles.eta),
    )


def _draw_pairs(parent: Array, rng: np.random.Generator) -> _Draws:
    """Electron and positron, collinear: their opening angle of about m_e / E is below any resolution.

    The share x of the energy follows Bethe and Heitler with complete screening, 1 - 4/3 x (1 - x). That is 2/3 + 1/3
    (1 - 2 x)^2: a flat distribution for 6/7 of the pairs, and for the others a uniform (1 - 2 x)^3.
    """
    n = len(parent)
    flat, uniform = rng.random(n) < 6 / 7, rng.random(n)
    share = np.where(flat, uniform, (1 - np.cbrt(1 - 2 * uniform)) / 2)
    zero = np.zeros(2 * n)
    pdg_id = np.repeat([11, -11], n)
    return _Draws(np.tile(parent, 2), pdg_id, np.concatenate([share, 1 - share]), zero, zero)


def _draw_hadrons(parent: Array, energy: Array, rng: np.random.Generator) -> _Draws:
    """Charged secondaries of inelastic collisions with a nucleon.

    Their mean number is that of pp collisions at the same s, -7.0 + 7.2 s^0.127 (UA5, Phys. Rept. 154 (1987) 247;
    extrapolated downwards): 2.7 for a hadron of 5 GeV, 5.8 for 50 GeV. One is always there. The energy is shared at
    random (a flat Dirichlet distribution) among them and half as many neutral hadrons, which take away what is
    missing. Transverse momenta are Gaussian in both components, with the mean of soft hadron production.
    """
    s = 2 * _PROTON_MASS * energy[parent] + _PROTON_MASS**2
    count = 1 + rng.poisson(np.maximum(-8.0 + 7.2 * s**0.127, 0.0))
    neutral = rng.standard_gamma(count / 2)
    collision, n = np.repeat(np.arange(len(parent)), count), count.sum()
    weight = rng.standard_exponential(n)
    total = neutral + np.bincount(collision, weight, minlength=len(parent))
    charge = rng.choice([1, -1], n)
    pdg_id = np.where(rng.random(n) < _PROTON_FRACTION, 2212, 211 * charge)
    kt = rng.rayleigh(_MEAN_KT * np.sqrt(2 / np.pi), n)
    return _Draws(parent[collision], pdg_id, weight / total[collision], kt, rng.uniform(0, 2 * np.pi, n))


def _emit(parents: VisibleParticles, drawn: _Draws, energy: Array) -> VisibleParticles:
    """The secondaries, given the parent of each at the point of its interaction and the energy of that parent."""
    number = np.abs(drawn.pdg_id)
    mass = np.where(number == 2212, _PROTON_MASS, np.where(number == 211, PION_MASS, 0.0))
    total = np.sqrt(np.maximum((drawn.share * energy) ** 2 - mass**2, 0.0))  # 0: too little for its mass, dropped
    kt = np.minimum(drawn.kt, total)
    forward = unit_vector(parents.eta, parents.phi)
    sideways = np.stack([-np.sin(parents.phi), np.cos(parents.phi), np.zeros(len(parents))], axis=-1)
    momentum = np.sqrt(total**2 - kt**2)[:, None] * forward
    momentum += (kt * np.cos(drawn.azimuth))[:, None] * sideways
    momentum += (kt * np.sin(drawn.azimuth))[:, None] * np.cross(forward, sideways)
    pt, eta, phi = pt_eta_phi(momentum)
    return replace(parents, pdg_id=drawn.pdg_id.astype(parents.pdg_id.dtype), pt=pt, eta=eta, phi=phi)
