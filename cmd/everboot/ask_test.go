package main

import (
	"strings"
	"testing"
	"time"

	"everboot/appliance/web"
)

func TestLocalURL(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:8667":     "http://127.0.0.1:8667",
		":8667":              "http://127.0.0.1:8667",
		"0.0.0.0:8667":       "http://127.0.0.1:8667",
		"[::]:8667":          "http://127.0.0.1:8667",
		"198.18.0.2:8667":    "http://198.18.0.2:8667", // nobody listens at the loopback
		"[2001:db8::2]:8667": "http://[2001:db8::2]:8667",
		"localhost:8667":     "http://localhost:8667",
		"8667":               "",
	} {
		if got := localURL(listen); got != want {
			t.Errorf("localURL(%q) = %q, want %q", listen, got, want)
		}
	}
}

func TestExplainPrintsDHCPsLastWord(t *testing.T) {
	var b strings.Builder
	e := web.Explanation{Text: "it is unknown", Reason: "unknown-device", Last: "discover not answered: its subnet has no range", LastAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)}
	if err := printExplanation(&b, e, false); err != nil {
		t.Fatal(err)
	}
	want := "00:00:00:00:00:00 gets an address from a pool and no boot file: it is unknown [unknown-device]\n" +
		"DHCP's last word on it over IPv4, at 2026-01-02 03:04:05: discover not answered: its subnet has no range\n"
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}
