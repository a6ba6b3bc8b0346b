"""The 65 `Jet_DeepCSV_*` variables (jet pt and eta complete the tagger's 67 inputs).

Definitions follow CMSSW (CombinedSVComputer, DeepNNTagInfoProducer) and names follow PFNano. What is absent is
-999, as in PFNano, except: counters are 0, `*AboveCharm` are -1 when no track lifts the mass above the charm
threshold, and sums over no tracks are those of a null vector. Jets with fewer than two good tracks have nothing
but zero counters. PFNano leaves undefined memory in track slots beyond `jetNSelectedTracks`; here they are -999
(`memory` puts the rest there).
"""

from dataclasses import dataclass

import numpy as np

from simulation.detector.impact import TrackVariables, passes_axis_cuts, take_slots
from simulation.detector.jets import Jets
from simulation.detector.vertexing import Vertices
from simulation.kinematics import K_SHORT_MASS, Array, delta_r2, dot, invariant_mass, pt_eta_phi

ABSENT = -999.0
NO_TRACK_ABOVE_CHARM = -1.0
CHARM_MASS = 1.5  # GeV
RECO_VERTEX, PSEUDO_VERTEX, NO_VERTEX = 0, 1, 2
COUNTERS = ("jetNSecondaryVertices", "jetNTracksEtaRel", "jetNSelectedTracks", "vertexNTracks")
N_TRACK_SLOTS = 6
N_ETA_REL_SLOTS = 4
_VETO_TRACKS = 12  # leading tracks that are paired for the K0S veto
# branch name: field of TrackVariables
_SLOT_VARIABLES = {
    "trackSip2dSig": "sip2d",
    "trackSip3dSig": "sip3d",
    "trackDecayLenVal": "decay_length",
    "trackDeltaR": "delta_r",
    "trackJetDistVal": "jet_distance",
    "trackPtRatio": "pt_ratio",
    "trackPtRel": "pt_rel",
}
TRACK_SLOTS = tuple(f"{name}_{slot}" for name in _SLOT_VARIABLES for slot in range(N_TRACK_SLOTS))
ETA_REL_SLOTS = tuple(f"trackEtaRel_{slot}" for slot in range(N_ETA_REL_SLOTS))


@dataclass(frozen=True)
class JetVertices:
    """What the vertex variables are made of, one row per jet.

    Attributes:
        category: `RECO_VERTEX`, `PSEUDO_VERTEX` (displaced tracks without a common vertex) or `NO_VERTEX`.
        best: the reconstructed vertex with the smaller uncertainty.
        count: number of reconstructed vertices.
        tracks: tracks of all vertices, or of the pseudo vertex, `[jet, slot]`.
    """

    category: Array
    best: Vertices
    count: Array
    tracks: Array


def deepcsv_variables(jets: Jets, tracks: TrackVariables, first: Vertices, second: Vertices) -> dict[str, Array]:
    """Compute all variables; names without the prefix `Jet_DeepCSV_`, one value per jet.

    Args:
        jets: the jets.
        tracks: their track variables.
        first: the first secondary vertex of each jet.
        second: the second one.

    Returns:
        Columns; the four `COUNTERS` are integers.
    """
    vertices = categorise(tracks, first, second)
    used = tracks.selected & ~k_short_veto(tracks)
    variables = vertex_variables(jets, tracks, vertices)
    variables |= track_sums(jets, tracks, used)
    variables |= above_charm(tracks)
    for name, column in _SLOT_VARIABLES.items():
        variables |= leading_slots(name, getattr(tracks, column), used, N_TRACK_SLOTS)
    variables |= leading_slots("trackEtaRel", tracks.eta_rel, vertices.tracks, N_ETA_REL_SLOTS)
    variables["jetNSelectedTracks"] = used.sum(axis=1)
    too_few = tracks.good.sum(axis=1) < 2
    return {name: np.where(too_few, 0 if name in COUNTERS else ABSENT, values) for name, values in variables.items()}


def k_short_veto(tracks: TrackVariables) -> Array:
    """Selected tracks that form a K0S (within 30 MeV) with another one of opposite charge."""
    n = min(_VETO_TRACKS, tracks.good.shape[1])
    first, second = np.triu_indices(n, 1)
    selected, charge = tracks.selected, tracks.charge
    mass = invariant_mass(
        tracks.momentum[:, first] + tracks.momentum[:, second], tracks.energy[:, first] + tracks.energy[:, second]
    )
    is_k_short = (np.abs(mass - K_SHORT_MASS) < 0.03) & (charge[:, first] * charge[:, second] < 0)
    is_k_short &= selected[:, first] & selected[:, second]
    jet, pair = np.nonzero(is_k_short)
    vetoed = np.zeros_like(selected)
    vetoed[jet, first[pair]] = True
    vetoed[jet, second[pair]] = True
    return vetoed


