package site

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestClientID(t *testing.T) {
	for text, want := range map[string]ClientID{
		"01:52:54:00:00:00:01": "\x01RT\x00\x00\x00\x01", "1:52:54:0:0:0:1": "\x01RT\x00\x00\x00\x01", "01525400000001": "\x01RT\x00\x00\x00\x01",
		"ff:FE": "\xff\xfe", "": "",
	} {
		got, err := ParseClientID(text)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		if again, err := ParseClientID(got.String()); err != nil || again != want {
			t.Errorf("%s, read back: %q, %v", text, again, err)
		}
	}
	for _, text := range []string{"01", "1:", "01:525:4", "xyz", "::", strings.Repeat("ab", 256)} {
		if got, err := ParseClientID(text); err == nil {
			t.Errorf("%s: %q, and no error", text, got)
		}
	}
}

func TestDeviceWithoutAClientIDSaysNothingOfIt(t *testing.T) {
	b, err := json.Marshal(Device{MAC: MAC{2}})
	if err != nil || strings.Contains(string(b), "client") {
		t.Errorf("%s, %v", b, err)
	}
	var d Device
	if err := json.Unmarshal([]byte(`{"mac":"02:00:00:00:00:00","client_id":"ff:01:02"}`), &d); err != nil || d.ClientID != "\xff\x01\x02" {
		t.Errorf("%+v, %v", d, err)
	}
}
