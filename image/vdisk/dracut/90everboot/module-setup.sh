#!/bin/bash
# everboot: the pieces for initramfs-tools, in an initramfs of dracut. They stand beside this file: hook, attach (its local-top) and overlay
# (its local-bottom); functions is what they expect to find. See docs/target.md.

# check never answers that this module is wanted anyway: everboot.conf asks for it.
check() {
    require_binaries iscsid iscsiadm ip busybox || return 1
    return 255
}

depends() { echo base rootfs-block kernel-modules; }

# installkernel adds the cards that the hook does not name.
installkernel() { hostonly='' instmods '=drivers/net/ethernet' '=drivers/net/phy'; }

install() {
    inst_multiple cat chroot cp grep mkdir mount modprobe ip sed sleep tail udevadm
    inst_simple "$moddir/functions" /scripts/functions
    inst_script "$moddir/attach" /etc/everboot/attach
    inst_script "$moddir/overlay" /etc/everboot/overlay
    inst_script "$moddir/attach-everboot.sh" /sbin/attach-everboot
    inst_hook cmdline 90 "$moddir/parse-everboot.sh"
    inst_hook pre-pivot 10 "$moddir/lay-everboot.sh"
    (
        export DRACUT_RESOLVE_DEPS=1 # at once: the hook looks for the programs' libraries
        # What the hook knows of initramfs-tools.
        copy_exec() { inst "$1" "$2"; }
        manual_add_modules() { hostonly='' instmods "$@"; }
        DESTDIR=$initdir
        BUSYBOXDIR=$(dirname "$(readlink -f "$(command -v busybox)")")
        EVERBOOT_FUNCTIONS=/dev/null
        set --
        # shellcheck source=/dev/null
        . "$moddir/hook"
    )
}
