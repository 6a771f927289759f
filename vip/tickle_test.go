package vip

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"everboot/site"
	"everboot/vip/vrrp"
)

func connection(local, remote string) site.Connection {
	return site.Connection{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

func TestATickleIsABareACK(t *testing.T) {
	for _, c := range []struct {
		of   site.Connection
		want string
	}{
		// The checksum of the IPv4 header is the kernel's.
		{connection("198.18.0.10:3260", "198.18.0.51:40000"), "45000028000000004006000 0c612000ac6120033" + "0cbc9c40 00000000 00000000 5010 0400 7676 0000"},
		{connection("[::ffff:198.18.0.10]:3260", "[::ffff:198.18.0.51]:40000"), "4500002800000000400600 00c612000ac6120033" + "0cbc9c40 00000000 00000000 5010 0400 7676 0000"},
		{connection("[2001:db8::10]:80", "[2001:db8::51]:1"), "6000000000140640" + "20010db8000000000000000000000010" + "20010db8000000000000000000000051" + "00500001 00000000 00000000 5010 0400 4fb1 0000"},
	} {
		want := slices.DeleteFunc([]byte(c.want), func(b byte) bool { return b == ' ' })
		if got := hex.EncodeToString(tickle(c.of)); got != string(want) {
			t.Errorf("%v:\ngot  %s\nwant %s", c.of, got, want)
		}
	}
}

func TestWhoTakesOverTicklesTheOldOwnersClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cable{}
		list := []site.Connection{
			connection("198.18.0.10:3260", "198.18.0.51:40000"),
			connection("198.18.0.2:3260", "198.18.0.52:40000"), // at the dead node's own address
			connection("198.18.0.10:80", "[2001:db8::51]:1"),
		}
		a := c.run(t, "198.18.0.2", nil)
		b := c.run(t, "198.18.0.3", func(cfg *Config) {
			cfg.Priority, cfg.Connections = 90, func() []site.Connection { return list }
		})
		time.Sleep(10 * time.Second)
		b.wantState(t, vrrp.Backup)
		a.set(func() { a.silent = true })
		time.Sleep(vrrp.DownInterval(DefaultPriority, DefaultInterval))
		b.wantState(t, vrrp.Active)
		time.Sleep(10 * time.Second)
		want := []string{"198.18.0.51 0cbc9c40", "198.18.0.51 0cbc9c40"} // twice: the first may be lost
		var tickled []string
		b.set(func() { tickled = slices.Clone(b.tickled) })
		if !slices.Equal(tickled, want) || b.Status().Tickled != 2 {
			t.Errorf("tickled %q, want %q", tickled, want)
		}
		a.stop(t)
		b.stop(t)
	})
}
