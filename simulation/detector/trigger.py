"""Trigger decisions: a muon path with an efficiency plateau, and two jet paths with smeared thresholds."""

import numpy as np

from simulation.detector.jets import Jets
from simulation.detector.leptons import Leptons
from simulation.kinematics import Array
from simulation.knobs import Detector


def trigger_decisions(
    jets: Jets, muons: Leptons, n_events: int, detector: Detector, rng: np.random.Generator
) -> dict[str, Array]:
    """Decide three HLT paths, none of them prescaled; one boolean per event each."""
    fires = (muons.pt > 24) & (muons.isolation < 0.15) & (rng.random(len(muons.pt)) < detector.muon_trigger_efficiency)
    leading = np.zeros(n_events)
    np.maximum.at(leading, jets.event, jets.pt)
    return {
        "HLT_IsoMu24": np.bincount(muons.event[fires], minlength=n_events) > 0,
        "HLT_PFJet40": leading > 45 + 4 * rng.normal(size=n_events),
        "HLT_PFJet140": leading > 150 + 8 * rng.normal(size=n_events),
    }
