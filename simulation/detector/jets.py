"""Measured jets: energy and direction of the generated ones, smeared."""

from dataclasses import dataclass, fields

import numpy as np

from simulation.generation.events import GeneratedJets
from simulation.kinematics import Array, unit_vector, wrap_angle
from simulation.knobs import Detector

MIN_PT = 20.0  # GeV
MAX_ETA = 2.5


@dataclass(frozen=True)
class Jets:
    """Jets of a block, one entry each, ordered by event and then by falling pt.

    Attributes:
        event: event number in the block.
        generated: index into the block's `GeneratedJets`.
        pt, eta, phi, mass: as measured, GeV.
        gen_pt: transverse momentum of the clustered particles, GeV.
        n_b_hadrons, n_c_hadrons: weakly decaying hadrons inside the jet.
    """

    event: Array
    generated: Array
    pt: Array
    eta: Array
    phi: Array
    mass: Array
    gen_pt: Array
    n_b_hadrons: Array
    n_c_hadrons: Array

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


def measure(jets: GeneratedJets, detector: Detector, rng: np.random.Generator) -> Jets:
    """Smear energy and direction, apply the acceptance, and order by falling pt."""
    pt, n = jets.pt, len(jets.pt)
    relative = np.sqrt((detector.jet_noise / pt) ** 2 + detector.jet_stochastic**2 / pt + detector.jet_constant**2)
    response = np.maximum(1 + relative * detector.jet_resolution_scale * rng.normal(size=n), 0.2)
    response *= detector.jet_energy_scale
    angle = detector.jet_angle * np.sqrt(30.0 / pt)
    measured = Jets(
        event=jets.event,
        generated=np.arange(n),
        pt=pt * response,
        eta=jets.eta + angle * rng.normal(size=n),
        phi=wrap_angle(jets.phi + angle * rng.normal(size=n)),
        mass=jets.mass * response,
        gen_pt=pt,
        n_b_hadrons=jets.n_b_hadrons,
        n_c_hadrons=jets.n_c_hadrons,
    )
    accepted = measured.take((measured.pt > MIN_PT) & (np.abs(measured.eta) < MAX_ETA))
    return accepted.take(np.lexsort((-accepted.pt, accepted.event)))
