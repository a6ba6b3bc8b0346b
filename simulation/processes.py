"""The hard processes that can be simulated: what the signal and calibration regions of b tagging are made of."""

from dataclasses import dataclass

from common.errors import AdvtagError

_TTBAR = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on")
HADRONIC, LEPTONIC = "1 2 3 4 5", "11 13 15"  # decays of a W boson, by the PDG numbers that they hold
_QCD_PHASE_SPACE = ("PhaseSpace:pTHatMin = 30.", "PhaseSpace:pTHatMax = 300.")
# generated with probability (pTHat / 60 GeV)^4 more often, compensated by the weight of the event
_QCD_WEIGHTING = (
    "PhaseSpace:bias2Selection = on",
    "PhaseSpace:bias2SelectionPow = 4.",
    "PhaseSpace:bias2SelectionRef = 60.",
)


@dataclass(frozen=True)
class Process:
    """A hard process.

    Attributes:
        number: 1 to 89, part of every event number, so it must never be reused.
        summary: one line for the user.
        settings: Pythia commands of the process.
        weighting: commands that bias the generation and give each event a weight; simulation only.
        one_lepton: exactly one W boson decays to leptons, its charge alternating from batch to batch.
        outgoing_quark: PDG number of a quark that the hard process must produce; 0: no such demand.
    """

    name: str
    number: int
    summary: str
    settings: tuple[str, ...]
    weighting: tuple[str, ...] = ()
    one_lepton: bool = False
    outgoing_quark: int = 0


PROCESSES = {
    process.name: process
    for process in (
        Process("ttbar", 1, "top quark pairs, all decays", _TTBAR),
        Process(
            "ttbar-dilepton",
            2,
            "top quark pairs, both W to e, mu or tau",
            (*_TTBAR, "24:onMode = off", f"24:onIfAny = {LEPTONIC}"),
        ),
        Process("ttbar-semilepton", 3, "top quark pairs, one W to e, mu or tau", _TTBAR, one_lepton=True),
        Process(
            "qcd",
            4,
            "multijets, pTHat 30 to 300 GeV, weighted; all but the hard production of b pairs, which is qcd-bb",
            (
                *(f"HardQCD:{channel} = on" for channel in ("gg2gg", "gg2qqbar", "qg2qg", "qq2qq", "qqbar2gg")),
                *(f"HardQCD:{channel} = on" for channel in ("qqbar2qqbarNew", "gg2ccbar", "qqbar2ccbar")),
                *_QCD_PHASE_SPACE,
            ),
            weighting=_QCD_WEIGHTING,
        ),
        Process(
            "qcd-bb",
            5,
            "hard production of b pairs, pTHat 30 to 300 GeV, weighted; adds to qcd",
            ("HardQCD:hardbbbar = on", *_QCD_PHASE_SPACE),
            weighting=_QCD_WEIGHTING,
        ),
        Process(
            "wc",
            6,
            "W to e, mu or tau with a charm quark, pTHat above 20 GeV",
            (
                "WeakBosonAndParton:qg2Wq = on",
                "PhaseSpace:pTHatMin = 20.",
                "24:onMode = off",
                f"24:onIfAny = {LEPTONIC}",
            ),
            outgoing_quark=4,
        ),
        Process(
            "z-jets",
            7,
            "Z/gamma* to mu mu above 50 GeV with a jet, pTHat above 20 GeV",
            (
                "WeakBosonAndParton:qqbar2gmZg = on",
                "WeakBosonAndParton:qg2gmZq = on",
                "PhaseSpace:pTHatMin = 20.",
                "PhaseSpace:mHatMin = 50.",
                "23:mMin = 50.",
                "23:onMode = off",
                "23:onIfAny = 13",
            ),
        ),
    )
}


def get_process(name: str) -> Process:
    """Look a process up by name.

    Raises:
        AdvtagError: no such process.
    """
    if name not in PROCESSES:
        raise AdvtagError(f"unknown process '{name}': choose one of {', '.join(PROCESSES)}")
    return PROCESSES[name]
