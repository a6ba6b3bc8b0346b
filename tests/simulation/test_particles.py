"""What a particle is, and where leptons come from."""

import numpy as np
import pytest

from simulation.generation.particles import Particles, ancestor, classify, contains_quark, is_parton


def record(entries: list[tuple[int, int, int]]) -> Particles:
    """One event of (PDG number, status, index of the mother)."""
    pdg_id, status, mother = (np.array(column) for column in zip(*entries, strict=True))
    zero = np.zeros(len(entries))
    daughter = np.zeros(len(entries), dtype=int)
    return Particles(1, daughter, pdg_id, status, mother, daughter, zero, zero, zero, zero, zero, zero, zero)


@pytest.mark.parametrize(
    ("pdg_id", "quark"),
    [(511, 5), (-521, 5), (5122, 5), (10513, 5), (541, 5), (421, 4), (-4122, 4), (443, 4), (100443, 4)],
)
def test_hadrons_with_the_quark(pdg_id: int, quark: int) -> None:
    assert contains_quark(np.array([pdg_id]), quark)[0]


@pytest.mark.parametrize("pdg_id", [5, -5, 21, 211, 310, 3122, 2212, 421, 23, 15])
def test_without_a_b_quark(pdg_id: int) -> None:
    assert not contains_quark(np.array([pdg_id]), 5)[0]


def test_origin_of_leptons() -> None:
    particles = record(
        [
            (90, -11, 0),
            (2212, -12, 0),  # the beam is a hadron, and the ancestor of everything
            (6, -22, 1),
            (24, -22, 2),
            (-11, -23, 3),
            (-11, 51, 4),  # 5: W -> e, after radiation
            (-15, -23, 3),
            (-13, 91, 6),  # 7: W -> tau -> mu
            (511, -83, 2),
            (11, 91, 8),  # 9: B -> e
            (-15, -91, 8),
            (-13, 91, 10),  # 11: B -> tau -> mu
            (111, -83, 2),
            (11, 91, 12),  # 13: Dalitz decay
            (12, 91, 3),  # 14: a neutrino
            (22, 91, 12),
            (22, 51, 4),  # 16: radiated by the electron of the W
            (22, 51, 9),  # 17: by that of the B
        ]
    )
    classes = classify(particles)
    assert np.flatnonzero(classes.not_in_jets).tolist() == [5, 7, 16]
    assert np.flatnonzero(classes.signal_lepton).tolist() == [5, 7, 9, 11]
    assert np.flatnonzero(classes.visible).tolist() == [5, 7, 9, 11, 13, 15, 16, 17]


def test_only_the_last_heavy_hadron_of_a_chain_counts() -> None:
    particles = record(
        [
            (90, -11, 0),
            (513, -83, 0),
            (511, -91, 1),  # B* -> B0
            (-511, -92, 2),  # which oscillates
            (413, -91, 3),
            (421, -91, 4),  # and decays to D* -> D0
            (211, 91, 5),
        ]
    )
    classes = classify(particles)
    assert np.flatnonzero(classes.b_hadron).tolist() == [3]
    assert np.flatnonzero(classes.c_hadron).tolist() == [5]


@pytest.mark.parametrize("pdg_id", [1, -5, 21, 2101, -3303, 90, 92])
def test_partons(pdg_id: int) -> None:
    assert is_parton(np.array([pdg_id]))[0]


@pytest.mark.parametrize("pdg_id", [11, -15, 22, 24, 111, 211, 511, -2212, 4122, 5122, 100443, 10513])
def test_not_partons(pdg_id: int) -> None:
    assert not is_parton(np.array([pdg_id]))[0]


def test_nearest_heavy_ancestor() -> None:
    particles = record(
        [
            (90, -11, 0),
            (2212, -12, 0),
            (5, -71, 1),
            (513, -83, 2),
            (511, -91, 3),
            (411, -91, 4),
            (310, -91, 5),  # 6: K0S of the D+
            (211, 91, 6),
            (211, 91, 4),  # 8: of the B0
            (211, 83, 2),  # 9: of the fragmentation
            (22, 91, 3),  # 10: of the B*
        ]
    )
    index, hadrons = np.array([7, 6, 8, 9, 10, 4]), np.array([4, 5])
    assert ancestor(particles, index, hadrons).tolist() == [1, 1, 0, -1, -1, 0]
    assert ancestor(particles, index, np.array([3])).tolist() == [0, 0, 0, -1, 0, 0]
    assert ancestor(particles, np.array([], dtype=int), hadrons).tolist() == []
