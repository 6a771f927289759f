package tftp_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"everboot/tftp"
)

func TestCleanName(t *testing.T) {
	for raw, want := range map[string]string{
		"snponly.efi":             "snponly.efi",
		"/snponly.efi":            "snponly.efi",
		"//pxe///snponly.efi":     "pxe/snponly.efi",
		`\pxe\undionly.kpxe`:      "pxe/undionly.kpxe",
		"./a/./b":                 "a/b",
		"undionly.kpxe\xff":       "undionly.kpxe",
		"dir/":                    "dir",
		"a..b/...":                "a..b/...",
		"größe.img":               "größe.img",
		strings.Repeat("x", 255):  strings.Repeat("x", 255),
		"":                        "",
		"/":                       "",
		".":                       "",
		"..":                      "",
		"../etc/passwd":           "",
		"/pxe/../../etc/passwd":   "",
		`..\..\etc\passwd`:        "",
		"a/..":                    "",
		"a\x00b":                  "",
		"a\nb":                    "",
		"\xff":                    "",
		strings.Repeat("x", 500):  "",
		strings.Repeat("../", 80): "",
	} {
		got, err := tftp.CleanName(raw)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %q, %v; want %q", raw, got, err, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, seed := range []string{`\pxe\undionly.kpxe`, "/a/../b", "x\xff", "a/./b//", "..", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := tftp.CleanName(raw)
		if err != nil {
			if name != "" || !errors.Is(err, fs.ErrInvalid) {
				t.Fatalf("%q: %q with %v", raw, name, err)
			}
			return
		}
		// fs.ValidPath asks for UTF-8 too, which file names need not be.
		if strings.ToValidUTF8(name, "") == name && (!fs.ValidPath(name) || name == ".") {
			t.Fatalf("%q: %q leads out or nowhere", raw, name)
		}
		if again, err := tftp.CleanName(name); err == nil && again != name && !strings.HasSuffix(name, "\xff") {
			t.Fatalf("%q: %q is cleaned again to %q", raw, name, again)
		}
	})
}

func FuzzBootQuery(f *testing.F) {
	for _, seed := range []string{
		"mac=52:54:00:00:00:01&uuid=1-2&platform=pcbios&arch=i386", "mac=52-54-00-00-00-01", "mac=ff:ff:ff:ff:ff:ff", "mac=%zz", "mac=1;mac=2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := tftp.ParseBootQuery(raw)
		if err != nil {
			return
		}
		if q.MAC.IsZero() {
			t.Fatalf("%q: no MAC", raw)
		}
		if rest := q.UUID + q.Platform + q.Arch; strings.ContainsAny(rest, " \r\n${}") {
			t.Fatalf("%q: %q is told on", raw, rest)
		}
	})
}

func TestParseBootQuery(t *testing.T) {
	for raw, want := range map[string]tftp.BootQuery{
		"mac=52:54:00:00:00:01&uuid=4c4c-1&platform=efi&arch=x86_64": {MAC: t1, UUID: "4c4c-1", Platform: "efi", Arch: "x86_64"},
		"mac=52-54-00-00-00-01&new=1":                                {MAC: t1},
		"mac=52:54:00:00:00:01&platform=a%0Ab&arch=":                 {MAC: t1},
	} {
		if got, err := tftp.ParseBootQuery(raw); err != nil || got != want {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
	for _, raw := range []string{"", "mac=", "mac=x", "mac=00:00:00:00:00:00", "mac=ff:ff:ff:ff:ff:ff", "mac=01:00:5e:00:00:01", "uuid=1", "%zz"} {
		if q, err := tftp.ParseBootQuery(raw); err == nil {
			t.Errorf("%s: %+v", raw, q)
		}
	}
}
