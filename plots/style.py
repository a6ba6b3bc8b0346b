"""The look of every figure: CMS style, colours, labels, Poisson errors, and how a figure is saved."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import mplhep
import numpy as np
from hist.intervals import poisson_interval
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image

from common.errors import AdvtagError
from common.files import whole_file
from common.histograms import RAW

Array = np.ndarray[Any, np.dtype[np.float64]]

FLAVOURS = {"udsg": "#92dadd", "c": "#ffa90e", "b": "#3f90da", "bb": "#94a4a2"}
"""Fill colour of each flavour, in the order of the stack from the bottom."""
PROCESSES = ("#b9ac70", "#92dadd", "#ffc966", "#7ab3e8", "#b8b3c9", "#c9dba4", "#e3b8a8", "#d9d9d9")
"""Fill colours of whatever else is stacked."""
LINES = (
    "#bd1f01", "#832db6", "#1b7837", "#e76300", "#08306b", "#a96b59",
    "#d01c8b", "#717581", "#00a087", "#7f6000", "#5b5bd6", "#6b8e23",
)  # fmt: skip
"""Colours of attacks and of taggers, none of them a fill colour of the stack."""
STYLES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
BAND: dict[str, Any] = {"facecolor": "none", "edgecolor": "#444444", "hatch": "//////", "linewidth": 0}
"""The hatched band of statistical errors."""
TOTAL: dict[str, Any] = {"facecolor": "#444444", "alpha": 0.3, "linewidth": 0}
"""The grey band of statistical and systematic errors."""
DPI = 100

RC = {
    **mplhep.style.CMS,
    "font.size": 15,
    "axes.linewidth": 1.2,
    "legend.fontsize": 12.5,
    "xtick.major.size": 7,
    "ytick.major.size": 7,
    "xtick.minor.size": 3.5,
    "ytick.minor.size": 3.5,
    "xtick.minor.ndivs": 2,  # every tick costs half a millisecond, a figure has hundreds
    "ytick.minor.ndivs": 2,
}


@contextmanager
def cms_style() -> Iterator[None]:
    """Use the style inside this block only: the caller's matplotlib settings come back after it."""
    with matplotlib.rc_context(RC):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, and as PDF beside it, each aside and renamed into place.

    A palette of 128 colours makes the PNGs three times smaller than matplotlib's own.

    Args:
        figure: to be saved.
        path: of the PNG.

    Returns:
        Path of the PNG.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    with cms_style():
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image = image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.putpalette([255 if level >= 250 else level for level in image.getpalette() or []])  # keep white white
    with whole_file(path) as aside:
        image.save(aside, format="PNG")
    with whole_file(path.with_suffix(".pdf")) as aside, cms_style():
        figure.savefig(aside, format="pdf", metadata={"CreationDate": None})  # the same figure is the same file
    return path


def steps(axes: Axes, values: Array, edges: Array, *, baseline: Array | float | None, **look: Any) -> None:
    """Draw bin contents as a line of steps, or filled down to the baseline.

    What `axes.stairs` does, but the limits stay as they are: every figure sets its own, and finding them costs more
    than the rest.
    """
    colour = look.pop("color", None)
    if colour is not None:
        look |= {"facecolor": colour, "linewidth": 0} if look.get("fill") else {"edgecolor": colour}
    options: dict[str, Any] = {"fill": False, "baseline": baseline, **look}
    axes.add_artist(StepPatch(values, edges, **options))


def headline(left: Axes, right: Axes, label: str, luminosity: float | None = None) -> None:
    """Write the label above `left` and the luminosity (1/pb) above `right`.

    There is no experiment logo: nothing made here has been approved by a collaboration.

    Raises:
        AdvtagError: the label claims an approval, such as "Preliminary".
    """
    if "preliminary" in label.lower():
        raise AdvtagError(f'plot label "{label}" claims an approval; use "Simulation" or "Private work"')
    left.set_title(plain(label), loc="left", fontweight="bold", fontstyle="italic", fontsize=17, y=1.0, pad=7)
    if luminosity is not None:
        right.set_title(luminosity_text(luminosity), loc="right", fontsize=15, y=1.0, pad=7)


def luminosity_text(luminosity: float) -> str:
    """Luminosity given in 1/pb, in 1/fb when that reads better: 41500 -> 41.5 fb^-1."""
    if luminosity >= 100:
        return f"{luminosity / 1000:.3g} fb$^{{-1}}$"
    return f"{luminosity:.3g} pb$^{{-1}}$"


def plain(text: str, longest: int = 26) -> str:
    """A user's name as matplotlib shows it literally: no mathtext, never hidden from a legend, not too long."""
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    text = text.replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def attack_colours(attacks: Sequence[str]) -> dict[str, str]:
    """A colour for each attack, raw in black; the same in every figure of a file, as the axis order is."""
    distorted = [attack for attack in attacks if attack != RAW]
    return {RAW: "black"} | {attack: LINES[i % len(LINES)] for i, attack in enumerate(distorted)}


def fill_colours(names: Iterable[str]) -> dict[str, str]:
    """A fill colour for each flavour or process of a stack."""
    others = [name for name in dict.fromkeys(names) if name not in FLAVOURS]
    return {**FLAVOURS, **{name: PROCESSES[i % len(PROCESSES)] for i, name in enumerate(others)}}


def tagger_styles(taggers: Sequence[str]) -> dict[str, Any]:
    """A line style for each tagger."""
    return {tagger: STYLES[i % len(STYLES)] for i, tagger in enumerate(taggers)}


def poisson_errors(values: Array, variances: Array | None = None) -> Array:
    """Distances from observed counts down and up to their central 68.3 % Poisson (Garwood) interval.

    Args:
        values: observed counts.
        variances: sum of squared weights. Where they differ from the counts, which happens only if the
            data were weighted, the interval is that of the equivalent count times the mean weight.

    Returns:
        Array of shape (2, bins); zero counts get a lower distance of zero.
    """
    weighted = variances is not None and not np.allclose(variances, values)
    low, high = poisson_interval(values, variances if weighted else None)
    errors: Array = np.nan_to_num(np.stack([values - low, high - values]))
    return np.maximum(errors, 0.0)
