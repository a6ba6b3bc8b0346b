"""The sources that run here, packed for a machine that cannot import them."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from common.provenance import COMMIT, commit

PACKAGES = ("attacks", "common", "configs", "models", "processors", "training")
"""All that a chunk, a training or an evaluation may import."""
PATTERNS = ("*.py", "*.yaml")


def archive(extra: Iterable[str] = ()) -> bytes:
    """The packages, whether of a checkout or an installed wheel, as a zip that says of which commit it is.

    Args:
        extra: more files at its top, such as advtag.py
    """
    root = Path(__file__).parent.parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as sources:
        for package in PACKAGES:
            for pattern in PATTERNS:
                for path in sorted((root / package).rglob(pattern)):
                    sources.write(path, path.relative_to(root))
        for name in extra:
            sources.write(root / name, name)
        sources.writestr(zipfile.ZipInfo(COMMIT), commit())  # of no date: the same sources are the same bytes
    return packed.getvalue()
