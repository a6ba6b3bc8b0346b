"""Generated events against Pythia itself: its event record walked through, its particle data, and single decays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import pythia8mc

from simulation.generation.events import GeneratedEvents, HeavyHadrons
from simulation.generation.generate import generate
from simulation.generation.pythia import EventGenerator, block_seed
from simulation.kinematics import delta_r2, wrap_angle
from simulation.knobs import Generator
from simulation.processes import PROCESSES
from simulation.variants import VARIANTS
from tests.simulation.conftest import LARGE_SEED

ROUNDING = 2.0**-16  # of the files
N_WALKED = 20
CHARGED_PER_BEAUTY_LEP = 4.97  # without the products of K0S and Lambda (Particle Data Group, +-0.06)
DIRECT_MUONS = {521: 0.1099, 421: 0.068}  # inclusive branching fractions (Particle Data Group)


def proper_length(hadrons: HeavyHadrons) -> np.ndarray:
    """c tau in mm: flight length over beta gamma."""
    flight = np.sqrt(sum((getattr(hadrons, f"decay_{axis}") - getattr(hadrons, axis)) ** 2 for axis in "xyz"))
    return flight * hadrons.mass / (hadrons.pt * np.cosh(hadrons.eta))


class Gun:
    """Decays of single hadrons, with the limits on displaced decays that the simulation documents."""

    def __init__(self, *settings: str) -> None:
        self.pythia = pythia8mc.Pythia("", False)
        limits = ("tau0Max = 1000.", "limitCylinder = on", "limitTau0 = on", "xyMax = 300.", "zMax = 600.")
        common = ("Print:quiet = on", "ProcessLevel:all = off", "Random:setSeed = on", "Random:seed = 17")
        for command in (*common, *(f"ParticleDecays:{limit}" for limit in limits), *settings):
            assert self.pythia.readString(command)
        assert self.pythia.init()

    def decay(self, hadrons: HeavyHadrons, index: int) -> Any:
        """Let a hadron like this one decay once more, from where it was produced."""
        event, mass = self.pythia.event, float(hadrons.mass[index])
        pt, eta, phi = (float(getattr(hadrons, name)[index]) for name in ("pt", "eta", "phi"))
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
        event.reset()
        entry = event[event.append(int(hadrons.pdg_id[index]), 1, 0, 0, px, py, pz, energy, mass)]
        entry.vProd(*(float(getattr(hadrons, axis)[index]) for axis in "xyz"), 0.0)
        entry.tau(self.pythia.particleData.tau0(entry.id()) * self.pythia.rndm.exp())
        assert self.pythia.next()
        return event


@dataclass
class Walked:
    """What a slow walk through Pythia's record of one event finds."""

    hadrons: list[tuple[int, float, float, float, int]]  # PDG number, pt, eta, radius of the decay, charged particles
    visible: list[tuple[int, float, float, int]]  # PDG number, pt, eta, which hadron it comes from


def walk(pythia: Any) -> Walked:
    event, data = pythia.event, pythia.particleData

    def flavour(index: int) -> int:
        particle = event[index]
        return abs(data.heaviestQuark(particle.id())) if particle.isHadron() else 0

    def is_last(index: int) -> bool:
        return all(flavour(daughter) != flavour(index) for daughter in event[index].daughterList())

    # beams are left out: their daughters are partons
    heavy = [i for i in range(event.size()) if flavour(i) in (4, 5) and is_last(i)]
    number = {index: position for position, index in enumerate(heavy)}
    hadrons = []
    for index in heavy:
        particle = event[index]
        final = [event[i] for i in particle.daughterListRecursive() if event[i].isFinal()]
        radius = np.hypot(particle.xDec(), particle.yDec())
        n_charged = sum(descendant.isCharged() for descendant in final)
        hadrons.append((particle.id(), particle.pT(), particle.eta(), radius, n_charged))
    visible = []
    for index in range(event.size()):
        particle, ancestor = event[index], index
        if particle.isFinal() and particle.isVisible() and particle.pT() > 0.7:
            while ancestor > 0 and ancestor not in number and not event[ancestor].isParton():
                ancestor = event[ancestor].mother1()
            visible.append((particle.id(), particle.pT(), particle.eta(), number.get(ancestor, -1)))
    return Walked(hadrons, visible)


