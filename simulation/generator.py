"""Pythia 8: the processes, their settings, and batches of events."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import AdvtagError
from simulation.variants import Generator

_TTBAR = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on")
_HADRONIC, _LEPTONIC = "1 2 3 4 5", "11 13 15"

_COMMON = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    # K0S, Lambda and hyperons decay in flight inside the tracker, so that displaced V0 tracks exist
    "ParticleDecays:limitTau0 = on",
    "ParticleDecays:tau0Max = 1000.",  # mm/c
    "ParticleDecays:limitCylinder = on",
    "ParticleDecays:xyMax = 300.",  # mm
    "ParticleDecays:zMax = 600.",  # mm
)


@dataclass(frozen=True)
class Process:
    """A hard process. The number is part of every event number, so it must never be reused.

    Attributes:
        settings: Pythia commands of the process.
        weighting: commands that bias the generation and give each event a weight; simulation only.
        one_lepton: exactly one W boson decays to leptons, its charge alternating from batch to batch.
    """

    name: str
    number: int
    settings: tuple[str, ...]
    weighting: tuple[str, ...] = ()
    one_lepton: bool = False


PROCESSES = {
    process.name: process
    for process in (
        Process("ttbar", 1, _TTBAR),
        Process("ttbar-dilepton", 2, (*_TTBAR, "24:onMode = off", f"24:onIfAny = {_LEPTONIC}")),
        Process("ttbar-semilepton", 3, _TTBAR, one_lepton=True),
        Process(
            "qcd",
            4,
            ("HardQCD:all = on", "PhaseSpace:pTHatMin = 30.", "PhaseSpace:pTHatMax = 300."),
            weighting=(
                "PhaseSpace:bias2Selection = on",
                "PhaseSpace:bias2SelectionPow = 4.",
                "PhaseSpace:bias2SelectionRef = 60.",
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


def load_libraries() -> tuple[Any, Any]:
    """Import Pythia and FastJet, which only this package needs.

    Returns:
        The modules `pythia8mc` and `fastjet`; FastJet's banner on standard output is switched off.

    Raises:
        AdvtagError: one of them is not installed.
    """
    try:
        import fastjet
        import pythia8mc
    except ImportError as error:
        raise AdvtagError(
            f"the simulation needs Pythia 8 and FastJet ({error}): run `pip install advtag[simulation]`"
        ) from error
    fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)
    return pythia8mc, fastjet


class EventGenerator:
    """Pythia, set up for one process and one seed.

    Args:
        process: what is generated.
        generator: changes with respect to Pythia's defaults.
        seed: 1 to 900 000 000.
        weighted: apply the process's biased generation; off gives events of weight 1, as in real data.

    Raises:
        AdvtagError: Pythia refuses a setting or cannot start.
    """

    def __init__(self, process: Process, generator: Generator, *, seed: int, weighted: bool) -> None:
        pythia8mc, _ = load_libraries()
        self.process = process
        self._pythia = pythia8mc.Pythia("", False)
        self._batches = 0
        for command in (*_COMMON, "Random:setSeed = on", f"Random:seed = {seed}", *process.settings):
            self._read(command)
        for command in (*generator.settings, *(process.weighting if weighted else ())):
            self._read(command)
        for pdg_id, scale in generator.lifetime_scale.items():
            self._read(f"{pdg_id}:tau0 = {self._pythia.particleData.tau0(pdg_id) * scale}")
        if process.one_lepton:
            self._choose_leptonic_charge(+1)
        if not self._pythia.init():
            raise AdvtagError(f"Pythia could not start for process '{process.name}': see its messages above")

    def next_batch(self, events: int) -> Any:
        """Generate events; returns Pythia's awkward record (fields `prt` and `info`)."""
        if self.process.one_lepton:
            self._choose_leptonic_charge(+1 if self._batches % 2 == 0 else -1)
        self._batches += 1
        return self._pythia.nextBatch(events, "skip")

    def cross_section(self) -> tuple[float, float]:
        """Cross section and its statistical error in pb, from the events generated so far.

        Branching ratios of switched-off decays are included. With one lepton each charge is half of the whole.
        """
        info = self._pythia.infoPython()
        picobarn = 1e9 * (2.0 if self.process.one_lepton else 1.0)  # from mb
        return float(info.sigmaGen()) * picobarn, float(info.sigmaErr()) * picobarn

    def _choose_leptonic_charge(self, charge: int) -> None:
        """Let only the W boson of this charge decay to leptons; both choices have the same branching ratio."""
        positive, negative = (_LEPTONIC, _HADRONIC) if charge > 0 else (_HADRONIC, _LEPTONIC)
        for command in ("24:onMode = off", f"24:onPosIfAny = {positive}", f"24:onNegIfAny = {negative}"):
            self._read(command)

    def _read(self, command: str) -> None:
        if not self._pythia.readString(command):
            raise AdvtagError(
                f"Pythia {self.process.name}: setting '{command}' was refused; is this version supported?"
            )


def derive_seed(*numbers: int) -> int:
    """Mix numbers (seed, process, block, ...) into one Pythia seed, 1 to 900 000 000."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] % 900_000_000) + 1
