"""The whole way on simulated events: simulate, columns, train, histograms, inspect, plot, report."""

import json
import time
from importlib.resources import as_file, files
from pathlib import Path

import typer
import yaml

from common.errors import AdvtagError
from common.files import cannot_write

TEMPLATE = files("configs") / "demo.yaml"
TRAIN, EVALUATE = 0.5, 0.25
"""Shares of the events: MC to train on, MC to plot; the rest is data."""


def run_demo(output: Path, events: int, *, executor: str, workers: int, progress: bool) -> Path:
    """Run every stage into `output`; return the report.

    Raises:
        AdvtagError: the folder holds something already, or a stage failed
    """
    from configs.load import load_analysis
    from plots.analysis import draw, report
    from processors.jobs import make_columns, make_histograms
    from training.inspection import inspect
    from training.train import train_all

    start = time.monotonic()

    def say(stage: str) -> None:
        typer.echo(f"[{time.monotonic() - start:5.0f} s] {stage}", err=True)

    if output.exists() and any(output.iterdir()):
        raise AdvtagError(f"{output}: not empty; choose another folder with --output, or delete it")
    overrides = [f"run.executor={executor}", f"run.workers={workers}"]
    with as_file(TEMPLATE) as template:
        load_analysis(template, overrides)  # a wrong option is told before the long simulation
    say(f"simulating {events} events")
    config = prepare(output, events, workers, progress=progress)
    analysis = load_analysis(config, overrides)
    say("columns")
    make_columns(analysis, progress=progress)
    say("training")
    train_all(analysis, progress=progress)
    say("histograms")
    make_histograms(analysis, progress=progress)
    say("inspection")
    inspect(analysis, progress=progress)
    say("plots")
    folder = draw(analysis, progress=progress)
    page = report(analysis)
    say("done. Open:")
    for path in (page, *sorted(folder.glob("*/BvsL.png")), *sorted(folder.glob("*/roc.png")), config):
        typer.echo(path.absolute())
    return page


def prepare(output: Path, events: int, workers: int, *, progress: bool) -> Path:
    """Simulate MC to train on, MC to plot, and data; write the configuration beside them and return its path."""
    from simulation.run import simulate

    folder = output / "simulation"
    shares = {("mc", 1): int(events * TRAIN), ("mc", 2): int(events * EVALUATE)}
    shares["data", 3] = events - sum(shares.values())
    made = {
        sample: simulate("ttbar", number, folder, variant=sample[0], seed=sample[1], workers=workers, progress=progress)
        for sample, number in shares.items()
    }
    config = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    # MC is normalised to the rate of the data, as CMS does with measured or higher-order cross-sections: those of
    # the two tunes differ by a tenth or more, which is not what this study is about
    rate = cross_section(made["mc", 1] + made["mc", 2])
    for name in ("ttbar_train", "ttbar"):
        config["datasets"][name]["cross_section"] = round(rate, 2)
    config["luminosity"] = round(shares["data", 3] / rate, 4)
    path = output / "demo.yaml"
    try:
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def cross_section(paths: list[Path]) -> float:
    """Cross-section of a simulated sample, pb: the average over its files, each weighted with its events."""
    pages = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in paths]
    weighted: float = sum(page["cross_section_pb"] * page["events"] for page in pages)
    events: int = sum(page["events"] for page in pages)
    return weighted / events
