#!/bin/sh
# Installs the Debian packages that the tests and the demo need.
#
#   deps.sh          install what is missing (as root), or print the one line to run
#   deps.sh --list   print the packages, one a line
#
# Services that come with these packages are neither started nor enabled: they are here as peers for tests.
set -eu

packages="
  busybox-static ca-certificates cpio e2fsprogs iproute2 kmod mmdebstrap nftables procps uidmap zstd gcc libc6-dev
  qemu-system-x86 qemu-utils qemu-block-extra ovmf seabios
  isolinux syslinux-common xorriso gdisk dosfstools
  tgt libiscsi-bin keepalived dnsmasq-base udhcpc tftp-hpa atftp tftpd-hpa tshark curl nginx-light libwrap0 libpcre2-8-0 kea-dhcp4-server kea-admin isc-dhcp-client dhcpcd-base haproxy
"
# Debian 12's ipxe (2019) cannot run a script of its own on UEFI: this one always comes from Debian 13.
ipxe_suite=trixie

if [ "${1:-}" = --list ]; then
  printf '%s\n' $packages ipxe
  exit 0
fi

. /etc/os-release
if [ "${ID:-}" != debian ]; then
  echo "deps: this is ${PRETTY_NAME:-not Debian}; everboot's tests need Debian 12 or 13 with: $(echo $packages ipxe)" >&2
  exit 1
fi

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

missing=
for p in $packages; do installed "$p" || missing="$missing $p"; done
ipxe_version=$(dpkg-query -W -f '${Version}' ipxe 2>/dev/null || true)
if [ -z "$ipxe_version" ] || dpkg --compare-versions "$ipxe_version" lt 1.21.1+git20250501; then
  missing="$missing ipxe"
fi

# atftpd, for make bench-tftp, cannot be installed beside tftpd-hpa: it is only unpacked.
top=$(cd "$(dirname "$0")/../.." && pwd)
unpack_atftpd() {
  [ ! -x "$top/build/atftpd/usr/sbin/atftpd" ] || return 0
  mkdir -p "$top/build/atftpd"
  (cd "$top/build/atftpd" && apt-get download -qq atftpd 2>/dev/null && dpkg -x atftpd_*.deb .) ||
    echo "deps: atftpd cannot be had; make bench-tftp goes without" >&2
}

if [ -z "$missing" ]; then
  unpack_atftpd
  exit 0
fi

if [ "$(id -u)" != 0 ]; then
  echo "deps: missing packages:$missing" >&2
  echo "deps: run this once, then try again:  sudo make deps" >&2
  exit 1
fi

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror is the one that this machine uses already.
mirror() {
  apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $VERSION_CODENAME" "Component: main" | head -n 1
}

add_ipxe_source() {
  [ "$VERSION_CODENAME" = "$ipxe_suite" ] && return 0
  uri=$(mirror)
  if [ -z "$uri" ] || [ ! -r "$keyring" ]; then
    echo "deps: need a Debian mirror for $VERSION_CODENAME in /etc/apt and the package debian-archive-keyring" >&2
    exit 1
  fi
  cat >/etc/apt/sources.list.d/everboot-ipxe.sources <<END
# everboot: package ipxe from Debian 13; the preferences file of the same name keeps everything else out
Types: deb
URIs: $uri
Suites: $ipxe_suite
Components: main
Signed-By: $keyring
END
  cat >/etc/apt/preferences.d/everboot-ipxe <<END
Package: *
Pin: release n=$ipxe_suite
Pin-Priority: -10

Package: ipxe
Pin: release n=$ipxe_suite
Pin-Priority: 990
END
}

# policy-rc.d keeps maintainer scripts from starting services; one that an administrator has put there stays.
policy=/usr/sbin/policy-rc.d
ours=
if [ ! -e "$policy" ]; then
  ours=1
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
trap '[ -z "$ours" ] || rm -f "$policy"' EXIT
trap 'exit 130' INT TERM

echo "deps: installing:$missing"
apt-get update -qq
case "$missing" in *" ipxe"*) add_ipxe_source; apt-get update -qq ;; esac
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
unpack_atftpd

if [ -d /run/systemd/system ]; then
  for unit in tgt keepalived tftpd-hpa nginx kea-dhcp4-server; do
    case "$missing" in *" $unit"*) systemctl disable --quiet "$unit.service" 2>/dev/null || true ;; esac
  done
fi
echo "deps: done"
