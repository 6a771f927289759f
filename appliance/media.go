package appliance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"

	"everboot/image"
	"everboot/site"
	"everboot/tftp"
)

// media makes targets' boot media, which hypervisors mount by URL: one image, made when the first is asked for, with each target's program in it. And it
// tells running targets what the media in them shall be.
type media struct {
	key  string
	view func() *site.View
	base func() (*image.Medium, error)
	seen func(s tftp.MediumState, behind bool) // who has which, for the report
}

// newMedia makes media that trust the authority of the certificate in the file, if it has one of its own; no file: there is no HTTPS.
func newMedia(key, certificate string, view func() *site.View, seen func(tftp.MediumState, bool)) *media {
	m := &media{key: key, view: view, seen: seen}
	m.base = sync.OnceValues(func() (*image.Medium, error) {
		loaders, err := image.FindLoaders(nil)
		if err == nil && certificate != "" {
			err = trust(&loaders, certificate)
		}
		if err != nil {
			return nil, fmt.Errorf("boot media cannot be made on this appliance: %w; then restart the appliance", err)
		}
		return image.NewMedium(image.MediumConfig{Program: m.program(site.MAC{}, ""), Loaders: loaders})
	})
	return m
}

func trust(loaders *image.Loaders, certificate string) error {
	chain, err := os.ReadFile(certificate)
	if err != nil {
		return err
	}
	if ca := image.Authority(chain); ca != nil {
		if err := loaders.Trust(ca); err != nil {
			return fmt.Errorf("the authority in %s: %w", certificate, err)
		}
	}
	return nil
}

// program is what a medium does. It names the login servers of now, or those that the media of its device or collection shall have; what it asks answers
// with what is true later.
func (m *media) program(mac site.MAC, collection string) image.Program {
	v := m.view()
	want := site.MediumMade(v, mac, collection)
	return programOf(site.Bootstrap{Version: want.Version, Hosts: want.Servers, Site: v.Site, Key: m.key, MAC: mac, Collection: collection})
}

func programOf(b site.Bootstrap) image.Program {
	return image.Program{Script: b.Script(), About: b.About()}
}

// Medium implements tftp.Media.
func (m *media) Medium(mac site.MAC, collection string) (io.ReadSeeker, string, error) {
	base, err := m.base()
	if err != nil {
		return nil, "", err
	}
	program := m.program(mac, collection)
	content, err := base.With(program)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(base.Digest() + program.Script + program.About))
	return content, `"` + hex.EncodeToString(sum[:8]) + `"`, nil
}

// Renew implements tftp.Renew: the target's network settings stay, and what the site says is new.
func (m *media) Renew(s tftp.MediumState) ([]byte, error) {
	text, err := m.next(s)
	m.seen(s, text != nil)
	if s.Problem != "" {
		return nil, err // it cannot write it
	}
	return text, err
}

func (m *media) next(s tftp.MediumState) ([]byte, error) {
	v := m.view()
	want := site.MediumOf(v, s.MAC)
	if want.Version == 0 {
		return nil, nil
	}
	b := s.Made
	b.Version, b.Hosts, b.Site = want.Version, want.Servers, v.Site
	if m.key != "" {
		b.Key = m.key
	}
	return programOf(b).Renew(s.Bank, s.Digest, s.Made.About())
}
