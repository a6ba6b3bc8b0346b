"""The package travels to workers that cannot import it, as a zip of its sources in a Dask worker plugin.

Workers unpack the plugin before they have anything of advtag: this module is sent by value and imports nothing of it.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client, WorkerPlugin


class Package(WorkerPlugin):  # type: ignore[misc]
    """Puts the sources first on the path of a worker, before its first task.

    Args:
        archive: zip of the sources
        packages: names at its top
    """

    def __init__(self, archive: bytes, packages: tuple[str, ...]) -> None:
        self.archive = archive
        self.packages = packages
        self.name = f"advtag-{hashlib.sha256(archive).hexdigest()[:16]}"

    def setup(self, worker: Any) -> None:
        """Unpack into the worker's own folder; Dask calls this on every worker, also on those that come later."""
        folder = Path(worker.local_directory).absolute() / self.name
        if str(folder) in sys.path:  # another client of this scheduler had sent the same
            return
        with zipfile.ZipFile(io.BytesIO(self.archive)) as sources:
            sources.extractall(folder)
        for module in [name for name in sys.modules if name.partition(".")[0] in self.packages]:
            del sys.modules[module]  # of another version, installed or sent earlier
        sys.path.insert(0, str(folder))


def send_package(client: Client) -> None:
    """Give all workers of the client, present and future, the package that runs here."""
    from common.sources import PACKAGES, archive  # here: the workers have no `common` when they get this module

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        client.register_plugin(Package(archive(), PACKAGES))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
