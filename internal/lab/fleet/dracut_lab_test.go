package fleet_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"everboot/image"
	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/internal/lab/guest/vdisk"
)

// dracutBuild makes kernel and initramfs in a fresh Debian, as docs/target.md says: $1 the source tree, $2 the folder for them, $3 the suite.
const dracutBuild = `set -eu
. /etc/os-release
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $VERSION_CODENAME" "Component: main" | head -n 1)
pieces=$1/image/vdisk
module=/usr/lib/dracut/modules.d/90everboot
mmdebstrap --quiet --variant=minbase --format=null --aptopt='Apt::Install-Recommends "false"' \
  --include=linux-image-cloud-amd64,dracut,systemd-sysv,udev,dbus,kmod,iproute2,open-iscsi,busybox,zstd \
  --customize-hook="cp -r $pieces/dracut/90everboot \$1/usr/lib/dracut/modules.d/; cp $pieces/dracut/everboot.conf \$1/etc/dracut.conf.d/" \
  --customize-hook="cp $pieces/initramfs/hooks/everboot \$1$module/hook; cp $pieces/initramfs/scripts/local-top/everboot \$1$module/attach; cp $pieces/initramfs/scripts/local-bottom/everboot \$1$module/overlay" \
  --customize-hook='chroot "$1" sh -c "dracut --force /boot/initrd.img \$(ls /lib/modules)" >&2; cp "$1"/boot/vmlinuz-* "$1/boot/vmlinuz"' \
  --customize-hook="download /boot/initrd.img $2/initrd.img" --customize-hook="download /boot/vmlinuz $2/vmlinuz" \
  "$3" /dev/null "$mirror"
`

// dracutDisk is the Debian of the other tests behind an initramfs that dracut made.
func dracutDisk(t *testing.T) func(context.Context, string, func(string)) (string, error) {
	return func(ctx context.Context, cache string, progress func(string)) (string, error) {
		full, err := vdisk.Full(ctx, cache, progress)
		if err != nil {
			return "", err
		}
		left, err := filepath.Glob(filepath.Join(cache, ".dracut-*")) // by a run that was killed
		if err != nil {
			return "", err
		}
		for _, dir := range left {
			os.RemoveAll(dir)
		}
		dir, err := os.MkdirTemp(cache, ".dracut-")
		if err != nil {
			return "", err
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		out, err := exec.CommandContext(ctx, "sh", "-c", dracutBuild, "sh", filepath.Dir(cache), dir, image.DefaultSuite).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("building with dracut: %w\n%s", err, out)
		}
		return dir, os.Link(filepath.Join(full, image.DiskFile), filepath.Join(dir, image.DiskFile))
	}
}

// TestDracut boots a Debian by an initramfs of dracut, which has systemd in it: the disk is attached by our iscsid, the root is writable. When the initramfs is gone its
// streamer is killed: it reads on, because iscsid lives on.
func TestDracut(t *testing.T) {
	unhurried(t) // it builds an initramfs in a fresh Debian
	f := newFleet(t, fleet.Options{}, dracutDisk(t))
	start(t, f, "a", "b", "s1", "s2")
	target := boot(t, f, 1, lab.BIOS)
	must(t, target.AwaitMultiuser(bootTime))
	_, err := target.Expect(`root@target:~# `, bootTime) // getty throws away what was typed before
	must(t, err)
	must(t, target.Send("touch /root/written && echo WRITA''BLE\r"))
	_, err = target.Expect(`WRITABLE\r?\n`, bootTime)
	must(t, err)
	owner, err := f.Owner()
	must(t, err)
	serving, err := f.Serving(owner, 1)
	must(t, err)
	t.Logf("its streamer killed: longest read %v", watch(t, target, "its streamer", func() { f.Host[serving].KillAll() }).Longest)
}
