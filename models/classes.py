"""The classes of jets, and which of them each discriminator or node output sets against which.

BvsL = b/(b+udsg), BvsC = b/(b+c), CvsL = c/(c+udsg), CvsB = c/(c+b), with b = b + bb (CMS, JINST 17 (2022) P03014,
BTV-20-001; A. Stein et al., Comput. Softw. Big Sci. 6 (2022) 15).
"""

CLASSES = ("b", "bb", "c", "udsg")
"""Truth classes, in the order of their codes."""

DISCRIMINATORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "BvsL": (("b", "bb"), ("udsg",)),
    "BvsC": (("b", "bb"), ("c",)),
    "CvsL": (("c",), ("udsg",)),
    "CvsB": (("c",), ("b", "bb")),
}
"""Signal and background classes of each discriminator."""

NODES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prob_b": (("b", "bb"), ("c", "udsg")),
    "prob_bb": (("bb",), ("b", "c", "udsg")),
    "prob_c": (("c",), ("b", "bb", "udsg")),
    "prob_udsg": (("udsg",), ("b", "bb", "c")),
}
"""Node outputs, the probability of the signal classes, and what is background to them. As in the discriminators, bb is
b, too: `prob_b` is comparable between taggers with and without a class of its own for bb; `prob_bb` is of the former.
"""

TAGGER_SCORES = {**DISCRIMINATORS, **NODES}
"""All that is histogrammed of a tagger's output."""
