package appliance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"everboot/image"
	"everboot/site"
)

// media makes targets' boot media, which hypervisors mount by URL: one image, made when the first is asked for, with each target's script in it.
type media struct {
	key  string
	view func() *site.View
	port uint16 // of HTTP boot
	base func() (*image.Medium, error)
}

func newMedia(key string, view func() *site.View, port uint16) *media {
	m := &media{key: key, view: view, port: port}
	m.base = sync.OnceValues(func() (*image.Medium, error) {
		loaders, err := image.FindLoaders(nil)
		if err != nil {
			return nil, fmt.Errorf("boot media cannot be made on this appliance: %w; then restart the appliance", err)
		}
		return image.NewMedium(image.MediumConfig{Script: m.script(site.MAC{}), Loaders: loaders})
	})
	return m
}

// script is what a medium runs. It names the login servers of now; what it asks answers with what is true later.
func (m *media) script(mac site.MAC) string {
	v := m.view()
	return site.Bootstrap{Hosts: site.Hosts(v.LoginServers(), m.port), Site: v.Site, Key: m.key, MAC: mac}.Script()
}

// Medium implements tftp.Media.
func (m *media) Medium(mac site.MAC) (io.ReadSeeker, string, error) {
	base, err := m.base()
	if err != nil {
		return nil, "", err
	}
	script := m.script(mac)
	content, err := base.With(script)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(base.Digest() + script))
	return content, `"` + hex.EncodeToString(sum[:8]) + `"`, nil
}
