"""The table of uncertainties from data: the shift that was put in comes out, with an error that covers it."""

import numpy as np
import pytest
import torch
import yaml
from coffea.nanoevents import BaseSchema, NanoEventsFactory
from scipy.stats import norm

from attacks import FGSM, Budget
from attacks.envelope import envelope, envelopes, write_envelope
from common.errors import AdvtagError
from common.histograms import Dataset, HistogramFile
from configs.schema import Region, Selection
from models.features import FeatureSet, Input, load_features
from models.tagger import Tagger
from processors.histograms import HistogramProcessor

EDGES = np.linspace(-4, 4, 41)
NUMBER = 5000


def counted(values: np.ndarray, edges: np.ndarray = EDGES) -> tuple[np.ndarray, np.ndarray]:
    content = np.histogram(values, edges)[0].astype(float)
    return content, content


def poisson(rng: np.random.Generator, number: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """As `counted` has `number` normal values on average."""
    content = rng.poisson(number * np.diff(norm.cdf(EDGES - mean))).astype(float)
    return content, content


def weighted(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.histogram(values, EDGES, weights=w)[0] for w in (weight, weight**2))


def slow_chi2(edges, data, data_variance, mc, mc_variance, shift: float) -> tuple[float, int]:
    """One group of bins after the other, one bin of simulation after the other; chi2 and the number of groups."""
    factor = sum(data) / sum(mc)
    groups, group = [], []
    for k in range(len(mc)):
        group.append(k)
        expected, variance = (sum(factor**power * x[i] for i in group) for power, x in ((1, mc), (2, mc_variance)))
        if expected >= 10 and expected**2 >= 10 * variance:
            groups.append(group)
            group = []
    if group:  # too few: they join the last
        groups[-1] = groups[-1] + group
    eighth = (edges[-1] - edges[0]) / 8
    inner = [g for g in groups if edges[g[0]] >= edges[0] + eighth and edges[g[-1] + 1] <= edges[-1] - eighth]
    rows = []
    for group in inner:
        low, high = edges[group[0]], edges[group[-1] + 1]
        shifted = lost = 0.0
        for k in range(len(mc)):
            left, right = edges[k] + shift, edges[k + 1] + shift
            part = max(0.0, min(high, right) - max(low, left)) / (right - left)
            shifted += factor * mc[k] * part
            lost += factor**2 * mc_variance[k] * part * (1 - part)  # of a variance, part^2 is left
        variance = sum(data_variance[k] + factor**2 * mc_variance[k] for k in group)
        rows.append((sum(data[k] for k in group), shifted, lost, variance))
    norm = sum(row[0] for row in rows) / sum(row[1] for row in rows)
    return sum(((n - norm * m) ** 2 + lost) / variance for n, m, lost, variance in rows), len(rows)


def test_an_edge_is_no_feature() -> None:
    """Nobody knows what lies beyond an edge: a flat distribution says nothing, a cut does not move with the jets."""
    edges = np.linspace(-2.5, 2.5, 51)
    flat = np.full(50, 1000.0)
    assert envelope(edges, flat, flat, flat, flat).uncertainty > 0.95 * 5 / 8
    rng = np.random.default_rng(3)
    pt = 30 + rng.exponential(40, 400_000)
    wide, shifted = np.linspace(0, 400, 51), np.where(pt + 1 > 30, pt + 1, 0)
    found = envelope(wide, *counted(shifted[:200_000], wide), *counted(pt[200_000:], wide))
    assert found.uncertainty > 1
    peak = rng.normal(0, 3, 400_000)  # wider than the range
    found = envelope(edges, *counted(peak[:200_000] + 0.1, edges), *counted(peak[200_000:], edges))
    assert 0.1 <= found.uncertainty < 0.3


@pytest.mark.parametrize("width", [1.0, 1.3])
@pytest.mark.parametrize("ratio", [0.3, 20])
def test_against_slow_reference(ratio, width) -> None:
    rng = np.random.default_rng(5)
    number = int(ratio * NUMBER)
    weight = rng.choice([0.5, 1.0, 3.0], number)
    edges = np.linspace(-3.5, 5, 36)
    mc = tuple(np.histogram(rng.normal(0, 1, number), edges, weights=w)[0] for w in (weight, weight**2))
    data = counted(rng.normal(0.15, width, NUMBER), edges)
    found = envelope(edges, *data, *mc)
    assert found.chi2 == pytest.approx(slow_chi2(edges, *data, *mc, found.shift)[0], rel=1e-9)
    fine = np.linspace(-0.4, 0.4, 401)
    chi2 = np.array([slow_chi2(edges, *data, *mc, shift)[0] for shift in fine])
    groups = slow_chi2(edges, *data, *mc, 0.0)[1]
    assert found.ndf == groups - 2
    assert found.chi2 <= chi2.min() + 0.01
    left = fine[chi2 <= chi2.min() + max(1, chi2.min() / found.ndf)]
    assert np.abs(left).max() < 0.4
    assert found.uncertainty == pytest.approx(np.abs(left).max(), abs=0.004)


@pytest.mark.parametrize("ratio", [1, 3, 100])
@pytest.mark.parametrize("true", [0.0, 0.03, -0.2])
def test_recovers_a_shift_and_covers_it(true, ratio) -> None:
    """Toys: best shift and its error, uncertainty - |shift|, whatever the size of the simulated sample."""
    rng = np.random.default_rng(7)
    toys = [envelope(EDGES, *poisson(rng, NUMBER, true), *poisson(rng, ratio * NUMBER, 0)) for _ in range(150)]
    shift, uncertainty = (np.array([getattr(toy, name) for toy in toys]) for name in ("shift", "uncertainty"))
    sigma, error = np.sqrt((1 + 1 / ratio) / NUMBER), uncertainty - np.abs(shift)
    assert shift.mean() == pytest.approx(true, abs=0.4 * sigma)
    assert 0.85 * sigma < shift.std() < 1.3 * sigma
    assert 0.85 * sigma < error.mean() < 1.25 * sigma
    # 68 % as the chi2 has it; a tolerance of three standard deviations of 150 toys
    assert 0.55 < (np.abs(shift - true) <= error * (1 + 1e-9)).mean() < 0.80
    assert ((uncertainty >= abs(true)).mean() == 1) if true == 0 else ((uncertainty >= abs(true)).mean() > 0.72)
    assert np.mean([toy.chi2 / toy.ndf for toy in toys]) == pytest.approx(1, abs=0.15)


def test_weights_and_their_variances() -> None:
    """A sample of which every tenth jet has weight 10 says less than its number of jets."""
    rng = np.random.default_rng(8)
    number = 50_000
    weight = np.where(np.arange(number) % 10 == 0, 10.0, 1.0)
    effective = weight.sum() ** 2 / (weight**2).sum()
    found = [
        envelope(EDGES, *counted(rng.normal(0, 1, NUMBER)), *weighted(rng.normal(0, 1, number), weight))
        for _ in range(100)
    ]
    sigma = np.sqrt(1 / NUMBER + 1 / effective)
    assert np.std([toy.shift for toy in found]) == pytest.approx(sigma, rel=0.3)
    assert np.mean([toy.uncertainty - abs(toy.shift) for toy in found]) == pytest.approx(sigma, rel=0.2)
    assert np.mean([toy.chi2 / toy.ndf for toy in found]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("ratio", [1, 20])
def test_scale_factor_where_no_shift_describes_the_data(ratio) -> None:
    rng = np.random.default_rng(9)
    data, mc = counted(rng.normal(0, 1.3, NUMBER)), counted(rng.normal(0, 1, ratio * NUMBER))
    found = envelope(EDGES, *data, *mc)
    scale = np.sqrt(found.chi2 / found.ndf)
    assert scale > 2.5
    sigma = np.sqrt((1 + 1 / ratio) / NUMBER)
    assert found.uncertainty - abs(found.shift) == pytest.approx(scale * sigma, rel=0.35)


def test_more_data_leave_less_open_and_other_units_change_nothing() -> None:
    rng = np.random.default_rng(10)
    jets, simulated = rng.normal(0, 1, 40_000), rng.normal(0, 1, 400_000)
    few, many = (envelope(EDGES, *counted(jets[:n]), *counted(simulated)).uncertainty for n in (1000, 40_000))
    assert many < few / 3
    same = envelope(
        100 * EDGES,
        *counted(jets),
        *(7.0**power * part for power, part in zip((1, 2), counted(simulated), strict=True)),
    )
    assert same.uncertainty == pytest.approx(100 * many, rel=1e-6)


CARD = FeatureSet(
    name="toy",
    inputs=(
        Input(name="x", branch="Jet_x", label="x", bins=(40, -4, 4)),
        Input(name="y", branch="Jet_y", label="y", bins=(30, 0, 6), frozen=True),
        Input(name="n", branch="Jet_n", label="n", bins=(8, 0, 8), integer=True),
    ),
)
REGIONS = {"control": Region(), "other": Region()}


def toy_file(data: int = 4000, simulation: int = 20_000) -> HistogramFile:
    """Simulated x is 0.2 too low in `control`; `other` and the attacked jets would give something else."""
    rng = np.random.default_rng(3)
    taggers = {"nominal": b"", "second": b""}
    job = HistogramProcessor(
        CARD, Selection(), {"tt": False}, REGIONS, taggers, {"fgsm": FGSM(Budget(epsilon=1))}, "float32"
    )
    histograms = job.histograms("tt", {})
    draw = {
        "x": rng.normal,
        "y": lambda shift, width, size: rng.exponential(width, size),
        "n": lambda *a: rng.poisson(3, a[2]),
    }
    samples = {
        "tt": (simulation, -0.2, 0.5),
        "dy": (simulation, -0.2, 4.0),
        "run1": (data, 0.0, 1.0),
        "run2": (data, 0.0, 1.0),
    }
    for name, histogram in histograms.items():
        if name not in draw:
            continue
        for sample, (number, shift, weight) in samples.items():
            where = {"dataset": sample, "variation": "nominal", "flavour": "data" if "run" in sample else "c"}
            for tagger in ("nominal", "second"):
                fill = {**where, "tagger": tagger, "weight": weight}
                histogram.fill(**fill, region="control", attack="raw", **{name: draw[name](shift, 1, number)})
                histogram.fill(**fill, region="other", attack="raw", **{name: draw[name](shift, 2, number // 100)})
                if "run" not in sample:
                    histogram.fill(**fill, region="control", attack="fgsm", **{name: draw[name](2, 1, number)})
    datasets = {
        name: Dataset("run" in name, None if "run" in name else 2.0, number * weight, number, number)
        for name, (number, _, weight) in samples.items()
    }
    return HistogramFile(histograms, CARD.names, ("BvsL", "BvsC", "CvsL", "CvsB"), datasets, 100.0, {})


@pytest.fixture(scope="module")
def file() -> HistogramFile:
    return toy_file()


def test_all_data_against_all_simulation_of_one_region(file) -> None:
    found = envelopes(file, "control")
    assert list(found) == ["x", "y"]  # integers move by whole steps, or not at all
    assert found["x"].shift == pytest.approx(0.2, abs=0.05)
    assert found["x"].uncertainty == pytest.approx(0.2, abs=0.06)
    # both simulated samples have the same cross-section, whatever their weights: their sum, by hand
    first = {name: file.histograms["x"][name, "control", :, 0, "nominal", "raw", :] for name in file.datasets}
    first = {name: histogram.project("x").view() for name, histogram in first.items()}
    scale = {name: 200.0 / (20_000 * weight) for name, weight in (("tt", 0.5), ("dy", 4.0))}
    mc = [
        sum(scale[name] ** power * first[name][part] for name in scale)
        for power, part in ((1, "value"), (2, "variance"))
    ]
    data = [first["run1"][part] + first["run2"][part] for part in ("value", "variance")]
    by_hand = envelope(EDGES, *data, *mc)
    for name, value in vars(found["x"]).items():
        assert getattr(by_hand, name) == pytest.approx(value, rel=1e-9)


def test_region_that_is_unknown_or_empty(file) -> None:
    with pytest.raises(AdvtagError, match="no region 'pt30' in the histograms; known: control, other"):
        envelopes(file, "pt30")
    with pytest.raises(AdvtagError, match=r"input 'x', region 'other': [78]. entries of data .*, expected 100 or more"):
        envelopes(file, "other")
    with pytest.raises(AdvtagError, match="region 'control': 0 entries of data"):
        envelopes(toy_file(data=0), "control")
    with pytest.raises(AdvtagError, match="region 'control': 0 entries of simulation"):
        envelopes(toy_file(simulation=0), "control")


def test_written_table_is_the_scale_of_a_budget(file, tmp_path) -> None:
    from attacks.build import build_attack, read_uncertainties
    from configs.attacks import attack_config

    file.write(tmp_path / "histograms.zip")
    path = write_envelope(tmp_path / "histograms.zip", "control", tmp_path / "new" / "table.yaml")
    page = yaml.safe_load(path.read_text())
    found = envelopes(file, "control")
    assert page["source"] == {"histograms": "histograms.zip", "region": "control"}
    assert page["comparison"]["x"]["ndf"] == found["x"].ndf
    assert page["comparison"]["x"]["best_shift"] == pytest.approx(found["x"].shift, rel=1e-3)
    table = read_uncertainties(path)
    assert table == {name: pytest.approx(entry.uncertainty, rel=1e-3) for name, entry in found.items()}
    tagger = Tagger(CARD, ("b", "c", "udsg"), torch.zeros(3), torch.ones(3))
    attack = build_attack(attack_config({"kind": "fgsm", "epsilon": 0.5, "scale": path}))
    assert attack.budget == Budget(epsilon=0.5, scale=table)
    assert attack.budget.step(tagger).tolist() == pytest.approx([0.5 * table["x"], 0.5 * table["y"], 0])


def test_simulated_data_against_simulation(simulated, taggers) -> None:
    """Events of the simulation, its hidden variant as data: what is measured well is left little room."""
    features = load_features("deepcsv")
    content = {"nominal": taggers["nominal"].read_bytes()}
    datasets = {"ttbar": False, "data": True}
    job = HistogramProcessor(features, Selection(), datasets, {"all": Region()}, content, {}, "float32")
    filled = []
    for name, pattern in (("ttbar", "ttbar_mc_*.root"), ("data", "ttbar_data_*.root")):
        for path in sorted(simulated.glob(pattern)):
            metadata = {"dataset": name, "filename": str(path), "entrystart": 0, "entrystop": 1}
            factory = NanoEventsFactory.from_root(
                {str(path): "Events"}, schemaclass=BaseSchema, mode="virtual", metadata=metadata
            )
            filled.append(job.histograms(name, job.process(factory.events())["blocks"][name]))
    names = ("pt", "eta", "jetNSelectedTracks", "trackJetPt", "trackSip2dSig_0", "trackPtRatio_0")
    histograms = {name: sum(part[name] for part in filled) for name in names}
    page = {"ttbar": Dataset(False, 500.0, 300.0, 300, 1), "data": Dataset(True, None, 100.0, 100, 1)}
    found = envelopes(HistogramFile(histograms, names, (), page, 1.0, {}), "all")
    assert set(found) == {*names} - {"jetNSelectedTracks"}
    for name, entry in found.items():
        data = histograms[name]["data", "all", :, 0, 0, "raw", :].project(name)
        content, centres = data.values(), data.axes[0].centers
        width = np.sqrt(np.average((centres - np.average(centres, weights=content)) ** 2, weights=content))
        # a peak or an edge says more of a shift than the mean does
        assert 0.05 * width / np.sqrt(content.sum()) < entry.uncertainty
        assert entry.uncertainty <= (data.axes[0].edges[-1] - data.axes[0].edges[0]) / 8 * (1 + 1e-9)
        assert abs(entry.shift) <= entry.uncertainty
        assert entry.chi2 < 3 * entry.ndf
