"""The uncertainty from attacks beside the true shifts: does it cover the mismodelling that is there?"""

from collections.abc import Mapping, Sequence

from common.histograms import HISTOGRAMS, read_histograms
from configs.study import METHODS, Study
from plots.residual import Residual, residuals
from plots.statistics import statistics
from study.compare import Outcome
from study.samples import CONTROL, EVALUATED, MC


def uncertainties(study: Study, outcome: Outcome) -> list[Residual]:
    """Shifts under attacks in the control region of each flavour, of that flavour; none without attacks.

    Verdicts are for as many events as the data of the study have, without reference to the data.

    Raises:
        AdvtagError: histograms are missing
    """
    if not study.evaluate_with:
        return []
    cuts = dict(zip(outcome.selections.keys, outcome.selections.cuts, strict=True))
    found: list[Residual] = []
    for process, flavour in METHODS.items():
        if process not in study.mc.events:
            continue
        file = read_histograms(study.output / EVALUATED / MC / HISTOGRAMS / f"{process}.zip")
        cross_section = file.datasets[process].cross_section or 1.0
        file = file.normalised(study.data.events[process] / cross_section, {})
        rows = statistics(file, [CONTROL[process]])
        points = study.working_points
        these = residuals(file, rows, discriminator=study.discriminator, working_points=points, cuts=cuts)
        found += [row for row in these if row.flavour == flavour]
    return found


def coverage(rows: Sequence[Residual], true: Mapping[tuple[str, str, str], Sequence[float]]) -> list[dict[str, object]]:
    """For each flavour, working point and tagger: how many of the true shifts the residual uncertainties cover."""
    lines: list[dict[str, object]] = []
    once = {(row.flavour, row.working_point, row.tagger): row for row in rows}
    for key, row in once.items():
        shifts = [abs(shift) for shift in true.get(key, ())]
        bounds = {"residual_inputs": row.residual_inputs, "residual": row.residual}
        covered = {f"covered_by_{name}": sum(shift <= bound for shift in shifts) for name, bound in bounds.items()}
        names = dict(zip(("flavour", "working_point", "tagger"), key, strict=True))
        largest = max(shifts, default=float("nan"))
        known = {"efficiency": row.efficiency, "variants": len(shifts), "largest": largest}
        lines.append({**names, **known, **bounds, **covered})
    return lines
