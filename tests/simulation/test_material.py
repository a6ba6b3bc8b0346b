"""Conversions and nuclear interactions: rates, kinematics, helices and common random numbers."""

from dataclasses import fields, replace

import numpy as np
import pytest

from simulation.detector import material
from simulation.detector.helix import RADIUS_PER_PT, perigee
from simulation.detector.material import (
    HALF_LENGTH,
    INTERACTION_LENGTHS,
    MAX_SCALE,
    MIN_PT,
    RADIATION_LENGTHS,
    RADII,
    mean_free_paths,
    transport,
)
from simulation.generation.events import VisibleParticles, take
from simulation.kinematics import unit_vector, wrap_angle

HADRONS = [211, -211, 321, -321, 130, 2212, -2212, 2112, 3122, 3112, -3334]
LEPTONS = [11, -11, 13, -13]


def interact(
    particles: VisibleParticles, scale: float, rng: np.random.Generator
) -> tuple[VisibleParticles, np.ndarray]:
    """The secondaries that there are, and who is destroyed."""
    secondaries, emitted, destroyed = material.interact(particles, scale, rng)
    return take(secondaries, emitted), destroyed


def some(pdg_id: int | list[int], n: int, pt: float = 20.0, eta: float = 0.0, radius: float = 0.0) -> VisibleParticles:
    """Particles of these kinds, produced at this distance from the beam line; the column `jet` numbers them."""
    rng = np.random.default_rng(0)
    phi, azimuth = rng.uniform(-np.pi, np.pi, (2, n))
    number = np.arange(n)
    return VisibleParticles(
        event=number // 10,
        jet=number,
        hadron=number - 1,
        pdg_id=rng.choice(np.atleast_1d(pdg_id), n),
        pt=np.full(n, pt),
        eta=np.full(n, eta),
        phi=phi,
        x=radius * np.cos(azimuth),
        y=radius * np.sin(azimuth),
        z=np.full(n, 3.0),
    )


def like_an_event(n: int) -> VisibleParticles:
    """All kinds of particles, with spectra and decay lengths like those around jets."""
    particles = some([22] * 8 + HADRONS + LEPTONS, n)
    rng = np.random.default_rng(1)
    x, y, z = rng.normal(0, 20, (3, n))
    return replace(particles, pt=MIN_PT + rng.exponential(3, n), eta=rng.uniform(-3, 3, n), x=x, y=y, z=z)


def momentum(particles: VisibleParticles) -> np.ndarray:
    return (particles.pt * np.cosh(particles.eta))[:, None] * unit_vector(particles.eta, particles.phi)


def energy(particles: VisibleParticles) -> np.ndarray:
    mass = np.select([np.abs(particles.pdg_id) == 211, np.abs(particles.pdg_id) == 2212], [0.13957, 0.93827], 0.0)
    return np.hypot(particles.pt * np.cosh(particles.eta), mass)


@pytest.mark.parametrize("eta", [0.0, 1.0, -2.5])
@pytest.mark.parametrize(
    ("pdg_id", "per_length"),
    [(22, 7 / 9 * RADIATION_LENGTHS), (2112, INTERACTION_LENGTHS), (-2212, INTERACTION_LENGTHS)],
)
def test_rate_is_the_closed_formula(pdg_id: int, per_length: np.ndarray, eta: float) -> None:
    n = 100_000
    slant = [min(np.cosh(eta), np.sqrt(1 + (HALF_LENGTH / radius) ** 2)) for radius in RADII]
    expected = 1 - np.exp(-0.8 * np.dot(per_length, slant))
    _, destroyed = interact(some(pdg_id, n, eta=eta), 0.8, np.random.default_rng(2))
    assert destroyed.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / n))


def test_layers_are_populated_in_proportion_to_their_material() -> None:
    n = 300_000
    secondaries, destroyed = interact(some(22, n, pt=1e4), 1.0, np.random.default_rng(3))
    electrons = take(secondaries, secondaries.pdg_id == 11)
    radius = np.hypot(electrons.x, electrons.y)
    layer = np.abs(radius[:, None] - RADII).argmin(axis=1)
    assert radius == pytest.approx(RADII[layer], abs=1e-9)
    survives = np.exp(-7 / 9 * np.cumsum([0, *RADIATION_LENGTHS]))
    expected = n * -np.diff(survives)
    counts = np.bincount(layer, minlength=len(RADII))
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))
    assert destroyed.sum() == pytest.approx(len(electrons), rel=1e-3)


