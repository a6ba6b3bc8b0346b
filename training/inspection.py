"""Tables of what attacks do to jets, for figures that need more than histograms: `output/inspection/inspection.json`.

    {"format": 1, "columns": FOLDER, "jets": 20000, "versions": {...}, "classes": ["b", "bb", "c", "udsg"],
     "inputs": [{"name": "trackSip2dSig_0", "stem": "trackSip2dSig", "slot": 0, "group": "track", "integer": false,
                 "label": ..., "axis_label": ...}, ...],
     "attacks": {ATTACK: what it is}, "taggers": {TAGGER: FILE},
     "distances": {"weights": "columns", "null": [of each input], "taggers": {TAGGER: {ATTACK: [of each input]}}},
     "correlations": {"weights": "columns", "pairs": [jets of each pair], "raw": [of each pair],
                      "taggers": {TAGGER: {ATTACK: [of each pair]}}},
     "confusion": {"weights": "columns",
                   "taggers": {TAGGER: {"raw" or ATTACK: {"jets": [[...]], "fraction": [[...]]}}}},
     "absence": {"weights": "columns", "flavours": {FLAVOUR, "all" or "data": {"jets": 1234, "absent": [...]}}},
     "reweighting": {"weights": "columns", "pt_edges": [...], "eta_edges": [...],
                     "before": {FLAVOUR: [pt bin][eta bin]}, "forms": {"balanced": {FLAVOUR: [pt bin][eta bin]}}},
     "shifts": {"weights": "columns", "inputs": {INPUT: {"edges": [...], "flavours": {FLAVOUR: {"jets", "raw"}}}},
                "taggers": {TAGGER: {ATTACK: {"capped": {INPUT: {FLAVOUR: {...}}}, "uncapped": {...}}}}},
     "surfaces": {"weights": "none", "jets": 500, "line": [...], "grid": [...], "quantiles": [0.16, 0.5, 0.84],
                  "taggers": {TAGGER: {ATTACK: {"clean", "attack", "random", "plane", "jet"}}}}}

Pairs of inputs are those above the diagonal of a matrix, row by row. `weights` says how jets count: `columns`, with the
absolute generator weight, as datasets are mixed in the training; `none`, each as one. Nothing counts with the weights
in pt, eta and flavour that a training uses: what is shown is what the samples hold. Numbers have four digits; what is
not defined is null. `forms` holds the weight tables of `training.weights`, `before` the sums of weights of the train
split, `data` the absent entries of all splits; everything else is of the first jets of the test split in the order of a
hash. More in the functions that compute it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacks.attack import Attack
from attacks.build import build_attack, build_attacks
from common.errors import AdvtagError
from common.files import whole_file
from common.progress import progress_bar
from common.provenance import provenance
from configs.schema import Analysis
from models.features import FeatureSet
from models.groups import stem
from models.tagger import Tagger, load_tagger
from training.bench import logits_of, moved_by
from training.cache import open_cache
from training.columns import Sample, read_splits, some_jets
from training.inspect_shapes import (
    absence_of_data,
    absence_table,
    confusion_table,
    correlation_table,
    distance_table,
    null_table,
    pair_table,
)
from training.inspect_shifts import raw_shapes, shift_table, shown_inputs
from training.inspect_surface import GRID, LINE, QUANTILES, surface_table
from training.weights import ETA_EDGES, PT_EDGES, PtEtaFlavourWeights, spectra

FORMAT = 1
JETS, SURFACE_JETS = 20_000, 500
DIGITS = 4
Table = dict[str, Any]


@dataclass(frozen=True)
class Jets:
    """The jets that are looked at, and what they are."""

    sample: Sample
    classes: tuple[str, ...]
    features: FeatureSet
    shown: tuple[str, ...]
    """inputs whose shifts are looked at"""


def inspect(analysis: Analysis, *, jets: int = JETS, inputs: Sequence[str] = (), progress: bool = True) -> Path:
    """Compute all tables of an analysis, write `output/inspection/inspection.json` and return its path.

    Taggers and attacks are those of `histograms`; without that section the trained taggers and all `attacks`.

    Args:
        analysis: the configuration
        jets: of the test split, at most
        inputs: names of those whose shifts are looked at; see `training.inspect_shifts.shown_inputs`
        progress: show a progress bar

    Raises:
        AdvtagError: no columns, no tagger, one that does not fit the columns, or an unknown input
    """
    folder = analysis.output / "columns"
    samples, classes, features = read_splits(folder, ("test",))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files = tagger_files(analysis)
    taggers = {name: fitting(path, classes, features).to(device) for name, path in files.items()}
    chosen = some_jets(samples["test"], jets)
    shown = shown_inputs(chosen, features, classes, inputs)
    looked_at = Jets(chosen.to(device), classes, features, shown)
    names = analysis.histograms.attacks if analysis.histograms is not None else tuple(analysis.attacks)
    attacks = build_attacks({name: analysis.attacks[name] for name in names})
    page: Table = {
        "format": FORMAT,
        "columns": str(folder),
        "jets": len(chosen),
        "versions": provenance(),
        "classes": classes,
        "inputs": [described(features, k) for k in range(len(features))],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "taggers": {name: str(path) for name, path in files.items()},
        **raw_tables(looked_at),
        "absence": absence(analysis, looked_at),
        "reweighting": reweighting(analysis),
    }
    one_jet: dict[str, int] = {}  # the same for all taggers
    with progress_bar("inspection", show=progress) as bar:
        task = bar.add_task("", total=len(taggers) * max(len(attacks), 1))
        for name, tagger in taggers.items():
            page["confusion"]["taggers"][name] = {"raw": confused(tagger, looked_at)}
            for attack in names:
                bar.update(task, description=f"{attack} on {name}")
                caps = attacks[attack], with_other_cap(analysis, attack)
                found = attacked_tables(looked_at, tagger, *caps, one_jet.get(attack))
                one_jet[attack] = found["surfaces"]["jet"]["place"]
                for table, content in found.items():
                    page[table]["taggers"].setdefault(name, {})[attack] = content
                bar.advance(task)
    path = analysis.output / "inspection" / "inspection.json"
    with whole_file(path) as aside:
        aside.write_text(json.dumps(rounded(page), separators=(",", ":"), allow_nan=False), encoding="utf-8")
    return path


def tagger_files(analysis: Analysis) -> dict[str, Path]:
    """Tagger files by name: those of `histograms`, or those of the trainings that have one.

    Raises:
        AdvtagError: there is none
    """
    if analysis.histograms is not None:
        return {name: analysis.output / path for name, path in analysis.histograms.taggers.items()}
    trained = {name: analysis.output / "taggers" / f"{name}.safetensors" for name in analysis.training}
    found = {name: path for name, path in trained.items() if path.is_file()}
    if not found:
        raise AdvtagError(f"{analysis.output / 'taggers'}: no tagger there; make some with `advtag train CONFIG`")
    return found


def fitting(path: Path, classes: tuple[str, ...], features: FeatureSet) -> Tagger:
    """Load a tagger for columns with these classes and this card.

    Raises:
        AdvtagError: a file that cannot be read, or a tagger of another card or of other classes
    """
    tagger = load_tagger(path, features)
    if tagger.classes != classes:
        raise AdvtagError(f"{path}: classes {', '.join(tagger.classes)}, but the columns have {', '.join(classes)}")
    return tagger


def described(features: FeatureSet, k: int) -> Table:
    """What figures need to know of an input; one without a slot has its own name as stem, and no slot."""
    feature = features.inputs[k]
    name = stem(feature)
    return {
        "name": feature.name,
        "stem": name or feature.name,
        "slot": None if name is None else feature.slot,
        "group": feature.group,
        "integer": feature.integer,
        "label": feature.label,
        "axis_label": feature.axis_label,
    }


def raw_tables(jets: Jets) -> dict[str, Table]:
    """Tables of jets that nothing has attacked, with room for those that something has."""
    sample, features, columns = jets.sample, jets.features, {"weights": "columns"}
    shapes = {name: raw_shapes(features, name, sample.inputs, sample.target, jets.classes) for name in jets.shown}
    surfaces = {"weights": "none", "jets": min(SURFACE_JETS, len(sample))}
    surfaces |= {"line": LINE, "grid": GRID, "quantiles": QUANTILES}
    tables: dict[str, Table] = {
        "distances": {**columns, "null": null_table(features, sample.inputs)},
        "correlations": {
            **columns,
            "pairs": pair_table(sample.inputs),
            "raw": correlation_table(sample.inputs),
        },
        "confusion": {**columns},
        "shifts": {**columns, "inputs": shapes},
        "surfaces": surfaces,
    }
    return {name: {**table, "taggers": {}} for name, table in tables.items()}


def attacked_tables(jets: Jets, tagger: Tagger, attack: Attack, other: Attack, one_jet: int | None) -> dict[str, Any]:
    """Tables of one attack on one tagger.

    Args:
        jets: raw
        tagger: attacked, and looked at
        attack: as configured
        other: the same attack with the caps on where they were off, and off where they were on
        one_jet: see `training.inspect_surface.surface_table`
    """
    sample, features = jets.sample, jets.features
    moved = moved_by(attack, tagger, sample.inputs, sample.target)
    logits = logits_of(tagger, moved)
    few = slice(SURFACE_JETS)
    around = Sample(sample.inputs[few], sample.target[few], sample.pt[few], sample.eta[few])
    shifts = {}
    for variant in (attack, other):
        shifted = moved if variant is attack else moved_by(variant, tagger, sample.inputs, sample.target)
        shifts["capped" if variant.budget.capped else "uncapped"] = {
            name: shift_table(features, name, sample.inputs, shifted, sample.target, jets.classes)
            for name in jets.shown
        }
    return {
        "distances": distance_table(features, sample.inputs, moved),
        "correlations": correlation_table(moved),
        "confusion": confusion_table(logits, sample.target, sample.weight, len(jets.classes)),
        "shifts": shifts,
        "surfaces": surface_table(attack, tagger, around, jet=one_jet),
    }


def confused(tagger: Tagger, jets: Jets) -> Table:
    """Confusion of the tagger by jets as they are."""
    logits = logits_of(tagger, jets.sample.inputs)
    return confusion_table(logits, jets.sample.target, jets.sample.weight, len(jets.classes))


def with_other_cap(analysis: Analysis, name: str) -> Attack:
    """The attack with the caps of the card on where they were off, and off where they were on."""
    config = analysis.attacks[name]
    return build_attack(config.model_copy(update={"capped": not config.capped}))


def absence(analysis: Analysis, jets: Jets) -> Table:
    """Absent entries by flavour, and in data if there are columns of it."""
    folder, datasets = analysis.output / "columns", analysis.datasets
    files = [path for name in datasets if datasets[name].data for path in sorted((folder / name).glob("*.parquet"))]
    found: Table = {"weights": "columns", "flavours": absence_table(jets.sample, jets.classes)}
    data = absence_of_data(files, jets.features)
    if data is not None:
        found["flavours"]["data"] = data
    return found


def reweighting(analysis: Analysis) -> Table:
    """Spectra of the training jets, and the weights of every form that a training uses."""
    cache = open_cache(analysis.output / "columns")
    counts = spectra(cache.train, len(cache.classes))
    forms = dict.fromkeys(training.weights for training in analysis.training.values()) or {"balanced": None}
    tables = {form: PtEtaFlavourWeights(counts, form).table.numpy() for form in forms if form != "none"}
    return {
        "weights": "columns",
        "pt_edges": PT_EDGES.tolist(),
        "eta_edges": ETA_EDGES.tolist(),
        "before": by_flavour(cache.classes, counts),
        "forms": {form: by_flavour(cache.classes, table) for form, table in tables.items()},
    }


def by_flavour(classes: Sequence[str], arrays: np.ndarray[Any, Any]) -> Table:
    """Lists by name of the class."""
    return {name: array.tolist() for name, array in zip(classes, arrays, strict=True)}


def rounded(x: Any) -> Any:
    """The same with four digits, and null for what is not finite, as JSON has it."""
    if isinstance(x, float):
        return float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None
    if isinstance(x, Mapping):
        return {key: rounded(value) for key, value in x.items()}
    return [rounded(value) for value in x] if isinstance(x, list | tuple) else x
