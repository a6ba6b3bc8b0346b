"""What a study leaves: `study.csv`, `study.json`, and figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.files import whole_file
from common.provenance import provenance
from common.tables import write_table
from configs.study import Study
from plots.catalogue import CATALOGUE, About, Listed, write_catalogue
from plots.jobs import Job, draw_all
from plots.residual import RESIDUAL, Residual
from plots.residual_figures import residual_figure
from study.attacks import coverage, uncertainties
from study.compare import Outcome
from study.conclude import Row, comparisons, rows, sentences
from study.figures import KIND, study_figures

TABLE, NUMBERS, FIGURES = "study.csv", "study.json", "figures"


def write_outcome(study: Study, outcome: Outcome) -> Path:
    """Write tables and figures into the output folder, and return it; all numbers first, so that a failure leaves the
    earlier ones. What is not made any more is removed.

    Raises:
        AdvtagError: histograms are missing, or a figure cannot be drawn
    """
    table = rows(outcome.results, outcome.efficiencies)
    found = comparisons(outcome.distances, study.first)
    attacked, true = uncertainties(study, outcome), outcome.shifts
    cuts = zip(outcome.selections.keys, outcome.selections.cuts, strict=True)
    numbers = {
        "config": json.loads(study.model_dump_json()),
        "versions": provenance(),
        "cuts": {f"{tagger} {point}": cut for (tagger, point), cut in cuts},
        "scale_factors": [asdict(row) for row in table],
        "agreement": [asdict(row) for row in outcome.agreements],
        "comparisons": [{**asdict(row), "verdict": row.verdict} for row in found],
        "uncertainty_from_attacks": coverage(attacked, true),
        "conclusion": sentences(found, study.first),
    }
    page = json.dumps(_finite(numbers), indent=1, allow_nan=False)
    folder = study.output / FIGURES
    jobs = list(study_figures(table, found, outcome.agreements, folder, study.label))
    if attacked:
        about = About(KIND, "shifts under attacks and true shifts", taggers=study.names, attacks=study.evaluate_with)
        options = {"true": true, "label": study.label}
        jobs.append(Job(folder / "residual.png", residual_figure, attacked, options, about))
    write_table(study.output / TABLE, Row, table)
    with whole_file(study.output / NUMBERS) as aside:
        aside.write_text(page, encoding="utf-8")
    for path in (study.output / RESIDUAL, *folder.glob("residual.p*"), folder / CATALOGUE):
        path.unlink(missing_ok=True)
    if attacked:
        write_table(study.output / RESIDUAL, Residual, attacked)
    draw_all(jobs, study.workers, lambda: None)
    write_catalogue(folder, [Listed(job.path.name, job.about) for job in jobs if job.about is not None])
    return study.output


def _finite(value: Any) -> Any:
    """Not-a-number as null, which JSON has."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
