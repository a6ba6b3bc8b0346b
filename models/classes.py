"""The classes of jets, and which of them each discriminator sets against which.

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
