package image

import (
	"context"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

//go:embed node
var nodePieces embed.FS

const (
	nodeLabel = "everboot-node"
	// nodeCmdline: net.ifnames=0, so that the first card is eth0 on every hypervisor.
	nodeCmdline = "root=LABEL=" + nodeLabel + " ro quiet net.ifnames=0 console=tty0 console=ttyS0,115200"
	// DefaultNodeSize is the size of a node's disk, in bytes. It is a sparse file.
	DefaultNodeSize = 8 << 30
	minNodeSize     = 4 << 30
	// nodeBuildSpace is what a build takes for a while: the root in files, as a file system, and on the disk.
	nodeBuildSpace = 3 << 30

	ipxeSuite = "trixie" // whose ipxe is new enough
)

// nodePackages are what a node has beside everboot's own package.
var nodePackages = []string{
	"linux-image-cloud-amd64", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "udev", "dbus", "kmod", "iproute2", "iputils-ping", "netbase", "initramfs-tools", "zstd",
	"e2fsprogs", "nftables", "openssh-server", "sudo", "cloud-init", "cloud-guest-utils", "fdisk", "tgt", "isolinux", "syslinux-common", "ipxe",
}

// NodeConfig says what image of a node to make: a virtual machine's disk that becomes an appliance or a streamer at its first boot.
type NodeConfig struct {
	// Output is the raw disk image. It appears, or is replaced, as a whole. Where Compact is a name, the same is there as qcow2.
	Output, Compact string
	// Package is everboot's own Debian package for amd64.
	Package string
	// Suite and Mirror are as in VDiskConfig.
	Suite, Mirror string
	// Packages are installed beside the base.
	Packages []string
	// Consul is a Consul binary (amd64), which gets a unit; empty: none.
	Consul string
	// User, with Key (a public key of ssh, one line), is one who logs in over ssh and may do all (sudo); empty: nobody, until the first boot.
	User, Key string
	// Size of the disk in bytes; 0: DefaultNodeSize.
	Size int64
	// Date is the latest that a file in it has; zero: 1980-01-01.
	Date time.Time
	// Progress gets a line now and then; nil means silence.
	Progress func(string)
}

var (
	debName  = regexp.MustCompile(`\.deb$`)
	userRule = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	keyRule  = regexp.MustCompile(`^(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]+( [^\n]*)?$`)
)

// Validate returns an error that names what is wrong, or nil.
func (c NodeConfig) Validate() error {
	switch {
	case c.Output == "":
		return errors.New("the output file is missing")
	case !debName.MatchString(c.Package):
		return errors.New("everboot's own package is missing: name the file that `make deb` made")
	case c.Size != 0 && (c.Size < minNodeSize || c.Size%alignment != 0):
		return fmt.Errorf("a disk of %d bytes: use %d GiB or more, in whole MiB", c.Size, minNodeSize>>30)
	}
	if c.User != "" && (!userRule.MatchString(c.User) || !keyRule.MatchString(c.Key)) {
		return fmt.Errorf("user %q with key %q: use a name of small letters, and a public key of one line", c.User, c.Key)
	}
	for _, path := range []string{c.Package, c.Consul} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err != nil {
			return err
		} else if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file", path)
		}
	}
	return errors.Join(c.checkOutputs(), c.debian().Validate())
}

// checkOutputs protects what is no image: it would be replaced.
func (c NodeConfig) checkOutputs() error {
	if filepath.Clean(c.Output) == filepath.Clean(c.Compact) {
		return fmt.Errorf("%s cannot be raw and qcow2: name two files", c.Output)
	}
	for _, path := range []string{c.Output, c.Compact} {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file, and is left as it is: name one, then copy it", path)
		}
	}
	return nil
}

// checkTools looks for the programs of other packages, before minutes are spent.
func (c NodeConfig) checkTools() error {
	for _, tool := range []struct {
		name, from string
		needed     bool
	}{
		{"mmdebstrap", "mmdebstrap", true}, {"newuidmap", "uidmap", os.Geteuid() != 0}, {"qemu-img", "qemu-utils", c.Compact != ""},
	} {
		if _, err := exec.LookPath(tool.name); err != nil && tool.needed {
			return fmt.Errorf("%s is missing: apt-get install %s", tool.name, tool.from)
		}
	}
	return nil
}

// debian is what the build shares with that of a vDisk.
func (c NodeConfig) debian() VDiskConfig {
	return VDiskConfig{Output: c.Output, Suite: c.Suite, Mirror: c.Mirror, Packages: c.Packages, Progress: c.Progress}.withDefaults()
}

// BuildNode makes the image with mmdebstrap; it takes some minutes. It needs root, or a user with subordinate ids (package uidmap), and for Compact
// qemu-img. After an error or a cancelled context nothing is left.
func BuildNode(ctx context.Context, c NodeConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Size == 0 {
		c.Size = DefaultNodeSize
	}
	if c.Date.IsZero() {
		c.Date = firstDay
	}
	if err := c.checkTools(); err != nil {
		return err
	}
	dir, err := buildFolder(c.Output)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := c.build(ctx, dir); errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("no space left in %s: a build takes about %d GiB there; nothing of it is left", filepath.Dir(c.Output), nodeBuildSpace>>30)
	} else if err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, DiskFile), c.Output)
}

