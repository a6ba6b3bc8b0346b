"""Variants of the detector against the nominal one, on the same events: what moves, where to, and what does not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from simulation.block import Block
from simulation.detector.reconstruct import Content, reconstruct
from simulation.generation.events import GeneratedEvents
from simulation.knobs import Detector
from simulation.processes import PROCESSES
from simulation.variants import VARIANTS, Variant
from tests.simulation.conftest import LARGE_SEED

TRIGGERS = ("HLT_IsoMu24", "HLT_PFJet40", "HLT_PFJet140")
LIGHT, CHARM, BEAUTY = 0, 4, 5
TRACK_VARIANTS = ("ip-resolution", "ip-tails", "track-efficiency", "fakes", "pileup-tracks", "material")
DETECTOR_VARIANTS = (*TRACK_VARIANTS, "jet-energy-scale", "jet-energy-resolution", "detector")


def jet(block: Block, name: str) -> np.ndarray:
    return block.collections["Jet"].columns[name]


def pairs(first: Block, second: Block) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the jets that both have, by event and generated pt."""
    keys = []
    for block in (first, second):
        event = np.repeat(np.arange(len(block), dtype=np.uint64), block.truth.counts)
        pt = block.truth.columns["genPt"].view(np.uint32).astype(np.uint64)
        keys.append((event << np.uint64(32)) | pt)
    _, index, other = np.intersect1d(*keys, return_indices=True)
    return index, other


def displaced(block: Block, cut: float) -> np.ndarray:
    """The simplest tagger: the track of the second largest significance."""
    return jet(block, "DeepCSV_trackSip2dSig_1") > cut


def with_vertex(block: Block) -> np.ndarray:
    return jet(block, "DeepCSV_vertexCategory") == 0


@pytest.fixture(scope="module")
def mc(reconstructed: Callable[[str], Block]) -> Block:
    return reconstructed("mc")


@pytest.fixture(scope="module")
def light_cut(mc: Block) -> float:
    """Ten percent of the light jets pass."""
    light = mc.truth.columns["hadronFlavour"] == LIGHT
    return float(np.quantile(jet(mc, "DeepCSV_trackSip2dSig_1")[light], 0.9))


@pytest.fixture(scope="module")
def with_detector(generated: GeneratedEvents) -> Callable[[Detector], Block]:
    """The same events in a detector of one's own."""

    def make(detector: Detector) -> Block:
        variant = replace(VARIANTS["mc"], detector=detector)
        return reconstruct(generated, PROCESSES["ttbar"], variant, LARGE_SEED, 0, Content())

    return make


def flips(mc: Block, other: Block, tag: Callable[[Block], np.ndarray], flavour: int) -> tuple[int, int]:
    """Jets of this flavour that gain and that lose the tag."""
    index, partner = pairs(mc, other)
    chosen = mc.truth.columns["hadronFlavour"][index] == flavour
    before, after = tag(mc)[index][chosen], tag(other)[partner][chosen]
    return np.count_nonzero(after & ~before), np.count_nonzero(before & ~after)


def significance(gained: int, lost: int) -> float:
    """Of a difference between two counts of the same mean."""
    return (gained - lost) / np.sqrt(max(gained + lost, 1))


@pytest.mark.parametrize("name", DETECTOR_VARIANTS)
def test_leptons_and_their_trigger_never_change(mc: Block, reconstructed: Callable[[str], Block], name: str) -> None:
    other = reconstructed(name)
    for collection in ("Muon", "Electron"):
        before, after = mc.collections[collection], other.collections[collection]
        assert np.array_equal(before.counts, after.counts)
        assert before.counts.sum() > 500
        assert all(np.array_equal(values, after.columns[column]) for column, values in before.columns.items())
    assert np.array_equal(mc.events["HLT_IsoMu24"], other.events["HLT_IsoMu24"])
    assert np.array_equal(mc.weights["genWeight"], other.weights["genWeight"])
    assert np.array_equal(mc.events["event"], other.events["event"])


