"""300 figures, each as PNG and PDF, of a histogram file like that of an analysis: seconds, memory, and the cost of one.

    python benchmarks/plots.py

Two regions, the 67 inputs of the seed studies and 8 outputs of two taggers, three attacks, data, and ten variations
(--variations). `figure_over_plain`: CPU time of one of our data/MC figures of an input over that of the same content
drawn with plain mplhep and matplotlib: a stack, data, lines, and two panels of ratios, without any style.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # else `plots` would be a script beside this one

import argparse
import io
import json
import resource
import tempfile
import time
from itertools import islice

import hist
import mplhep
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.histograms import AXES, Dataset, HistogramFile
from models.classes import TAGGER_SCORES
from models.features import load_features
from plots.figures import Style, histogram_figures
from plots.jobs import draw_all
from plots.shapes import scaled
from plots.stack import stack
from processors.histograms import input_axis, score_axis

FIGURES, WORKERS = 300, 2
SHARES = {"b": 0.3, "bb": 0.02, "c": 0.15, "udsg": 0.53}


def made_up(variations: int) -> HistogramFile:
    """Histograms with random content: every category is filled."""
    rng = np.random.default_rng(1)
    features = load_features("deepcsv")
    names = ["nominal", *(f"source{i // 2}_{'up' if i % 2 else 'down'}" for i in range(variations))]
    categories = {
        "dataset": ["ttbar", "zjets", "data"], "region": ["emu", "dy"], "flavour": [*SHARES, "data"],
        "variation": names, "tagger": ["nominal", "adversarial"], "attack": ["raw", "noise", "fgsm", "pgd"],
    }  # fmt: skip
    axes = [hist.axis.StrCategory(categories[name], name=name, growth=True) for name in AXES]
    inputs = [input_axis(feature) for feature in features.inputs]
    histograms = {}
    for axis in (*inputs, *(score_axis(name) for name in TAGGER_SCORES)):
        h = hist.Hist(*axes, axis, storage=hist.storage.Weight())
        view = h.view(flow=True)
        x = np.linspace(0, 1, axis.extent)
        for row, share in enumerate(SHARES.values()):
            spectrum = 2e4 * share * np.exp(-((x - 0.2 - 0.15 * row) ** 2) / 0.05)
            shape = (2, 2, len(names), 2, 4, axis.extent)
            content = spectrum * rng.normal(1, 0.02, shape)
            view["value"][:2, :, row] = content
            view["variance"][:2, :, row] = content
        view["value"][:2, :, :4, 1:, :, 1:] = 0  # variations are of raw jets
        view["variance"][:2, :, :4, 1:, :, 1:] = 0
        total = view["value"][:2, :, :4, 0, 0, 0].sum(axis=(0, 2))
        view["value"][2, :, 4, 0, :, 0] = view["variance"][2, :, 4, 0, :, 0] = rng.poisson(total)[:, None]
        histograms[axis.name] = h
    mc = {name: Dataset(False, 1.0, 1.0, 1, 1) for name in ("ttbar", "zjets")}
    books = {**mc, "data": Dataset(True, None, 1.0, 1, 1)}
    return HistogramFile(histograms, features.names, tuple(TAGGER_SCORES), books, 1.0, {})


def plain(file: HistogramFile, name: str) -> None:
    """The same content without any care for how it looks."""
    s = stack(scaled(file, name, "emu"), ["nominal", "adversarial"])
    figure = Figure(figsize=(9.5, 8))
    top, middle, low = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1, 1]})
    x = (s.edges[1:] + s.edges[:-1]) / 2
    mplhep.histplot(list(s.flavours.values()), s.edges, stack=True, histtype="fill", label=list(s.flavours), ax=top)
    top.errorbar(x, s.data, yerr=np.sqrt(s.data), fmt="o", label="data")
    middle.errorbar(x, s.data / s.mc, yerr=np.sqrt(s.data) / s.mc, fmt="o")
    for pair, values in s.distorted.items():
        top.stairs(values, s.edges, label=" ".join(pair))
        low.stairs(values / s.mc, s.edges)
    top.legend()
    FigureCanvasAgg(figure).print_png(io.BytesIO())
    figure.savefig(io.BytesIO(), format="pdf")


def cost_of_one(file: HistogramFile, folder: Path, figures: int = 12) -> float:
    """CPU time of our figures of some inputs over that of plain ones, made in turns."""
    jobs = [job for job in histogram_figures(file, folder, ["emu"], Style()) if job.about.kind == "inputs"][:figures]
    seconds = {"ours": 0.0, "plain": 0.0}
    for turn, job in enumerate([jobs[0], *jobs]):  # the first pair fills caches
        start = time.process_time()
        job.ready().run()
        middle = time.process_time()
        plain(file, job.about.variable)
        if turn:
            seconds["ours"] += middle - start
            seconds["plain"] += time.process_time() - middle
    return seconds["ours"] / seconds["plain"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variations", type=int, default=10)
    file = made_up(parser.parse_args().variations)
    content = sum(h.view(flow=True).nbytes for h in file.histograms.values()) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratio = cost_of_one(file, folder / "one")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        jobs = list(islice(histogram_figures(file, folder, ["emu", "dy"], Style()), FIGURES))
        start = time.perf_counter()
        paths = draw_all(jobs, WORKERS, lambda: None)
        seconds = time.perf_counter() - start
        found = sum(path.is_file() and path.with_suffix(".pdf").is_file() for path in paths)
    assert found == FIGURES
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{FIGURES} figures, {WORKERS} processes: {seconds:.1f} s; one costs {ratio:.2f} of a plain one (CPU)")
    print(f"histograms {content:.0f} MB; this process {before / 1e3:.0f} MB before, {after / 1e3:.0f} MB after")
    figures = {
        "seconds_300_plots": seconds,
        "figure_over_plain": ratio,
        "worker_rss_gb": worker / 1024**2,
        "rss_growth_gb": (after - before) / 1024**2,
        "histograms_gb": content / 1e3,
    }
    print(json.dumps({"name": "plots", "figures": figures}))


if __name__ == "__main__":
    main()