// buildFolder makes a folder beside an output: what is made there can be put in place as a whole.
func buildFolder(output string) (string, error) {
	dir, err := os.MkdirTemp(filepath.Dir(output), temporaryPrefix(output))
	if err != nil {
		return "", fmt.Errorf("making a folder in %s: %w", filepath.Dir(output), plainPathError(err))
	}
	return dir, nil
}

// build makes the disk in dir, and the compact one in its place.
func (c NodeConfig) build(ctx context.Context, dir string) error {
	if err := c.bootstrap(ctx, dir); err != nil {
		return err
	}
	c.debian().Progress("writing the disk")
	disk := filepath.Join(dir, DiskFile)
	if err := c.writeDisk(dir, disk); err != nil || c.Compact == "" {
		return err
	}
	c.debian().Progress("compressing it")
	beside, err := buildFolder(c.Compact)
	if err != nil {
		return err
	}
	defer os.RemoveAll(beside)
	compact := filepath.Join(beside, DiskFile)
	if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-q", "-c", "-W", "-O", "qcow2", disk, compact).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "No space left") {
			return fmt.Errorf("no space left in %s for the qcow2; nothing of it is left", filepath.Dir(c.Compact))
		}
		return fmt.Errorf("running qemu-img: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return os.Rename(compact, c.Compact)
}

// seed makes the GUIDs of the disk: no two builds of the same share them with a vDisk, and none tells two machines apart.
func (c NodeConfig) seed() string { return "node" }

// writeDisk lays the loader and the root out; the root's partition takes what is left of the disk.
func (c NodeConfig) writeDisk(dir, disk string) error {
	loader, code, err := loaderParts(dir)
	if err != nil {
		return err
	}
	root := filepath.Join(dir, rootFile)
	size, err := trim(root)
	if err != nil {
		return err
	}
	used := int64(2 * alignment) // before the first partition, and behind the last
	for _, p := range loader {
		used += roundUp(p.size, alignment)
	}
	if c.Size-used < size {
		return fmt.Errorf("the root has %d MiB, and the disk of %d MiB has no room for it; make it larger", size>>20, c.Size>>20)
	}
	return writeDisk(disk, c.seed(), code, append(loader, filled{
		gptPartition{kind: typeLinux, name: nodeLabel, size: c.Size - used},
		func(w io.Writer) error { return copyFile(w, root) },
	}))
}

// bootstrap makes the root file system and the loader's files in dir.
func (c NodeConfig) bootstrap(ctx context.Context, dir string) error {
	debian := c.debian()
	sources, err := aptSources(ctx, debian)
	if err != nil {
		return err
	}
	if debian.Suite != ipxeSuite {
		mirror := strings.Fields(sources)[1]
		sources += fmt.Sprintf("\ndeb %s %s main", mirror, ipxeSuite)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // apt's own user passes through it
		return err
	}
	files := filepath.Join(dir, filesTar)
	if err := writeTar(files, c.payload()); err != nil {
		return err
	}
	defer os.Remove(files)
	pins := filepath.Join(dir, piecesTar)
	if err := writeTar(pins, []entry{{path: "/etc/apt/preferences.d/everboot-ipxe", mode: 0o644, text: nodePiece("files/apt-preferences")}}); err != nil {
		return err
	}
	defer os.Remove(pins)
	finish, err := c.finish()
	if err != nil {
		return err
	}
	return runMmdebstrap(ctx, debian, dir, c.mmdebstrapArgs(dir, pins, files, finish, sources))
}

// finish is the last hook. How GRUB's parts are made it takes from a vDisk's.
func (c NodeConfig) finish() (string, error) {
	vdisk, err := pieces.ReadFile("vdisk/finish.sh")
	if err != nil {
		return "", err
	}
	_, grub, ok := strings.Cut(string(vdisk), "# GRUB's parts")
	grub, _, ok2 := strings.Cut(grub, `echo "everboot: making the file system"`)
	if !ok || !ok2 {
		return "", errors.New("vdisk/finish.sh no longer makes GRUB's parts")
	}
	id := guidOf(c.seed(), "root")
	plain := hex.EncodeToString(id[:])
	uuid := strings.Join([]string{plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]}, "-")
	head := fmt.Sprintf("set -eu\nroot=$1\nout=$root/tmp/everboot\nPATH=$PATH:/sbin:/usr/sbin\nSOURCE_DATE_EPOCH=%d\nEVERBOOT_UUID=%s\nexport SOURCE_DATE_EPOCH\n"+
		// systemd-resolved has put its own in place; nobody answers there yet.
		"rm -f \"$root/etc/resolv.conf\"\ncat /etc/resolv.conf >\"$root/etc/resolv.conf\"\nmkdir \"$out\"\n", c.Date.Unix(), uuid)
	return head + "# GRUB's parts" + grub + string(nodePiece("finish.sh")), nil
}

