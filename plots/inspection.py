"""Figures of jets and taggers, from the tables of `advtag inspect`.

distances_ATTACK.png                    JS distance of each input, raw against attacked, every tagger
correlations/TAGGER/ATTACK.png          correlations of the inputs before, after, and their difference
confusion_ATTACK.png                    true class against most probable class, raw and attacked, every tagger
shift/INPUT/ATTACK_capped.png           an input by flavour, raw and attacked, and how far it moved; and _uncapped
loss_ATTACK.png, plane_ATTACK.png       loss along an attack and a random direction, 1-D and 2-D
absence.png                             absent entries by flavour
reweighting_FORM.png, spectra_FORM.png  weights in pt, eta and flavour of the training, maps and marginals
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import AdvtagError
from common.histograms import RAW
from plots.catalogue import About
from plots.heat import input_map
from plots.jobs import Job, file_name
from plots.matrices import confusion, correlation_matrices
from plots.reweighting import reweighting_maps, spectra
from plots.shifts import flavour_shifts
from plots.surfaces import loss_lines, loss_planes

FORMAT = 1
FOLDER = "inspection"
"""Of the figures, in the folder of the plots."""

Inspection = Mapping[str, Any]


def read_inspection(path: Path) -> dict[str, Any] | None:
    """Read the tables of an inspection; None if there is no such file.

    Raises:
        AdvtagError: it is no inspection, or one of another version, or a figure could not be made of it.
    """
    if not path.is_file():
        return None
    try:
        page: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(page, dict) or page.get("format") != FORMAT:
            raise ValueError(f"'format' is not {FORMAT}")
        for _ in inspection_figures(page, Path(), ""):
            pass  # each takes from the tables what it needs
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise AdvtagError(f"{path}: not an inspection ({reason}); run `advtag inspect` again") from error
    return page


def inspection_figures(inspection: Inspection, folder: Path, label: str) -> Iterator[Job]:
    """Say what to draw of an inspection, below `folder`."""
    place, options = folder / FOLDER, {"label": label}
    for attack in inspection["attacks"]:
        yield from attack_figures(inspection, place, attack, options)
    yield absence_figure(inspection, place, options)
    table = inspection["reweighting"]
    for form, weights in table["forms"].items():
        what = {**{key: table[key] for key in ("pt_edges", "eta_edges", "before")}, "weights": weights}
        for name, draw in (("reweighting", reweighting_maps), ("spectra", spectra)):
            about = About("training", f"{name} of the training jets, {form}")
            yield Job(place / f"{file_name(f'{name}_{form}')}.png", draw, what, {**options, "form": form}, about)


def attack_figures(inspection: Inspection, place: Path, attack: str, options: Mapping[str, Any]) -> Iterator[Job]:
    """Say what to draw of an attack."""
    taggers = tuple(inspection["taggers"])
    named = {**options, "attack": attack}

    def job(name: Sequence[str], draw: Any, what: Any, keys: Mapping[str, Any], about: About) -> Job:
        *folders, last = map(file_name, name)
        return Job(place.joinpath(*folders, f"{last}.png"), draw, what, dict(keys), about)

    def about(title: str, *, kind: str = "jets", variable: str = "", of: tuple[str, ...] = taggers) -> About:
        return About(kind, title, variable=variable, taggers=of, attacks=(attack,))

    yield distance_figure(inspection, place, attack, options)
    for tagger in taggers:
        title = f"correlations, {attack} on {tagger}"
        what = about(title, kind="correlations", of=(tagger,))
        table = of_pairs(inspection, tagger, attack)
        keys = {**options, "title": f"{attack} on {tagger}"}
        yield job(("correlations", tagger, attack), correlation_matrices, table, keys, what)
    confused = inspection["confusion"]["taggers"]
    table = {
        "classes": inspection["classes"],
        "taggers": {name: {kind: confused[name][kind] for kind in (RAW, attack)} for name in taggers},
    }
    yield job((f"confusion_{attack}",), confusion, table, named, about(f"confusion, {attack}"))
    for name in inspection["shifts"]["inputs"]:
        for cap in ("capped", "uncapped"):
            table, title = of_shifts(inspection, name, attack, cap), f"{name} by flavour, {attack}, {cap}"
            keys = {**named, "capped": cap == "capped"}
            yield job(("shift", name, f"{attack}_{cap}"), flavour_shifts, table, keys, about(title, variable=name))
    surfaces = inspection["surfaces"]
    table = {key: surfaces[key] for key in ("jets", "line", "grid")}
    table |= {"classes": inspection["classes"]}
    table |= {"taggers": {name: surfaces["taggers"][name][attack] for name in taggers}}
    yield job((f"loss_{attack}",), loss_lines, table, named, about(f"loss along {attack} and a random direction"))
    yield job((f"plane_{attack}",), loss_planes, table, named, about(f"loss around jets, {attack}"))


def distance_figure(inspection: Inspection, place: Path, attack: str, options: Mapping[str, Any]) -> Job:
    """The distances of all inputs under an attack, in brackets where chance may be as large."""
    table = inspection["distances"]
    blocks = {name: attacks[attack] for name, attacks in table["taggers"].items()}
    weak = {
        name: [None not in (js, null) and js <= null for js, null in zip(numbers, table["null"], strict=True)]
        for name, numbers in blocks.items()
    }
    keys = {
        **options,
        "title": f"{attack} against raw",
        "scale": "JS distance (square root of the divergence in bits)",
        "note": f"{inspection['jets']:,} jets, bins of the card with underflow and overflow. "
        "In brackets: no more than two independent samples of this size may differ (95 %).",
    }
    about = About("jets", f"JS distances, {attack}", taggers=tuple(blocks), attacks=(attack,))
    what = {"inputs": inspection["inputs"], "blocks": blocks, "weak": weak}
    return Job(place / f"{file_name(f'distances_{attack}')}.png", input_map, what, keys, about)


def absence_figure(inspection: Inspection, place: Path, options: Mapping[str, Any]) -> Job:
    """Absent entries of all inputs by flavour."""
    flavours = inspection["absence"]["flavours"]
    blocks = {name: found["absent"] for name, found in flavours.items()}
    keys = {
        **options,
        "title": "absent entries",
        "scale": "part of the jets without an entry",
        "highest": 1.0,
        "note": "jets: " + ", ".join(f"{name} {found['jets']:,}" for name, found in flavours.items()),
    }
    what = {"inputs": inspection["inputs"], "blocks": blocks}
    return Job(place / "absence.png", input_map, what, keys, About("jets", "absent entries by flavour"))


def of_pairs(inspection: Inspection, tagger: str, attack: str) -> dict[str, Any]:
    """What the correlations of an attack are drawn from."""
    table = inspection["correlations"]
    common = {"inputs": inspection["inputs"], "jets": inspection["jets"]}
    return {**common, "pairs": table["pairs"], RAW: table["raw"], "attacked": table["taggers"][tagger][attack]}


def of_shifts(inspection: Inspection, name: str, attack: str, cap: str) -> dict[str, Any]:
    """What the shifts of an input are drawn from."""
    table = inspection["shifts"]
    (feature,) = (feature for feature in inspection["inputs"] if feature["name"] == name)
    shape = table["inputs"][name]
    moved = {tagger: attacks[attack][cap][name] for tagger, attacks in table["taggers"].items()}
    return {"edges": shape["edges"], "axis_label": feature["axis_label"], "raw": shape["flavours"], "taggers": moved}
