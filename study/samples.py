"""The samples of a study: simulated where they are missing, and evaluated by the processors."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import AdvtagError
from common.files import whole_file
from configs.schema import Analysis
from configs.study import Study
from models.tagger import read_tagger
from processors.jobs import make_columns, make_histograms
from processors.store import digest
from simulation.run import simulate
from simulation.variants import get_variant

MC = "mc"
"""Name of the sample that the analysis calls simulation; those of data have the names of their variants."""
EVALUATED = "evaluated"
"""Folder of the evaluated samples in the output folder."""
MAX_PT = 1000.0
_LEPTON: dict[str, Any] = {"lepton_pt": 20, "muon_isolation": 0.15}
_SOFT: dict[str, Any] = {"soft_muon": {"pt": [0, 25], "isolation": 0.2, "id": None, "max_pt_ratio": 0.6}}
_MUON: dict[str, Any] = {**_LEPTON, "muons": 1, "electrons": 0}
_ELECTRON: dict[str, Any] = {**_LEPTON, "muons": 0, "electrons": 1}
REGIONS: dict[str, dict[str, Any]] = {
    "jets": {},
    "emu": {
        **_LEPTON,
        "electrons": 1,
        "muons": 1,
        "opposite_sign": True,
        "mass": [12, 1e4],
        "min_jets": 2,
        "max_jets": 3,
    },
    "w_mu": _MUON,
    "w_e": _ELECTRON,
    "wc_mu": {**_MUON, **_SOFT, "os_minus_ss": True},
    "wc_e": {**_ELECTRON, **_SOFT, "os_minus_ss": True},
}
"""Selections of the measurements, after the regions of docs/regions.md: e mu ttbar with two or three jets (BTV-16-002),
a W and a jet with or without a soft muon, opposite minus same sign (BTV-20-001), and all jets. Simulated files have no
identification, filters or electron trigger."""
CONTROL = {"ttbar-dilepton": "emu", "wc": "w_mu", "qcd": "jets"}
"""Region of each process in which data/MC must not show an attack."""


def make_samples(study: Study, *, progress: bool = True) -> dict[str, dict[str, list[Path]]]:
    """Simulate what is missing; return the files by sample and process. `train` is one of the samples, if given.

    Raises:
        AdvtagError: files of another number of events are in the folder, or the simulation failed
    """
    show, workers, folder = progress, study.workers, study.simulation
    found = {
        MC: {
            process: sample_files(folder, (process, "mc", study.mc.seed), events, workers, progress=show)
            for process, events in study.mc.events.items()
        }
    }
    for variant in study.variants:
        found[data_name(variant)] = {
            process: sample_files(
                folder, (process, variant, study.data.seed), events, workers, hidden=True, progress=show
            )
            for process, events in study.data.events.items()
        }
    if study.train is not None:
        found["train"] = {
            process: sample_files(folder, (process, "mc", study.train.seed), events, workers, progress=show)
            for process, events in study.train.events.items()
        }
    return found


def data_name(variant: str) -> str:
    """Name of the sample that is data of this variant."""
    return f"data-{variant}"


def sample_files(
    folder: Path,
    sample: tuple[str, str, int],
    events: int,
    workers: int,
    *,
    hidden: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Files of (process, variant, seed), which are simulated if there are none; `hidden` as in `simulate`.

    A new sample is one file, which is whole or not there: an interrupted study begins it again, from the generated
    events that are there.

    Raises:
        AdvtagError: there are files, of another number of events
    """
    process, variant, seed = sample
    kind = "-hidden" if hidden and not get_variant(variant).is_data else ""
    paths = sorted(folder.glob(f"{process}_{variant}{kind}_{seed}_[0-9][0-9][0-9].root"))
    if not paths:
        options: dict[str, Any] = {"variant": variant, "seed": seed, "workers": workers, "events_per_file": events}
        return simulate(process, events, folder, **options, hidden=hidden, progress=progress)
    found = sum(_page(path)["events"] for path in paths)
    if found != events:
        raise AdvtagError(
            f"{paths[0].parent}: {len(paths)} files of {process} {variant} {seed} with {found} events, the study wants "
            f"{events}; give the key `events` this number, choose another seed, or delete the files"
        )
    return paths


