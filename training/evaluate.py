"""How robust is a tagger? Every attack of a suite on the jets of the test split, and the worst of them for each jet.

advtag evaluate TAGGER COLUMNS
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.success import is_right
from common.files import whole_file
from common.progress import progress_bar
from common.provenance import provenance
from models.discriminators import discriminators
from models.tagger import Tagger
from training.bench import Bench, Outcome, load_taggers
from training.columns import Sample, read_splits, some_jets
from training.masking import Check, attack_checks, network_checks, verdict
from training.suite import CHECK_JETS, EPSILONS, JETS, Entry, SuiteName, suite

FEWEST_JETS = 500
"""Of which a fooling ratio or an AUC says something."""


@dataclass(frozen=True)
class Evaluation:
    """What to run."""

    suite: SuiteName = "standard"
    epsilon: float = 0.05
    scale: str | Path = "std"
    """Unit of epsilon, or a table of uncertainties."""
    capped: bool = True
    seed: int = 0
    jets: int | None = None
    """Jets of the test split; None: as many as the suite asks for."""


def evaluate(
    tagger_file: Path,
    columns: Path,
    output: Path,
    settings: Evaluation,
    others: list[Path],
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Run a suite; write `evaluation.json` and `jets.parquet` into `output`, and return the content of the former.

    Each finished run is kept in `output/runs`, with a hash of all it depends on: after a kill, the same call goes on
    where it stopped.

    Args:
        tagger_file: the tagger
        columns: folder of `advtag columns`; the test split is used
        output: folder
        settings: suite and budget
        others: further taggers, on which examples are made that this one is then shown (transfer)
        progress: show a progress bar

    Raises:
        AdvtagError: files that cannot be read or do not fit together, or a budget that does not fit the tagger
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples, classes, features = read_splits(columns, ("test",))
    (tagger,) = (tagger.to(device) for tagger in load_taggers([tagger_file], classes, features).values())
    makers = {name: maker.to(device) for name, maker in load_taggers(others, classes, features).items()}
    sample = some_jets(samples["test"], settings.jets or JETS[settings.suite]).to(device)
    bench = Bench(tagger, sample, output / "runs")
    entries = suite(
        settings.suite,
        len(tagger.classes),
        epsilon=settings.epsilon,
        scale=settings.scale,
        capped=settings.capped,
        seed=settings.seed,
    )
    runs = run_all(bench, entries, makers, progress)
    result: dict[str, Any] = {
        "tagger": str(tagger_file),
        "columns": str(columns),
        "settings": {**asdict(settings), "scale": str(settings.scale)},
        "versions": provenance(),
        "jets": len(sample),
        "working_point": asdict(bench.working_point),
        "clean": bench.clean,
        **records(runs, entries),
    }
    checks = [
        *network_checks(tagger, bench.inputs[:CHECK_JETS], bench.target[:CHECK_JETS]),
        *checks_of(bench, runs),
    ]
    result["checks"] = {check.name: asdict(check) for check in checks}
    enough = settings.epsilon > 0 and len(sample) >= FEWEST_JETS
    result["verdict"] = verdict(checks) if enough else f"nothing to judge: epsilon 0, or fewer than {FEWEST_JETS} jets"
    page = {key: result[key] for key in ("tagger", "columns", "settings", "versions")}
    write_jets(output / "jets.parquet", sample, bench, runs.worst, page)
    with whole_file(output / "evaluation.json") as aside:
        aside.write_text(json.dumps(result, indent=1, allow_nan=False), encoding="utf-8")
    return result


@dataclass(frozen=True)
class Runs:
    """What the runs of a suite did."""

    outcomes: dict[str, Outcome]
    transfers: dict[str, Outcome]
    worst: "WorstCase"
    """of all attacks"""
    within_budget: dict[str, Any]
    """record of the worst case without the attacks that move integers"""


def run_all(bench: Bench, entries: Mapping[str, Entry], makers: Mapping[str, Tagger], progress: bool) -> Runs:
    """Run a suite, then the examples of other taggers."""
    worst = WorstCase(bench)
    outcomes: dict[str, Outcome] = {}
    transfers: dict[str, Outcome] = {}
    with progress_bar("runs", show=progress) as bar:
        task = bar.add_task("evaluate", total=len(entries) + len(makers))
        for name, entry in entries.items():
            bar.update(task, description=name)
            outcomes[name] = bench.run(name, entry, worst.survivors if entry.survivors else None)
            if not (entry.check or entry.integers):
                worst.add(name, outcomes[name])
            bar.advance(task)
        within_budget = worst.record()
        for name in (name for name, entry in entries.items() if entry.integers):
            worst.add(name, outcomes[name])
        for name, maker in makers.items():
            bar.update(task, description=f"transfer from {name}")
            transfers[name] = bench.run(f"transfer-{name}", Entry(entries["pgd@1"].attack), maker=maker)
            bar.advance(task)
    return Runs(outcomes, transfers, worst, within_budget)


def records(runs: Runs, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Figures of the runs, for JSON."""
    integers = any(entry.integers for entry in entries.values())
    return {
        "attacks": {name: runs.outcomes[name].record for name, entry in entries.items() if not entry.check},
        "worst_case": runs.within_budget,
        "worst_case_with_integers": runs.worst.record() if integers else None,
        "transfer": {name: outcome.record for name, outcome in runs.transfers.items()},
    }


