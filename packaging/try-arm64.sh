#!/bin/bash
# Installs the arm64 package in a Debian of a suite that is only unpacked, runs its program, purges it, and says what is left: all of it emulated, in
# namespaces whose binfmt_misc is their own (Linux 6.7), so that nothing of it reaches the host.
#
#   try-arm64.sh SUITE PACKAGE     as root; prints "SUITE arm64: nothing left", or what is left
set -eu
suite=$1
deb=$(realpath "$2")
emulator=$(command -v qemu-aarch64-static) || { echo "$suite arm64: not tried: apt-get install qemu-user-static"; exit 0; }
if [ -z "${ROOT:-}" ]; then
  . /etc/os-release
  mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $VERSION_CODENAME" "Component: main" | head -n 1)
  ROOT=$(mktemp -d)
  export ROOT
  trap 'rm -rf --one-file-system "$ROOT"' EXIT
  mmdebstrap --quiet --variant=extract --architectures=arm64 --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --include=systemd,passwd,base-passwd,base-files,dpkg,bash,dash,coreutils,diffutils,findutils,sed,grep,gzip,tar,libc-bin,login,mawk "$suite" "$ROOT" "$mirror"
  mkfifo "$ROOT/go"
  unshare --user bash -c 'read -r x <"$ROOT/go"; exec unshare --mount --pid --fork --mount-proc "$@"' - "$0" "$suite" "$deb" &
  until [ -r /proc/$!/uid_map ] && [ "$(readlink /proc/$!/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.1; done
  for map in uid_map gid_map; do echo 0 0 65536 >/proc/$!/$map; done
  echo >"$ROOT/go"
  wait $!
  exit
fi

mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
# The head of an ELF file for arm64, as in qemu's scripts/qemu-binfmt-conf.sh.
printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$emulator:F" >/proc/sys/fs/binfmt_misc/register
mkdir -p "$ROOT/proc" "$ROOT/run" "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs none "$ROOT/run"
mount -t tmpfs none "$ROOT/tmp"
cp "$deb" "$ROOT/tmp/everboot.deb"
chroot "$ROOT" /bin/bash -eu <<'END'
[ -s /etc/passwd ] || cp /usr/share/base-passwd/passwd.master /etc/passwd
[ -s /etc/group ] || cp /usr/share/base-passwd/group.master /etc/group
touch /etc/shadow /etc/gshadow /var/lib/dpkg/status
list() { find / -xdev ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/etc/*-' ! -path /etc/.pwd.lock | sort; }
list >/tmp/before
cp /etc/passwd /etc/group /tmp
dpkg --force-depends -i /tmp/everboot.deb >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
everboot --version >&2
printf 'node = "a"\ninterface = "lo"\n' >/etc/everboot/appliance.toml
everboot check --config /etc/everboot/appliance.toml 2>&1 | grep 'no IPv4 address' >&2
dpkg --purge everboot >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
list | diff /tmp/before -
cmp /tmp/passwd /etc/passwd
cmp /tmp/group /etc/group
END
echo "$suite arm64: nothing left"