@pytest.fixture(scope="module")
def walked() -> list[Walked]:
    """The first events of the large sample, made with another function of Pythia from the same random numbers."""
    process = PROCESSES["ttbar"]
    generator = EventGenerator(process, Generator(), block_seed(process, Generator(), LARGE_SEED, 0))
    found = []
    for _ in range(N_WALKED):
        assert generator._pythia.next()
        found.append(walk(generator._pythia))
    return found


def test_hadrons_are_those_of_the_event_record(generated: GeneratedEvents, walked: list[Walked]) -> None:
    hadrons = generated.hadrons
    for event, expected in enumerate(walked):
        mine = np.flatnonzero(hadrons.event == event)
        pdg_id, pt, eta, radius, n_charged = zip(*expected.hadrons, strict=True)
        assert hadrons.pdg_id[mine].tolist() == list(pdg_id)
        assert hadrons.n_charged[mine].tolist() == list(n_charged)
        assert hadrons.pt[mine] == pytest.approx(pt, rel=ROUNDING)
        assert hadrons.eta[mine] == pytest.approx(eta, rel=ROUNDING)
        decay = np.hypot(hadrons.decay_x, hadrons.decay_y)[mine]
        assert decay == pytest.approx(radius, rel=2 * ROUNDING, abs=1e-9)


def test_particles_belong_to_their_hadrons(generated: GeneratedEvents, walked: list[Walked]) -> None:
    """Kept particles are a subsequence of the record."""
    particles = generated.particles
    first_hadron = np.searchsorted(generated.hadrons.event, np.arange(N_WALKED))
    n_from_hadrons = 0
    for event, expected in enumerate(walked):
        candidates = iter(expected.visible)
        for index in np.flatnonzero(particles.event == event):
            for candidate in candidates:
                pdg_id, pt, eta, _ = candidate
                same = abs(particles.pt[index] / pt - 1) <= ROUNDING and pdg_id == particles.pdg_id[index]
                if same and abs(particles.eta[index] / eta - 1) <= ROUNDING:
                    break
            else:
                pytest.fail(f"particle {index} is not in the record")
            from_hadron = candidate[3] >= 0
            assert particles.hadron[index] == (first_hadron[event] + candidate[3] if from_hadron else -1)
            n_from_hadrons += from_hadron
    assert n_from_hadrons > 10 * N_WALKED


@pytest.mark.parametrize("species", [511, 521, 531, 5122, 421, 411, 431])
def test_mean_life(generated: GeneratedEvents, species: int) -> None:
    chosen = np.abs(generated.hadrons.pdg_id) == species
    length = proper_length(generated.hadrons)[chosen]
    expected = pythia8mc.Pythia("", False).particleData.tau0(species)  # mm/c
    n = len(length)
    assert n > 100
    assert length.mean() == pytest.approx(expected, abs=4 * expected / np.sqrt(n))
    # an exponential distribution, not only its mean: a tenth lives longer than 2.3 lifetimes
    assert np.mean(length > expected * np.log(10)) == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / n))


@pytest.mark.parametrize("species", [511, 521, 531, 5122, 421, 411, 431, 4122])
def test_charged_multiplicity_of_decays(generated: GeneratedEvents, species: int) -> None:
    """Against single decays of hadrons of the same momenta from the same places: K0S may leave the cylinder."""
    hadrons, gun = generated.hadrons, Gun()
    chosen = np.flatnonzero(np.abs(hadrons.pdg_id) == species)[:1500]
    shot = np.array([gun.decay(hadrons, index).nFinal(True) for index in chosen])
    found = hadrons.n_charged[chosen]
    assert np.array_equal(found % 2, shot % 2)  # the charge of the hadron
    error = np.hypot(found.std(), shot.std()) / np.sqrt(len(chosen))
    assert found.mean() == pytest.approx(shot.mean(), abs=4 * error)
    assert found.std() == pytest.approx(shot.std(), rel=4 / np.sqrt(len(chosen)))


def test_charged_multiplicity_is_about_that_of_lep(generated: GeneratedEvents) -> None:
    """LEP does not count products of K0S and Lambda. Pythia's decay tables are known to be within some percent."""
    hadrons, gun = generated.hadrons, Gun("310:mayDecay = off", "3122:mayDecay = off")
    beauty = np.flatnonzero(np.isin(np.abs(hadrons.pdg_id), [511, 521, 531, 5122]))
    shot = [gun.decay(hadrons, index).nFinal(True) for index in beauty[:2000]]
    assert np.mean(shot) == pytest.approx(CHARGED_PER_BEAUTY_LEP, rel=0.08)
    assert hadrons.n_charged[beauty].mean() > np.mean(shot) + 0.2  # a quarter of them has a K0S, 69 % of it visible


