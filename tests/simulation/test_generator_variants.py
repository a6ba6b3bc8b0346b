"""Fragmentation and production of b hadrons at the Z pole: variants of the generator, and LEP."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from simulation.generation.particles import classify, flatten
from simulation.generation.pythia import EventGenerator
from simulation.processes import Process
from simulation.variants import VARIANTS

# electron and positron without radiation: 0.2 ms per event, and every b hadron has the same beam energy
Z_TO_BB = Process(
    "z-bb",
    89,
    "Z to b pairs, at rest",
    (
        *("Beams:idA = 11", "Beams:idB = -11", "Beams:eCM = 91.19", "PDF:lepton = off", "PartonLevel:ISR = off"),
        *("WeakSingleBoson:ffbar2gmZ = on", "23:onMode = off", "23:onIfAny = 5"),
    ),
)
BATCHES, BATCH = 8, 1000
BARYONS = -1
# of weakly decaying hadrons from b quarks (Particle Data Group, from LEP); the last are all b baryons
PRODUCTION = {511: 0.408, 521: 0.408, 531: 0.100, BARYONS: 0.084}
X_B = 0.7092  # mean energy of weakly decaying b hadrons over that of the beam (ALEPH, DELPHI, OPAL, SLD, +-0.0025)


@dataclass(frozen=True)
class Sample:
    """b hadrons: PDG number, and energy over that of the beam."""

    species: np.ndarray
    x: np.ndarray

    def fraction(self, species: int) -> tuple[float, float]:
        """Value and error."""
        chosen = self.species > 5000 if species == BARYONS else self.species == species
        return chosen.mean(), float(np.sqrt(chosen.mean() * (1 - chosen.mean()) / len(chosen)))

    def mean_x(self) -> tuple[float, float]:
        """Value and error."""
        return self.x.mean(), self.x.std() / np.sqrt(len(self.x))


@pytest.fixture(scope="module")
def hadrons() -> Callable[[str], Sample]:
    @cache
    def make(variant: str) -> Sample:
        generator = EventGenerator(Z_TO_BB, VARIANTS[variant].generator, 11)
        species, x = [], []
        for _ in range(BATCHES):
            particles = flatten(generator.next_batch(BATCH))
            is_b = classify(particles).b_hadron
            species.append(np.abs(particles.pdg_id[is_b]))
            x.append(particles.energy[is_b] * 2 / 91.19)
        return Sample(np.concatenate(species), np.concatenate(x))

    return make


def difference(first: tuple[float, float], second: tuple[float, float]) -> float:
    """In standard deviations."""
    return (first[0] - second[0]) / float(np.hypot(first[1], second[1]))


@pytest.mark.parametrize("species", PRODUCTION)
def test_production_fractions_are_about_those_of_lep(hadrons: Callable[[str], Sample], species: int) -> None:
    """The Monash tune makes half of the b baryons that LEP saw, and more B0 and B+ instead."""
    fraction, error = hadrons("mc").fraction(species)
    low, high = (0.4, 0.8) if species == BARYONS else (0.88, 1.12)
    assert low * PRODUCTION[species] - 2 * error < fraction < high * PRODUCTION[species] + 2 * error


def test_each_b_quark_becomes_one_weakly_decaying_hadron(hadrons: Callable[[str], Sample]) -> None:
    """More than two come from gluons that split: 0.0025 pairs per Z at LEP, 0.0031 if it decays to b quarks."""
    pairs_from_gluons = (len(hadrons("mc").species) / (BATCHES * BATCH) - 2) / 2
    assert 0 < pairs_from_gluons < 0.01


def test_hardness_of_fragmentation(hadrons: Callable[[str], Sample]) -> None:
    nominal, softer = hadrons("mc").mean_x(), hadrons("b-fragmentation").mean_x()
    assert nominal[0] == pytest.approx(X_B, rel=0.04)
    assert nominal[0] - softer[0] == pytest.approx(0.02, abs=0.01)  # 3 %, as Peterson's or Bowler's r_b does
    assert difference(nominal, softer) > 5
    # A14 has a weaker coupling of final-state radiation, 0.127 instead of 0.1365: less energy is radiated
    assert difference(hadrons("tune").mean_x(), nominal) > 4


def test_production_of_strange_b_hadrons(hadrons: Callable[[str], Sample]) -> None:
    nominal, more = (hadrons(name).fraction(531) for name in ("mc", "b-fractions"))
    assert more[0] / nominal[0] == pytest.approx(1.15, abs=4 * np.hypot(more[1] / more[0], nominal[1] / nominal[0]))
    assert difference(more, nominal) > 3
    assert abs(difference(hadrons("b-fractions").mean_x(), hadrons("mc").mean_x())) < 4


def test_all_together(hadrons: Callable[[str], Sample]) -> None:
    assert difference(hadrons("generator").fraction(531), hadrons("mc").fraction(531)) > 3
    # the tune is harder, the fragmentation softer
    softer, harder = hadrons("b-fragmentation").mean_x(), hadrons("tune").mean_x()
    assert softer[0] < hadrons("generator").mean_x()[0] < harder[0]
