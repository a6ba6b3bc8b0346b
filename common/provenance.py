"""What made an output: versions and commit, written beside it."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("advtag", "awkward", "coffea", "dask", "hist", "numpy", "pyarrow", "torch", "uproot")
COMMIT = "COMMIT"
"""File at the top of packed sources (`common.sources`)."""


def provenance() -> dict[str, str]:
    """Versions of the packages that can change a number, and the commit of the checkout (or `unknown`)."""
    found = {"python": platform.python_version(), "git": commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def commit() -> str:
    """The commit of the checkout, with `-dirty` where files have edits; what a packed copy says of itself."""
    checkout = Path(__file__).parent.parent
    if (checkout / COMMIT).is_file():
        return (checkout / COMMIT).read_text(encoding="utf-8")
    if not (checkout / ".git").exists():  # an installed wheel may lie inside somebody else's repository
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()
