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

ln -sf "$(basename "$root"/boot/vmlinuz-*)" "$root/boot/vmlinuz"
ln -sf "$(basename "$root"/boot/initrd.img-*)" "$root/boot/initrd.img"

# GRUB's parts are needed once, so they are unpacked and not installed. A prefix that begins with a comma means the
# disk that GRUB was started from; the root is its third partition.
echo "everboot: making the boot loader" >&2
mkdir "$out/grub"
chmod 777 "$out" "$out/grub" # apt downloads as a user of its own
chroot "$root" sh -eu -c '
    cd /tmp/everboot/grub
    apt-get -qq download grub-common grub-pc-bin grub-efi-amd64-bin
    for package in *.deb; do dpkg-deb -x "$package" .; done
    modules="part_gpt ext2 normal linux boot echo test"
    usr/bin/grub-mkimage -d usr/lib/grub/i386-pc -O i386-pc -p "(,gpt3)/boot/grub" -o ../core.img biosdisk $modules
    usr/bin/grub-mkimage -d usr/lib/grub/x86_64-efi -O x86_64-efi -p "(,gpt3)/boot/grub" -o ../bootx64.efi $modules
    cp usr/lib/grub/i386-pc/boot.img ..
' >&2

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
# Nobody ever writes to it, so it needs no free blocks: files in whole blocks, 256 bytes an inode, a hundredth for the rest.
kib=$(find "$clean" -xdev -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n * 4 }')
kib=$((kib + inodes / 4 + kib / 100 + 1024))
# GRUB does not know the features that are switched off.
mke2fs -q -F -t ext4 -b 4096 -O ^has_journal,^resize_inode,^metadata_csum_seed,^orphan_file -m 0 -N $((inodes + 16)) \
    -L everboot-root -E root_owner=0:0 -d "$clean" "$out/root.ext4" "${kib}k" >&2
