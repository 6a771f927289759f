package main

import "testing"

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
