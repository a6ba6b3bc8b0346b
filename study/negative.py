"""The negative tagger: the same network on inputs of reversed signs, for the mistag rate of light jets.

Light jets have displaced tracks and vertices from resolution and material mostly, as often behind the primary vertex
as in front of it. What a tagger says of the flipped jet is, for light jets, nearly what it says of the jet itself, and
jets with b and c are rare among the flipped ones that pass (CMS BTV-16-002, JINST 13 (2018) P05011, arXiv:1712.07158,
section on the negative-tag method).

Flipped, of the card `deepcsv`:

- the tracks in reversed order, so that the most negative one comes first, with everything that is stored of each track
  slot; the signs of trackSip2dSig and trackSip3dSig;
- the signs of the impact parameters of the track above charm mass;
- a secondary vertex with negative flight distance becomes one with positive flight distance; one with positive flight
  distance is removed: category 2 (none), its inputs and trackEtaRel absent, its counts 0. So are pseudo vertices,
  which are made of tracks with significance above 2.

What cannot be flipped, because the files do not hold it: tracks beyond the sixth, the most negative ones of jets
with more tracks; pseudo vertices of tracks with significance below -2; the track at which the mass of the flipped order
exceeds charm's, which is another one; vertices behind the primary vertex, if the vertex finder drops them. R_light,
from simulation, takes what follows from that, as far as simulation is right.
"""

import numpy as np
import torch

from models.discriminators import discriminators
from models.features import FeatureSet
from models.tagger import Tagger
from study.jets import Bools, Floats

SLOTS = ("DecayLenVal", "DeltaR", "JetDistVal", "PtRatio", "PtRel", "Sip2dSig", "Sip3dSig")
"""Inputs of each track, `trackNAME_0` to `trackNAME_5`."""
SIGNED = ("trackSip2dSig_", "trackSip3dSig_")
ABOVE_CHARM = tuple(f"trackSip{way}AboveCharm" for way in ("2dSig", "2dVal", "3dSig", "3dVal"))
FLIGHT = tuple(f"flightDistance{way}" for way in ("2dSig", "2dVal", "3dSig", "3dVal"))
VERTEX = (*FLIGHT, "vertexEnergyRatio", "vertexJetDeltaR", "vertexMass")
COUNTS = ("jetNSecondaryVertices", "jetNTracksEtaRel", "vertexNTracks")
NO_VERTEX = 2.0
TRACKS = 6
NEEDED = (
    *(f"track{name}_{i}" for name in SLOTS for i in range(TRACKS)),
    *ABOVE_CHARM,
    *VERTEX,
    *COUNTS,
    "vertexCategory",
)
"""Inputs without which nothing can be flipped."""


def flipped(values: Floats, present: Bools, features: FeatureSet) -> tuple[Floats, Bools]:
    """Inputs of the negative tagger; see above.

    Args:
        values: float [jets, features], 0 where absent
        present: bool [jets, features]
        features: the card, with all of NEEDED
    """
    places = {name: i for i, name in enumerate(features.names)}
    new, there = values.copy(), present.copy()
    jets = np.arange(len(values))[:, None]
    for name in SLOTS:
        slots = np.array([places[f"track{name}_{i}"] for i in range(TRACKS)])
        number = present[:, slots].sum(axis=1, keepdims=True)
        source = number - 1 - np.arange(TRACKS)  # absent slots stay where they are, behind the others
        new[:, slots] = np.where(source >= 0, values[jets, slots[source.clip(0)]], 0)
    signs = [places[name] for name in places if name.startswith(SIGNED)] + [places[name] for name in ABOVE_CHARM]
    new[:, signs] *= -1
    flight, category = [places[name] for name in FLIGHT], places["vertexCategory"]
    new[:, flight] *= -1
    removed = ~(there[:, flight[0]] & (new[:, flight[0]] > 0))
    eta_rel = [i for name, i in places.items() if name.startswith("trackEtaRel_")]
    gone = [*(places[name] for name in VERTEX), *eta_rel]
    rows = np.flatnonzero(removed)[:, None]
    new[rows, [*gone, *(places[name] for name in COUNTS)]] = 0
    there[rows, gone] = False
    new[removed, category] = NO_VERTEX
    return new, there


def negative_scores(inputs: tuple[Floats, Bools], tagger: Tagger, discriminator: str, batch: int = 8192) -> Floats:
    """Discriminator of the flipped jets, float32 [jets]."""
    values, present = flipped(*inputs, tagger.features)
    found = []
    with torch.no_grad():
        for start in range(0, len(values), batch):
            rows = slice(start, start + batch)
            seen = torch.from_numpy(values[rows]), torch.from_numpy(present[rows])
            logits = tagger(seen[0].to(tagger.mean.dtype), seen[1])
            found.append(discriminators(logits.softmax(1), tagger.classes)[discriminator].numpy())
    scores: Floats = np.concatenate(found) if found else np.zeros(0, np.float32)
    return scores
