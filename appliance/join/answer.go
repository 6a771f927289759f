package join

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"everboot/site"
)

const (
	// pathJoin asks for everything; pathJoined says what has become of it.
	pathJoin, pathJoined = "/join", "/joined"
	maxRequest           = 32 << 10
)

// request is what the new node says.
type request struct {
	Token   []byte     `json:"token"`
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"` // its own, at which it will be a peer
	// Nonce is 16 random bytes that it says again when it is set up.
	Nonce []byte `json:"nonce"`
	// Has are the files that are in the folder of its configuration already, each with its mark.
	Has map[string][]byte `json:"has,omitempty"`
	// Error says, when it should be set up, why it is not.
	Error string `json:"error,omitempty"`
}

// refusal is the answer to one that gets nothing.
type refusal struct {
	Error string `json:"error"`
}

// mark tells whether two nodes have the same file, to nobody but those who have the line. White space around it does not count.
func mark(token [16]byte, content []byte) []byte {
	h := hmac.New(sha256.New, token[:])
	h.Write(bytes.TrimSpace(content))
	return h.Sum(nil)
}

// read takes a request whose token is right; another gets its answer late.
func (i *Invitation) read(w http.ResponseWriter, r *http.Request) (q request, ok bool) {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&q)
	if err != nil || subtle.ConstantTimeCompare(q.Token, i.Line.Token[:]) != 1 {
		time.Sleep(i.hold)
		refuse(w, http.StatusForbidden, "the line is not the one that was printed last")
		return request{}, false
	}
	return q, true
}

// claim is who asks.
func (q request) claim() claim {
	c := claim{Joined: Joined{Node: q.Node, Address: q.Address}}
	copy(c.nonce[:], q.Nonce)
	return c
}

// answer gives everything to the first that asks and can work with us.
func (i *Invitation) answer(w http.ResponseWriter, r *http.Request) {
	q, ok := i.read(w, r)
	if !ok {
		return
	}
	if err := i.check(q, r.RemoteAddr); err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	if !i.use(q.claim()) {
		refuse(w, http.StatusGone, "the line was used, or is too old; everboot invite makes another one")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(i.bundle)))
	_, err := w.Write(i.bundle)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil {
		i.end(outcome{err: fmt.Errorf("%s at %s had the line, and the answer to it broke off: %w; the line is used up, everboot invite makes another one; if that was not you, change the secrets", q.Node, q.Address, err)})
	}
}

// confirm hears from the one that was given everything what has become of it.
func (i *Invitation) confirm(w http.ResponseWriter, r *http.Request) {
	q, ok := i.read(w, r)
	if !ok {
		return
	}
	i.mu.Lock()
	given := i.given
	i.mu.Unlock()
	if given == nil || *given != q.claim() {
		refuse(w, http.StatusConflict, "another node was given the site's secrets, or none")
		return
	}
	o := outcome{Joined: given.Joined}
	if q.Error != "" {
		o.err = fmt.Errorf("%s at %s was given the site's secrets, and is not set up: %q; the line is used up, everboot invite makes another one", given.Node, given.Address, q.Error)
	}
	if !i.end(o) {
		refuse(w, http.StatusGone, "nobody waits any more")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// check refuses a node that could not work with us. The line stays good.
func (i *Invitation) check(q request, remote string) error {
	if err := site.CheckName("node", q.Node); err != nil {
		return err
	}
	if q.Node == i.config.Node {
		return fmt.Errorf("%s is the name of this appliance; give the new node another one with --node", q.Node)
	}
	if len(q.Nonce) != len(claim{}.nonce) {
		return errors.New("the new node has another version of everboot")
	}
	from, err := netip.ParseAddrPort(remote)
	if err != nil || from.Addr().Unmap() != q.Address {
		return fmt.Errorf("the new node says that it has address %s, and comes from %s: there must be no address translation between appliances; "+
			"if it has several interfaces, name the one to us with --interface", q.Address, from.Addr().Unmap())
	}
	if slices.ContainsFunc(i.config.VIP.Addresses, func(p netip.Prefix) bool { return p.Addr() == q.Address }) {
		return fmt.Errorf("the new node's address %s is the floating one: give it one of its own", q.Address)
	}
	for _, name := range slices.Sorted(maps.Keys(i.files)) {
		if have, ok := q.Has[name]; ok && !hmac.Equal(have, mark(i.Line.Token, i.files[name])) {
			return fmt.Errorf("the new node has a file %s that is not this site's, beside its configuration: move it away there, then use the line again", name)
		}
	}
	return nil
}

func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{reason}) // who is gone needs no reason
}
