package streamer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"everboot/site"
)

// run is what a device runs: the target of its last session. It outlives the registry's word on the device, because a target that
// was given another vDisk, or was removed, goes on until it boots again. Appliances tell each other, and keep it on disk.
type run struct {
	MAC       site.MAC  `json:"mac"`
	Target    string    `json:"target"` // IQN
	Streamer  string    `json:"streamer"`
	Since     time.Time `json:"since"`
	Failovers int       `json:"failovers,omitempty"`
	// Redirected sessions do not go through a director.
	Redirected bool `json:"redirected,omitempty"`
	// ISID is that of a redirected session, in hexadecimal digits; empty: not known.
	ISID string `json:"isid,omitempty"`
	// From is where it logged in from; not valid: not known.
	From netip.Addr `json:"from,omitzero"`
}

const (
	runsFormat = 1 // the first byte of each message
	// maxRuns bounds what a peer can make us remember; a site of 10,000 devices needs a sixth of it.
	maxRuns = 1 << 16
)

func encodeRuns(runs []run) []byte {
	text, err := json.Marshal(runs)
	if err != nil { // no value of these types makes one
		return nil
	}
	return append([]byte{runsFormat}, text...)
}

// decodeRuns reads what encodeRuns wrote. It leaves out what cannot be.
func decodeRuns(message []byte) ([]run, error) {
	if len(message) == 0 || message[0] != runsFormat {
		return nil, errors.New("not a message of this version's director")
	}
	var all, good []run
	if err := json.Unmarshal(message[1:], &all); err != nil {
		return nil, fmt.Errorf("reading what devices run: %w", err)
	}
	for _, r := range all {
		if _, err := site.ParseTargetName(r.Target); err == nil && !r.MAC.IsZero() && len(good) < maxRuns {
			good = append(good, r)
		}
	}
	return good, nil
}

// PeerChanged takes a message of another appliance's director: what a device runs since now.
func (d *Director) PeerChanged(from string, message []byte) {
	runs, err := decodeRuns(message)
	if err != nil {
		d.log.Debug("another appliance's word on what devices run is not taken", "from", from, "error", err)
		return
	}
	for _, r := range runs {
		d.table.learn(r)
	}
}

// PeerWhole returns what all devices run, for PeerMerge of another director, or of this one after a restart.
func (d *Director) PeerWhole() []byte { return encodeRuns(d.table.runs()) }

// PeerMerge takes another director's PeerWhole.
func (d *Director) PeerMerge(from string, whole []byte) { d.PeerChanged(from, whole) }

// learn remembers what a device runs by another's word, unless we know better.
func (t *table) learn(r run) {
	h := t.shard(r.MAC)
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.devices[r.MAC]
	if ok && !r.Since.After(known.Since) || !ok && len(h.devices) >= maxRuns/shardCount {
		return
	}
	h.devices[r.MAC] = record{run: r, peer: true}
}

// runs returns what all devices run.
func (t *table) runs() []run {
	var list []run
	for i := range t.shards {
		h := &t.shards[i]
		h.mu.Lock()
		for _, r := range h.devices {
			list = append(list, r.run)
		}
		h.mu.Unlock()
	}
	return list
}

// running returns the target that a device was admitted to last, or "", and from where.
func (t *table) running(m site.MAC) (target string, from netip.Addr) {
	h := t.shard(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.devices[m]
	return r.Target, r.From
}

// since returns when a device's last session began.
func (t *table) since(m site.MAC) time.Time {
	h := t.shard(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.devices[m].Since
}
