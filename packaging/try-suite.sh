#!/bin/sh
# Installs the package in a fresh Debian of a suite, runs it, purges it, and says what is left.
#
#   try-suite.sh SUITE PACKAGE     as root, or as a user with subordinate ids; prints "SUITE: nothing left", or what is left
set -eu
suite=$1
deb=$(realpath "$2")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
. /etc/os-release
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $VERSION_CODENAME" "Component: main" | head -n 1)
# What dpkg and apt write down for themselves, and backups of the password files, are no leftovers.
list='find "$1" -xdev ! -path "$1/proc/*" ! -path "$1/sys/*" ! -path "$1/dev/*" ! -path "$1/run/*" ! -path "$1/tmp/*" ! -path "$1/var/lib/dpkg/*" ! -path "$1/var/lib/apt/*" ! -path "$1/var/log/*" ! -path "$1/var/cache/*" ! -path "$1/etc/*-" ! -path "$1/etc/.pwd.lock" | sort'
mmdebstrap --quiet --variant=minbase --include=systemd,passwd --aptopt='Apt::Install-Recommends "false"' --keyring="$keyring" \
  --customize-hook="$list >\"\$1/tmp/before\"; cp \"\$1/etc/passwd\" \"\$1/tmp/passwd\"; cp \"\$1/etc/group\" \"\$1/tmp/group\"" \
  --customize-hook="upload $deb /tmp/everboot.deb" \
  --customize-hook='chroot "$1" dpkg -i /tmp/everboot.deb >&2' \
  --customize-hook='chroot "$1" everboot --version >&2 && chroot "$1" dpkg --verify everboot >&2 && chroot "$1" systemd-analyze verify everboot-appliance.service everboot-streamer.service >&2' \
  --customize-hook='chroot "$1" dpkg -i /tmp/everboot.deb >&2' \
  --customize-hook='chroot "$1" dpkg --purge everboot >&2' \
  --customize-hook="$list >\"\$1/tmp/after\"; diff \"\$1/tmp/before\" \"\$1/tmp/after\" >&2 && cmp \"\$1/tmp/passwd\" \"\$1/etc/passwd\" >&2 && cmp \"\$1/tmp/group\" \"\$1/etc/group\"" \
  "$suite" /dev/null "$mirror"
echo "$suite: nothing left"
