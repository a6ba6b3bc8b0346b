"""What can be changed in the simulation: the knobs of the generator and those of the detector."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Generator:
    """What is changed in Pythia with respect to its defaults (Monash tune, arXiv:1404.5630).

    Attributes:
        name: part of the name of the folder with the generated events.
        number: 0 to 9, part of every event number, so it must never be reused.
        settings: Pythia commands.
        lifetime_scale: factor on the mean life of a particle, by PDG number.
        is_data: events of weight 1 and of random numbers of their own. All other generators start from the same
            random numbers, so that a change of lifetimes alone leaves the rest of an event as it is (until a decay
            crosses the end of the tracker: then the rest of its block differs).
    """

    name: str = "nominal"
    number: int = 0
    settings: tuple[str, ...] = ()
    lifetime_scale: dict[int, float] = field(default_factory=dict)
    is_data: bool = False


@dataclass(frozen=True)
class Detector:
    """Everything that happens after the generator.

    The numbers are a first guess from published performance, not a fit to anything. Sources: track parameters,
    tails and efficiency: CMS tracker paper (arXiv:1405.6569) and Phase-1 pixel performance (CMS DP-2020/049); jets:
    CMS jet energy scale and resolution in 8 TeV data (arXiv:1607.03663); leptons: arXiv:1804.04528 and
    arXiv:2012.06888.
    """

    # impact parameters: sigma = constant (+) scattering / (pt sin(theta)^k), added in quadrature
    d0_constant: float = 14.0  # um
    d0_scattering: float = 75.0  # um GeV
    dz_constant: float = 30.0  # um
    dz_scattering: float = 90.0  # um GeV
    resolution_scale: float = 1.0  # true resolution / estimated uncertainty
    resolution_spread: float = 0.15  # track-to-track spread of the resolution (log-normal width)
    uncertainty_spread: float = 0.04  # error of the estimated uncertainty (log-normal width)
    tail_fraction: float = 0.025  # tracks with a wrongly assigned hit; material makes tails of its own
    tail_scale: float = 3.2  # their smallest widening of the resolution
    fake_fraction: float = 0.006  # tracks whose impact parameters are those of unrelated hits, at high pt
    track_efficiency: float = 0.955  # central, above some GeV, from the beam line, of tracks that do not interact
    material: float = 1.0  # thickness of beam pipe and pixel layers, relative
    # primary vertex, for the activity of a typical event (60 tracks)
    vertex_sigma_xy: float = 9.0  # um
    vertex_sigma_z: float = 14.0  # um
    pileup: float = 35.0  # mean number of pile-up interactions
    # jets: sigma(pt)/pt = noise/pt (+) stochastic/sqrt(pt) (+) constant
    jet_energy_scale: float = 1.0
    jet_resolution_scale: float = 1.0
    jet_noise: float = 3.0  # GeV
    jet_stochastic: float = 0.7  # sqrt(GeV)
    jet_constant: float = 0.05
    jet_angle: float = 0.016  # resolution of eta and of phi at 30 GeV, falling with sqrt(pt)
    # leptons
    muon_efficiency: float = 0.96
    muon_resolution: float = 0.012  # sigma(pt)/pt
    electron_efficiency: float = 0.85
    electron_resolution: float = 0.02  # sigma(pt)/pt
    muon_trigger_efficiency: float = 0.92
