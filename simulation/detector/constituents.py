r"""Candidates and secondary vertices of jets, for taggers that start from them: PFNano's collections and columns.

Definitions are those of PFNano (cms-jet/PFNano: addPFCands_cff, JetConstituentTableProducer) and CMSSW
(TrackInfoBuilder and deep_helpers of RecoBTag/FeatureTools, TaggingVariable, VertexTableProducer of NanoAOD). Lengths
are in cm; positions are with respect to the reconstructed primary vertex, as if PV_x = PV_y = PV_z = 0. Below, p is a
momentum, j the unit vector of the jet, v the position of a secondary vertex and P the summed momentum of its tracks,
which have the pion mass.

PFCands, in falling order of pt. Charged: the tracks within 0.4 of a jet, near pile-up included. Neutral: photons and
other neutral particles clustered into a jet, unless they interacted in the pixel detector.

    mass                          of pion, electron or muon; 0 for neutral candidates, hadrons too, as in CMS
    pdgId, charge                 22, 130, +-211, +-11, +-13; -1, 0, 1
    d0, d0Err, dz, dzErr          impact parameters of the track and its own uncertainties; -1 for neutral candidates

JetPFCands, in falling order of pt within each jet. What begins with btag is 0 for neutral candidates.

    pt, pFCandsIdx, jetIdx        of the candidate; position in the event's PFCands and Jet
    btagEtaRel                    0.5 ln((E + p.j) / (E - p.j)) with the pion mass
    btagPtRatio, btagPParRatio    |p x j| / |p|; p.j / |p|
    btagSip3dVal, btagSip3dSig    signed 3D impact parameter; over its uncertainty, the primary vertex's included
    btagSip2dVal, btagSip2dSig    the same in the transverse plane (in some versions of PFNano; DeepJet needs them)
    btagJetDistVal                minus the distance of track and jet axis where they are closest

SV, in order of the jets, and JetSVs, with the same entries: up to two of each jet, in falling order of dxySig.

    SV x y z, dlen, dxy           v and its lengths, never negative; dlenSig, dxySig over the uncertainty
    SV pt eta phi mass, ntracks   of P and of the summed energy; number of tracks
    SV pAngle                     acos(-P.v / |P||v|), hence near pi
    SV ndof, chi2                 2 ntracks - 3, and the tracks' summed chi2 over ndof
    JetSVs mass, pt, ntracks, dxy, dxysig, d3d, d3dsig, normchi2: as in SV; chi2 is normchi2 times ndof
    JetSVs costhetasvpv           P.v / |P||v|
    JetSVs ptrel, enration        pt and energy over the jet's
    JetSVs phirel, deltaR         azimuth of P minus the jet's; distance of P and jet minus 0.5, at most 0
    JetSVs jetIdx, sVIdx          position in the event's Jet and SV

Not as in CMS: NanoAOD demands dlenSig > 3, here the cuts are those of `vertexing`, and a vertex belongs to the jet it
was found in. In CMS ndof is less, by the weights of the fit. A jet is measured independently of its candidates, so that
their summed pt follows its pt in the mean only. Charged particles without a track leave no candidate, nor do those
softer than 0.7 GeV and what comes out of interactions, tracks excepted. A track may be a candidate of two jets.

Columns of PFNano that are not there, because nothing here could tell them: trkChi2, trkQuality and lostInnerHits (no
hits are simulated), pvAssocQuality (no fit of the primary vertex), puppiWeight and puppiWeightNoLep (no pile-up outside
of jets). vtxChi2 is left out because in PFNano it is 0 for every track.
"""

import numpy as np

from simulation.block import Collection
from simulation.detector.impact import TrackVariables
from simulation.detector.jets import Jets
from simulation.detector.leptons import ELECTRON, MUON
from simulation.detector.tracks import Tracks
from simulation.detector.vertexing import Vertices, chi2_to_point
from simulation.generation.events import MIN_PT, VisibleParticles, take
from simulation.kinematics import PION_MASS, Array, dot, electric_charge, position_in_group, pt_eta_phi, wrap_angle

PHOTON, NEUTRAL_HADRON = 22, 130
# sigma(E)/E = stochastic / sqrt(E) (+) noise / E (+) constant in test beams, and the width of a cell in eta and phi, of
# the barrel (CMS, arXiv:1706.04965, section 2): ECAL, and ECAL and HCAL together for hadrons
_ECAL_HCAL = ((0.028, 0.12, 0.003, 0.0174), (1.1, 0.0, 0.09, 0.087))
_MAX_SIGNIFICANCE = 800.0


