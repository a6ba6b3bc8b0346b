"""The same histograms through every executor: how they compare, and how fast each is.

python benchmarks/executors.py FILE... [--cluster PROFILE]

FILEs are simulated events (MC, `advtag simulate`); PROFILE is that of an HTCondor or Slurm cluster, whose workers then
fill them, too. A tagger with random weights, FGSM, three regions, float64. The last line holds each executor's time
over that of the iterative one, and the largest difference of a bin over the sum of its histogram.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # else `processors` would be a script beside this one

import argparse
import json
import tempfile
import time

import numpy as np
import torch
import yaml

from common.histograms import HistogramFile, read_histograms
from configs.load import load_analysis
from models.features import load_features
from models.tagger import Tagger
from processors.jobs import make_histograms

REGIONS = {"all": {}, "pt30": {"jet_pt": 30}, "four": {"jet_pt": 30, "min_jets": 4}}


def configuration(folder: Path, files: list[Path]) -> Path:
    """Write a tagger and an analysis of the files."""
    features = load_features("deepcsv")
    torch.manual_seed(1)
    Tagger(features, ("b", "bb", "c", "udsg"), torch.zeros(67), torch.full((67,), 5.0)).save(folder / "t.safetensors")
    datasets = {path.stem: {"files": str(path.absolute()), "cross_section": 1.0} for path in files}
    sections = {
        "name": "executors",
        "output": "out",
        "features": "deepcsv",
        "datasets": datasets,
        "attacks": {"fgsm": {"kind": "fgsm", "epsilon": 0.05}},
        "histograms": {
            "datasets": list(datasets),
            "taggers": {"t": str(folder / "t.safetensors")},
            "attacks": ["fgsm"],
            "regions": REGIONS,
            "precision": "float64",
        },
        "run": {"chunksize": 5000},
    }
    path = folder / "analysis.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def difference(one: HistogramFile, other: HistogramFile) -> float:
    """Largest difference of two bins, over the sum of the histogram."""
    largest = 0.0
    for name in one.variables:
        for part in ("value", "variance"):
            a, b = (file.histograms[name].view(flow=True)[part] for file in (one, other))
            largest = max(largest, float(np.abs(a - b).max() / np.abs(a).sum()))
    return largest


def main() -> None:
    """Run, compare and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--cluster", help="profile of a batch system")
    options = parser.parse_args()
    ways = {"iterative": "run.executor=iterative", "futures": "run.executor=futures", "dask": "run.executor=dask"}
    if options.cluster:
        ways["cluster"] = f"run.cluster={options.cluster}"
    figures, first = {}, None
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(Path(folder), options.files)
        for name, override in ways.items():
            start = time.perf_counter()
            made = make_histograms(load_analysis(config, [override, f"output={name}"]), progress=False)
            seconds = time.perf_counter() - start
            found = read_histograms(made)
            if first is None:
                first, unit = found, seconds
                print(f"{sum(dataset.events for dataset in found.datasets.values())} events", file=sys.stderr)
            else:
                figures |= {f"{name}_difference": difference(first, found), f"{name}_over_iterative": seconds / unit}
            print(f"{name}: {seconds:.1f} s", file=sys.stderr)
    print(json.dumps({"name": "executors", "figures": figures}))


if __name__ == "__main__":
    main()
