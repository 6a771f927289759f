package main

import (
	"slices"
	"testing"

	"everboot/vip"
)

func TestOdditiesAreSaidInWords(t *testing.T) {
	got := oddities(map[string]uint64{"second_active": 5, "dropped: checksum": 1, "dropped: ttl": 2, "new": 1})
	want := []string{"new (1)", "another node was active at the same time (5)", "advertisements dropped for their checksum (1), ttl (2)"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, odd := range []vip.Oddity{vip.OtherAddresses, vip.OtherInterval, vip.SecondActive, vip.ForeignTTL, vip.TakenAway, vip.PutOn, vip.InUse} {
		if oddWords[string(odd)] == "" {
			t.Errorf("no words for %q", odd)
		}
	}
}
