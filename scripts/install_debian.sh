#!/bin/sh
# The xrootd server that the tests read from: Debian's package, installed without a question, nothing if it is there.
set -eu

if command -v xrootd >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "the tests of xrootd need its server: apt-get install xrootd-server (as root); they are skipped without" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# a fresh machine has no list of packages, another an old one
install="apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends xrootd-server"
if ! $install >/dev/null 2>&1; then
    apt-get -o DPkg::Lock::Timeout=120 update -qq
    $install >/dev/null
fi
command -v xrootd >/dev/null
