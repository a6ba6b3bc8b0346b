#!/bin/sh
# A program that tests need, from a package of Debian: installed without a question, nothing if it is there.
#   sh scripts/install_debian.sh PROGRAM PACKAGE
set -eu
program=$1 package=$2

if command -v "$program" >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "some tests need $program: apt-get install $package (as root); they are skipped without" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# a fresh machine has no list of packages, another an old one
install="apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends $package"
if ! $install >/dev/null 2>&1; then
    apt-get -o DPkg::Lock::Timeout=120 update -qq
    $install >/dev/null
fi
command -v "$program" >/dev/null
