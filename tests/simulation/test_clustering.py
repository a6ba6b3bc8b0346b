"""Anti-kT jets with ghosts, against a slow clustering written out here."""

import numpy as np
import pytest

from simulation.generation.clustering import cluster
from simulation.generation.particles import ParticleClasses, Particles, classify, flatten
from simulation.generation.pythia import EventGenerator
from simulation.knobs import Generator
from simulation.processes import PROCESSES

RADIUS, MIN_PT, MAX_ETA = 0.4, 12.0, 2.6
TOY = [
    # PDG number, px, py, pz: two back-to-back jets of two pions each, a prompt muon, a b hadron inside the first jet
    (211, 30.0, 1.0, 5.0),
    (-211, 20.0, -1.0, 5.0),
    (211, -25.0, 2.0, -3.0),
    (-211, -24.0, -2.0, -3.0),
    (13, 1.0, 40.0, 0.0),
    (511, 50.0, 0.0, 10.0),
]


def toy_event(
    entries: list[tuple[int, float, float, float]], *, ghosts: bool = True
) -> tuple[Particles, ParticleClasses]:
    """One event of particles; hadrons with a b quark are ghosts or, without `ghosts`, nothing at all."""
    pdg_id, px, py, pz = (np.array(column) for column in zip(*entries, strict=True))
    zero = np.zeros(len(pdg_id))
    n, no = zero.astype(int), zero > 0
    energy = np.sqrt(px**2 + py**2 + pz**2 + 0.02)
    particles = Particles(1, n, pdg_id, zero + 1, n, n, px, py, pz, energy, zero, zero, zero)
    muon, hadron = np.abs(pdg_id) == 13, pdg_id == 511
    return particles, ParticleClasses(~hadron, muon, muon, hadron & ghosts, no)


def test_ghosts_label_jets_and_change_nothing_else() -> None:
    with_b, without = cluster(*toy_event(TOY)), cluster(*toy_event(TOY, ghosts=False))
    assert with_b.jets.pt == pytest.approx([50, 49], rel=0.01)
    assert with_b.jets.pt == pytest.approx(without.jets.pt, rel=1e-9)
    assert with_b.jets.mass == pytest.approx(without.jets.mass, rel=1e-6)
    assert with_b.jets.n_b_hadrons.tolist() == [1, 0]
    assert without.jets.n_b_hadrons.tolist() == [0, 0]
    assert with_b.jets.n_constituents.tolist() == [2, 2]
    assert with_b.jet_of_particle.tolist() == [0, 0, 1, 1, -1, 0]
    assert without.jet_of_particle.tolist() == [0, 0, 1, 1, -1, -1]


def test_single_soft_and_forward_jets_are_dropped() -> None:
    single = (211, 0.0, 60.0, 0.0)
    soft = [(211, 0.0, -5.0, 0.0), (-211, 0.1, -6.0, 0.0)]
    forward = [(211, 2.0, -20.0, 150.0), (-211, 2.5, -20.0, 150.0)]  # eta = 2.7
    entries = [single, *soft, *forward, *TOY]
    clustering = cluster(*toy_event(entries))
    assert len(clustering.jets.pt) == 2
    assert clustering.jet_of_particle.tolist() == [*[-1] * 5, 0, 0, 1, 1, -1, 0]


def slow_anti_kt(momentum: np.ndarray) -> list[tuple[np.ndarray, list[int]]]:
    """Merge the nearest pair until none is left: d_ij = min(1/pt_i^2, 1/pt_j^2) (dR / R)^2, d_i = 1/pt_i^2, E scheme.

    Args:
        momentum: `[particle, (px, py, pz, E)]`.

    Returns:
        Momentum and members of each jet.
    """
    momentum = momentum.copy()
    members = [[index] for index in range(len(momentum))]
    active = np.ones(len(momentum), dtype=bool)

    def distances(row: int) -> np.ndarray:
        px, py, pz, energy = momentum.T
        rapidity = 0.5 * np.log((energy + pz) / (energy - pz))
        turn = np.abs(np.arctan2(py, px) - np.arctan2(py[row], px[row]))
        distance2 = (rapidity - rapidity[row]) ** 2 + np.minimum(turn, 2 * np.pi - turn) ** 2
        inverse = 1 / (px**2 + py**2)
        between = np.minimum(inverse, inverse[row]) * distance2 / RADIUS**2
        between[row] = inverse[row]  # to the beam, on the diagonal
        return np.where(active, between, np.inf)

    matrix = np.array([distances(row) for row in range(len(momentum))])
    jets = []
    while active.any():
        first, second = np.unravel_index(matrix.argmin(), matrix.shape)
        gone = int(second)
        active[gone] = False
        matrix[gone], matrix[:, gone] = np.inf, np.inf
        if first == second:
            jets.append((momentum[gone], members[gone]))
            continue
        momentum[first] += momentum[gone]
        members[first] += members[gone]
        matrix[first] = matrix[:, first] = distances(int(first))
    return jets


def test_jets_and_labels_agree_with_a_slow_clustering() -> None:
    n_events = 15
    pythia = EventGenerator(PROCESSES["ttbar"], Generator(), 7)
    particles = flatten(pythia.next_batch(n_events))
    classes = classify(particles)
    clustering = cluster(particles, classes)
    jets = clustering.jets
    inputs = classes.visible & ~classes.not_in_jets & (np.abs(particles.eta) < 4)
    n_jets = n_labelled = 0
    for event in range(n_events):
        visible = np.flatnonzero(inputs & (particles.event == event))
        b, c = (np.flatnonzero(mask & (particles.event == event)) for mask in (classes.b_hadron, classes.c_hadron))
        index = np.concatenate([visible, b, c])
        momentum = np.stack([particles.px, particles.py, particles.pz, particles.energy], axis=1)[index]
        momentum[len(visible) :] *= 1e-18
        expected = []
        for (px, py, pz, energy), members in slow_anti_kt(momentum):
            kinds = np.digitize(members, [len(visible), len(visible) + len(b)])
            n_visible, n_b, n_c = np.bincount(kinds, minlength=3)
            pt = np.hypot(px, py)
            if pt > MIN_PT and np.abs(np.arcsinh(pz / pt)) < MAX_ETA and n_visible > 1:
                mass = np.sqrt(max(energy**2 - pt**2 - pz**2, 0))
                expected.append((pt, mass, n_b, n_c, n_visible, set(index[members].tolist())))
        expected.sort(key=lambda jet: -jet[0])
        mine = np.flatnonzero(jets.event == event)
        assert jets.pt[mine] == pytest.approx([jet[0] for jet in expected], rel=1e-9)
        assert jets.mass[mine] == pytest.approx([jet[1] for jet in expected], rel=1e-6)
        for number, column in enumerate((jets.n_b_hadrons, jets.n_c_hadrons, jets.n_constituents), start=2):
            assert column[mine].tolist() == [jet[number] for jet in expected]
        for jet, (*_, members) in zip(mine, expected, strict=True):
            assert set(np.flatnonzero(clustering.jet_of_particle == jet).tolist()) == members
        n_jets += len(mine)
        n_labelled += np.count_nonzero(jets.n_b_hadrons[mine] + jets.n_c_hadrons[mine])
    assert n_jets > 3 * n_events
    assert n_labelled > n_events