@pytest.mark.parametrize("name", TRACK_VARIANTS)
def test_variants_of_tracks_leave_jets_and_triggers(
    mc: Block, reconstructed: Callable[[str], Block], name: str
) -> None:
    other = reconstructed(name)
    for column in ("pt", "eta", "phi", "mass"):
        assert np.array_equal(jet(mc, column), jet(other, column))
    for column, values in mc.truth.columns.items():
        assert np.array_equal(values, other.truth.columns[column])
    for path in TRIGGERS:
        assert np.array_equal(mc.events[path], other.events[path])
    changed = jet(mc, "DeepCSV_trackSip2dSig_0") != jet(other, "DeepCSV_trackSip2dSig_0")
    assert changed.any()
    if name in ("ip-tails", "fakes"):  # 15 and 3 to 6 per mille of the tracks, one of them the leading one
        assert changed.mean() < 0.15


@pytest.mark.parametrize(
    ("name", "tag", "flavour", "sign"),
    [
        ("ip-resolution", displaced, LIGHT, +1),
        ("ip-resolution", with_vertex, LIGHT, +1),
        ("ip-tails", displaced, LIGHT, +1),
        ("ip-tails", with_vertex, LIGHT, +1),
        ("track-efficiency", displaced, BEAUTY, -1),
        ("track-efficiency", with_vertex, BEAUTY, -1),
        ("detector", displaced, LIGHT, +1),
        ("detector", with_vertex, LIGHT, +1),
    ],
)
def test_direction_of_tagging_efficiencies(
    mc: Block,
    light_cut: float,
    reconstructed: Callable[[str], Block],
    name: str,
    tag: Callable[..., np.ndarray],
    flavour: int,
    sign: int,
) -> None:
    def tagged(block: Block) -> np.ndarray:
        return tag(block, light_cut) if tag is displaced else tag(block)

    gained, lost = flips(mc, reconstructed(name), tagged, flavour)
    assert sign * significance(gained, lost) > 2.5  # one in 160, were there no effect


@pytest.mark.parametrize(
    ("detector", "sign"),
    # these change too little in a sample of this size, so they are dialled far beyond their variants
    [
        (Detector(fake_fraction=0.06), +1),
        (Detector(pileup=200), +1),
        (Detector(material=3.0), +1),
        (Detector(material=0.0), -1),
    ],
    ids=["fakes", "pileup-tracks", "material", "no-material"],
)
def test_direction_of_weak_knobs(
    mc: Block, light_cut: float, with_detector: Callable[[Detector], Block], detector: Detector, sign: int
) -> None:
    other = with_detector(detector)
    assert sign * significance(*flips(mc, other, with_vertex, LIGHT)) > 2.5
    gained, lost = flips(mc, other, lambda block: jet(block, "DeepCSV_trackSip2dSig_0") > light_cut, LIGHT)
    assert sign * significance(gained, lost) > 2.5


def test_number_of_tracks(
    mc: Block, reconstructed: Callable[[str], Block], with_detector: Callable[[Detector], Block]
) -> None:
    """All jets are paired: the differences have hardly any spread."""
    nominal = jet(mc, "DeepCSV_jetNSelectedTracks").astype(float)
    n = len(nominal)

    def relative_change(other: Block) -> tuple[float, float]:
        difference = jet(other, "DeepCSV_jetNSelectedTracks") - nominal
        return difference.mean() / nominal.mean(), difference.std() / np.sqrt(n) / nominal.mean()

    change, error = relative_change(reconstructed("track-efficiency"))
    # 2 % of the tracks of the collision; pile-up has its own, and a few jets come to have less than two tracks
    assert change == pytest.approx(-0.019, abs=4 * error + 0.001)
    change, error = relative_change(reconstructed("pileup-tracks"))
    # 20 % of 0.28 tracks, of which (0.3 / 0.4)^2 are near enough and exp(-0.3 / 0.6) hard enough; some pass too far
    # from the jet axis, or look like a K0S with a track of the jet
    most = 0.2 * 35 * 0.048 * 0.17 * 0.5625 * np.exp(-0.5) / nominal.mean()
    assert 4 * error < change < most
    assert change > 2 * error
    change, error = relative_change(with_detector(Detector(material=3.0)))
    assert -0.06 < change < -3 * error  # twice the 3 % of hadrons are lost, and part of that comes back from photons


