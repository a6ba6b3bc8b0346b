"""Pythia 8: set-up for one process, and batches of events."""

from typing import Any

import awkward as ak
import numpy as np

from common.errors import AdvtagError
from simulation.knobs import Generator
from simulation.processes import HADRONIC, LEPTONIC, Process

_MAX_SEED = 900_000_000
_MAX_REFILLS = 10
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
        generator: changes with respect to Pythia's defaults. For data the bias of the process is off, so that all
            events have weight 1.
        seed: 1 to 900 000 000.

    Raises:
        AdvtagError: Pythia refuses a setting or cannot start.
    """

    def __init__(self, process: Process, generator: Generator, seed: int) -> None:
        pythia8mc, _ = load_libraries()
        self.process = process
        self._pythia = pythia8mc.Pythia("", False)
        self._batches = 0
        for command in (*commands(process, generator), "Random:setSeed = on", f"Random:seed = {seed}"):
            self._read(command)
        for pdg_id, scale in generator.lifetime_scale.items():
            self._read(f"{pdg_id}:tau0 = {self._pythia.particleData.tau0(pdg_id) * scale}")
        if process.one_lepton:
            self._choose_leptonic_charge(+1)
        if process.outgoing_quark:
            self._hook = _demand_quark(pythia8mc, process.outgoing_quark)  # Pythia does not keep it alive
            self._pythia.setUserHooksPtr(self._hook)
        if not self._pythia.init():
            raise AdvtagError(f"Pythia could not start for process '{process.name}': see its messages above")

    def next_batch(self, events: int) -> Any:
        """Generate so many events; returns Pythia's awkward record (fields `prt` and `info`).

        Raises:
            AdvtagError: most of the events fail.
        """
        if self.process.one_lepton:
            self._choose_leptonic_charge(+1 if self._batches % 2 == 0 else -1)
        self._batches += 1
        record = self._pythia.nextBatch(events, "skip")
        for _ in range(_MAX_REFILLS):
            if len(record) == events:
                return record
            # "skip" leaves events that failed out of the batch, where the manual of Pythia 8.317 says otherwise
            record = ak.concatenate([record, self._pythia.nextBatch(events - len(record), "skip")])
        raise AdvtagError(f"Pythia {self.process.name}: made {len(record)} of {events} events; see its messages above")

    def cross_section(self) -> tuple[float, float]:
        """Cross section and its statistical error in pb, from the events generated so far.

        Branching ratios of switched-off decays are included. With one lepton each charge is half of the whole.
        """
        info = self._pythia.infoPython()
        picobarn = 1e9 * (2.0 if self.process.one_lepton else 1.0)  # from mb
        return float(info.sigmaGen()) * picobarn, float(info.sigmaErr()) * picobarn

    def _choose_leptonic_charge(self, charge: int) -> None:
        """Let only the W boson of this charge decay to leptons; both choices have the same branching ratio."""
        positive, negative = (LEPTONIC, HADRONIC) if charge > 0 else (HADRONIC, LEPTONIC)
        for command in ("24:onMode = off", f"24:onPosIfAny = {positive}", f"24:onNegIfAny = {negative}"):
            self._read(command)

    def _read(self, command: str) -> None:
        if not self._pythia.readString(command):
            raise AdvtagError(
                f"Pythia {self.process.name}: setting '{command}' was refused; is this version supported?"
            )


def _demand_quark(pythia8mc: Any, pdg_id: int) -> Any:
    """Make a hook that rejects hard processes without this outgoing quark; the cross section takes note of it."""

    class DemandQuark(pythia8mc.UserHooks):  # type: ignore[misc]
        def __init__(self) -> None:
            pythia8mc.UserHooks.__init__(self)

        def canVetoProcessLevel(self) -> bool:  # noqa: N802
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:  # noqa: N802
            outgoing = (process[index] for index in range(process.size()) if process[index].status() == 23)
            return not any(abs(particle.id()) == pdg_id for particle in outgoing)

    return DemandQuark()


def block_seed(process: Process, generator: Generator, seed: int, first_event: int) -> int:
    """Pythia's seed for a block, 1 to 900 000 000: different for all blocks of a sample.

    Samples start anywhere in that range. Two of a million events, in blocks of 1,000, have a block in common with a
    probability of about one in a million.
    """
    start = np.random.SeedSequence([seed, process.number, int(generator.is_data)]).generate_state(1, np.uint64)[0]
    return (int(start) + first_event) % _MAX_SEED + 1


def commands(process: Process, generator: Generator) -> tuple[str, ...]:
    """All that Pythia is told, but the seed, lifetimes and what changes from batch to batch."""
    weighting = () if generator.is_data else process.weighting
    return (*_COMMON, *process.settings, *generator.settings, *weighting)