class WorstCase:
    """For each jet the worst example: one that fools the tagger before one that does not, then the highest loss."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.logits = bench.logits.clone()
        self.badness = self._badness(self.logits, bench.target)
        self.fooled_by = [""] * len(self.logits)
        self.first: dict[str, int] = {}
        self.standing = bench.right.clone()

    @property
    def survivors(self) -> Tensor:
        """Places of the jets that the tagger still is right about, int64."""
        return self.standing.nonzero().squeeze(1)

    def add(self, name: str, outcome: Outcome) -> None:
        """Take what an attack did to its jets."""
        jets = outcome.jets
        badness = self._badness(outcome.logits, self.bench.target[jets])
        worse = badness > self.badness[jets]
        self.logits[jets[worse]] = outcome.logits[worse]
        self.badness[jets[worse]] = badness[worse]
        wrong = ~is_right(outcome.logits, self.bench.target[jets], self.bench.tagger.classes)
        first = jets[self.standing[jets] & wrong]
        self.standing[first] = False
        self.first[name] = len(first)
        for place in first.tolist():
            self.fooled_by[place] = name

    def _badness(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy, and more than any cross entropy on top where the tagger is wrong; float64 [jets]."""
        loss = cross_entropy(logits.double(), target, reduction="none")
        return loss + 1e6 * (~is_right(logits, target, self.bench.tagger.classes))

    def record(self) -> dict[str, Any]:
        """Figures for JSON; `first_to_fool` counts jets by attack."""
        everyone = slice(None)
        return {
            "first_to_fool": dict(self.first),
            "fooled": self.bench.fooled(self.logits, everyone),
            "performance": self.bench.performance(self.logits, everyone),
        }


def checks_of(bench: Bench, runs: Runs) -> list[Check]:
    """The masking checks, each on the same `CHECK_JETS` jets."""
    some = slice(CHECK_JETS)

    def area(outcome: Outcome) -> float | None:
        found: float | None = bench.performance(outcome.logits[some], some)["BvsL"]["auc"]
        return found

    def fooled(outcome: Outcome) -> float | None:
        found: float | None = bench.fooled(outcome.logits[some], some)["argmax"]["all"]["ratio"]
        return found

    raw = Outcome(torch.arange(len(bench.target)), bench.logits, {})
    areas = {"raw": area(raw), **{name: area(runs.outcomes[name]) for name in ("noise", "fgsm", "pgd@1", "unbounded")}}
    return attack_checks(
        areas,
        {name: fooled(runs.outcomes[name]) for name in ("pgd", "pgd-restarts")},
        {name: area(outcome) for name, outcome in runs.transfers.items()},
        {factor: area(runs.outcomes[f"pgd@{factor:g}"]) for factor in EPSILONS},
        runs.worst.first["square"] / max(int(bench.right.sum()), 1),
    )


