"""Jets: anti-kT clustering, flavour by ghost association, and the smearing of energy and direction."""

from dataclasses import dataclass, fields

import awkward as ak
import numpy as np

from simulation.generator import load_libraries
from simulation.kinematics import Array, unit_vector, wrap_angle
from simulation.particles import ParticleClasses, Particles
from simulation.variants import Detector

RADIUS = 0.4
MIN_GEN_PT = 12.0  # GeV: low enough that smearing to MIN_PT from below is negligible
MIN_PT = 20.0  # GeV
MAX_ETA = 2.5
_GHOST_SCALE = 1e-18  # heavy hadrons take part in the clustering without changing it


@dataclass(frozen=True)
class Jets:
    """Jets of a batch, one entry each, ordered by event and then by falling pt.

    Attributes:
        event: event number in the batch.
        pt, eta, phi, mass: as measured, GeV.
        gen_pt: transverse momentum of the clustered particles, GeV.
        n_b_hadrons, n_c_hadrons: weakly decaying hadrons inside the jet.
        n_constituents: clustered particles, without ghosts.
    """

    event: Array
    pt: Array
    eta: Array
    phi: Array
    mass: Array
    gen_pt: Array
    n_b_hadrons: Array
    n_c_hadrons: Array
    n_constituents: Array

    def __len__(self) -> int:
        """Number of jets."""
        return len(self.pt)

    @property
    def direction(self) -> Array:
        """Unit vectors `[jet, 3]`."""
        return unit_vector(self.eta, self.phi)

    @property
    def energy(self) -> Array:
        """GeV."""
        energy: Array = np.hypot(self.pt * np.cosh(self.eta), self.mass)
        return energy

    @property
    def hadron_flavour(self) -> Array:
        """5 with a b hadron, else 4 with a c hadron, else 0 (jets of hadronic tau decays too), as in NanoAOD."""
        return np.where(self.n_b_hadrons > 0, 5, np.where(self.n_c_hadrons > 0, 4, 0))

    def take(self, index: Array) -> "Jets":
        """Jets at these positions, or where a mask is true."""
        return Jets(**{column.name: getattr(self, column.name)[index] for column in fields(self)})


def cluster(particles: Particles, classes: ParticleClasses) -> Jets:
    """Cluster the visible particles except prompt leptons; heavy hadrons join as ghosts.

    Returns:
        Jets above `MIN_GEN_PT` as the generator has them (`pt` equals `gen_pt`), any pseudorapidity.
    """
    _, fastjet = load_libraries()
    groups = (classes.visible & ~classes.prompt_lepton, classes.b_hadron, classes.c_hadron)
    members = [np.flatnonzero(group) for group in groups]
    index = np.concatenate(members)
    kind = np.repeat([0, 5, 4], [len(member) for member in members])
    by_event = np.argsort(particles.event[index], kind="stable")
    index, kind = index[by_event], kind[by_event]
    counts = np.bincount(particles.event[index], minlength=particles.n_events)
    scale = np.where(kind > 0, _GHOST_SCALE, 1.0)
    names = {"px": particles.px, "py": particles.py, "pz": particles.pz, "E": particles.energy}
    inputs = ak.unflatten(ak.zip({name: values[index] * scale for name, values in names.items()}), counts)

    sequence = fastjet.ClusterSequence(inputs, fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS))
    found = sequence.inclusive_jets(min_pt=MIN_GEN_PT)
    constituents = sequence.constituent_index(min_pt=MIN_GEN_PT)  # [event][jet][constituent], within the event
    starts = np.cumsum(counts) - counts
    flat_constituents = ak.to_numpy(ak.flatten(constituents + starts, axis=None)).astype(np.int64)
    n_members = ak.to_numpy(ak.flatten(ak.num(constituents, axis=2))).astype(np.int64)
    jet_of_member = np.repeat(np.arange(len(n_members)), n_members)
    member_kind = kind[flat_constituents]

    def count(wanted: int) -> Array:
        return np.bincount(jet_of_member[member_kind == wanted], minlength=len(n_members))

    px, py, pz, energy = (ak.to_numpy(ak.flatten(found[axis])).astype(float) for axis in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    return Jets(
        event=np.repeat(np.arange(particles.n_events), ak.to_numpy(ak.num(found))),
        pt=pt,
        eta=np.arcsinh(pz / pt),
        phi=np.arctan2(py, px),
        mass=np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0)),
        gen_pt=pt,
        n_b_hadrons=count(5),
        n_c_hadrons=count(4),
        n_constituents=count(0),
    )


def measure(jets: Jets, detector: Detector, rng: np.random.Generator) -> Jets:
    """Smear energy and direction, apply the acceptance, and order by falling pt."""
    pt = jets.pt
    relative = np.sqrt((detector.jet_noise / pt) ** 2 + detector.jet_stochastic**2 / pt + detector.jet_constant**2)
    response = np.maximum(1 + relative * detector.jet_resolution_scale * rng.normal(size=len(jets)), 0.2)
    response *= detector.jet_energy_scale
    angle = detector.jet_angle * np.sqrt(30.0 / pt)
    measured = Jets(
        event=jets.event,
        pt=pt * response,
        eta=jets.eta + angle * rng.normal(size=len(jets)),
        phi=wrap_angle(jets.phi + angle * rng.normal(size=len(jets))),
        mass=jets.mass * response,
        gen_pt=jets.gen_pt,
        n_b_hadrons=jets.n_b_hadrons,
        n_c_hadrons=jets.n_c_hadrons,
        n_constituents=jets.n_constituents,
    )
    # a single particle is no jet
    accepted = measured.take((measured.pt > MIN_PT) & (np.abs(measured.eta) < MAX_ETA) & (measured.n_constituents > 1))
    return accepted.take(np.lexsort((-accepted.pt, accepted.event)))
