package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"everboot/site"
)

// The refusals of the handler, beside those of site.CheckStreamer.
const (
	Malformed site.Refusal = "malformed" // not the JSON of an announcement
	TooLarge  site.Refusal = "too-large" // more than maxBody
	TooMany   site.Refusal = "too-many"  // streamers
	Twin      site.Refusal = "twin"      // another one has its name
	BadWish   site.Refusal = "bad-wish"  // the wish that it follows cannot be one
)

// maxBody bounds an announcement: site.MaxReplicas replicas with the longest names, and as much again.
const maxBody = 1 << 20

// announcement is what a streamer POSTs: itself, and the newest wish that an appliance told it.
type announcement struct {
	site.Streamer
	Follows *Wish `json:"follows,omitempty"`
}

// answer is what it gets back. A Wish without a state says that nobody wants anything.
type answer struct {
	Wish Wish `json:"wish"`
}

// refused is the body of every answer that is not 200.
type refused struct {
	Refusal site.Refusal `json:"refusal,omitempty"`
	Error   string       `json:"error"`
}

// readAnnouncement reads what a streamer sent: one JSON value of at most maxBody bytes. Keys that we do not know are left out: the streamer
// may be newer than we are.
func readAnnouncement(body io.Reader) (announcement, error) {
	var a announcement
	limited := &io.LimitedReader{R: body, N: maxBody + 1}
	dec := json.NewDecoder(limited)
	err := dec.Decode(&a)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more than one JSON value")
		}
	}
	if limited.N <= 0 {
		return announcement{}, &site.AnnouncementError{Refusal: TooLarge, Err: fmt.Errorf("the announcement is longer than %d bytes: announce fewer replicas", maxBody)}
	}
	if err != nil {
		return announcement{}, &site.AnnouncementError{Refusal: Malformed, Err: fmt.Errorf("reading the announcement: %w", err)}
	}
	a.Registered, a.Check = false, site.Check{} // not the streamer's to say
	return a, nil
}

// check returns an *site.AnnouncementError if the announcement is not one for this site.
func (a announcement) check(siteName string) error {
	if err := site.CheckStreamer(a.Streamer, siteName); err != nil {
		return err
	}
	if w := a.Follows; w != nil && (w.State != site.Active && w.State != site.Draining || w.Stamp <= 0) {
		return &site.AnnouncementError{Refusal: BadWish, Err: fmt.Errorf("streamer %s follows a wish %q of %d that cannot be", a.Name, w.State, w.Stamp)}
	}
	return nil
}
