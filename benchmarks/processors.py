"""Speed of `advtag histograms` against bare loops over the same file, in the same run, one thread.

python benchmarks/processors.py [--events 60000]

The bare loop is what a physicist writes without a framework: uproot, numpy, torch, one `hist.fill` per variable
with a flavour category. The tuned loop reads and fills as advtag does, without coffea. All three do the same work:
67 inputs and 4 discriminators, raw and FGSM (20 % cap and bounds), Weight storage; their histograms are compared.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).parents[1])  # else `processors` would be this script

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable

import awkward as ak
import boost_histogram as bh
import hist
import numpy as np
import torch
import uproot

from attacks import FGSM, Budget
from configs.schema import Dataset, Region, Run, Selection
from models.discriminators import DISCRIMINATORS, discriminators
from models.features import FeatureSet, load_features
from models.tagger import Tagger
from processors.fileset import open_fileset, read_list
from processors.histograms import HistogramProcessor, input_axis
from processors.run import run_processor
from simulation.run import simulate

EPSILON = 0.05
CHUNK = 100_000
FLAVOURS = (0, 1, 2, 3)


def sample(folder: Path, events: int, seeds: int = 2000) -> Path:
    """A file of `events` events: `seeds` simulated ones, repeated."""
    (made,) = simulate("ttbar", seeds, folder, workers=2, progress=False)
    path = folder / "repeated.root"
    with uproot.open(made) as source, uproot.recreate(path, compression=uproot.ZSTD(3)) as sink:
        arrays = source["Events"].arrays(filter_name=lambda name: not name.startswith("n"), how=dict)
        jagged: dict[str, dict[str, ak.Array]] = {}
        flat: dict[str, ak.Array] = {}
        for name, array in arrays.items():
            collection, _, field = name.partition("_")
            if array.ndim > 1:
                jagged.setdefault(collection, {})[field] = array
            else:
                flat[name] = array
        chunk = {**flat, **{name: ak.zip(fields) for name, fields in jagged.items()}}
        tree = sink.mktree("Events", {name: array.type.content for name, array in chunk.items()})
        for _ in range(max(1, events // seeds)):
            tree.extend(chunk)
    return path


def uncoupled(features: FeatureSet) -> FeatureSet:
    """The card without inputs that move together or are pinned: the other loops do not know how."""
    plain = {"same_as": (), "pinned": ()}
    return FeatureSet(name=features.name, inputs=tuple(entry.model_copy(update=plain) for entry in features.inputs))


def bare(path: Path, features: FeatureSet, tagger: Tagger) -> dict[str, hist.Hist]:
    """The loop as usually written."""
    axes = [input_axis(feature) for feature in features.inputs]
    axes += [hist.axis.Regular(1000, 0, 1, name=name) for name in DISCRIMINATORS]
    first = (hist.axis.IntCategory([0, 1], name="attack"), hist.axis.IntCategory(FLAVOURS, name="flavour"))
    histograms = {axis.name: hist.Hist(*first, axis, storage=hist.storage.Weight()) for axis in axes}
    for values, present, flavour, weight in read(path, features):
        raw, attacked, moved = network(values, present, flavour, tagger, features)
        for attack, (inputs, scores) in enumerate(((values, raw), (moved, attacked))):
            for row, name in enumerate(features.names):
                there = present[:, row]
                column = inputs[there, row].astype(int) if features.integer[row] else inputs[there, row]
                histograms[name].fill(attack=attack, flavour=flavour[there], weight=weight[there], **{name: column})
            for name, score in scores.items():
                histograms[name].fill(attack=attack, flavour=flavour, weight=weight, **{name: score})
    return histograms


def tuned(path: Path, features: FeatureSet, tagger: Tagger) -> dict[str, hist.Hist]:
    """The loop with feature-major arrays and integer axes."""
    axes = [input_axis(feature) for feature in features.inputs]
    axes += [hist.axis.Regular(1000, 0, 1, name=name) for name in DISCRIMINATORS]
    first = (bh.axis.Integer(0, 2), bh.axis.Integer(0, 4))
    histograms = {axis.name: bh.Histogram(*first, axis, storage=bh.storage.Weight()) for axis in axes}
    for values, present, flavour, weight in read(path, features):
        raw, attacked, moved = network(values, present, flavour, tagger, features)
        for attack, (inputs, scores) in enumerate(((values, raw), (moved, attacked))):
            columns = np.ascontiguousarray(inputs.T)
            for row, name in enumerate(features.names):
                there = present[:, row]
                column = columns[row][there].astype(np.int32) if features.integer[row] else columns[row][there]
                histograms[name].fill(attack, flavour[there], column, weight=weight[there])
            for name, score in scores.items():
                histograms[name].fill(attack, flavour, score, weight=weight)
    return histograms


def read(path: Path, features: FeatureSet):
    """Chunks of (values, present, flavour, weight) with uproot and numpy."""
    rules = {feature.present.branch for feature in features.inputs if feature.present}
    branches = {feature.branch[0] for feature in features.inputs} | rules
    branches |= {"genWeight", "Jet_hadronFlavour", "Jet_nBHadrons"}
    with uproot.open(path) as file:
        for arrays in file["Events"].iterate(branches, step_size=CHUNK, how=dict):
            flat = {name: ak.to_numpy(ak.flatten(a)) for name, a in arrays.items() if a.ndim > 1}
            keep = (flat["Jet_pt"] >= 20) & (flat["Jet_pt"] <= 1000) & (np.abs(flat["Jet_eta"]) <= 2.5)
            flat = {name: a[keep] for name, a in flat.items()}
            values = np.zeros((keep.sum(), len(features)), np.float32)
            present = np.zeros(values.shape, bool)
            for row, feature in enumerate(features.inputs):
                found = flat[feature.branch[0]]
                there = np.isfinite(found) & ~np.isin(found, feature.sentinels)
                if feature.present and feature.present.one_of:
                    there &= np.isin(flat[feature.present.branch], feature.present.one_of)
                elif feature.present:
                    above = feature.slot if feature.present.above == "slot" else feature.present.above
                    there &= flat[feature.present.branch] > above
                values[:, row], present[:, row] = np.where(there, found, 0), there
            hadron = flat["Jet_hadronFlavour"]
            flavour = np.where(hadron == 5, np.where(flat["Jet_nBHadrons"] > 1, 1, 0), np.where(hadron == 4, 2, 3))
            weight = np.repeat(ak.to_numpy(arrays["genWeight"]), ak.to_numpy(ak.num(arrays["Jet_pt"])))[keep]
            yield values, present, flavour, weight.astype(np.float64)


def network(values, present, flavour, tagger: Tagger, features: FeatureSet, batch: int = 4096):
    """Raw and FGSM scores and moved inputs, in plain torch; the clean forward pass is shared with the gradient."""
    frozen = torch.from_numpy(features.integer)
    caps, bounds = torch.from_numpy(features.caps).float(), torch.from_numpy(features.bounds).float()
    raw, attacked, moved = [], [], np.empty_like(values)
    for start in range(0, len(values), batch):
        rows = slice(start, start + batch)
        x, there = torch.from_numpy(values[rows]), torch.from_numpy(present[rows])
        free = x.clone().requires_grad_()
        logits = tagger(free, there)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(flavour[rows]), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, free)
        with torch.no_grad():
            reach = torch.minimum(EPSILON * tagger.std, caps * x.abs()) * (there & ~frozen)
            low = torch.minimum(torch.maximum(x - reach, bounds[:, 0]), x)
            high = torch.maximum(torch.minimum(x + reach, bounds[:, 1]), x)
            y = torch.clamp(x + EPSILON * tagger.std * gradient.sign(), low, high)
            raw.append(discriminators(logits.softmax(1), tagger.classes))
            attacked.append(discriminators(tagger(y, there).softmax(1), tagger.classes))
            moved[rows] = y.numpy()

    def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    return joined(raw), joined(attacked), moved


def advtag(path: Path, features: FeatureSet, tagger: Tagger) -> dict[str, hist.Hist]:
    """`advtag histograms` without reading a configuration: fileset check, Runner, accounting."""
    files = open_fileset({"ttbar": Dataset(files=(str(path),), cross_section=1.0)}, features, ())
    job = HistogramProcessor(
        features,
        Selection(),
        {"ttbar": False},
        {"inclusive": Region()},
        {"nominal": tagger.to_bytes()},
        {"fgsm": FGSM(Budget(epsilon=EPSILON))},
        "float32",
    )
    run = Run(executor="iterative", chunksize=CHUNK)
    output = run_processor(job, files, read_list(features, ()), run, progress=False)
    histograms: dict[str, hist.Hist] = output["histograms"]
    return histograms


def untrained(features: FeatureSet, path: Path) -> Tagger:
    """A tagger with the standardisation of the file and random weights: speed does not depend on them."""
    values, present, _, _ = next(iter(read(path, features)))
    masked = np.where(present, values, np.nan)
    torch.manual_seed(1)
    mean, std = (torch.from_numpy(np.nan_to_num(f(masked, axis=0))) for f in (np.nanmean, np.nanstd))
    tagger = Tagger(features, ("b", "bb", "c", "udsg"), mean, torch.where(std > 0, std, 1))
    return tagger.eval().requires_grad_(False)


def best(function: Callable[[], object], times: int) -> tuple[float, object]:
    """Shortest wall time of several, and the last result."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--file", type=Path, help="use this NanoAOD-like file instead of simulating one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = uncoupled(load_features("deepcsv"))
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or sample(Path(folder), options.events)
        with uproot.open(path) as file:
            events = file["Events"].num_entries
        tagger = untrained(features, path)
        seconds, results = {}, {}
        for name, function in (("bare", bare), ("tuned", tuned), ("advtag", advtag)):
            seconds[name], results[name] = best(lambda f=function: f(path, features, tagger), options.repeat)
            print(f"{name}: {events / seconds[name]:.0f} events/s")
        for name in (*features.names, *DISCRIMINATORS):
            ours = results["advtag"][name][{"dataset": 0, "region": 0, "variation": 0, "tagger": 0}]
            theirs = results["bare"][name].values(flow=True)
            ours = np.moveaxis(ours.values(flow=True), 0, 1)[:2, :4]
            moved = np.abs(ours - theirs[:2, :4]).sum() / theirs.sum()
            if moved > 2e-4:  # float32 rounding may move 1 jet in 10,000 over an edge: out of one bin, into another
                raise SystemExit(f"{name}: the loops disagree, {moved:.2g} of the entries are in another bin")
    figures = {
        "events_per_s": events / seconds["advtag"],
        "vs_bare_loop": seconds["bare"] / seconds["advtag"],
        "vs_tuned_loop": seconds["tuned"] / seconds["advtag"],
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(json.dumps({"name": "processors", "figures": {key: round(value, 3) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
