"""Small files, and a processor that counts their events and breaks on demand. Worker processes import this, fast."""

import os
import signal
import time
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from coffea.processor import ProcessorABC

MC = {"genWeight": "float32", "run": "uint32", "luminosityBlock": "uint32", "event": "uint64"}


def write_events(path, number, *, first=0, branch="Jet_hadronFlavour", weight=1.0):
    """A small file of the card `nanoaod`'s kinematics: enough for a processor that counts."""
    jets = np.ones(number, np.int64) * 2
    flat = np.arange(2 * number, dtype=np.float32)
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree(
            "Events",
            {
                **MC,
                "Jet_pt": "var * float32",
                "Jet_eta": "var * float32",
                "Jet_phi": "var * float32",
                branch: "var * int32",
            },
        )
        for start in range(0, number, 10):  # several baskets
            stop = min(start + 10, number)
            some = ak.unflatten(flat[2 * start : 2 * stop], jets[start:stop])
            identity = np.arange(first + start, first + stop)
            tree.extend(
                {
                    "genWeight": np.full(stop - start, weight, np.float32),
                    "run": np.ones(stop - start, np.uint32),
                    "luminosityBlock": np.ones(stop - start, np.uint32),
                    "event": identity.astype(np.uint64),
                    "Jet_pt": some,
                    "Jet_eta": some * 0,
                    "Jet_phi": some * 0,
                    branch: ak.values_astype(some * 0, np.int32),
                }
            )
    return str(path)


class Adding(ProcessorABC):
    """Adds up the event numbers, so that each event shows; does what `fault` says on the way."""

    def __init__(self, fault="", where=0, marks=""):
        self.fault, self.where, self.marks = fault, where, marks

    def process(self, events):
        start, stop = events.metadata["entrystart"], events.metadata["entrystop"]
        if self.fault and start <= self.where < stop:
            self.strike()
        books = {
            "events": len(events),
            "jets": 0,
            "sum_weights": 0.0,
            "ranges": [[start, stop]] if stop > start else [],
        }
        total = int(np.asarray(events.event).sum()) + int(ak.sum(events.Jet_pt) * 0)
        return {"counts": {events.metadata["dataset"]: {events.metadata["filename"]: books}}, "total": total}

    def strike(self):
        fault, _, times = self.fault.partition(" ")
        before = len(list(Path(self.marks).iterdir()))
        if times and before >= int(times):
            return
        (Path(self.marks) / f"{before}-{os.getpid()}-{time.time_ns()}").touch()
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "oserror":
            raise OSError("the disk sleeps")
        raise ValueError("a bug of this chunk")

    def postprocess(self, accumulator):
        return accumulator


READ = frozenset(("event", "Jet_pt", "nJet"))
