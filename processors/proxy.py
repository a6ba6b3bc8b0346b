"""The grid proxy and the certificates with which xrootd opens files: where they are, and how long they last."""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from common.errors import AdvtagError

OPEN = ("localhost", "127.0.0.1", "eospublic.cern.ch")
"""Servers that ask nobody for a proxy; CERN's has the CMS Open Data."""
MAKE_ONE = "make one: voms-proxy-init -voms cms -rfc -valid 192:00"


def find_proxy() -> Path | None:
    """The proxy of this user: X509_USER_PROXY, or the place where voms-proxy-init puts it.

    Raises:
        AdvtagError: X509_USER_PROXY names a file that is not there
    """
    named = os.environ.get("X509_USER_PROXY")
    path = Path(named or f"/tmp/x509up_u{os.getuid()}")  # noqa: S108 - voms-proxy-init's choice
    if path.is_file():
        return path
    if named:
        raise AdvtagError(f"X509_USER_PROXY: there is no file {path}; {MAKE_ONE}")
    return None


def time_left(proxy: Path) -> float:
    """Seconds until a proxy expires; negative if it has.

    Raises:
        AdvtagError: it is not a certificate in PEM
    """
    from cryptography.x509 import load_pem_x509_certificate

    try:
        end = load_pem_x509_certificate(proxy.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise AdvtagError(f"{proxy}: not a grid proxy; {MAKE_ONE}") from error
    return (end - datetime.now(UTC)).total_seconds()


def proxy_problem(files: Iterable[str]) -> str | None:
    """What is wrong with the proxy, in a sentence, if one of the files is behind xrootd and likely to need it.

    Raises:
        AdvtagError: the proxy named by X509_USER_PROXY is not there, or is none
    """
    servers = {found[1] for file in files if (found := re.match(r"(?:root|xroot|roots)://([^/:]*)", file))}
    if not servers.difference(OPEN):
        return None
    where = ", ".join(sorted(servers.difference(OPEN)))
    proxy = find_proxy()
    if proxy is None:
        return f"no grid proxy, which {where} may ask for; {MAKE_ONE}"
    try:
        left = time_left(proxy)
    except ImportError:  # without the extra `condor`, nobody can tell
        return None
    if left < 0:
        return f"the grid proxy {proxy} expired {-left / 3600:.1f} hours ago; {MAKE_ONE}"
    return f"the grid proxy {proxy} lasts only {left / 60:.0f} minutes more; {MAKE_ONE}" if left < 3600 else None
