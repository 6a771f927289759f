package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Key is one key=value pair of a login or text PDU.
type Key struct{ Name, Value string }

// Keys are the pairs of a PDU in their order.
type Keys []Key

const (
	maxKeys     = 64 // a login has about twenty
	maxKeyName  = 63 // RFC 7143 §6.1
	maxKeyValue = 8192
)

// ErrKeys says that a data segment is not a list of key=value pairs.
var ErrKeys = errors.New("not a list of iSCSI text keys")

// ParseKeys reads the pairs of a data segment, each ended by a zero byte (RFC 7143 §6.1).
func ParseKeys(data []byte) (Keys, error) {
	var keys Keys
	for len(data) > 0 {
		pair, rest, ended := bytes.Cut(data, []byte{0})
		if !ended {
			return keys, fmt.Errorf("the last pair does not end: %w", ErrKeys)
		}
		data = rest
		if len(pair) == 0 {
			continue // some initiators pad inside the segment
		}
		name, value, ok := bytes.Cut(pair, []byte{'='})
		switch {
		case !ok:
			return keys, fmt.Errorf("a pair without equals sign: %w", ErrKeys)
		case len(name) == 0 || len(name) > maxKeyName || len(value) > maxKeyValue:
			return keys, fmt.Errorf("a name of %d and a value of %d bytes: %w", len(name), len(value), ErrKeys)
		case len(keys) == maxKeys:
			return keys, fmt.Errorf("more than %d pairs: %w", maxKeys, ErrKeys)
		}
		keys = append(keys, Key{string(name), string(value)})
	}
	return keys, nil
}

// Append appends the wire form to b.
func (k Keys) Append(b []byte) []byte {
	for _, pair := range k {
		b = append(b, pair.Name...)
		b = append(b, '=')
		b = append(b, pair.Value...)
		b = append(b, 0)
	}
	return b
}

// Get returns the first value of a key, and whether there is one.
func (k Keys) Get(name string) (string, bool) {
	for _, pair := range k {
		if pair.Name == name {
			return pair.Value, true
		}
	}
	return "", false
}

// offers reports whether a list value such as "CRC32C,None" holds one of the choices.
func offers(list, choice string) bool {
	for _, one := range strings.Split(list, ",") {
		if one == choice {
			return true
		}
	}
	return false
}
