package tftp

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"everboot/site"
)

// Medium is what a boot medium says of itself beside the target's MAC. A bootstrap that came over TFTP says nothing.
type Medium struct {
	Site       string // the site that it was made for
	Key        string
	Collection string // the collection that it was made for
}

// refuse returns why an appliance of this site, with this key of its media (empty: none), does not answer a medium, or nil. The
// target then asks its next login server.
func (m Medium) refuse(own, key string) error {
	if m.Site != "" && m.Site != own {
		return fmt.Errorf("this boot medium is of site %s, and this is site %s", m.Site, own)
	}
	if m.Key != "" && key != "" && subtle.ConstantTimeCompare([]byte(m.Key), []byte(key)) != 1 {
		return fmt.Errorf("this boot medium has another key than http.media_key; make it again, or mend the key")
	}
	return nil
}

// parseMedium reads the words. What is no word of ours is a medium of somebody else's.
func parseMedium(name, key, collection string) (Medium, error) {
	if name != "" && site.CheckName("site", name) != nil {
		return Medium{}, fmt.Errorf("site: %.40q is no name", name)
	}
	if key != "" && site.CheckBootKey(key) != nil {
		return Medium{}, fmt.Errorf("key: this is no key of a boot medium")
	}
	if collection != "" && site.CheckName("collection", collection) != nil {
		return Medium{}, fmt.Errorf("collection: %.40q is no name", collection)
	}
	return Medium{Site: name, Key: key, Collection: collection}, nil
}

// Media makes a boot medium, for one target (else the MAC is zero), for one collection (else it is empty), or for all: its content, and an entity tag
// (RFC 9110 §8.8.3) that says which content it is.
type Media func(mac site.MAC, collection string) (content io.ReadSeeker, tag string, err error)

const (
	// mediaPath is where boot media are: /bdm/52:54:00:00:00:01.iso is a target's, /bdm/collection/lab.iso a collection's, /bdm/boot.iso is for all.
	mediaPath    = "/bdm/"
	mediaOfMany  = "collection/"
	mediaForAll  = "boot"
	mediumSuffix = ".iso"
)

func (h *HTTP) serveMedium(w http.ResponseWriter, r *http.Request, name string) {
	if stem, ok := strings.CutSuffix(name, renewSuffix); ok && h.cfg.Renew != nil {
		h.serveRenewal(w, r, stem)
		return
	}
	stem, ok := strings.CutSuffix(name, mediumSuffix)
	var mac site.MAC
	var err error
	collection, many := strings.CutPrefix(stem, mediaOfMany)
	switch {
	case !many:
		if collection = ""; stem != mediaForAll {
			mac, err = site.ParseMAC(stem)
		}
	case h.view().Collections[collection].Name == "":
		err = errors.New("there is no such collection")
	}
	if !ok || err != nil {
		h.notFound.Add(1)
		http.Error(w, "a boot medium is called by the target's MAC, such as "+mediaPath+"52:54:00:00:00:01.iso, or by a collection of the site, "+mediaPath+mediaOfMany+"NAME.iso, or "+mediaPath+"boot.iso", http.StatusNotFound)
		return
	}
	content, tag, err := h.cfg.Media(mac, collection)
	if err != nil {
		h.notFound.Add(1)
		h.log.Warn("http: no boot medium can be made", "client", r.RemoteAddr, "err", err)
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	h.served.Add(1)
	w.Header().Set("ETag", tag)
	w.Header().Set("Content-Type", contentType(name))
	http.ServeContent(w, r, name, time.Time{}, content)
	h.tell(r, site.Event{MAC: mac, Detail: "boot medium"})
}
