#!/bin/sh
# everboot: the writable layer, when the root is mounted and nobody has looked at it yet.
rootmnt=${NEWROOT:-/sysroot} /bin/sh /etc/everboot/overlay || die "everboot: no writable root"
