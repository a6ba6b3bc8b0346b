"""The datacard of CMS combine that goes with a file of templates: a skeleton, to be completed by hand."""

from collections.abc import Mapping, Sequence

import numpy as np
from hist import Hist

Templates = Mapping[str, Mapping[str, Hist]]
"""process -> its templates: the nominal one under "", and SYSTEMATICUp, SYSTEMATICDown"""

HEADING = """\
# Skeleton by `advtag shapes`. Processes numbered 0 or less are signals: number yours. Add the uncertainties of rates
# (luminosity, cross-sections) as lnN. An attack moves one way: its Down is the mirror image of its Up.
imax *
jmax *
kmax *"""


def datacard(channels: Mapping[str, Templates], root: str) -> str:
    """A datacard with all channels, processes and shape systematics; the rates are those of the templates.

    Args:
        channels: templates by channel
        root: name of their file, beside the datacard
    """
    columns = [(channel, process) for channel, processes in channels.items() for process in processes]
    number = {process: str(place) for place, process in enumerate(dict.fromkeys(process for _, process in columns))}
    names = [name for channel, process in columns for name in channels[channel][process]]
    systematics = dict.fromkeys(name.removesuffix("Up") for name in names if name.endswith("Up"))
    rows = [
        ["bin", "", *(channel for channel, _ in columns)],
        ["process", "", *(process for _, process in columns)],
        ["process", "", *(number[process] for _, process in columns)],
        ["rate", "", *("-1" for _ in columns)],
        *(
            [name, "shape", *(_effect(channels[channel][process], name) for channel, process in columns)]
            for name in systematics
        ),
    ]
    return "\n".join(
        [
            HEADING,
            f"shapes * * {root} $CHANNEL/$PROCESS $CHANNEL/$PROCESS_$SYSTEMATIC",
            "bin " + " ".join(channels),
            "observation " + " ".join("-1" for _ in channels),
            *_aligned(rows),
            "* autoMCStats 10",
            "",
        ]
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _effect(templates: Mapping[str, Hist], systematic: str) -> str:
    """1 where the systematic moves the process, else `-`."""
    nominal = templates[""].values()
    same = (np.allclose(templates[f"{systematic}{side}"].values(), nominal, rtol=1e-9) for side in ("Up", "Down"))
    return "-" if all(same) else "1"
