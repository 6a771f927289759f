package streamer_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"everboot/internal/lab"
	"everboot/site"
)

// TestLabForeignTarget: an iSCSI target that is not ours, under a name of its own, takes over from a streamer, by the operator's word on
// what it holds; and is watched like one of ours.
func TestLabForeignTarget(t *testing.T) {
	const address, foreign = "198.18.0.51:3260", "iqn.2001-04.com.example:nas.debian"
	f := newFarm(t, false, false)
	f.agents["s2"].Kill() // its place in the view is the NAS's now
	disk := filepath.Join(f.state["s2"], "store", "debian", "1", "disk.raw")
	socket := "TGT_IPC_SOCKET=" + filepath.Join(f.lab.Dir(), "nas")
	nas := f.client.StartWith(lab.Settings{Env: []string{socket}}, "nas", "tgtd", "-f", "-C", "7", "--iscsi", "portal="+address)
	defer nas.Kill()
	for _, args := range []string{
		"--mode target --op new --tid 1 --targetname " + foreign,
		"--mode logicalunit --op new --tid 1 --lun 1 --backing-store " + disk,
		"--mode target --op update --tid 1 --name DefaultTime2Wait --value 0",
		"--mode target --op bind --tid 1 -I ALL",
	} {
		eventuallyLong(t, "tgtadm "+args, func() bool {
			_, err := f.client.Run(t.Context(), append([]string{"env", socket, "tgtadm", "-C", "7", "--lld", "iscsi"}, strings.Fields(args)...)...)
			return err == nil
		})
	}
	announce := func(state site.StreamerState) {
		text, err := json.Marshal(site.Streamer{
			Name: "s2", Site: "berlin", Addresses: []netip.AddrPort{netip.MustParseAddrPort(address)}, Power: 1, State: state,
			Replicas: []site.Replica{{VDisk: "debian", Version: 1, Digest: f.digest(), Target: foreign}},
		})
		path := filepath.Join(f.state["s2"], "announced")
		if err == nil {
			err = os.WriteFile(path+".new", text, 0o644)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	announce(site.Draining)
	eventuallyLong(t, "the NAS is in the view", func() bool { return f.view.Load().Streamers["s2"].Addresses[0].String() == address })
	r := f.during(func() {
		eventuallyLong(t, "s1 serves", func() bool { return f.serving(t1) == "s1" })
		announce(site.Active)
		eventuallyLong(t, "the NAS takes logins", func() bool { return f.view.Load().Streamers["s2"].State == site.Active })
		f.killEngine("s1")
		eventuallyLong(t, "the NAS serves", func() bool { return f.serving(t1) == "s2" })
	})
	if r.stall > allowed {
		t.Errorf("longest stall %v, want under %v", r.stall, allowed)
	}
	out, err := f.client.Run(t.Context(), "iscsi-readcapacity16", "-i", site.InitiatorName(t1), "iscsi://"+portal+"/"+f.iqn()+"/1")
	if err != nil || !strings.Contains(out, "8388608") {
		t.Errorf("libiscsi through the director: %v\n%s", err, out)
	}
	session, err := f.dial(t.Context(), address)
	if err == nil {
		session.Close()
		t.Error("the NAS knows our name: this shows nothing")
	}
}
