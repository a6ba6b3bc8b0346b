"""A real xrootd server on loopback, that tests may kill and start again."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

# xrootd has no setting for the interface: it listens on all, and talks to this machine alone
CONFIG = """\
xrd.port {port}
xrd.network nodnr
xrd.allow host localhost
all.export {served} r/o
all.adminpath {folder}/admin
all.pidpath {folder}/admin
xrootd.async off
"""
USERS = ("xrootd", "nobody")
"""As whom the server runs where the tests run as root, which xrootd refuses."""


class XrootdServer:
    """Serves the files of one folder, read-only, at `url`.

    The folder lies outside pytest's own, which only the user of the tests may enter.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="advtag-xrootd-"))
        self.folder.chmod(0o755)
        self.served = self.folder / "served"
        self.served.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"root://localhost:{self.port}/{self.served}"
        self.process: subprocess.Popen[bytes] | None = None
        self.as_user: dict[str, object] = {}
        if os.getuid() == 0:
            import pwd

            known = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = next(known[name] for name in USERS if name in known)
            self.as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        (self.folder / "admin").mkdir()
        (self.folder / "admin").chmod(0o777)
        self.config = self.folder / "xrootd.cfg"
        self.config.write_text(CONFIG.format(port=self.port, served=self.served, folder=self.folder))

    def add(self, *files: Path) -> list[str]:
        """Copy files into the served folder; return their URLs."""
        for file in files:
            shutil.copy(file, self.served / file.name)
            (self.served / file.name).chmod(0o644)
        return [f"{self.url}/{file.name}" for file in files]

    def start(self) -> None:
        """Start, and wait until the port answers."""
        assert self.process is None
        command = [shutil.which("xrootd") or "/usr/bin/xrootd", "-c", str(self.config), "-n", "advtag"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder / "admin", env={"PATH": os.defpath}, **self.as_user
            )
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            log_text = (self.folder / "log").read_text(errors="replace")
            assert self.process.poll() is None, f"xrootd ended:\n{log_text[-3000:]}"
            assert time.monotonic() < deadline, f"xrootd does not answer:\n{log_text[-3000:]}"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, as when a machine fails: nothing is said to the clients."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self) -> None:
        """Stop if it runs, and delete the folder."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder)