def _page(path: Path) -> dict[str, Any]:
    page = path.with_suffix(".json")
    try:
        read: dict[str, Any] = json.loads(page.read_text(encoding="utf-8"))
        return {"events": int(read["events"]), **read}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdvtagError(f"{page}: not what `advtag simulate` writes ({error}); delete the sample's files") from error


def cross_section(paths: Iterable[Path]) -> float:
    """Cross-section of simulated files, pb, averaged over their events."""
    pages = [_page(path) for path in paths]
    weighted: float = sum(page["cross_section_pb"] * page["events"] for page in pages)
    events: int = sum(page["events"] for page in pages)
    return weighted / events


def training_analysis(study: Study, files: dict[str, list[Path]]) -> Analysis:
    """The analysis that trains the study's taggers."""
    return Analysis.model_validate(
        {
            **_common(study, study.output / "training"),
            "datasets": _datasets(files, data=False),
            "columns": {"datasets": list(files), "split": {"train": 0.85, "validation": 0.1}},
            "attacks": {name: attack.model_dump(mode="json") for name, attack in study.attacks.items()},
            "training": {name: recipe.model_dump(mode="json") for name, recipe in study.training.items()},
        }
    )


def evaluation_analysis(study: Study, sample: str, files: dict[str, list[Path]], taggers: dict[str, Path]) -> Analysis:
    """The analysis that evaluates one sample: everything but `mc` is data to it, whose truth it cannot read."""
    data = sample != MC
    return Analysis.model_validate(
        {
            **_common(study, study.output / EVALUATED / sample),
            "datasets": _datasets(files, data=data),
            "selection": {"pt": [study.jet_pt, MAX_PT]},
            "columns": {"datasets": list(files)},
            "attacks": {name: study.attacks[name].model_dump(mode="json") for name in study.evaluate_with},
            "histograms": {
                "datasets": list(files),
                "taggers": {name: str(path) for name, path in taggers.items()},
                "attacks": [] if data else list(study.evaluate_with),
                "regions": REGIONS,
                "scores": True,
                # an attack that is invisible in each input may show in their correlations
                "correlations": not data,
            },
        }
    )


def _common(study: Study, output: Path) -> dict[str, Any]:
    return {
        "name": study.name,
        "output": str(output),
        "features": study.features,
        "label": study.label,
        "run": {"workers": study.workers, "executor": "futures" if study.workers > 1 else "iterative", "device": "cpu"},
    }


def _datasets(files: dict[str, list[Path]], *, data: bool) -> dict[str, dict[str, Any]]:
    return {
        process: {
            "files": [str(path) for path in paths],
            **({"data": True} if data else {"cross_section": cross_section(paths)}),
        }
        for process, paths in files.items()
    }


def evaluate_sample(analysis: Analysis, *, progress: bool = True) -> Path:
    """Make columns and scores of a sample, unless they are there already; return their folder.

    Raises:
        AdvtagError: see the processors
    """
    assert analysis.histograms is not None  # noqa: S101 - for the type checker
    taggers = [read_tagger(path) for path in analysis.histograms.taggers.values()]
    with missing(analysis, {"run"}, taggers) as wanted:
        if wanted:
            make_columns(analysis, progress=progress)
            make_histograms(analysis, progress=progress)
    return analysis.output


@contextmanager
def missing(analysis: Analysis, exclude: set[str], contents: Sequence[bytes] = ()) -> Iterator[bool]:
    """Whether an output folder is still to be made from this analysis and its files; it is done when the body ends.

    Args:
        analysis: its `output` gets the file `done.json`
        exclude: keys of it that what is made does not depend on
        contents: of other files that it depends on
    """
    files = [Path(path) for dataset in analysis.datasets.values() for path in dataset.files]
    sizes = [[str(path), path.stat().st_size] for path in files]
    key = digest(json.loads(analysis.model_dump_json(exclude=exclude)), sizes, *contents)
    done = analysis.output / "done.json"
    wanted = not done.is_file() or json.loads(done.read_text(encoding="utf-8")).get("key") != key
    if wanted:
        done.unlink(missing_ok=True)
    yield wanted
    if wanted:
        with whole_file(done) as aside:
            aside.write_text(json.dumps({"key": key}), encoding="utf-8")