def test_pair_has_the_momentum_of_the_photon() -> None:
    photons = some(22, 200_000, pt=5000.0, eta=0.7)
    secondaries, destroyed = interact(photons, 1.0, np.random.default_rng(4))
    both = np.bincount(secondaries.jet, minlength=len(photons)) == 2  # neither of them too soft
    assert destroyed.sum() > 10_000
    assert both.sum() > 0.99 * destroyed.sum()
    for axis in range(3):
        total = np.bincount(secondaries.jet, momentum(secondaries)[:, axis], minlength=len(photons))
        assert total[both] == pytest.approx(momentum(photons)[both, axis], rel=1e-9)
    charge = np.bincount(secondaries.jet, secondaries.pdg_id, minlength=len(photons))
    assert not charge[both].any()
    # mean of (1 - 2 x)^2 over 9/7 (1 - 4/3 x (1 - x)) is 13/35; a flat distribution would give 1/3
    for pdg_id in (11, -11):
        share = secondaries.pt[secondaries.pdg_id == pdg_id] / 5000
        assert share.mean() == pytest.approx(0.5, abs=0.012)
        assert np.mean((1 - 2 * share) ** 2) == pytest.approx(13 / 35, abs=0.012)


@pytest.mark.parametrize("pt", [3.0, 30.0])
def test_impact_parameter_of_a_conversion(pt: float) -> None:
    """A track that starts radially at r bends away from the beam line by r^2 / 2R, whichever side it turns to."""
    pair, _ = interact(some(22, 20_000, pt=pt, eta=0.4), 2.0, np.random.default_rng(5))
    charge = -np.sign(pair.pdg_id)
    d_0, z_0, _ = perigee((pair.x, pair.y, pair.z), pair.pt, pair.eta, pair.phi, charge)
    radius, bend = np.hypot(pair.x, pair.y), pair.pt * RADIUS_PER_PT
    assert len(pair) > 1000
    assert np.abs(d_0) == pytest.approx(radius**2 / (2 * bend), rel=0.02)
    assert len(np.unique(np.sign(d_0[charge > 0]))) == len(np.unique(np.sign(d_0[charge < 0]))) == 1
    assert d_0[charge > 0][0] * d_0[charge < 0][0] < 0
    detour = radius - bend * np.arctan(radius / bend)  # the track's way from its perigee is shorter than the photon's
    assert z_0 == pytest.approx(3 + detour * np.sinh(0.4), abs=1e-6)


@pytest.mark.parametrize("pt", [0.8, 5.0, 500.0])
@pytest.mark.parametrize("start", [0.0, 12.0, 60.0])
def test_transport_stays_on_the_helix(pt: float, start: float) -> None:
    """The perigee of a charged hadron is the same before and after."""
    pdg_id = np.array([211, -211, 321, 2212, -2212, 3112, -3112])
    charge = np.array([1, -1, 1, 1, -1, -1, 1])
    index = np.random.default_rng(6).integers(0, len(pdg_id), 500)
    before = replace(some(0, 500, pt=pt, eta=-0.8, radius=start), pdg_id=pdg_id[index])
    for radius in RADII[start < RADII]:
        after = transport(before, np.full(500, radius))
        assert np.hypot(after.x, after.y) == pytest.approx(np.full(500, radius), rel=1e-12)
        (d_0, z_0, phi_0), (d, z, phi) = (
            perigee((at.x, at.y, at.z), at.pt, at.eta, at.phi, charge[index]) for at in (before, after)
        )
        assert d == pytest.approx(d_0, abs=1e-4)  # mm
        assert z == pytest.approx(z_0, abs=1e-3)
        assert wrap_angle(phi - phi_0) == pytest.approx(np.zeros(500), abs=1e-5)
        outwards = (after.x * np.cos(after.phi) + after.y * np.sin(after.phi)) / radius
        assert np.all(outwards > 0)


def test_transport_of_neutral_particles_is_straight() -> None:
    before = some([22, 130, 2112], 300, pt=1.0, eta=1.2, radius=25.0)
    after = transport(before, np.full(300, 68.0))
    path = np.stack([after.x - before.x, after.y - before.y, after.z - before.z], axis=-1)
    length = np.linalg.norm(path, axis=1)
    assert np.hypot(after.x, after.y) == pytest.approx(np.full(300, 68.0))
    assert path / length[:, None] == pytest.approx(unit_vector(before.eta, before.phi))
    assert after.phi == pytest.approx(before.phi)


@pytest.mark.parametrize("pt", [1.0, 5.0, 50.0])
def test_nuclear_interactions_create_no_energy(pt: float) -> None:
    hadrons = some(HADRONS, 100_000, pt=pt, eta=0.5)
    secondaries, destroyed = interact(hadrons, MAX_SCALE, np.random.default_rng(7))
    total = np.bincount(secondaries.jet, energy(secondaries), minlength=len(hadrons))
    available = pt * np.cosh(0.5)
    assert total.max() <= available * (1 + 1e-12)
    assert 0.2 < total[destroyed].mean() / available < 0.8
    assert not total[~destroyed].any()
    assert set(np.unique(secondaries.pdg_id)) <= {211, -211, 2212}
    assert secondaries.pt.min() > MIN_PT
    assert np.mean(secondaries.pdg_id == 211) == pytest.approx(np.mean(secondaries.pdg_id == -211), abs=0.03)


