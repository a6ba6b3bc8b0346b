"""The knobs of the simulation and the variants that are made of them: nominal `mc`, and a hidden `data`.

The numbers are a first guess from published performance, not a fit to anything. Sources: track parameters,
tails and efficiency: CMS tracker paper (arXiv:1405.6569) and Phase-1 pixel performance (CMS DP-2020/049); jets:
CMS jet energy scale and resolution in 8 TeV data (arXiv:1607.03663); leptons: arXiv:1804.04528 and
arXiv:2012.06888.
"""

from dataclasses import dataclass, field

from common.errors import AdvtagError


@dataclass(frozen=True)
class Generator:
    """What is changed in Pythia with respect to its defaults (Monash tune)."""

    settings: tuple[str, ...] = ()
    lifetime_scale: dict[int, float] = field(default_factory=dict)  # PDG number: factor on its mean life


@dataclass(frozen=True)
class Detector:
    """Everything that happens after the generator."""

    # impact parameters: sigma = constant (+) scattering / (pt sin(theta)^k), added in quadrature
    d0_constant: float = 14.0  # um
    d0_scattering: float = 75.0  # um GeV
    dz_constant: float = 30.0  # um
    dz_scattering: float = 90.0  # um GeV
    resolution_scale: float = 1.0  # true resolution / estimated uncertainty
    resolution_spread: float = 0.15  # track-to-track spread of the resolution (log-normal width)
    uncertainty_spread: float = 0.04  # error of the estimated uncertainty (log-normal width)
    tail_fraction: float = 0.035  # tracks with a wrongly assigned hit
    tail_scale: float = 3.2  # their smallest widening of the resolution
    fake_fraction: float = 0.006  # tracks made of unrelated hits, at high pt
    track_efficiency: float = 0.95  # central, above some GeV, from the beam line
    nuclear_loss: float = 0.008  # tracks lost to nuclear interactions
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


@dataclass(frozen=True)
class Variant:
    """One set of knobs. The number (0 to 9) is part of every event number, so it must never be reused."""

    name: str
    number: int
    is_data: bool = False
    generator: Generator = Generator()
    detector: Detector = Detector()


# "data": about what separates CMS data from simulation, each knob moving scale factors by 0-2 % (b jets), up to
# 20 % (c jets) and 10-60 % (light jets). An analysis must not read these numbers: they are the answer.
_HIDDEN_DATA = Variant(
    name="data",
    number=1,
    is_data=True,
    generator=Generator(
        settings=(
            "Tune:pp = 21",  # ATLAS A14: shower, multiparton interactions and colour reconnection differ
            "StringZ:rFactB = 0.70",  # default 0.855: harder b fragmentation
            "StringFlav:probStoUD = 0.25",  # default 0.217: more B_s
            "StringFlav:probQQtoQ = 0.09",  # default 0.081: more b baryons
        ),
        lifetime_scale={511: 1.03, 521: 1.03, 531: 1.03, 5122: 1.03},  # B0, B+, B_s, Lambda_b
    ),
    detector=Detector(
        resolution_scale=1.10,
        tail_fraction=0.05,
        track_efficiency=0.93,
        fake_fraction=0.009,
        jet_energy_scale=0.985,
        jet_resolution_scale=1.1,
        pileup=38.0,
    ),
)

VARIANTS = {variant.name: variant for variant in (Variant(name="mc", number=0), _HIDDEN_DATA)}


def get_variant(name: str) -> Variant:
    """Look a variant up by name.

    Raises:
        AdvtagError: no such variant.
    """
    if name not in VARIANTS:
        raise AdvtagError(f"unknown simulation variant '{name}': choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
