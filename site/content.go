package site

import (
	"encoding/json"
	"fmt"
	"time"
)

// Content is what a registry knows of a site: the wishes of the operator and what streamers announce.
type Content struct {
	Devices     []Device     `json:"devices"`
	Collections []Collection `json:"collections"`
	VDisks      []VDisk      `json:"vdisks"`
	Streamers   []Streamer   `json:"streamers"` // Check is not set here
}

// Kind names what an object of the registry is. It is also the last folder of its key and of its API path.
type Kind string

// The kinds of objects that people and programs put into a registry.
const (
	KindDevice     Kind = "devices"
	KindCollection Kind = "collections"
	KindVDisk      Kind = "vdisks"
	// KindStreamerState is the state that the operator wants of a streamer; its value is a JSON string, its key the streamer's name.
	KindStreamerState Kind = "streamer-states"
)

// CheckObject returns an error that says what is wrong with an object before it enters a registry.
// The key is the device's MAC, or the name of anything else.
func CheckObject(kind Kind, key string, value []byte) error {
	switch kind {
	case KindDevice:
		var d Device
		if err := json.Unmarshal(value, &d); err != nil {
			return fmt.Errorf("reading device %s: %w", key, err)
		}
		if d.MAC.String() != key {
			return fmt.Errorf("device %s: its key is %s; use the MAC in lower case with colons", d.MAC, key)
		}
		return d.Check()
	case KindCollection:
		var c Collection
		if err := json.Unmarshal(value, &c); err != nil {
			return fmt.Errorf("reading collection %s: %w", key, err)
		}
		return c.Check()
	case KindVDisk:
		var v VDisk
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("reading vDisk %s: %w", key, err)
		}
		return v.Check()
	case KindStreamerState:
		var s StreamerState
		if err := json.Unmarshal(value, &s); err != nil {
			return fmt.Errorf("reading the state of streamer %s: %w", key, err)
		}
		if s != Active && s != Draining {
			return fmt.Errorf("streamer %s: state %q is neither %s nor %s", key, s, Active, Draining)
		}
		return CheckName("streamer", key)
	}
	return CheckKey(kind, key)
}

// CheckKey returns an error for a kind that there is not, and for a key that no object of its kind can have: to take that one away would seem to succeed.
func CheckKey(kind Kind, key string) error {
	switch kind {
	case KindDevice:
		mac, err := ParseMAC(key)
		if err == nil && mac.String() != key {
			err = fmt.Errorf("device %s: its key is %s; use the MAC in lower case with colons", mac, key)
		}
		return err
	case KindCollection:
		return CheckName("collection", key)
	case KindVDisk:
		return CheckName("vDisk", key)
	case KindStreamerState:
		return CheckName("streamer", key)
	}
	return fmt.Errorf("kind %q: use devices, collections, vdisks or streamer-states", kind)
}

// Check returns an error that says what is wrong with the device by itself.
func (d Device) Check() error {
	if d.MAC.IsZero() || d.MAC[0]&1 != 0 {
		return fmt.Errorf("device %q: MAC %s is not the address of one machine", d.Name, d.MAC)
	}
	if d.Name != "" {
		if err := CheckName("device", d.Name); err != nil {
			return err
		}
	}
	if d.VDisk != "" {
		if err := CheckName("vDisk", d.VDisk); err != nil {
			return fmt.Errorf("device %s: %w", d.MAC, err)
		}
	}
	if d.Version < 0 {
		return fmt.Errorf("device %s: version %d: use 1 or more, or leave it out for the newest", d.MAC, d.Version)
	}
	if d.Address.IsValid() && !d.Address.Is4() {
		return fmt.Errorf("device %s: address %s: use an IPv4 address", d.MAC, d.Address)
	}
	if d.Address6.IsValid() && (!d.Address6.Is6() || d.Address6.Is4In6() || d.Address6.Zone() != "") {
		return fmt.Errorf("device %s: address6 %s: use an IPv6 address", d.MAC, d.Address6)
	}
	if d.ClientID != "" && !d.Address.IsValid() {
		return fmt.Errorf("device %s: client identifier %s without an address: it is for a reservation; give it one", d.MAC, d.ClientID)
	}
	if err := d.Medium.Check(); err != nil {
		return fmt.Errorf("device %s: %w", d.MAC, err)
	}
	return nil
}

// Check returns an error that says what is wrong with the collection by itself.
func (c Collection) Check() error {
	if err := CheckName("collection", c.Name); err != nil {
		return err
	}
	if err := c.Medium.Check(); err != nil {
		return fmt.Errorf("collection %s: %w", c.Name, err)
	}
	return nil
}

// Check returns an error that says what is wrong with the vDisk by itself.
func (v VDisk) Check() error {
	if err := CheckName("vDisk", v.Name); err != nil {
		return err
	}
	if (v.Kernel == "") != (v.Initrd == "") {
		return fmt.Errorf("vDisk %s: give kernel and initrd, or neither", v.Name)
	}
	if v.Affinity != NoAffinity && v.Affinity != BestEffort && v.Affinity != FixedAffinity {
		return fmt.Errorf("vDisk %s: affinity %q: use %s or %s, or leave it out", v.Name, v.Affinity, BestEffort, FixedAffinity)
	}
	if v.Server != "" {
		if err := CheckName("streamer", v.Server); err != nil {
			return fmt.Errorf("vDisk %s: server: %w", v.Name, err)
		}
	}
	last := 0
	for _, ver := range v.Versions {
		if ver.Number <= last {
			return fmt.Errorf("vDisk %s: version %d: number versions from 1, rising", v.Name, ver.Number)
		}
		last = ver.Number
		if ver.Digest == "" {
			continue
		}
		if _, err := ParseDigest(string(ver.Digest)); err != nil {
			return fmt.Errorf("vDisk %s version %d: %w", v.Name, ver.Number, err)
		}
	}
	return nil
}

// Event is a step of a target's boot, or a change that somebody will ask about later. Rooms send events; appliance keeps them.
type Event struct {
	At     time.Time `json:"at"`
	MAC    MAC       `json:"mac,omitzero"` // zero: not of one target
	What   string    `json:"what"`         // a word: discover, offer, ack, tftp, http, login, failover, …
	Detail string    `json:"detail,omitempty"`
	// Begins says that a machine does what it does when it boots: its firmware, or iPXE, asks for an address or logs in.
	Begins bool `json:"-"`
	// Collection is what the machine's boot medium was made for; empty: for any, or it has none.
	Collection string `json:"-"`
}
