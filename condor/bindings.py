"""HTCondor's own Python module, where it is of the same series as the pool: others cannot authenticate (FS), measured
with 25.14 and 24.12 against a schedd of 23.9.
"""

import contextlib
import re
from pathlib import Path

from common.errors import AdvtagError
from condor.tell import tell

QUOTAS = {"-2": "MAX_JOBS_SUBMITTED", "-3": "MAX_JOBS_PER_OWNER", "-4": "MAX_JOBS_PER_SUBMISSION"}
"""What the schedd answers instead of the number of a process, and the setting of the site that is exceeded."""


def fits() -> bool:
    """`htcondor2` is installed, and is of the series that the programs of this machine are of."""
    try:
        import htcondor2
    except (ImportError, OSError):
        return False
    here = re.search(r"(\d+)\.\d+\.\d+", htcondor2.version())
    there = re.search(r"(\d+)\.\d+\.\d+", tell(["condor_version"], what="no HTCondor here"))
    return here is not None and there is not None and here[1] == there[1]


def submit(folder: Path, description: str) -> str:
    """Submit a description in a folder in one transaction; return the number of the cluster.

    Raises:
        AdvtagError: HTCondor does not take the jobs; none of them is in the queue
    """
    import htcondor2

    with contextlib.chdir(folder):  # paths of the description are relative to it
        try:
            wanted = htcondor2.Submit(Path(description).read_text(encoding="utf-8"))
            return str(htcondor2.Schedd().submit(wanted).cluster())
        except (htcondor2.HTCondorException, OSError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:500]
            quota = QUOTAS.get(said.partition("Schedd says ")[2])
            reason = f"their number would exceed {quota} of the site" if quota else said
            raise AdvtagError(f"the jobs cannot be submitted: {reason}") from error