func (c NodeConfig) mmdebstrapArgs(dir, pins, files, finish, sources string) []string {
	packages := append(append([]string{}, nodePackages...), c.Packages...)
	args := []string{
		"--variant=minbase", "--format=null", "--include=" + strings.Join(packages, ","),
		`--aptopt=Apt::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
		"--setup-hook=tar-in " + quote(pins) + " /",
	}
	for _, path := range excluded {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	hooks := []string{
		"upload " + quote(c.Package) + " /tmp/everboot.deb",
		`chroot "$1" apt-get install -y -qq /tmp/everboot.deb`,
		"tar-in " + quote(files) + " /",
	}
	if c.Consul != "" {
		hooks = append(hooks, "upload "+quote(c.Consul)+" /usr/local/bin/consul", `chmod 755 "$1/usr/local/bin/consul"`, `chroot "$1" systemctl --quiet enable consul.service`)
	}
	if c.User != "" {
		hooks = append(hooks, fmt.Sprintf(`chroot "$1" useradd --create-home --shell /bin/bash %[1]s && chroot "$1" chown -R %[1]s: /home/%[1]s/.ssh`, c.User))
	}
	hooks = append(hooks,
		`chroot "$1" systemctl --quiet disable tgt.service`, // the streamer's agent runs it
		`chroot "$1" systemctl --quiet enable nftables.service systemd-networkd.service everboot-identity.service everboot-setup@ttyS0.service everboot-setup@tty1.service`,
		`chroot "$1" linux-update-symlinks install "$(ls "$1/boot" | sed -n 's/^vmlinuz-//p')" "/boot/vmlinuz-$(ls "$1/boot" | sed -n 's/^vmlinuz-//p')" || true`,
		`ln -sf "$(basename "$1"/boot/vmlinuz-*)" "$1/boot/vmlinuz"`,
		`ln -sf "$(basename "$1"/boot/initrd.img-*)" "$1/boot/initrd.img"`,
		finish,
	)
	for _, name := range append([]string{rootFile}, loaderFiles...) {
		hooks = append(hooks, "download /tmp/everboot/"+name+" "+quote(filepath.Join(dir, name)))
	}
	for _, h := range hooks {
		args = append(args, "--customize-hook="+h)
	}
	args = append(args, c.debian().Suite, "/dev/null")
	return append(args, strings.Split(sources, "\n")...)
}

// payload lists what is laid over the installed packages.
func (c NodeConfig) payload() []entry {
	text := func(path string, mode os.FileMode, content string) entry {
		return entry{path: path, mode: mode, text: []byte(content)}
	}
	piece := func(path string, mode os.FileMode, name string) entry {
		return entry{path: path, mode: mode, text: nodePiece("files/" + name)}
	}
	const units = "/etc/systemd/system/"
	files := []entry{
		text("/boot/grub/grub.cfg", 0o644, "linux /boot/vmlinuz "+nodeCmdline+"\ninitrd /boot/initrd.img\nboot\n"),
		// The package of the kernel keeps the two links: an update needs no boot loader's tools.
		text("/etc/kernel-img.conf", 0o644, "do_symlinks = yes\nlink_in_boot = yes\n"),
		text("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"),
		text("/etc/fstab", 0o644, "LABEL="+nodeLabel+" / ext4 defaults,x-systemd.growfs 0 1\n"),
		// Where nothing else is said; cloud-init's file comes before it.
		text("/etc/systemd/network/80-everboot-dhcp.network", 0o644, "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n[DHCPv4]\nClientIdentifier=mac\n"),
		// On a network without DHCP the console asks half a minute later, and not two minutes.
		text(units+"systemd-networkd-wait-online.service.d/everboot.conf", 0o644, "[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-networkd-wait-online --timeout=30\n"),
		text("/etc/ssh/sshd_config.d/everboot.conf", 0o644, "PasswordAuthentication no\n"),
		piece("/etc/nftables.conf", 0o755, "nftables.conf"),
		text("/etc/nftables.d/README", 0o644, "Rules of your own, as NAME.nft: add rule inet node input …\n"),
		piece("/etc/cloud/cloud.cfg.d/90-everboot.cfg", 0o644, "cloud.cfg"),
		piece(units+"everboot-identity.service", 0o644, "everboot-identity.service"),
		piece(units+"everboot-invite.service", 0o644, "everboot-invite.service"),
		piece(units+"everboot-setup@.service", 0o644, "everboot-setup@.service"),
		piece("/usr/lib/everboot/setup", 0o755, "setup"),
	}
	if c.Consul != "" {
		files = append(files, piece(units+"consul.service", 0o644, "consul.service"), piece("/etc/nftables.d/consul.nft", 0o644, "consul.nft"),
			text("/etc/consul.d/README", 0o644, "The agent's configuration, as NAME.hcl; then systemctl start consul.\n"))
	}
	if c.User != "" {
		files = append(files, text("/home/"+c.User+"/.ssh/authorized_keys", 0o600, c.Key+"\n"),
			text("/etc/sudoers.d/"+c.User, 0o440, c.User+" ALL=(ALL) NOPASSWD: ALL\n"))
	}
	return files
}

func nodePiece(name string) []byte {
	text, err := nodePieces.ReadFile("node/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	return text
}