@pytest.mark.parametrize(
    "detector", [Detector(material=1.0001), Detector(jet_energy_scale=0.999), Detector(pileup=35.02)]
)
def test_tiny_changes_change_few_jets(
    mc: Block, with_detector: Callable[[Detector], Block], detector: Detector
) -> None:
    """At most one jet in a thousand meets another particle that interacts, or has a neighbour at the threshold."""
    other = with_detector(detector)
    index, partner = pairs(mc, other)
    before, after = jet(mc, "DeepCSV_trackSip2dSig_0")[index], jet(other, "DeepCSV_trackSip2dSig_0")[partner]
    assert len(index) > 0.999 * len(before)
    assert np.mean(before != after) < 0.005


def test_jet_energy(mc: Block, reconstructed: Callable[[str], Block]) -> None:
    """Above 40 GeV, where the threshold of 20 GeV cuts nothing off."""

    def response(block: Block) -> np.ndarray:
        true = block.truth.columns["genPt"]
        return (jet(block, "pt") / true)[true > 40]

    nominal = response(mc)
    scale, resolution = (response(reconstructed(name)) for name in ("jet-energy-scale", "jet-energy-resolution"))
    rounding = 2.0**-10
    dialled = (
        VARIANTS["jet-energy-scale"].detector.jet_energy_scale,
        VARIANTS["jet-energy-resolution"].detector.jet_resolution_scale,
    )
    assert np.median(scale) / np.median(nominal) == pytest.approx(dialled[0], abs=rounding)
    assert scale / nominal == pytest.approx(np.full(len(nominal), dialled[0]), abs=2 * rounding)
    assert np.median(resolution) == pytest.approx(np.median(nominal), abs=0.1 * 0.15 / np.sqrt(len(nominal)) + rounding)
    assert (resolution - 1).std() / (nominal - 1).std() == pytest.approx(
        dialled[1], abs=0.005
    )  # response is cut at 0.2


def test_data_are_the_changed_detector_with_hidden_events(
    generated: GeneratedEvents, reconstructed: Callable[[str], Block]
) -> None:
    """On the same generated events it would be `detector`, but for run, event and random numbers."""
    hidden = reconstruct(generated, PROCESSES["ttbar"], VARIANTS["data"], LARGE_SEED, 0, Content())
    known = reconstructed("detector")
    assert VARIANTS["data"].detector == VARIANTS["detector"].detector
    # data and simulation of one seed fluctuate independently
    pileup = (block.weights["Pileup_nPU"] for block in (hidden, known))
    assert abs(np.corrcoef(*pileup)[0, 1]) < 4 / np.sqrt(len(generated))
    equal = np.isin(jet(hidden, "pt"), jet(known, "pt")).mean()
    assert equal < 0.05  # by chance, as floats
    assert not set(hidden.events["event"].tolist()) & set(known.events["event"].tolist())
    assert set(hidden.events["run"]) != set(known.events["run"])


def test_combinations_hold_all_single_knobs() -> None:
    singles = [variant for name, variant in VARIANTS.items() if name not in ("mc", "detector", "generator", "data")]
    nominal = VARIANTS["mc"]

    def changed(variant: Variant) -> dict[str, float]:
        return {k: v for k, v in vars(variant.detector).items() if v != getattr(nominal.detector, k)}

    assert all(bool(changed(single)) != (single.generator != nominal.generator) for single in singles)
    for name in ("detector", "data"):
        assert changed(VARIANTS[name]) == {k: v for single in singles for k, v in changed(single).items()}
    for name in ("generator", "data"):
        generator = VARIANTS[name].generator
        assert sorted(generator.settings) == sorted(s for single in singles for s in single.generator.settings)
        lifetimes = [single.generator.lifetime_scale for single in singles]
        assert generator.lifetime_scale == {k: v for scales in lifetimes for k, v in scales.items()}
    assert VARIANTS["detector"].generator == VARIANTS["generator"].generator.__class__()
    generators = {variant.generator.name: variant.generator.number for variant in VARIANTS.values()}
    assert len(set(generators.values())) == len(generators)
    assert set(generators.values()) <= set(range(10))
    assert [name for name, variant in VARIANTS.items() if variant.is_data] == ["data"]
    assert [name for name, variant in VARIANTS.items() if variant.generator.is_data] == ["data"]
