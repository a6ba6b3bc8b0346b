"""How long the report takes to open in Chromium, with the pictures of a plots folder repeated up to a number.

    python benchmarks/report.py output/plots --figures 300

For each of pictures inside and beside the page: its size, seconds to write it, and from the call until the page has
loaded and the first picture of its figures is drawn; the median and the longest of several fresh browser contexts.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # else `plots` would be a script beside this one

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

from plots import report
from plots.catalogue import About, Listed, write_catalogue


def repeated(source: Path, folder: Path, number: int) -> int:
    """Copy pictures until there are enough; return their bytes."""
    pictures = sorted(source.rglob("*.png"))
    if not pictures:
        raise SystemExit(f"{source}: no pictures; make them with `advtag plot`")
    listed = []
    for i, path in zip(range(number), itertools.cycle(pictures)):
        shutil.copy(path, folder / f"{i}.png")
        region, attacks = f"region{i % 5}", ("fgsm", "pgd")
        listed.append(Listed(f"{i}.png", About("inputs", f"{path.stem} {i}", region, path.stem, ("nominal",), attacks)))
    write_catalogue(folder, listed)
    for name in ("auc.json", "statistics.csv"):
        if (source / name).is_file():
            shutil.copy(source / name, folder)
    return sum((folder / each.file).stat().st_size for each in listed)


def opened(browser: Browser, page: Path, times: int) -> Iterator[tuple[float, float]]:
    """Seconds until the page has loaded, and until the first figure of it is there."""
    for _ in range(times):
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        tab = context.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri() + "#figures")
        loaded = time.perf_counter() - start
        tab.wait_for_function("document.querySelector('figure img')?.naturalWidth > 0")
        yield loaded, time.perf_counter() - start
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plots", type=Path)
    parser.add_argument("--figures", type=int, default=300)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        folder = Path(place)
        size = repeated(options.plots, folder, options.figures)
        print(f"{options.figures} pictures, {size / 1e6:.1f} MB")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, limit in (("inside", 10**12), ("beside", 0)):
            report.EMBED_UP_TO = limit
            start = time.perf_counter()
            page = report.make_report(None, folder, title="benchmark")
            written = time.perf_counter() - start
            loaded, drawn = zip(*opened(browser, page, options.times), strict=True)
            print(
                f"{name}: page of {page.stat().st_size / 1e6:.1f} MB written in {written:.2f} s; loaded in "
                f"{statistics.median(loaded):.2f} s (longest {max(loaded):.2f}), first picture after "
                f"{statistics.median(drawn):.2f} s (longest {max(drawn):.2f})"
            )
        browser.close()


if __name__ == "__main__":
    main()