def categorise(tracks: TrackVariables, first: Vertices, second: Vertices) -> JetVertices:
    """Choose the vertex of each jet, or make a pseudo vertex of two or more tracks of 2D significance above 2."""
    found = first.found | second.found
    take_first = first.found & (~second.found | (first.error_3d <= second.error_3d))

    def choose(name: str) -> Array:
        a, b = getattr(first, name), getattr(second, name)
        chosen: Array = np.where(take_first if a.ndim == 1 else take_first[:, None], a, b)
        return chosen

    best = Vertices(**{name: choose(name) for name in Vertices.__dataclass_fields__})
    displaced = tracks.selected & (tracks.sip2d > 2) & ~found[:, None]
    n_displaced = displaced.sum(axis=1)
    momentum = (tracks.momentum * displaced[..., None]).sum(axis=1)
    mass = invariant_mass(momentum, (tracks.energy * displaced).sum(axis=1))
    k_short = (n_displaced == 2) & (np.abs(mass - K_SHORT_MASS) < 0.05)
    pseudo = (n_displaced >= 2) & ~k_short
    return JetVertices(
        category=np.where(found, RECO_VERTEX, np.where(pseudo, PSEUDO_VERTEX, NO_VERTEX)),
        best=best,
        count=first.found.astype(int) + second.found,
        tracks=np.where(found[:, None], first.tracks | second.tracks, displaced & pseudo[:, None]),
    )


def vertex_variables(jets: Jets, tracks: TrackVariables, vertices: JetVertices) -> dict[str, Array]:
    """Variables of the secondary vertex; a pseudo vertex has no flight distance."""
    found, any_vertex = vertices.category == RECO_VERTEX, vertices.category != NO_VERTEX
    best, member = vertices.best, vertices.tracks
    momentum, energy = (tracks.momentum * member[..., None]).sum(axis=1), (tracks.energy * member).sum(axis=1)
    jet_energy = (tracks.energy * tracks.selected).sum(axis=1)
    _, eta, phi = pt_eta_phi(momentum)
    # with a flight direction the mass is corrected for what is missing across it
    missing = np.cross(best.direction, momentum)
    missing2 = dot(missing, missing)
    mass = invariant_mass(momentum, energy)
    mass = np.where(found, np.sqrt(mass**2 + missing2) + np.sqrt(missing2), mass)
    distance = np.where(found, best.delta_r, np.sqrt(delta_r2(eta, phi, jets.eta, jets.phi)))
    ratio = np.where(jet_energy > 0, energy / np.maximum(jet_energy, 1e-6), 1.0)
    return {
        "flightDistance2dVal": np.where(found, best.distance_2d, ABSENT),
        "flightDistance2dSig": np.where(found, best.significance_2d, ABSENT),
        "flightDistance3dVal": np.where(found, best.distance_3d, ABSENT),
        "flightDistance3dSig": np.where(found, best.significance_3d, ABSENT),
        "vertexJetDeltaR": np.where(any_vertex, distance, ABSENT),
        "vertexMass": np.where(any_vertex, mass, ABSENT),
        "vertexEnergyRatio": np.where(any_vertex, ratio, ABSENT),
        "vertexCategory": vertices.category,
        "vertexNTracks": member.sum(axis=1),
        "jetNTracksEtaRel": member.sum(axis=1),
        "jetNSecondaryVertices": vertices.count,
    }


def track_sums(jets: Jets, tracks: TrackVariables, used: Array) -> dict[str, Array]:
    """Four-vector sums; null vectors (eta = phi = 0) where there is no track, as in CMSSW."""
    selected = tracks.selected
    momentum, energy = (tracks.momentum * selected[..., None]).sum(axis=1), (tracks.energy * selected).sum(axis=1)
    pt, eta, phi = pt_eta_phi(momentum)
    transverse_energy = energy * pt / np.sqrt(dot(momentum, momentum) + 1e-12)
    used_pt, _, _ = pt_eta_phi((tracks.momentum * used[..., None]).sum(axis=1))
    return {
        "trackSumJetDeltaR": np.sqrt(delta_r2(eta, phi, jets.eta, jets.phi)),
        "trackSumJetEtRatio": transverse_energy * np.cosh(jets.eta) / jets.energy,
        "trackJetPt": used_pt,
    }


def above_charm(tracks: TrackVariables) -> dict[str, Array]:
    """Impact parameter of the first track, in falling significance, with which the summed mass exceeds charm's."""
    variables = {}
    # unlike all others, these variables use tracks of the whole cone
    usable = tracks.good & passes_axis_cuts(tracks.decay_length, tracks.jet_distance)
    row = np.arange(len(usable))
    for label, significance, value in (("2d", tracks.sip2d, tracks.ip2d), ("3d", tracks.sip3d, tracks.ip3d)):
        order = np.argsort(-np.where(usable, significance, -np.inf), axis=1, kind="stable")
        use = np.take_along_axis(usable, order, axis=1)
        momentum = np.cumsum(take_slots(tracks.momentum, order) * use[..., None], axis=1)
        energy = np.cumsum(take_slots(tracks.energy, order) * use, axis=1)
        above = (invariant_mass(momentum, energy) > CHARM_MASS) & use
        crossing = order[row, above.argmax(axis=1)]
        exists = above.any(axis=1)
        for kind, values in (("Sig", significance), ("Val", value)):
            name = f"trackSip{label}{kind}AboveCharm"
            variables[name] = np.where(exists, values[row, crossing], NO_TRACK_ABOVE_CHARM)
    return variables


def leading_slots(name: str, values: Array, used: Array, n_slots: int) -> dict[str, Array]:
    """The values of the first used tracks of each jet, as columns `name_0`, `name_1`, ..."""
    order = np.argsort(~used, axis=1, kind="stable")[:, :n_slots]
    columns = np.full((len(values), n_slots), ABSENT)
    columns[:, : order.shape[1]] = np.where(
        np.take_along_axis(used, order, axis=1), np.take_along_axis(values, order, axis=1), ABSENT
    )
    return {f"{name}_{slot}": columns[:, slot] for slot in range(n_slots)}
