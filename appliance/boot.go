package appliance

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/site"
	"everboot/tftp"
)

// TFTPConfig is the TFTP server and the files that HTTP boot serves too.
type TFTPConfig struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
	Root    string `toml:"root"` // files served beside the built-in ones; wins over them
	IPXE    string `toml:"ipxe"` // folder of iPXE's binaries
}

// HTTPConfig is the HTTP boot server.
type HTTPConfig struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
}

func (c *Config) filesConfig() tftp.FilesConfig {
	return tftp.FilesConfig{Root: c.TFTP.Root, IPXE: c.TFTP.IPXE, HTTPPort: port(c.HTTP.Listen)}
}

func (c *Config) httpConfig(who func(netip.Addr) site.MAC) tftp.HTTPConfig {
	return tftp.HTTPConfig{Listen: c.HTTP.Listen, SANPort: port(c.Director.Listen), Who: who}
}

// openBoot opens what serves boot files.
func (w *worker) openBoot() (err error) {
	if !w.cfg.TFTP.Enabled && !w.cfg.HTTP.Enabled {
		return nil
	}
	w.files, err = tftp.NewFiles(w.cfg.filesConfig(), w.builder.View)
	if err != nil {
		return err
	}
	if w.cfg.TFTP.Enabled {
		w.tftp, err = tftp.NewServer(tftp.Config{Listen: w.cfg.TFTP.Listen, Who: w.macAt}, w.files, w.event, w.log.With("room", "tftp"))
		if err != nil {
			return err
		}
	}
	if w.cfg.HTTP.Enabled {
		cfg := w.cfg.httpConfig(w.macAt)
		cfg.Opened = w.opened
		w.http, err = tftp.NewHTTP(cfg, w.files, w.builder.View, w.event, w.log.With("room", "http"))
	}
	return err
}

// The names of the metrics of TFTP and HTTP boot.
const (
	metricTFTPTransfers = "everboot_tftp_transfers_total" // label result
	metricTFTPDropped   = "everboot_tftp_dropped_total"   // label reason
	metricTFTPActive    = "everboot_tftp_transfers"
	metricTFTPResumed   = "everboot_tftp_resumed_total"
	metricTFTPResent    = "everboot_tftp_resent_packets_total"
	metricTFTPUnsent    = "everboot_tftp_unsent_packets_total"
	metricTFTPBytes     = "everboot_tftp_sent_bytes_total"
	metricHTTPRequests  = "everboot_http_requests_total" // label result
)

func (c collector) boot(send emit) {
	if c.w.tftp != nil {
		s := c.w.tftp.Stats()
		for result, n := range s.Finished {
			send(metricTFTPTransfers, "TFTP transfers that ended, by result.", prometheus.CounterValue, float64(n), "result", result)
		}
		for reason, n := range s.Dropped {
			send(metricTFTPDropped, "TFTP packets and requests that did not become a transfer, by reason.", prometheus.CounterValue, float64(n), "reason", reason)
		}
		send(metricTFTPActive, "TFTP transfers under way.", prometheus.GaugeValue, float64(s.Active))
		send(metricTFTPResumed, "TFTP transfers that another appliance had begun.", prometheus.CounterValue, float64(s.Resumed))
		send(metricTFTPResent, "TFTP packets sent again.", prometheus.CounterValue, float64(s.Resent))
		send(metricTFTPUnsent, "TFTP packets that the kernel did not take.", prometheus.CounterValue, float64(s.Unsent))
		send(metricTFTPBytes, "Bytes of files that TFTP clients have acknowledged.", prometheus.CounterValue, float64(s.Bytes))
	}
	if c.w.http != nil {
		s := c.w.http.Stats()
		for result, n := range map[string]uint64{"script": s.Scripts, "wait": s.Waits, "file": s.Files, "not_found": s.NotFound, "bad": s.Bad} {
			send(metricHTTPRequests, "HTTP boot requests by result.", prometheus.CounterValue, float64(n), "result", result)
		}
	}
}
