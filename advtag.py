"""The command line: one short function per verb, no logic of its own.

Rooms are imported inside the verbs, so that `advtag --help` does not wait for torch.
"""

import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from common.errors import AdvtagError

app = typer.Typer(
    help="Adversarial robustness of jet taggers, from NanoAOD to data/MC plots.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="Analysis in YAML", metavar="CONFIG")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value, on top of the file")]
Executor = Annotated[str | None, typer.Option(help="iterative, futures or dask")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port")]
Cluster = Annotated[str | None, typer.Option(help="local, htcondor, lxplus, lpc, slurm, or a profile of your own")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes, or batch jobs")]
Chunksize = Annotated[int | None, typer.Option(min=1, help="Events per chunk, at most")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished job of this configuration")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Write the output although events are missing")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop")]
Progress = Annotated[bool, typer.Option(help="Show progress bars")]
Site = Annotated[str, typer.Option(help="cern, desy, lpc, generic, slurm, local, or a YAML file of your own")]
SiteOrNone = Annotated[str | None, typer.Option("--site", help="As of `advtag submit`; implies --executor condor")]
Option = Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the site, such as memory=8GB; may be repeated")]
JobName = Annotated[str | None, typer.Option(help="Of the submission; VERB-1, VERB-2 ... if not given")]
FilesPerJob = Annotated[int, typer.Option(min=1, help="Of --executor condor")]
ExecutorOrCondor = Annotated[str | None, typer.Option(help="iterative, futures, dask, or condor: batch jobs at --site")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Submit although no machine meets the request now")]


def _analysis(config: Path, overrides: list[str] | None, dry_run: bool = False, **run: Any) -> Any:
    from configs.load import load_analysis

    cluster = run.pop("cluster", None)
    options = [f"run.{key}={value}" for key, value in run.items() if value is not None]
    if (cluster or run.get("scheduler")) and run.get("executor") is None:
        options.append("run.executor=dask")
    if cluster is not None:  # first, so that run.cluster.KEY=VALUE lies on top of it
        overrides = [f"run.cluster={cluster}", "run.scheduler=null", *(overrides or ())]
    elif run.get("scheduler") is not None:
        options.append("run.cluster=null")
    analysis = load_analysis(config, [*(overrides or ()), *options])
    if dry_run:
        import yaml

        typer.echo(yaml.safe_dump(analysis.model_dump(mode="json"), sort_keys=False))
        raise typer.Exit
    if "executor" in run:
        _say_where(analysis)
    return analysis


def _say_where(analysis: Any) -> None:
    """Before a job: the cluster, and a grid proxy that will not do."""
    if analysis.run.executor == "dask" and analysis.run.cluster is not None:
        from rich.console import Console

        from processors.clusters import cluster_table

        Console(stderr=True).print(cluster_table(analysis.run.cluster))
    _warn_of_proxy(file for dataset in analysis.datasets.values() for file in dataset.files)


def _warn_of_proxy(files: Iterable[str]) -> None:
    from processors.proxy import proxy_problem

    problem = proxy_problem(files)
    if problem is not None:
        typer.echo(f"advtag: warning: {problem}", err=True)


def _refuse_workers(executor: str | None, *others: object) -> None:
    """Batch jobs have no workers to be told of."""
    if executor not in (None, "condor") or any(others):
        raise AdvtagError(
            "--site, --executor condor: batch jobs take --option, not another executor, --scheduler, --cluster, "
            "--workers, --resume or --allow-missing; `advtag jobs --resubmit` and `advtag collect` go on with them"
        )


def _submit_parts(analysis: Any, verb: Any, jobs: Any, anyway: bool, dry_run: bool, progress: bool) -> str:
    """The files of a processor as batch jobs, which go on when this process has ended."""
    from condor.process import submit_parts
    from configs.sites import load_site
    from processors.parts import expected, parts_of
    from processors.proxy import find_proxy

    site, options, files_per_job, name = jobs
    where = load_site(site, options)
    parts = parts_of(analysis, verb, files_per_job, progress=progress)
    _warn_of_proxy(place for part in parts for place in part.files)
    known = {"proxy": find_proxy() is not None, "anyway": anyway, "dry_run": dry_run}
    return submit_parts(analysis, verb, parts, expected(parts), site, where, name, **known)


def _list_samples(wanted: bool) -> None:
    if not wanted:
        return
    from simulation.processes import PROCESSES
    from simulation.variants import VARIANTS

    for title, things in (("Processes", PROCESSES), ("Variants", VARIANTS)):
        typer.echo(f"{title}:")
        for name, thing in things.items():
            typer.echo(f"  {name:22} {thing.summary}")
    raise typer.Exit


@app.command()
def simulate(
    process: Annotated[str, typer.Option(help="ttbar, ttbar-dilepton, ttbar-semilepton, qcd, qcd-bb, wc or z-jets")],
    events: Annotated[int, typer.Option(min=1)],
    output: Annotated[
        Path, typer.Option(help="Folder for the ROOT files and, in generator/, the generated events")
    ] = Path("simulated"),
    variant: Annotated[str, typer.Option(help="mc, data (hidden, without truth), or one change, see --list")] = "mc",
    seed: int = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes")] = 2,
    constituents: Annotated[
        bool, typer.Option("--constituents", help="PFCands, JetPFCands, SV and JetSVs, too")
    ] = False,
    undefined_memory: Annotated[
        bool, typer.Option("--undefined-memory", help="Leave undefined memory in absent slots, as real PFNano does")
    ] = False,
    listing: Annotated[  # noqa: ARG001 - acts in its callback
        bool, typer.Option("--list", callback=_list_samples, is_eager=True, help="Describe processes and variants")
    ] = False,
    progress: Progress = True,
) -> None:
    """Make NanoAOD-like files with Pythia 8 and FastJet.

    Variants of the detector share the generated events of a process and seed in the same output folder.

    Example: advtag simulate --process ttbar --events 2000 --variant data
    """
    from simulation.detector.reconstruct import Content
    from simulation.run import simulate as run_simulation

    content = Content(constituents, undefined_memory)
    for path in run_simulation(
        process, events, output, variant=variant, seed=seed, workers=workers, content=content, progress=progress
    ):
        typer.echo(path)


@app.command()
def fileset(
    config: Annotated[Path | None, typer.Argument(help="Analysis in YAML, whose datasets are looked into")] = None,
    overrides: Overrides = None,
    mc: Annotated[list[str] | None, typer.Option(help="NAME=FILES, another MC dataset; may be repeated")] = None,
    data: Annotated[list[str] | None, typer.Option(help="NAME=FILES, another dataset of data; may be repeated")] = None,
    cross_section: Annotated[list[str] | None, typer.Option(help="NAME=PB, of one of --mc")] = None,
    era: Annotated[list[str] | None, typer.Option(help="NAME=ERA, of one of --mc or --data")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON; fileset.json in the output folder if not given")] = None,
    check: Annotated[bool, typer.Option("--check", help="Open files that are known and look unchanged, too")] = False,
    executor: Executor = None,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    workers: Workers = None,
    chunksize: Chunksize = None,
    progress: Progress = True,
) -> None:
    """Look into every file once and write a fileset of coffea, that later jobs trust: `fileset: fileset.json`.

    FILES: a path, glob, folder, text list, root:// URL, name of a CMS dataset or /store/...; see docs/filesets.md.

    Example: advtag fileset --mc "ttbar=root://eospublic.cern.ch//eos/mine/ttbar" --cross-section ttbar=923.6
    """
    from processors.write_fileset import added_datasets, make_fileset

    added = added_datasets(mc or (), data or (), cross_section or (), era or ())
    options: dict[str, Any] = {"executor": executor, "scheduler": scheduler, "cluster": cluster, "workers": workers}
    if config is None and any(options.values()):
        raise AdvtagError(
            "--executor, --scheduler, --cluster and --workers need a CONFIG; without, threads open the files"
        )
    analysis = None if config is None else _analysis(config, overrides, chunksize=chunksize, **options)
    typer.echo(make_fileset(analysis, added, output, chunksize=chunksize, check=check, progress=progress))


@app.command()
def columns(
    config: Config,
    overrides: Overrides = None,
    executor: ExecutorOrCondor = None,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    workers: Workers = None,
    chunksize: Chunksize = None,
    resume: Resume = False,
    allow_missing: AllowMissing = False,
    site: SiteOrNone = None,
    option: Option = None,
    files_per_job: FilesPerJob = 10,
    name: JobName = None,
    anyway: Anyway = False,
    dry_run: DryRun = False,
    progress: Progress = True,
) -> None:
    """Scan NanoAOD and write Parquet columns to train on.

    Example: advtag columns demo.yaml --executor dask --workers 2
    """
    if executor == "condor" or site is not None:
        _refuse_workers(executor, scheduler, cluster, workers, resume, allow_missing)
        jobs = (site or "generic", option or (), files_per_job, name)
        analysis = _analysis(config, overrides, chunksize=chunksize)
        typer.echo(_submit_parts(analysis, "columns", jobs, anyway, dry_run, progress))
        return
    from processors.jobs import make_columns

    run: dict[str, Any] = {"scheduler": scheduler, "cluster": cluster, "workers": workers, "chunksize": chunksize}
    run |= {"resume": resume or None, "allow_missing": allow_missing or None}
    analysis = _analysis(config, overrides, dry_run, executor=executor, **run)
    typer.echo(make_columns(analysis, progress=progress))


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, whatever checkpoints there are")] = False,
    exit_after: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes; then save and leave with exit code 85, to be started again by HTCondor"),
    ] = None,
    dry_run: DryRun = False,
    progress: Progress = True,
) -> None:
    """Train the configured taggers, on a GPU if there is one; an interrupted training goes on where it stopped.

    SIGTERM saves and leaves (exit code 143, with --exit-after 85). Under torchrun all processes train together.

    Example: advtag train demo.yaml training.nominal.epochs=10
    """
    from training.train import train_all

    analysis = _analysis(config, overrides, dry_run)
    for path in train_all(analysis, restart=restart, minutes=exit_after, progress=progress):
        typer.echo(path)


@app.command()
def scan(
    config: Config,
    training: Annotated[str, typer.Argument(help="Training of the configuration whose settings hold", metavar="NAME")],
    overrides: Overrides = None,
    inputs: Annotated[list[int] | None, typer.Option(help="Number of inputs; may be repeated")] = None,
    progress: Progress = True,
) -> None:
    """Train on growing sets of inputs: how vulnerability grows with their number.

    Example: advtag scan demo.yaml nominal training.nominal.epochs=5
    """
    from training.scan import scan as run_scan

    typer.echo(run_scan(_analysis(config, overrides), training, inputs, progress=progress))


@app.command()
def export(
    tagger: Annotated[Path, typer.Argument(help="Tagger file of `advtag train`", metavar="TAGGER")],
    output: Annotated[Path | None, typer.Option(help="ONNX file; TAGGER.onnx if not given")] = None,
) -> None:
    """Write a tagger as ONNX, physical inputs in, and check it with onnxruntime.

    Example: advtag export output/taggers/nominal.safetensors
    """
    from models.onnx import export_onnx
    from models.tagger import load_tagger

    path = tagger.with_suffix(".onnx") if output is None else output
    export_onnx(load_tagger(tagger), path)
    typer.echo(path)


@app.command()
def evaluate(
    tagger: Annotated[Path, typer.Argument(help="Tagger file of `advtag train`", metavar="TAGGER")],
    columns: Annotated[Path, typer.Argument(help="Folder of `advtag columns`; the test split is used")],
    output: Annotated[Path | None, typer.Option(help="Folder of the results; TAGGER.evaluation if not given")] = None,
    suite: Annotated[
        Literal["quick", "standard", "full"], typer.Option(help="Which attacks, on how many jets")
    ] = "standard",
    epsilon: Annotated[float, typer.Option(min=0, help="Size of the attacks in units of the scale")] = 0.05,
    scale: Annotated[
        str, typer.Option(help="std, core, quantile, or a YAML table of uncertainties (see `advtag envelope`)")
    ] = "std",
    capped: Annotated[bool, typer.Option(help="Apply the relative caps of the feature card")] = True,
    jets: Annotated[
        int | None, typer.Option(min=1, help="Jets of the test split; as many as the suite asks for if not given")
    ] = None,
    transfer: Annotated[
        list[Path] | None, typer.Option(help="Another tagger, whose examples this one is shown; may be repeated")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    progress: Progress = True,
) -> None:
    """Attack a tagger with every attack of a suite, take the worst for each jet, and check for gradient masking.

    Results: evaluation.json, jets.parquet and a table. A killed run goes on where it stopped.

    Example: advtag evaluate output/taggers/nominal.safetensors output/columns --suite quick
    """
    from rich.console import Console

    from training.evaluate import Evaluation, check_table, table
    from training.evaluate import evaluate as run_suite

    folder = tagger.with_suffix(".evaluation") if output is None else output
    settings = Evaluation(suite, epsilon, scale, capped, seed, jets)
    result = run_suite(tagger, columns, folder, settings, transfer or [], progress=progress)
    console = Console()
    console.print(table(result))
    console.print(check_table(result))
    typer.echo(folder)


@app.command()
def inspect(
    config: Config,
    overrides: Overrides = None,
    jets: Annotated[int, typer.Option(min=1, help="Jets of the test split, at most")] = 20_000,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Whose shifts by flavour are looked at; may be repeated")
    ] = None,
    progress: Progress = True,
) -> None:
    """Look at jets under the attacks: distances, correlations, confusion, shifts by flavour, the loss around them.

    Tables go to inspection/inspection.json in the output folder; `advtag plot` draws them.

    Example: advtag inspect demo.yaml --jets 5000 --input trackSip2dSig_0
    """
    from training.inspection import inspect as run_inspection

    typer.echo(run_inspection(_analysis(config, overrides), jets=jets, inputs=inputs or (), progress=progress))


@app.command()
def detect(
    columns: Annotated[Path, typer.Argument(help="Folder of `advtag columns`")],
    taggers: Annotated[list[Path], typer.Argument(help="Tagger files; two or more for cross-run figures")],
    attack: Annotated[str, typer.Option(help="A preset, see configs/presets.yaml")] = "conserv2026",
    jets: Annotated[int, typer.Option(min=1, help="Jets to train on, and to test on")] = 10_000,
    output: Annotated[Path, typer.Option(help="JSON file of the results")] = Path("detector.json"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a detector of fooled jets for each tagger, and test it on its own and the others' fooled jets.

    Example: advtag detect output/columns output/taggers/nominal.safetensors output/taggers/adversarial.safetensors
    """
    from training.detector import detect as run_study

    for line in run_study(columns, taggers, attack, jets, output, seed):
        typer.echo(line)


@app.command()
def envelope(
    histograms: Annotated[Path, typer.Argument(help="Folder of `advtag histograms`, or one of its files")],
    region: Annotated[str, typer.Option(help="Control region with data")],
    output: Annotated[Path, typer.Option(help="YAML table")] = Path("uncertainties.yaml"),
) -> None:
    """Derive uncertainties from data/MC: how far each input may be shifted before the control region notices.

    Example: advtag envelope output/histograms --region emu
    """
    from attacks.envelope import write_envelope

    typer.echo(write_envelope(histograms, region, output))


@app.command()
def histograms(
    config: Config,
    overrides: Overrides = None,
    executor: ExecutorOrCondor = None,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    workers: Workers = None,
    chunksize: Chunksize = None,
    resume: Resume = False,
    allow_missing: AllowMissing = False,
    site: SiteOrNone = None,
    option: Option = None,
    files_per_job: FilesPerJob = 10,
    name: JobName = None,
    anyway: Anyway = False,
    dry_run: DryRun = False,
    progress: Progress = True,
) -> None:
    """Evaluate nominal and attacked taggers on NanoAOD and fill histograms.

    Example: advtag histograms demo.yaml --executor dask --scheduler tcp://127.0.0.1:8786
    """
    if executor == "condor" or site is not None:
        _refuse_workers(executor, scheduler, cluster, workers, resume, allow_missing)
        jobs = (site or "generic", option or (), files_per_job, name)
        analysis = _analysis(config, overrides, chunksize=chunksize)
        typer.echo(_submit_parts(analysis, "histograms", jobs, anyway, dry_run, progress))
        return
    from processors.jobs import make_histograms

    run: dict[str, Any] = {"scheduler": scheduler, "cluster": cluster, "workers": workers, "chunksize": chunksize}
    run |= {"resume": resume or None, "allow_missing": allow_missing or None}
    analysis = _analysis(config, overrides, dry_run, executor=executor, **run)
    typer.echo(make_histograms(analysis, progress=progress))


@app.command()
def skim(
    config: Config,
    overrides: Overrides = None,
    executor: Executor = None,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    workers: Workers = None,
    chunksize: Chunksize = None,
    resume: Resume = False,
    allow_missing: AllowMissing = False,
    dry_run: DryRun = False,
    progress: Progress = True,
) -> None:
    """Write the events that pass any of some regions, with chosen branches, to ROOT files that normalise as before.

    Example: advtag skim demo.yaml "skim={datasets: [ttbar], regions: [emu], keep: ['Jet_*', 'Muon_*']}"
    """
    from processors.skim import make_skim

    run: dict[str, Any] = {"scheduler": scheduler, "cluster": cluster, "workers": workers, "chunksize": chunksize}
    run |= {"resume": resume or None, "allow_missing": allow_missing or None}
    analysis = _analysis(config, overrides, dry_run, executor=executor, **run)
    typer.echo(make_skim(analysis, progress=progress))


@app.command()
def merge(
    histograms: Annotated[list[Path], typer.Argument(help="Histogram files, or folders of them")],
    output: Annotated[Path, typer.Option(help="Folder for the merged files, one for each dataset")],
    allow_missing: AllowMissing = False,
) -> None:
    """Add up histograms that were made apart, after checking that every event is in exactly one of them.

    Example: advtag merge run1/histograms run2/histograms --output output/histograms
    """
    from processors.merge import merge as merge_histograms

    typer.echo(merge_histograms(histograms, output, allow_missing=allow_missing))


@app.command()
def shapes(
    histograms: Annotated[Path, typer.Argument(help="Folder of `advtag histograms`, or one of its files")],
    region: Annotated[list[str], typer.Option(help="May be repeated; a channel is a region and a variable")],
    variable: Annotated[list[str], typer.Option(help="Input or discriminator; may be repeated")],
    output: Annotated[Path, typer.Option(help="ROOT file; the datacard goes beside it")] = Path("shapes.root"),
    tagger: Annotated[str | None, typer.Option(help="Needed if there are several")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="As a systematic uncertainty; may be repeated")] = None,
    flavours: Annotated[bool, typer.Option("--flavours", help="One process for each dataset and flavour")] = False,
    bins: Annotated[
        int | None, typer.Option(min=1, help="Merge into this many; discriminators into 20 if not given")
    ] = None,
    luminosity: Annotated[
        float | None, typer.Option(min=0, help="1/pb; the one of the configuration if not given")
    ] = None,
) -> None:
    """Write histograms as templates for CMS combine: a ROOT file, and the skeleton of a datacard.

    Example: advtag shapes output/histograms --region emu --variable BvsL --tagger nominal --attack fgsm
    """
    from processors.shapes import Wanted, write_shapes

    wanted = Wanted(tagger, attack or (), flavours, bins)
    typer.echo(write_shapes(histograms, output, region, variable, wanted, luminosity))


@app.command()
def plot(
    config: Config,
    overrides: Overrides = None,
    only: Annotated[
        str | None, typer.Option(help="Regular expression: figures whose name (with a slash: folder/name) it matches")
    ] = None,
    region: Annotated[list[str] | None, typer.Option(help="Only this one, or a pattern; may be repeated")] = None,
    area: Annotated[bool, typer.Option("--area", help="Scale the MC of each data/MC plot to the area of data")] = False,
    rebin: Annotated[int, typer.Option(min=1, help="Merge so many bins, where that divides their number")] = 1,
    yscale: Annotated[
        Literal["auto", "linear", "log", "both"], typer.Option(help="Of the y axis; both: two figures, X and X_log")
    ] = "auto",
    by: Annotated[
        Literal["flavour", "process"], typer.Option(help="What is stacked in data/MC plots of all variables")
    ] = "flavour",
    progress: Progress = True,
) -> None:
    """Draw data/MC, distorted shapes, ROC curves, and how trainings went; what there is nothing for is left out.

    Example: advtag plot demo.yaml --region "emu*" --only "BvsL|^pt$" --area --yscale log
    """
    from plots.analysis import draw
    from plots.figures import Style

    style = Style(area=area, rebin=rebin, yscale=yscale, by=by)
    typer.echo(draw(_analysis(config, overrides), only=only, regions=region, style=style, progress=progress))


@app.command()
def report(config: Config, overrides: Overrides = None) -> None:
    """Put the figures and tables of `advtag plot` into one page, plots/report.html, to open in a browser.

    Example: advtag report demo.yaml
    """
    from plots.analysis import report as write_report

    typer.echo(write_report(_analysis(config, overrides)))


@app.command()
def study(config: Config, overrides: Overrides = None, dry_run: DryRun = False, progress: Progress = True) -> None:
    """Hidden mismodelling: are scale factors of robust taggers closer to 1? On simulated data whose truth is known.

    CONFIG has keys of its own, see configs/study.yaml and docs/study.md. An interrupted study goes on where it stopped.

    Example: advtag study study.yaml bootstrap=50
    """
    import yaml

    from configs.study import load_study
    from study.run import run_study

    settings = load_study(config, overrides or ())
    if dry_run:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        raise typer.Exit
    typer.echo(run_study(settings, progress=progress))


@app.command()
def submit(
    what: Annotated[Literal["train"], typer.Argument(help="What the jobs do", metavar="train")],  # noqa: ARG001
    config: Config,
    overrides: Overrides = None,
    site: Site = "generic",
    option: Option = None,
    training: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated")] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0-4 or 1,3,7: a job for each")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Of cross-validation: a job for each")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE,VALUE", help="A job for each value; `training.KEY` is of any training"
        ),
    ] = None,
    evaluate: Annotated[
        Literal["quick", "standard", "full"] | None,
        typer.Option(help="One more job, behind all: attacks on all taggers"),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="root://host//path of a copy of output/columns")] = None,
    name: JobName = None,
    anyway: Anyway = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job files and stop")] = False,
) -> None:
    """Train as batch jobs: one for each training, seed, fold and setting. Evicted ones go on from their checkpoints.

    Example: advtag submit train demo.yaml --site cern --option image=/cvmfs/my/image --seeds 0-4 --folds 5
    """
    from condor.sweep import numbers
    from condor.train import Sweep, submit_training
    from configs.sites import load_site
    from processors.proxy import find_proxy

    chosen = numbers(seeds) if seeds is not None else ()
    proxy = find_proxy() is not None
    sweep = Sweep(tuple(training or ()), tuple(chosen), folds, tuple(settings or ()), evaluate, columns, proxy)
    _warn_of_proxy([columns] if columns else [])
    where = load_site(site, option or ())
    typer.echo(submit_training(config, overrides or (), site, where, sweep, name, anyway=anyway, dry_run=dry_run))


@app.command()
def jobs(
    place: Annotated[Path, typer.Argument(help="OUTPUT/jobs/NAME, or an output folder for all in it")],
    logs: Annotated[bool, typer.Option("--logs", help="Print the last lines of each job")] = False,
    job: Annotated[str | None, typer.Option(help="Only the logs of this one")] = None,
    resubmit: Annotated[bool, typer.Option("--resubmit", help="Submit again what ended without a result")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take all out of the queue")] = False,
) -> None:
    """Say how batch jobs are: waiting, running and how far, held and why, done.

    Example: advtag jobs output/jobs/train-1 --logs
    """
    from rich.console import Console

    from condor import again, status
    from condor.ledger import find_submissions, read_ledger

    folders = find_submissions(place)
    if len(folders) > 1 and (logs or job or resubmit or remove):
        raise AdvtagError(f"{place}: holds {len(folders)} submissions; name one: {', '.join(map(str, folders))}")
    for folder in folders:
        ledger = read_ledger(folder)
        if remove:
            again.remove(folder, ledger)
        elif resubmit:
            typer.echo(again.resubmit(folder, ledger))
        elif logs or job:
            typer.echo(again.logs(folder, ledger, job))
        else:
            status.show(Console(), folder, ledger)


@app.command()
def collect(
    folder: Annotated[Path, typer.Argument(help="OUTPUT/jobs/NAME")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Collect although jobs have no result; they are listed")
    ] = False,
) -> None:
    """Gather what batch jobs made: taggers, metrics and logs; or the parts of columns or histograms, as one.

    Example: advtag collect output/jobs/train-1
    """
    from rich.console import Console

    from condor.collect import collect_training, done_parts, read_spread
    from condor.ledger import read_ledger

    ledger = read_ledger(folder)
    if ledger.verb == "train":
        target, missing = collect_training(folder, ledger, allow_missing=allow_missing)
        Console(stderr=True).print(read_spread(target))
    else:
        from processors.parts import put_together

        outputs, missing = done_parts(folder, ledger, allow_missing=allow_missing)
        output = folder.resolve().parents[1]
        target = put_together(ledger.verb, outputs, output, ledger.expected, allow_missing=allow_missing)
    for line in missing:
        typer.echo(f"advtag: missing: {line}", err=True)
    typer.echo(target)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of everything the demo makes")] = Path("demo-output"),
    events: Annotated[int, typer.Option(min=500, help="Simulated events, MC and data together")] = 20_000,
    executor: Annotated[str, typer.Option(help="iterative, futures or dask")] = "dask",
    workers: Annotated[int, typer.Option(min=1)] = 2,
    progress: Progress = True,
) -> None:
    """Simulate, make columns, train, fill, plot and report: the whole way on simulated events.

    Example: advtag demo --events 5000
    """
    from demo import run_demo

    run_demo(output, events, executor=executor, workers=workers, progress=progress)


def main() -> None:
    """Run the command line; an error of the user's is one line on stderr and exit code 1."""
    # batch systems end a job with SIGTERM: leave through the same doors as on Ctrl-C, and nothing half-written stays
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except AdvtagError as error:
        typer.echo(f"advtag: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
