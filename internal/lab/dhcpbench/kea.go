package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"everboot/internal/lab"
)

// Kea's lease file is never flushed to the disk: what a server acknowledged in the last seconds is lost with its power. On a folder with the
// attribute S (chattr(1)) the kernel writes through each of its records, which is the nearest to a lease that is on the disk before its ACK.
// As a pair (libdhcp_ha.so, load balancing) each server holds an answer back until the other has the lease, in memory and file.

const keaFile = `{"Dhcp4": {
 "interfaces-config": {"interfaces": ["eth0"]}, "valid-lifetime": 3600,
 "control-socket": {"socket-type": "unix", "socket-name": "%[1]s/kea.sock"},
 "lease-database": {"type": "memfile", "persist": true, "name": "%[1]s/kea.csv", "lfc-interval": 0},
 "multi-threading": {"enable-multi-threading": true, "thread-pool-size": 2, "packet-queue-size": 64},
 "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stderr"}]},
  {"name": "kea-dhcp4.ha-hooks", "severity": "INFO", "output_options": [{"output": "stderr"}]}],
 %[2]s
 "subnet4": [{"subnet": "198.18.0.0/15", "pools": [%[3]s]}]}}`

const keaPair = `"hooks-libraries": [{"library": "%[1]s/libdhcp_lease_cmds.so"}, {"library": "%[1]s/libdhcp_ha.so", "parameters": {"high-availability": [{
  "this-server-name": "%[2]s", "mode": "load-balancing", "heartbeat-delay": 1000, "max-response-delay": 10000, "max-unacked-clients": 0,
  "multi-threading": {"enable-multi-threading": true, "http-dedicated-listener": true, "http-listener-threads": 2, "http-client-threads": 2},
  "peers": [{"name": "a", "url": "http://198.18.0.2:8000/", "role": "primary"}, {"name": "b", "url": "http://198.18.0.3:8000/", "role": "secondary"}]}]}}],`

// startKea starts one server.
func startKea(s *site) error {
	p, err := s.kea(s.a, "", fmt.Sprintf(`{"pool": %q}`, pool), false)
	if err != nil {
		return err
	}
	return s.answers(p)
}

// startKeaPair starts two that are one service, with leases that are written through.
func startKeaPair(s *site) error { return s.keaPair(true) }

// startKeaLazyPair starts two as they ship.
func startKeaLazyPair(s *site) error { return s.keaPair(false) }

func (s *site) keaPair(through bool) error {
	hooks, err := filepath.Glob("/usr/lib/*/kea/hooks/libdhcp_ha.so")
	if err != nil || len(hooks) == 0 {
		return fmt.Errorf("finding Kea's hook libraries: there is no libdhcp_ha.so below /usr/lib/*/kea/hooks (%v)", err)
	}
	// Each server gives addresses from its own pool.
	pools := `{"pool": "198.18.4.0-198.18.255.253", "client-class": "HA_a"}, {"pool": "198.19.0.0-198.19.255.253", "client-class": "HA_b"}`
	var both []*lab.Process
	for _, h := range []*lab.Host{s.a, s.b} {
		p, err := s.kea(h, fmt.Sprintf(keaPair, filepath.Dir(hooks[0]), h.Name()), pools, through)
		if err != nil {
			return err
		}
		both = append(both, p)
	}
	for _, p := range both {
		if _, err := p.Expect(`HA_STATE_TRANSITION.* to LOAD-BALANCING`, 30*time.Second); err != nil {
			return err
		}
	}
	return s.answers(both[0])
}

// kea starts a server. through has every record of its lease file written through.
func (s *site) kea(h *lab.Host, hooks, pools string, through bool) (*lab.Process, error) {
	dir := filepath.Join(s.Dir(), "kea-"+h.Name())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if through {
		if _, err := h.Run(context.Background(), "chattr", "+S", dir); err != nil {
			return nil, fmt.Errorf("having leases written through: %w", err)
		}
	}
	conf, err := s.write("kea-"+h.Name()+".json", fmt.Sprintf(keaFile, dir, hooks, pools))
	if err != nil {
		return nil, err
	}
	return h.StartWith(lab.Settings{Env: []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}}, "kea", "kea-dhcp4", "-c", conf), nil
}

// answers waits until a client gets an address.
func (s *site) answers(p *lab.Process) error {
	return lab.Eventually(20*time.Second, "Kea answers", func() error {
		if !p.Running() {
			return fmt.Errorf("it ended: %s", p.Log())
		}
		_, err := lab.Udhcpc(s.c, "eth0")
		return err
	})
}