def constituents(
    jets: Jets,
    tracks: Tracks,
    variables: TrackVariables,
    vertices: tuple[Vertices, Vertices],
    particles: VisibleParticles,
    destroyed: Array,
    n_events: int,
    rng: np.random.Generator,
) -> dict[str, Collection]:
    """Make `PFCands`, `JetPFCands`, `SV` and `JetSVs`.

    Args:
        jets: the measured jets.
        tracks: all tracks.
        variables: of the jets' tracks.
        vertices: first and second one of each jet.
        particles: final particles; the neutral ones are measured here.
        destroyed: mask over `particles` of those that interacted in the pixel detector.
        n_events: number of events.
        rng: random numbers.

    Returns:
        The collections, float32, int32 and uint8.
    """
    jet_index = position_in_group(np.bincount(jets.event, minlength=n_events))
    charged_jet, slot = np.nonzero(variables.track >= 0)
    used, charged = np.unique(variables.track[charged_jet, slot], return_inverse=True)
    neutral_jet, neutral = _neutral_candidates(jets, particles, destroyed, rng)
    event = np.concatenate([tracks.event[used], jets.event[neutral_jet]])
    columns = _append(_charged_candidates(tracks.take(used)), neutral)
    order = np.lexsort((-columns["pt"], event))
    index = np.empty(len(order), dtype=int)
    index[order] = position_in_group(np.bincount(event, minlength=n_events))

    jet = np.concatenate([charged_jet, neutral_jet])
    candidate = np.concatenate([charged, len(used) + np.arange(len(neutral_jet))])
    btag = _track_columns(jets, variables, charged_jet, slot)
    links = _append(btag, {name: np.zeros(len(neutral_jet)) for name in btag})
    links |= {"pt": columns["pt"][candidate], "pFCandsIdx": index[candidate], "jetIdx": jet_index[jet]}
    return {
        "PFCands": _collection(event, columns, order, n_events),
        "JetPFCands": _collection(jets.event[jet], links, np.lexsort((-links["pt"], jet)), n_events),
        **_vertices(jets, jet_index, variables, vertices, n_events),
    }


