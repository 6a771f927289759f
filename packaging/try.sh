#!/bin/sh
# Installs the package, runs both units' programs as the units' user with the units' capabilities, purges it, and says what is left: in an overlay of
# this host's files, in namespaces of its own, so that nothing of it reaches the host.
#
#   try.sh PACKAGE     as root; prints "nothing left", or what is left
set -eu
deb=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
if [ "${INSIDE:-}" != yes ]; then
  INSIDE=yes exec unshare --mount --net --pid --mount-proc --fork --kill-child "$0" "$deb"
fi

mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
mount --rbind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
mount -t tmpfs tmpfs /mnt/root/run
mount -t tmpfs tmpfs /mnt/root/tmp
cp "$deb" /mnt/root/tmp/everboot.deb
in_root() { chroot /mnt/root "$@"; }
# For the package's scripts systemd runs, and its services do not come up again. Nothing of it may set the host's kernel.
mkdir -p /mnt/root/run/systemd/system /mnt/root/tmp/bin
printf '#!/bin/sh\n[ "$1" != try-restart ]\n' >/mnt/root/tmp/bin/systemctl
chmod 755 /mnt/root/tmp/bin/systemctl
mount --bind /mnt/root/proc/sys /mnt/root/proc/sys
mount -o remount,bind,ro /mnt/root/proc/sys
dpkg_in() { in_root env PATH="/tmp/bin:$PATH" dpkg "$@" >/dev/null; }
dpkg_in -i --force-depends /tmp/everboot.deb

# The network of a test: RFC 2544.
ip link set lo up
ip link add eth0 type veth peer name far
ip addr add 198.18.0.2/24 dev eth0
ip link set eth0 up
ip link set far up
for kind in appliance streamer; do install -o root -g root -m 644 /dev/null /mnt/root/etc/everboot/$kind.toml; done
cat >/mnt/root/etc/everboot/appliance.toml <<END
node = "a"
interface = "eth0"
[vip]
addresses = ["198.18.0.10/24"]
END
cat >/mnt/root/etc/everboot/streamer.toml <<END
node = "s1"
[registry]
kind = "embedded"
addresses = ["http://127.0.0.1:8667"]
[iscsi]
addresses = ["198.18.0.2:3261"]
END

# as runs a unit's program as systemd would: its user, and the capabilities that the unit names, no others.
as() {
  caps=$(sed -n 's/^AmbientCapabilities=//p' "$here/everboot-$1.service" | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
  shift
  in_root setpriv --reuid everboot --regid everboot --init-groups --no-new-privs --bounding-set "-all${caps:+,$caps}" \
    --inh-caps "-all${caps:+,$caps}" --ambient-caps "-all${caps:+,$caps}" "$@"
}
wait_for() { for i in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done; echo "not within 20 s: $*"; return 1; }
as appliance everboot appliance >/mnt/a.log 2>&1 & appliance=$!
wait_for sh -c 'ip -4 addr show eth0 | grep -q 198.18.0.10' || { cat /mnt/a.log; exit 1; }
as streamer everboot streamer >/mnt/s.log 2>&1 & streamer=$!
wait_for sh -c 'chroot /mnt/root everboot status --json | grep -q "\"name\": \"s1\""' || { cat /mnt/s.log; exit 1; }
# Killed in the hardest way; what ExecStopPost does is then the only thing that takes the address away before it ends by itself.
kill -9 -1 # this shell is the first process of its namespace, and stays
as appliance everboot vip flush --config /etc/everboot/appliance.toml >>/mnt/a.log 2>&1 || { cat /mnt/a.log; exit 1; }
if ip -4 addr show eth0 | grep -q 198.18.0.10; then echo "the floating address is left"; exit 1; fi
wait $appliance $streamer 2>/dev/null || true

# vDisks outlive a purge, on a file system of their own, too.
store=/mnt/root/var/lib/everboot/vdisks
mount -t tmpfs none $store
touch $store/disk
dpkg_in --purge everboot
[ -e $store/disk ] || { echo "a purge took the vDisks"; exit 1; }
umount $store
touch $store/disk
dpkg_in -i --force-depends /tmp/everboot.deb
dpkg_in --purge everboot
[ -e $store/disk ] || { echo "a purge took the vDisks"; exit 1; }
rm $store/disk
dpkg_in -i --force-depends /tmp/everboot.deb
dpkg_in --purge everboot
# Whatever differs from the host, but dpkg's own records and logs, and backups of the password files.
umount -R /mnt/root/dev
left=$(cd /mnt/upper && find . -mindepth 1 ! -type d ! -path './var/lib/dpkg/*' ! -path './var/log/*' ! -path './var/cache/*' ! -path './etc/.pwd.lock' ! -path './etc/*-' | while read -r f; do
  [ -f "/$f" ] && cmp -s "$f" "/$f" || echo "$f"; done; find . -mindepth 1 -type d | while read -r d; do [ -d "/$d" ] || echo "$d"; done)
if [ -n "$left" ] || grep -q everboot /mnt/root/etc/passwd /mnt/root/etc/group /mnt/root/etc/shadow; then
  echo "left behind: $left"
  exit 1
fi
echo "nothing left"