def write_jets(path: Path, sample: Sample, bench: Bench, worst: WorstCase, page: dict[str, Any]) -> None:
    """Per jet: who it is, its class, what the tagger says of it clean and in the worst case (integers and all), and
    what fooled it; `page`, what was run, goes into the metadata.
    """
    columns: dict[str, Any] = {
        "key": sample.inputs.key.cpu().numpy(),
        "target": sample.target.cpu().numpy().astype("int8"),
        "pt": sample.pt.cpu().numpy(),
        "eta": sample.eta.cpu().numpy(),
        "weight": bench.weight.cpu().numpy(),
        "right": bench.right.cpu().numpy(),
        "fooled_by": pa.array(worst.fooled_by).dictionary_encode(),
    }
    for name, logits in (("clean", bench.logits), ("worst", worst.logits)):
        scores = discriminators(logits.softmax(1), bench.tagger.classes)
        columns |= {f"{score}_{name}": values.cpu().numpy() for score, values in scores.items()}
    with whole_file(path) as aside:
        table = pa.table(columns).replace_schema_metadata({"advtag": json.dumps(page)})
        pq.write_table(table, aside, compression="zstd")


def table(result: dict[str, Any]) -> Table:
    """What each attack did, one row each, the worst case last; for a terminal."""
    found = Table(
        title=f"{result['jets']} jets, epsilon {result['settings']['epsilon']:g} {result['settings']['scale']}",
        caption="fooled: of those that are right when clean; WP: the same at the working point of 1 % mistag; AUC and "
        "what it lost: BvsL, and what CvsL lost; JS, corr: largest distance of an input, change of correlations; "
        "first: jets it fooled first. apgd and square see survivors only; epsilon does not bound the integers of pip",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in ("attack", "fooled", "WP", "AUC", "lost", "CvsL", "JS", "corr", "first"):
        found.add_column(heading, justify="left" if heading == "attack" else "right", no_wrap=True)
    found.add_row("clean", "", "", _number(result["clean"]["BvsL"]["auc"]))
    rows = {**result["attacks"], **{f"from {name}": record for name, record in result["transfer"].items()}}
    worst = {"worst case": result["worst_case"]}
    if result["worst_case_with_integers"]:
        worst["with integers"] = result["worst_case_with_integers"]
    first = (result["worst_case_with_integers"] or result["worst_case"])["first_to_fool"]
    for name, record in {**rows, **worst}.items():
        performance, moved = record.get("performance"), record.get("distances", {})
        lost = {score: figures["susceptibility"]["difference"] for score, figures in (performance or {}).items()}
        found.add_row(
            name,
            # of survivors only, a ratio would look weak beside the others
            *(
                "" if record.get("survivors") else _number(record["fooled"][kind]["all"]["ratio"], 3)
                for kind in ("argmax", "working_point")
            ),
            _number(performance["BvsL"]["auc"] if performance else None),
            _number(lost.get("BvsL"), 3),
            _number(lost.get("CvsL"), 3),
            _number(moved.get("js_max"), 3),
            _number(moved.get("correlation_change"), 3),
            str(first.get(name, "")),
        )
    return found


def check_table(result: dict[str, Any]) -> Table:
    """The masking checks, one row each, and the verdict."""
    found = Table(title="Masking checks", caption=result["verdict"], box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("check", "expected", "found", ""):
        found.add_column(heading)
    for check in result["checks"].values():
        sign = {True: "ok", False: "[bold red]failed", None: "not run"}[check["passed"]]
        found.add_row(check["name"], check["expected"], check["found"], sign)
    return found


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
