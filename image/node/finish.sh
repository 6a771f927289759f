echo "everboot: making the file system" >&2
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# What tells one machine from another is made at its first boot.
rm -rf "$root"/etc/ssh/ssh_host_* "$root"/var/lib/systemd/random-seed "$root"/var/lib/dbus/machine-id "$root"/var/lib/cloud "$root"/etc/hostname
: >"$root/etc/machine-id"
# What tells one build from another, and what nobody needs.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/ldconfig/aux-cache \
    "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/tmp/everboot.deb
find "$root/var/log" -type f -delete
find "$root" -xdev -name __pycache__ -prune -exec rm -rf {} +

# A second mount shows the root without what is mounted on it (/proc, /sys, /dev), and with an empty /tmp.
clean=$(mktemp -d)
mount --bind "$root" "$clean"
trap 'umount -R "$clean" && rmdir "$clean"' EXIT
mount -t tmpfs -o mode=1777 everboot "$clean/tmp"
find "$clean" -xdev -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
kib=$(find "$clean" -xdev -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n * 4 }')
# It grows to the size of its partition when it is mounted first. GRUB does not know the features that are switched off.
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -F -t ext4 -b 4096 -O ^metadata_csum_seed,^orphan_file -m 1 -U "$EVERBOOT_UUID" \
    -L everboot-node -E root_owner=0:0,hash_seed="$EVERBOOT_UUID",lazy_itable_init=0 -d "$clean" "$out/root.ext4" "$((kib + kib / 4 + 65536))k" >&2
