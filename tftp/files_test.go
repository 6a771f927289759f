package tftp_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"everboot/site"
	"everboot/tftp"
)

// newFiles serves a root with a few files and a folder of binaries.
func newFiles(t *testing.T) (files *tftp.Files, root string) {
	t.Helper()
	dir := t.TempDir()
	root, ipxe := filepath.Join(dir, "root"), filepath.Join(dir, "ipxe")
	write := func(path, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "secret"), "secret")
	write(filepath.Join(root, "sub", "kernel"), "kernel")
	write(filepath.Join(root, "ipxe.efi"), "the operator's")
	write(filepath.Join(root, "bootstrap.ipxe"), "not served")
	write(filepath.Join(ipxe, "undionly.kpxe"), "bios")
	write(filepath.Join(ipxe, "ipxe-amd64.efi"), "uefi")
	write(filepath.Join(ipxe, "README"), "not served")
	for link, to := range map[string]string{
		filepath.Join(ipxe, "snponly.efi"): "ipxe-amd64.efi", filepath.Join(ipxe, "ipxe.efi"): "ipxe-amd64.efi",
		filepath.Join(root, "inside"): "sub/kernel", filepath.Join(root, "outside"): "../secret", filepath.Join(root, "absolute"): "/etc/passwd",
		filepath.Join(root, "updir"): "..",
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := tftp.NewFiles(tftp.FilesConfig{Root: root, IPXE: ipxe}, exampleView)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	return files, root
}

func TestFiles(t *testing.T) {
	files, _ := newFiles(t)
	bootstrap := site.Bootstrap{Hosts: []string{"198.18.0.10", "198.18.0.2"}}.Script()
	for name, want := range map[string]string{
		"bootstrap.ipxe": bootstrap, "/autoexec.ipxe": bootstrap, `sub\kernel`: "kernel", "inside": "kernel", "undionly.kpxe": "bios",
		"snponly.efi": "uefi", "ipxe.efi": "the operator's",
	} {
		file, err := files.Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(file.Content)
		if err != nil || string(got) != want || file.Size != int64(len(want)) {
			t.Errorf("%s: %q, size %d, %v", name, got, file.Size, err)
		}
		if len(file.ETag) < 3 || file.ETag[0] != '"' {
			t.Errorf("%s: ETag %s", name, file.ETag)
		}
		file.Close()
	}
	for _, name := range []string{"outside", "absolute", "updir/secret", "../secret", "sub", "fifo", "none", "README", "sub/kernel/x", "/etc/passwd"} {
		if file, err := files.Open(name); err == nil {
			t.Errorf("%s: opened %+v", name, file)
		}
	}
}

func TestFilesSayWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  tftp.FilesConfig
		want string
	}{
		{tftp.FilesConfig{Root: "relative"}, "use an absolute path"},
		{tftp.FilesConfig{IPXE: "relative"}, "use an absolute path"},
		{tftp.FilesConfig{Root: filepath.Join(dir, "none")}, "does not exist: make it, or change root"},
		{tftp.FilesConfig{Root: file}, "is not a directory: change root"},
		{tftp.FilesConfig{Root: dir, IPXE: dir}, "install Debian's package ipxe, or put it into root"},
	} {
		errs := tftp.CheckFiles(c.cfg)
		if len(errs) == 0 || !strings.Contains(errs[0].Error(), c.want) || strings.Contains(errs[0].Error(), "\n") {
			t.Errorf("%+v: %v, want %q", c.cfg, errs, c.want)
		}
	}
	if _, err := tftp.NewFiles(tftp.FilesConfig{Root: filepath.Join(dir, "none")}, exampleView); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, name := range []string{site.FileBIOS, site.FileX64} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if errs := tftp.CheckFiles(tftp.FilesConfig{Root: dir, IPXE: dir}); len(errs) != 0 {
		t.Error(errs)
	}
}
