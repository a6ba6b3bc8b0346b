"""Add up histogram files that were made apart, of parts of the files or of the events: each event once, none lost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.correlations import added
from common.errors import AdvtagError
from common.files import whole_folder
from common.histograms import Dataset, HistogramFile, datasets_of, read_histograms
from processors.books import gaps, joined

Books = Mapping[str, Mapping[str, Any]]


def merge(
    paths: Sequence[Path],
    output: Path,
    *,
    allow_missing: bool = False,
    expected: Mapping[str, Mapping[str, int]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Merge histogram files into a folder with one file for each dataset.

    One dataset is in memory at a time: its files are added one after another.

    Args:
        paths: histogram files, or folders of them
        output: folder to write
        allow_missing: write it although events of the files are missing; their books are in the result
        expected: events of every file by dataset; None: the files that the histograms tell of
        config: what the result says of its configuration; None: what the first file says

    Raises:
        AdvtagError: a file cannot be read, is of another job, counts events that another one counts too, or events are
            missing
    """
    files = [file for path in paths for file in (sorted(path.glob("*.zip")) if path.is_dir() else [path])]
    if not files:
        raise AdvtagError(f"{', '.join(map(str, paths))}: no histogram file there")
    of_dataset: dict[str, list[Path]] = {}
    for path in files:
        name, *others = datasets_of(path)
        if others:
            raise AdvtagError(f"{path}: holds {1 + len(others)} datasets; merge takes files of one, as jobs write them")
        of_dataset.setdefault(name, []).append(path)
    with whole_folder(output) as aside:
        for name, parts in of_dataset.items():
            merged = _one_dataset(name, parts)
            for place, events in (expected or {}).get(name, {}).items():
                merged.datasets[name].files.setdefault(place, {"expected_events": events, "events": 0})
            if config is not None:
                merged.provenance["config"] = config
            lost = missing_of(merged.datasets[name].files)
            if lost and not allow_missing:
                raise AdvtagError(
                    f"dataset {name!r}: {sum(stop - start for _, start, stop in lost)} events are in none of the "
                    f"files, the first are {lost[0][1]} to {lost[0][2]} of {lost[0][0]}; find their histograms, or "
                    "say --allow-missing"
                )
            merged.provenance["missing"] = [  # what one part lacks may be in another
                {"dataset": name, "file": path, "start": start, "stop": stop} for path, start, stop in lost
            ]
            merged.write(aside / f"{name}.zip")
    return output


def _one_dataset(name: str, paths: Sequence[Path]) -> HistogramFile:
    total = read_histograms(paths[0])
    for path in paths[1:]:
        file = read_histograms(path)
        if file.provenance.get("job") != total.provenance.get("job"):
            raise AdvtagError(f"{path}: of another job than {paths[0]} (configuration, taggers or code differ)")
        for variable, histogram in file.histograms.items():
            total.histograms[variable] += histogram
        total = replace(total, datasets={name: _added(total.datasets[name], file.datasets[name], path)})
        if total.correlations is not None and file.correlations is not None:
            total = replace(total, correlations={name: added(total.correlations[name], file.correlations[name])})
    return total


def _added(one: Dataset, other: Dataset, path: Path) -> Dataset:
    """Both datasets' books together.

    Raises:
        AdvtagError: they have events in common, or are not the same dataset
    """
    if (one.data, one.cross_section) != (other.data, other.cross_section):
        raise AdvtagError(f"{path}: its dataset has another cross-section than that of the other files")
    files = {name: dict(book) for name, book in one.files.items()}
    for name, book in other.files.items():
        files[name] = added_book(files.get(name), book, name, path)
    return Dataset(
        one.data,
        one.cross_section,
        one.sum_weights + other.sum_weights,
        one.events + other.events,
        one.jets + other.jets,
        files,
        _cutflow(one, other),
    )


def added_book(known: Mapping[str, Any] | None, book: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The books of one file together: what is known of it, and what `path` says of it under `name`.

    Raises:
        AdvtagError: they have events in common, or the file has changed in between
    """
    if known is None:
        return dict(book)
    if known["expected_events"] != book["expected_events"]:
        raise AdvtagError(
            f"{path}: {name} had {book['expected_events']} events, and {known['expected_events']} for another of "
            "the files: it has changed in between; make the histograms of one of them anew"
        )
    try:
        ranges = joined([*known.get("ranges", []), *book.get("ranges", [])])
    except AdvtagError as error:
        raise AdvtagError(f"{path}: {name}: {error}; leave this file out") from error
    counts = {key: known.get(key, 0) + book.get(key, 0) for key in ("events", "jets", "sum_weights")}
    return {**known, **counts, "ranges": ranges}


def _cutflow(one: Dataset, other: Dataset) -> dict[str, dict[str, tuple[float, float]]]:
    """Both added; a part in which no event was processed has none."""
    if not (one.cutflow and other.cutflow):
        return one.cutflow or other.cutflow
    return {
        region: {
            cut: (left[0] + other.cutflow[region][cut][0], left[1] + other.cutflow[region][cut][1])
            for cut, left in cuts.items()
        }
        for region, cuts in one.cutflow.items()
    }


def missing_of(books: Books) -> list[tuple[str, int, int]]:
    """(file, start, stop) of events that were expected and not processed."""
    return [
        (path, start, stop)
        for path, book in books.items()
        for start, stop in gaps(book["expected_events"], book.get("ranges", []))
    ]
