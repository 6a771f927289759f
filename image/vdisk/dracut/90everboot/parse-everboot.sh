#!/bin/sh
# everboot: has the vDisk attached when the first devices are there, and the boot wait for that.
if [ "$(getarg everboot.iscsi)" = ibft ]; then
    /sbin/initqueue --settled --onetime --unique --name everboot /sbin/attach-everboot
    # shellcheck disable=SC2154
    echo '[ -e /run/initramfs/everboot/attached ]' >"$hookdir/initqueue/finished/90-everboot.sh"
fi