@pytest.mark.parametrize("species", [521, 421])
def test_muons_of_semileptonic_decays(generated: GeneratedEvents, species: int) -> None:
    """Counted where the files keep all of them: close to a hadron that is close to its jet."""
    hadrons, particles, jets = generated.hadrons, generated.particles, generated.jets
    distance2 = delta_r2(hadrons.eta, hadrons.phi, jets.eta[hadrons.jet], jets.phi[hadrons.jet])
    inside = (hadrons.jet >= 0) & (distance2 < 0.1**2) & (np.abs(hadrons.eta) < 2)
    inside &= (np.abs(hadrons.pdg_id) == species) & (hadrons.pt > 10)

    muon = (np.abs(particles.pdg_id) == 13) & (particles.pt > 2) & (particles.hadron >= 0)
    muon &= inside[particles.hadron]
    parent = particles.hadron[muon]
    close = delta_r2(particles.eta[muon], particles.phi[muon], hadrons.eta[parent], hadrons.phi[parent]) < 0.4**2
    found = np.count_nonzero(close)

    gun, repeats, shot, all_muons = Gun(), 3, 0, 0
    chosen = np.flatnonzero(inside)
    for index in np.repeat(chosen, repeats):
        event = gun.decay(hadrons, index)
        for product in range(2, event.size()):
            particle = event[product]
            if abs(particle.id()) != 13 or not particle.isFinal() or _has_charm_ancestor(event, product, species):
                continue
            all_muons += 1
            turn = wrap_angle(np.array(particle.phi() - hadrons.phi[index]))
            near = (particle.eta() - hadrons.eta[index]) ** 2 + turn**2 < 0.4**2
            shot += near and particle.pT() > 2
    assert found > 50
    assert found == pytest.approx(shot / repeats, abs=4 * np.sqrt(found + shot / repeats**2))
    assert all_muons / repeats / len(chosen) == pytest.approx(DIRECT_MUONS[species], rel=0.25)  # tables, statistics


def _has_charm_ancestor(event: Any, index: int, species: int) -> bool:
    if species < 500:
        return False
    while index > 1:
        index = event[index].mother1()
        if event[index].isHadron() and index > 1 and abs(event[index].id()) // 100 % 10 == 4:
            return True
    return False


def test_lifetimes_change_nothing_else() -> None:
    """Same random numbers: each b hadron lives exactly longer by the factor that is dialled."""
    knob = VARIANTS["b-lifetimes"].generator
    fast = ("PartonLevel:MPI = off",)
    nominal, longer = (
        generate(PROCESSES["ttbar"], Generator(settings=fast, lifetime_scale=scale), 1, 0, 200)
        for scale in ({}, knob.lifetime_scale)
    )
    assert np.array_equal(nominal.jets.pt, longer.jets.pt)
    assert np.array_equal(nominal.hadrons.pdg_id, longer.hadrons.pdg_id)
    assert np.array_equal(nominal.hadrons.pt, longer.hadrons.pt)
    before, after = proper_length(nominal.hadrons), proper_length(longer.hadrons)
    species = np.abs(nominal.hadrons.pdg_id)
    dialled = np.isin(species, [511, 521, 531, 5122])
    assert set(knob.lifetime_scale.values()) == {1.03}
    assert np.count_nonzero(dialled) > 300
    assert after[dialled] == pytest.approx(1.03 * before[dialled], rel=1e-6)
    assert after[~dialled] == pytest.approx(before[~dialled], rel=1e-6)


def test_hadrons_point_to_their_jets(generated: GeneratedEvents) -> None:
    """Above 10 GeV a hadron is a ghost of the nearest jet; exceptions lie between two jets."""
    hadrons, jets = generated.hadrons, generated.jets
    agree = []
    for index in np.flatnonzero(hadrons.pt > 10)[:3000]:
        nearby = np.flatnonzero(jets.event == hadrons.event[index])
        distance = np.sqrt(delta_r2(hadrons.eta[index], hadrons.phi[index], jets.eta[nearby], jets.phi[nearby]))
        if len(nearby) and distance.min() < 0.4:
            agree.append(nearby[distance.argmin()] == hadrons.jet[index])
    assert len(agree) > 2000
    assert np.mean(agree) > 0.97