def test_multiplicity_and_transverse_momentum_of_hadronic_secondaries() -> None:
    multiplicity = []
    for pt in (10.0, 100.0, 1000.0):
        pions = some(211, 50_000, pt=pt)
        secondaries, destroyed = interact(pions, MAX_SCALE, np.random.default_rng(8))
        multiplicity.append(len(secondaries) / destroyed.sum())
    assert 1.5 < multiplicity[0] < 3.4
    assert multiplicity[1] > multiplicity[0] + 2
    assert multiplicity[1] + 2 < multiplicity[2] < 14
    # at the highest energy hardly any is too soft, and the pions are straight enough to be compared with
    parents = take(pions, secondaries.jet)
    across = np.linalg.norm(np.cross(momentum(secondaries), unit_vector(parents.eta, parents.phi)), axis=1)
    soft = secondaries.pt < 100
    assert across[soft].mean() == pytest.approx(0.35, rel=0.03)


def test_leptons_and_particles_from_outside_do_not_interact() -> None:
    secondaries, destroyed = interact(some(LEPTONS, 10_000), MAX_SCALE, np.random.default_rng(9))
    assert len(secondaries) == 0
    assert not destroyed.any()
    _, destroyed = interact(some([22, *HADRONS], 10_000, radius=161.0), MAX_SCALE, np.random.default_rng(9))
    assert not destroyed.any()


def test_only_material_beyond_the_production_point_counts() -> None:
    particles = like_an_event(100_000)
    secondaries, _ = interact(particles, MAX_SCALE, np.random.default_rng(10))
    parents = take(particles, secondaries.jet)
    radius = np.hypot(secondaries.x, secondaries.y)
    assert len(secondaries) > 5000
    assert np.all(radius > np.hypot(parents.x, parents.y))
    paths = mean_free_paths(some(22, 1, radius=50.0))[:, 0]
    assert paths == pytest.approx([0, 0, *(7 / 9 * RADIATION_LENGTHS[2:])])


def test_secondaries_inherit_from_their_parents_and_keep_the_order() -> None:
    particles = like_an_event(50_000)
    secondaries, destroyed = interact(particles, 1.0, np.random.default_rng(11))
    parents = take(particles, secondaries.jet)
    assert np.all(np.diff(secondaries.event) >= 0)
    assert np.array_equal(secondaries.event, parents.event)
    assert np.array_equal(secondaries.hadron, parents.hadron)
    assert destroyed.dtype == bool
    assert destroyed[secondaries.jet].all()
    electrons = np.abs(secondaries.pdg_id) == 11
    assert np.array_equal(electrons, parents.pdg_id == 22)
    assert 0.02 < destroyed.mean() < 0.12
    assert all(
        getattr(secondaries, column.name).dtype == getattr(particles, column.name).dtype for column in fields(particles)
    )


def test_more_material_changes_only_particles_whose_fate_changes() -> None:
    particles = like_an_event(100_000)
    rngs = [np.random.default_rng(12) for _ in range(2)]
    (few, gone), (many, also_gone) = (
        interact(particles, scale, rng) for scale, rng in zip((1.0, 1.1), rngs, strict=True)
    )
    assert not np.any(gone & ~also_gone)
    assert also_gone.sum() / gone.sum() == pytest.approx(1.1, abs=0.02)
    old = gone[many.jet]
    matrices = [
        np.stack([getattr(part, column.name) for column in fields(part)], axis=1) for part in (few, take(many, old))
    ]
    first, second = ({row.tobytes() for row in matrix} for matrix in matrices)
    assert len(first & second) > 0.99 * len(first)  # the others interact in a layer further in
    assert rngs[0].random() == rngs[1].random()


def test_limits() -> None:
    particles = like_an_event(1000)
    secondaries, destroyed = interact(particles, 0.0, np.random.default_rng(13))
    assert len(secondaries) == 0
    assert not destroyed.any()
    nothing, destroyed = interact(take(particles, np.zeros(0, dtype=int)), 1.0, np.random.default_rng(13))
    assert len(nothing) == len(destroyed) == 0
    for scale in (-0.1, MAX_SCALE + 0.1, np.nan):
        with pytest.raises(ValueError, match="scale"):
            interact(particles, scale, np.random.default_rng(13))
