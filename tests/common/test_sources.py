"""What travels to workers that have no advtag."""

import ast
from pathlib import Path

import pytest

from common.sources import PACKAGES

ROOT = Path(__file__).parents[2]
OTHERS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_that_travel_need_no_other(package) -> None:
    assert {"condor", "plots", "study"} <= OTHERS
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not OTHERS & {name.partition(".")[0] for name in names}, path
