# The last hook of mmdebstrap: cleans the new root ($1), and puts into its /tmp/everboot what the build downloads from there:
# the root as a file system, the kernel and the initramfs. It runs as root, perhaps only of a user namespace.
set -eu
root=$1
out=$root/tmp/everboot
PATH=$PATH:/sbin:/usr/sbin
mkdir "$out"

# The initramfs is made anew, as hooks before this one may have changed things.
echo "everboot: making the initramfs" >&2
chroot "$root" update-initramfs -u >&2
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd.img"

echo "everboot: making the file system" >&2
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
    "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/var/log/* "$root"/etc/iscsi/initiatorname.iscsi "$root"/var/lib/dbus/machine-id
ln -sf /run/initramfs/everboot/resolv.conf "$root/etc/resolv.conf"

# A second mount shows the root without what is mounted on it (/proc, /sys, /dev), and with an empty /tmp.
clean=$(mktemp -d)
mount --bind "$root" "$clean"
trap 'umount -R "$clean" && rmdir "$clean"' EXIT
mount -t tmpfs -o mode=1777 everboot "$clean/tmp"
inodes=$(find "$clean" -xdev | wc -l)
kib=$(du -skx --apparent-size "$clean" | cut -f1)
mke2fs -q -F -t ext4 -O ^has_journal -m 0 -L everboot-root -N $((inodes + 64)) -E root_owner=0:0 \
    -d "$clean" "$out/root.ext4" $((kib + kib / 4 + inodes * 4 + 32768))k >&2
# Nobody ever writes to it, so it needs no free blocks.
resize2fs -f -M "$out/root.ext4" >&2
