package streamer

import (
	"bytes"
	"testing"

	"everboot/internal/iscsi"
)

// TestRename: a login for a foreign target differs in the name alone, also when more of it follows.
func TestRename(t *testing.T) {
	keys := iscsi.Keys{{Name: "InitiatorName", Value: "iqn.a"}, {Name: "TargetName", Value: "iqn.ours"}, {Name: "X-TargetName", Value: "iqn.ours"}}
	r := iscsi.LoginRequest{Continue: true, CmdSN: 7, Data: append(keys.Append(nil), "MaxBur"...)}
	early := []byte("what follows")
	sent, err := rename(append(r.PDU().Append(nil), early...), "iqn.theirs:a.longer.name")
	if err != nil {
		t.Fatal(err)
	}
	keys[1].Value = "iqn.theirs:a.longer.name"
	r.Data = append(keys.Append(nil), "MaxBur"...)
	if want := append(r.PDU().Append(nil), early...); !bytes.Equal(sent, want) {
		t.Errorf("sent\n%q, want\n%q", sent, want)
	}
	if _, err := rename([]byte("half a PDU"), "iqn.theirs"); err == nil {
		t.Error("half a PDU is renamed")
	}
}
