"""The variants of the simulation: nominal `mc`, one knob at a time, combinations, and a hidden `data`.

The sizes are about what separates CMS data from simulation. One knob moves the efficiency of b jets by up to a few
percent, that of c jets by up to ten and that of light jets by up to thirty, like the scale factors of CMS
(arXiv:1712.07158); `docs/simulation.md` has the measured effect of each.
"""

from dataclasses import dataclass, field, replace

from common.errors import AdvtagError
from simulation.knobs import Detector, Generator


@dataclass(frozen=True)
class Variant:
    """One set of knobs.

    Attributes:
        summary: what differs from the nominal one, and where the size comes from.
        is_data: its truth is hidden; an analysis must not read the numbers of such a variant: they are the answer.
    """

    name: str
    summary: str
    is_data: bool = False
    generator: Generator = field(default_factory=Generator)
    detector: Detector = field(default_factory=Detector)


@dataclass(frozen=True)
class _Knob:
    """One change: `number`, `settings` and `lifetime_scale` of `Generator`, and what changes in `Detector`."""

    name: str
    summary: str
    number: int = 0
    settings: tuple[str, ...] = ()
    lifetime_scale: dict[int, float] = field(default_factory=dict)
    detector: dict[str, float] = field(default_factory=dict)


_DETECTOR_KNOBS = (
    _Knob(
        "ip-resolution",
        "impact parameters 13 % worse than their uncertainties say (residual misalignment, arXiv:2111.08757)",
        detector={"resolution_scale": 1.13},
    ),
    _Knob(
        "ip-tails",
        "4 % instead of 2.5 % of the tracks in the tails of the impact parameter (a guess: wrong hits in dense jets)",
        detector={"tail_fraction": 0.04},
    ),
    _Knob(
        "track-efficiency",
        "2 % fewer tracks (CMS-PAS-TRK-10-002 finds agreement within percents)",
        detector={"track_efficiency": 0.955 * 0.98},
    ),
    _Knob(
        "fakes",
        "50 % more tracks with the impact parameters of unrelated hits (a guess; noise, thresholds: arXiv:1405.6569)",
        detector={"fake_fraction": 0.009},
    ),
    _Knob(
        "pileup-tracks",
        "20 % more pile-up, so more of its tracks in jets (cross section: 4.6 %; the rest for vertices that merge)",
        detector={"pileup": 42.0},
    ),
    _Knob(
        "material",
        "10 % more material in beam pipe and pixels (known to 5 to 10 %, arXiv:1807.03289)",
        detector={"material": 1.1},
    ),
    _Knob(
        "jet-energy-scale",
        "jet energies 1.5 % lower (uncertainty at 30 GeV in CMS: 1 to 3 %, arXiv:1607.03663)",
        detector={"jet_energy_scale": 0.985},
    ),
    _Knob(
        "jet-energy-resolution",
        "jet energies smeared 10 % more (scale factors of CMS: 1.1 to 1.2, arXiv:1607.03663)",
        detector={"jet_resolution_scale": 1.1},
    ),
)
_GENERATOR_KNOBS = (
    _Knob(
        "tune",
        "ATLAS A14 instead of Monash (ATL-PHYS-PUB-2014-021): parton shower, multiparton interactions, colours",
        number=2,
        settings=("Tune:pp = 21",),
    ),
    _Knob(
        "b-fragmentation",
        "softer b fragmentation, rFactB 1.056 instead of 0.855 (with tune CP5, LEP data give CMS 1.056 +0.196 -0.200)",
        number=3,
        settings=("StringZ:rFactB = 1.056",),
    ),
    _Knob(
        "b-lifetimes",
        "b hadrons live 3 % longer (the PDG knows them to 1 %; three times that, to be seen in small samples)",
        number=4,
        lifetime_scale={511: 1.03, 521: 1.03, 531: 1.03, 5122: 1.03},  # B0, B+, B_s, Lambda_b
    ),
    _Knob(
        "c-lifetimes",
        "c hadrons live 15 % longer (the PDG knows them to 1 %; stands for all that is known less well about charm)",
        number=6,
        lifetime_scale={411: 1.15, 421: 1.15, 431: 1.15, 4122: 1.15},  # D+, D0, D_s, Lambda_c
    ),
    _Knob(
        "b-fractions",
        "more B_s (15 %) and b baryons (11 %), within what hadron colliders measure (HFLAV, arXiv:2206.07501)",
        number=5,
        settings=("StringFlav:probStoUD = 0.25", "StringFlav:probQQtoQ = 0.09"),  # 0.217, 0.081
    ),
)


def _generator(name: str, number: int, knobs: tuple[_Knob, ...], *, is_data: bool = False) -> Generator:
    settings = tuple(setting for knob in knobs for setting in knob.settings)
    lifetimes = {pdg_id: scale for knob in knobs for pdg_id, scale in knob.lifetime_scale.items()}
    return Generator(name, number, settings, lifetimes, is_data)


def _detector(knobs: tuple[_Knob, ...]) -> Detector:
    return replace(Detector(), **{name: value for knob in knobs for name, value in knob.detector.items()})


def _variants() -> list[Variant]:
    single = [Variant(knob.name, knob.summary, detector=_detector((knob,))) for knob in _DETECTOR_KNOBS]
    single += [
        Variant(knob.name, knob.summary, generator=_generator(knob.name, knob.number, (knob,)))
        for knob in _GENERATOR_KNOBS
    ]
    every_detector, every_generator = _detector(_DETECTOR_KNOBS), _generator("generator", 9, _GENERATOR_KNOBS)
    return [
        Variant("mc", "nominal"),
        *single,
        Variant("detector", "all changes of the detector together", detector=every_detector),
        Variant("generator", "all changes of the generator together", generator=every_generator),
        Variant(
            "data",
            "hidden: detector and generator together, without truth and generator weights",
            is_data=True,
            generator=_generator("data", 1, _GENERATOR_KNOBS, is_data=True),
            detector=every_detector,
        ),
    ]


VARIANTS = {variant.name: variant for variant in _variants()}


def get_variant(name: str) -> Variant:
    """Look a variant up by name.

    Raises:
        AdvtagError: no such variant.
    """
    if name not in VARIANTS:
        raise AdvtagError(f"unknown simulation variant '{name}': choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
