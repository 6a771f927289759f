package tftp

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"everboot/site"
)

// MediumState is what a running target says of a boot medium that it has.
type MediumState struct {
	MAC     site.MAC
	Medium  string         // the target's name of it: vda4
	Bank    string         // which of its two programs is in use
	Digest  string         // of that program, as it stands there, SHA-256
	Made    site.Bootstrap // what it was made for, without the login servers
	Problem string         // one of mediumProblems: why it cannot be written; empty: it can
}

// Renew returns what the target must write to have its medium as the site wants it; nil: nothing.
type Renew func(MediumState) ([]byte, error)

const (
	// renewSuffix follows a target's medium in the path: /bdm/52:54:00:00:00:01/next?bank=a&… is what its program shall be next.
	renewSuffix = "/next"
	// maxRenewQuery bounds the query: a head of a slot, which it is, has 512 bytes.
	maxRenewQuery = 1024
)

var (
	mediumName   = regexp.MustCompile(`^[0-9a-z][0-9a-z-]{0,31}$`)
	mediumDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// mediumProblems are the words of image/vdisk/medium.
	mediumProblems = []string{"", "read-only", "mounted", "in-use", "https", "unreachable", "write"}
)

// parseMediumState reads the query of a target.
func parseMediumState(mac site.MAC, raw string) (s MediumState, err error) {
	if len(raw) > maxRenewQuery {
		return s, errors.New("the query is too long")
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return s, errors.New("the query is malformed")
	}
	s = MediumState{MAC: mac, Medium: q.Get("medium"), Bank: q.Get("bank"), Digest: q.Get("digest"), Problem: q.Get("problem")}
	switch {
	case s.Bank != "a" && s.Bank != "b":
		return s, errors.New("bank: there are a and b")
	case !mediumDigest.MatchString(s.Digest):
		return s, errors.New("digest: use 64 hexadecimal digits in lower case")
	case !mediumName.MatchString(s.Medium):
		return s, errors.New("medium: use the name of its device, such as vda4")
	case !slices.Contains(mediumProblems, s.Problem):
		return s, errors.New("problem: there is no such word")
	}
	s.Made, err = site.ParseAbout(q)
	return s, err
}

// serveRenewal tells a running target what its medium shall be.
func (h *HTTP) serveRenewal(w http.ResponseWriter, r *http.Request, stem string) {
	mac, err := site.ParseMAC(stem)
	var s MediumState
	if err == nil {
		s, err = parseMediumState(mac, r.URL.RawQuery)
	}
	if err != nil {
		h.bad.Add(1)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := h.admitRenewal(r, s); err != nil {
		h.foreign.Add(1)
		h.log.Debug("http: a boot medium is not renewed", "mac", mac, "client", r.RemoteAddr, "err", err)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	text, err := h.cfg.Renew(s)
	if err != nil {
		h.notFound.Add(1)
		h.log.Warn("http: what a boot medium shall be cannot be made", "mac", mac, "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if text == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.renewed.Add(1)
	h.tell(r, site.Event{MAC: mac, Detail: "the next program of boot medium " + s.Medium})
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // the client is gone: it asks again
}

// admitRenewal returns why a target is not answered: nobody but a device of this site, from its own address as far as we know it, says what its media are.
func (h *HTTP) admitRenewal(r *http.Request, s MediumState) error {
	v := h.view()
	if _, known := v.Devices[s.MAC]; !known {
		return fmt.Errorf("%s is no device of site %s", s.MAC, v.Site)
	}
	if h.cfg.Who != nil {
		if holder := h.cfg.Who(clientAddr(r)); !holder.IsZero() && holder != s.MAC {
			return fmt.Errorf("%s is the address of another device", clientAddr(r))
		}
	}
	return Medium{Site: s.Made.Site, Key: s.Made.Key}.refuse(v.Site, h.cfg.MediaKey)
}
