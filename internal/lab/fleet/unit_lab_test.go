package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"everboot/internal/iscsi"
	"everboot/internal/lab"
	"everboot/internal/lab/fleet"
	"everboot/site"
)

// streamerUnit has a machine of the VM image stream: at an address of its own until it is drained, and then at one that floats, as docs/configuration.md says.
const streamerUnit = `|
   cd /etc/everboot
   echo a-token-for-the-lab-only >api.token
   cat >streamer.toml <<END
   node = "s"
   site = "berlin"
   [registry]
   addresses = ["http://198.18.0.2:8667"]
   token = "file:/etc/everboot/api.token"
   [iscsi]
   addresses = ["198.18.0.23:3260"]
   END
   chown root:everboot api.token streamer.toml
   chmod 640 api.token streamer.toml
   install -d -o everboot -g everboot /var/lib/everboot/vdisks/debian/1
   truncate -s 1M /var/lib/everboot/vdisks/debian/1/disk.raw
   systemctl enable --now everboot-streamer
   until everboot --api http://198.18.0.2:8667 --token-file api.token status --json | grep -q '"draining"'; do sleep 2; done
   mkdir -p /etc/systemd/system/everboot-streamer.service.d
   cat >/etc/systemd/system/everboot-streamer.service.d/override.conf <<END
   [Service]
   CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
   AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW
   RestrictAddressFamilies=AF_PACKET
   SystemCallFilter=@network-io
   END
   sed -i -e 's/^addresses = .*:3260.*/addresses = ["198.18.0.123:3260"]\nvrids = [63]/' streamer.toml
   systemctl daemon-reload
   systemctl restart everboot-streamer
   for i in $(seq 60); do [ "$(systemctl is-active everboot-streamer) $(ps -o user= -C tgtd)" != "active everboot" ] || break; sleep 2; done
   {
     echo "REPORT streamer $(systemctl is-active everboot-streamer) $(systemctl show -P User everboot-streamer) $(systemctl show -P NRestarts everboot-streamer) $(ps -o user= -C tgtd)"
     echo "REPORT threads $(ls /proc/$(pidof tgtd)/task | wc -l)"
     journalctl -b --no-pager -o cat -u everboot-streamer
   } >/dev/console 2>&1`

// TestApplianceImageStreams starts the streamer's unit under systemd: tgtd serves, a target logs in and reads by way of the director and directly, a drain reaches it, and
// with the drop-in for floating addresses it serves at one of these.
func TestApplianceImageStreams(t *testing.T) {
	nodeImage(t)
	f := newFleet(t, fleet.Options{}, noBoot(t))
	start(t, f, "a")
	m := node(t, f, "s", "198.18.0.23", streamerUnit)
	client := f.Lab.Host("client")
	client.Join(f.LAN, fleet.Address(1)+"/24")
	streams := func(address string) {
		t.Helper()
		var name string
		must(t, lab.Eventually(nodeBoot, "the machine streams at "+address, func() error {
			status, err := f.Status("a")
			if err != nil {
				return err
			}
			s := status.View.Streamers["s"]
			if s.Check.Health != site.Up || s.State != site.Active || len(s.Replicas) != 1 || s.Addresses[0].Addr().String() != address {
				return fmt.Errorf("%+v; its console ends with:\n%s", s, m.Console()[max(0, len(m.Console())-1500):])
			}
			name = site.NameTarget("berlin", "debian", 1, s.Replicas[0].Digest).IQN()
			return nil
		}))
		mac, err := site.ParseMAC(fleet.MAC(1))
		must(t, err)
		for _, portal := range []string{fleet.VIP, address} {
			ctx, cancel := context.WithTimeout(t.Context(), nodeTime)
			session, err := iscsi.Dial(ctx, portal+":3260", iscsi.Config{InitiatorName: site.InitiatorName(mac), TargetName: name, Dial: client.Dial})
			if err == nil {
				_, err = session.ReadBlocks(ctx, 0, 64)
				session.Close()
			}
			cancel()
			if err != nil {
				t.Errorf("reading at %s: %v", portal, err)
			}
		}
	}
	ask := func(args ...string) {
		t.Helper()
		if out, err := f.Command("a", args...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	streams("198.18.0.23")
	ask("streamer", "drain", "s")
	must(t, lab.Eventually(nodeAnswers, "the floating address is announced", func() error {
		status, err := f.Status("a")
		if err == nil && !slices.Contains(status.View.Streamers["s"].VRIDs, 63) {
			err = errors.New("not yet")
		}
		return err
	}))
	ask("streamer", "resume", "s")
	streams("198.18.0.123")
	report := hear(t, m)
	t.Logf("%v", report)
	if !regexp.MustCompile(`^active everboot [012] everboot\n$`).MatchString(report["streamer"]) || report["failed"] != "\n" {
		t.Errorf("unit %q, failed units %q\n%s", report["streamer"], report["failed"], m.Console()[max(0, len(m.Console())-6000):])
	}
}