def _append(first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
    """Lay columns end to end."""
    return {name: np.concatenate([values, second[name]]) for name, values in first.items()}


def _collection(event: Array, columns: dict[str, Array], order: Array, n_events: int) -> Collection:
    """Put objects in order, in PFNano's types: float32, int32, and uint8 as it is."""
    types = {"f": np.float32, "i": np.int32, "u": np.uint8}
    columns = {name: values[order].astype(types[values.dtype.kind]) for name, values in columns.items()}
    return Collection(np.bincount(event, minlength=n_events), columns)


def _charged_candidates(tracks: Tracks) -> dict[str, Array]:
    """Columns of `PFCands` of these tracks."""
    mass = {11: ELECTRON.mass, 13: MUON.mass}
    number = np.abs(tracks.pdg_id)
    return {
        "pt": tracks.pt,
        "eta": tracks.eta,
        "phi": tracks.phi,
        "mass": np.select([number == lepton for lepton in mass], list(mass.values()), PION_MASS),
        "pdgId": tracks.pdg_id,
        "charge": tracks.charge.astype(int),
        "d0": tracks.d0,
        "d0Err": tracks.sigma_d0,
        "dz": tracks.dz,
        "dzErr": tracks.sigma_dz,
    }


def _neutral_candidates(
    jets: Jets, particles: VisibleParticles, destroyed: Array, rng: np.random.Generator
) -> tuple[Array, dict[str, Array]]:
    """Measure neutral particles with the calorimeters.

    Random numbers are drawn for all of them, so that those that two variants of the detector see have the same ones.
    Directions are as precise as if particles came to lie anywhere in a cell.

    Returns:
        Jet of each, and columns of `PFCands`.
    """
    is_neutral = electric_charge(particles.pdg_id) == 0
    neutral, lost = take(particles, is_neutral), destroyed[is_neutral]
    energy_error, eta_error, phi_error = rng.normal(size=(3, len(neutral)))
    pdg_id = np.where(neutral.pdg_id == PHOTON, PHOTON, NEUTRAL_HADRON)
    stochastic, noise, constant, cell = np.where(pdg_id == PHOTON, *np.array(_ECAL_HCAL)[..., None])
    energy = neutral.pt * np.cosh(neutral.eta)  # masses neglected
    resolution = np.sqrt(stochastic**2 / energy + (noise / energy) ** 2 + constant**2)
    pt = neutral.pt * (1 + resolution * energy_error)
    angle = cell / np.sqrt(12)
    jet_of = np.full(max(neutral.jet.max(initial=-1), jets.generated.max(initial=-1)) + 2, -1)
    jet_of[jets.generated] = np.arange(len(jets))  # the last entry stays for particles outside of jets
    jet = jet_of[neutral.jet]
    kept = np.flatnonzero((jet >= 0) & ~lost & (pt > MIN_PT))
    columns = {
        "pt": pt[kept],
        "eta": (neutral.eta + angle * eta_error)[kept],
        "phi": wrap_angle(neutral.phi + angle * phi_error)[kept],
        "mass": np.zeros(len(kept)),
        "pdgId": pdg_id[kept],
        "charge": np.zeros(len(kept), dtype=int),
        **{name: np.full(len(kept), -1.0) for name in ("d0", "d0Err", "dz", "dzErr")},
    }
    return jet[kept], columns


def _track_columns(jets: Jets, variables: TrackVariables, jet: Array, slot: Array) -> dict[str, Array]:
    """Columns of `JetPFCands` of the tracks in these slots."""
    names = {
        "EtaRel": variables.eta_rel,
        "PtRatio": variables.pt_ratio,
        "PParRatio": dot(variables.direction, jets.direction[:, None]),
        "Sip3dVal": variables.ip3d,
        "Sip3dSig": variables.sip3d,
        "Sip2dVal": variables.ip2d,
        "Sip2dSig": variables.sip2d,
        "JetDistVal": variables.jet_distance,
    }
    return {f"btag{name}": values[jet, slot] for name, values in names.items()}


def _vertices(
    jets: Jets, jet_index: Array, variables: TrackVariables, vertices: tuple[Vertices, Vertices], n_events: int
) -> dict[str, Collection]:
    """`SV` and `JetSVs`."""
    found = [np.flatnonzero(one.found) for one in vertices]
    columns = _append(*(_vertex_columns(one, variables, rows) for one, rows in zip(vertices, found, strict=True)))
    jet = np.concatenate(found)
    event, order = jets.event[jet], np.lexsort((-columns["dxySig"], jet))
    index = np.empty(len(jet), dtype=int)
    index[order] = position_in_group(np.bincount(event, minlength=n_events))
    phi_rel = wrap_angle(columns["phi"] - jets.phi[jet])
    momentum = columns["pt"] * np.cosh(columns["eta"])
    of_jet = {
        "mass": columns["mass"],
        "pt": columns["pt"],
        "ntracks": columns["ntracks"].astype(float),
        "chi2": columns["chi2"] * columns["ndof"],
        "normchi2": columns["chi2"],
        "dxy": columns["dxy"],
        "dxysig": np.minimum(columns["dxySig"], _MAX_SIGNIFICANCE),
        "d3d": columns["dlen"],
        "d3dsig": np.minimum(columns["dlenSig"], _MAX_SIGNIFICANCE),
        "costhetasvpv": -np.cos(columns["pAngle"]),
        "phirel": phi_rel,
        "ptrel": columns["pt"] / jets.pt[jet],
        "deltaR": np.minimum(np.hypot(columns["eta"] - jets.eta[jet], phi_rel) - 0.5, 0.0),
        "enration": np.hypot(momentum, columns["mass"]) / jets.energy[jet],
        "jetIdx": jet_index[jet],
        "sVIdx": index,
    }
    return {"SV": _collection(event, columns, order, n_events), "JetSVs": _collection(event, of_jet, order, n_events)}


def _vertex_columns(vertices: Vertices, variables: TrackVariables, rows: Array) -> dict[str, Array]:
    """Columns of `SV` of the vertices in these rows."""
    tracks, member = variables.rows(rows), vertices.tracks[rows]
    direction = vertices.direction[rows]
    length = np.abs(vertices.distance_3d[rows])
    position = length[:, None] * direction
    momentum = (tracks.momentum * member[..., None]).sum(axis=1)
    pt, eta, phi = pt_eta_phi(momentum)
    pointing = dot(momentum, direction) / np.sqrt(dot(momentum, momentum))
    n_tracks = member.sum(axis=1)
    ndof = 2.0 * n_tracks - 3
    return {
        "dlen": length,
        "dlenSig": np.abs(vertices.significance_3d[rows]),
        "dxy": np.abs(vertices.distance_2d[rows]),
        "dxySig": np.abs(vertices.significance_2d[rows]),
        "pAngle": np.arccos(np.clip(-pointing, -1, 1)),
        "chi2": (chi2_to_point(tracks, position) * member).sum(axis=1) / ndof,
        "eta": eta,
        "mass": vertices.mass[rows],
        "ndof": ndof,
        "phi": phi,
        "pt": pt,
        **{axis: position[:, number] for number, axis in enumerate("xyz")},
        "ntracks": n_tracks.astype(np.uint8),
    }
