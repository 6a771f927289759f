package join

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"everboot/appliance"
	"everboot/site"
)

// Node is what is a node's own.
type Node struct {
	Folder    string // of the configuration
	Name      string
	Interface string
	State     string
	Priority  int
}

// Founding says what site to make. The zero of what is optional is left out of the configuration, where its default then counts.
type Founding struct {
	Node
	Site    string
	VIP     []netip.Prefix
	VRID    int
	DHCP    string // mode: server, proxy or off
	Network netip.Prefix
	Range   string
	Router  netip.Addr
	DNS     []netip.Addr
}

// Found makes a site whose first appliance is this node: its configuration, its secrets and its authority. It returns the files that it made.
func Found(f Founding, now time.Time) ([]string, error) {
	if err := site.CheckName("site", f.Site); err != nil { // before it stands in a certificate
		return nil, err
	}
	if len(f.VIP) == 0 {
		return nil, errors.New("the floating address is missing: name it, such as --vip 198.18.0.10/24")
	}
	own, err := appliance.AddressOf(f.Interface, f.VIP)
	if err != nil {
		return nil, err
	}
	dir := folder(f.Folder)
	if err := dir.isFree(); err != nil {
		return nil, err
	}
	files := map[string][]byte{peerKeyFile: newSecret(), tokenFile: newSecret()}
	if files[authorityFile], files[authorityKey], err = newAuthority(f.Site, now); err != nil {
		return nil, fmt.Errorf("making the site's authority: %w", err)
	}
	files[certificateFile], files[certificateKey], err = newCertificate(f.Name, served(own, f.VIP), files[authorityFile], files[authorityKey], now)
	if err != nil {
		return nil, fmt.Errorf("making this node's certificate: %w", err)
	}
	if err := dir.write(files, []byte(f.text())); err != nil {
		return nil, err
	}
	return dir.made(files), nil
}

// served are the addresses at which a node answers.
func served(own netip.Addr, vip []netip.Prefix) []netip.Addr {
	all := []netip.Addr{own}
	for _, p := range vip {
		all = append(all, p.Addr())
	}
	return all
}

// newSecret returns a secret of 32 random bytes, as the documentation says to make one.
func newSecret() []byte {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		panic(fmt.Sprint("no random numbers: ", err)) // crypto/rand: it never returns one
	}
	return []byte(base64.StdEncoding.EncodeToString(b) + "\n")
}

// text is the configuration.
func (f Founding) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	secret := func(name string) string { return "file:" + filepath.Join(f.Folder, name) }
	line("# Made by `everboot init`. What is marked with \"own\" is this node's own; `everboot join` copies the rest. See docs/configuration.md.")
	line("node = %q # own", f.Name)
	line("site = %q", f.Site)
	line("interface = %q # own", f.Interface)
	line("state = %q # own", f.State)
	line("\n[peers]\naddresses = [] # own; `everboot init` and `everboot invite` add the appliances that join\nkey = %q", secret(peerKeyFile))
	line("\n[vip]\naddresses = [%s]", quoted(f.VIP))
	if f.VRID != 0 {
		line("vrid = %d", f.VRID)
	}
	line("priority = %d # own", f.Priority)
	if f.DHCP != "" {
		line("\n[dhcp]\nmode = %q", f.DHCP)
	}
	if f.Network.IsValid() {
		line("\n[[dhcp.subnet]]\nnetwork = %q", f.Network)
		if f.Range != "" {
			line("range = %q", f.Range)
		}
		if f.Router.IsValid() {
			line("router = %q", f.Router)
		}
		if len(f.DNS) > 0 {
			line("dns = [%s]", quoted(f.DNS))
		}
	}
	line("\n[tftp]\nroot = %q", filepath.Join(f.State, "boot"))
	line("\n[http]\ncertificate = %q # own, signed by %s\nkey = %q # own", filepath.Join(f.Folder, certificateFile), authorityFile, filepath.Join(f.Folder, certificateKey))
	line("\n[api]\nlisten = \":8667\"\ntoken = %q", secret(tokenFile))
	return b.String()
}

func quoted[T fmt.Stringer](list []T) string {
	var words []string
	for _, v := range list {
		words = append(words, fmt.Sprintf("%q", v.String()))
	}
	return strings.Join(words, ", ")
}
