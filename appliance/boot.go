package appliance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"everboot/appliance/peers"
	"everboot/appliance/web"
	"everboot/site"
	"everboot/tftp"
)

// TFTPConfig is the TFTP server and the files that HTTP boot serves too.
type TFTPConfig struct {
	Enabled bool   `toml:"enabled"`
	Listen  string `toml:"listen"`
	Root    string `toml:"root"` // files served beside the built-in ones; wins over them
	IPXE    string `toml:"ipxe"` // folder of iPXE's binaries
	// Of TFTP alone; 0: the defaults of package tftp.
	MaxTransfers int `toml:"max_transfers"`
	PerClient    int `toml:"per_client"`
	// EphemeralPorts gives each transfer a port of its own.
	EphemeralPorts bool               `toml:"ephemeral_ports"`
	Subnets        []TFTPSubnetConfig `toml:"subnet"`
}

// TFTPSubnetConfig bounds the block size of a subnet's targets, such as one behind a tunnel.
type TFTPSubnetConfig struct {
	Network   netip.Prefix `toml:"network"`
	BlockSize int          `toml:"block_size"`
}

// tftpConfig returns the server's configuration, without what joins it to the rest.
func (c *Config) tftpConfig() tftp.Config {
	cfg := tftp.Config{Listen: c.TFTP.Listen, MaxTransfers: c.TFTP.MaxTransfers, PerClient: c.TFTP.PerClient, EphemeralPorts: c.TFTP.EphemeralPorts}
	for _, s := range c.TFTP.Subnets {
		cfg.Blocks = append(cfg.Blocks, tftp.BlockLimit{Network: s.Network, Block: s.BlockSize})
	}
	return cfg
}

func (c *Config) checkBoot() error {
	if c.HTTP.Enabled {
		if err := c.httpConfig(nil).Validate(); err != nil {
			return err
		}
		if err := c.HTTP.checkNames(); err != nil {
			return err
		}
	}
	if !c.TFTP.Enabled {
		return nil
	}
	return c.tftpConfig().Validate()
}

// HTTPConfig is the HTTP boot server.
type HTTPConfig struct {
	Enabled     bool     `toml:"enabled"`
	Listen      string   `toml:"listen"`
	Names       []string `toml:"names"`     // of the site's login servers in DNS
	MediaKey    Secret   `toml:"media_key"` // of the site's boot media
	ListenTLS   string   `toml:"listen_tls"`
	Certificate string   `toml:"certificate"` // PEM files; with both HTTPS is served, too
	Key         string   `toml:"key"`
	PerClient   int      `toml:"per_client"` // connections at once from one address
}

func (c *Config) filesConfig() tftp.FilesConfig {
	return tftp.FilesConfig{Root: c.TFTP.Root, IPXE: c.TFTP.IPXE}
}

func (c *Config) httpConfig(who func(netip.Addr) site.MAC) tftp.HTTPConfig {
	return tftp.HTTPConfig{
		Listen: c.HTTP.Listen, SANPort: port(c.Director.Listen), Who: who,
		ListenTLS: c.HTTP.ListenTLS, Certificate: c.HTTP.Certificate, Key: c.HTTP.Key, PerClient: c.HTTP.PerClient,
	}
}

// checkNames wants names alone: the port is that of listen.
func (c *HTTPConfig) checkNames() error {
	for _, name := range c.Names {
		if strings.Contains(name, ":") || (site.Bootstrap{Hosts: []string{name}}).Check() != nil {
			return fmt.Errorf("http.names: %q: use a DNS name of the login servers, without a port, such as boot.example.net", name)
		}
	}
	return nil
}

// mediaKey reads the key of the site's boot media, which may be none.
func (c *Config) mediaKey() (string, error) {
	key, err := c.HTTP.MediaKey.Read()
	if err == nil && key != "" {
		err = site.CheckBootKey(key)
	}
	if err != nil {
		return "", fmt.Errorf("http.media_key: %w", err)
	}
	return key, nil
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
		if err := w.openTFTP(); err != nil {
			return err
		}
	}
	if w.cfg.HTTP.Enabled {
		cfg := w.cfg.httpConfig(w.macAt)
		cfg.Opened = w.opened
		if cfg.MediaKey, err = w.cfg.mediaKey(); err != nil {
			return err
		}
		made := newMedia(cfg.MediaKey, cfg.Certificate, w.builder.View, w.media.Seen)
		cfg.Media, cfg.Renew = made.Medium, made.Renew
		w.http, err = tftp.NewHTTP(cfg, w.files, w.builder.View, w.event, w.log.With("room", "http"))
	}
	return err
}

// lacks returns which boot files of firmware are not there. Before the files are open nothing is known to be missing.
func (w *worker) lacks() (list []string) {
	if w.files == nil {
		return nil
	}
	for _, name := range site.FirmwareFiles() {
		file, err := w.files.Open(name)
		if err != nil {
			list = append(list, name)
			continue
		}
		_ = file.Close() // read only
	}
	return list
}

func (w *worker) openTFTP() (err error) {
	cfg := w.cfg.tftpConfig()
	cfg.Who = w.macAt
	if link, err := net.InterfaceByName(w.cfg.Interface); err == nil {
		cfg.MTU = link.MTU
	}
	cfg.Keep = func(socket syscall.Conn) { w.keeper.Keep(socket, site.Connection{}) }
	if w.cfg.Peers.shares() {
		cfg.Tell = w.tell(peers.Transfers)
		// The rooms open before the channel does, and nobody calls these before.
		w.shares[peers.Transfers] = peers.Share{
			Changed: func(from string, message []byte) { w.tftp.PeerChanged(from, message) },
			Whole:   func() []byte { return w.tftp.PeerWhole() },
			Merge:   func(from string, whole []byte) { w.tftp.PeerMerge(from, whole) },
		}
	}
	w.tftp, err = tftp.NewServer(cfg, w.files, w.event, w.log.With("room", "tftp"))
	return err
}

// transferTimeout bounds how long a status waits for the transfers.
const transferTimeout = time.Second

// transfers returns the TFTP transfers under way and the last that ended.
func (w *worker) transfers(v *site.View) (live, ended []web.Transfer) {
	if w.tftp == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), transferTimeout)
	defer cancel()
	named := func(list []tftp.Transfer) (out []web.Transfer) {
		for _, t := range list {
			mac := w.macAt(t.Client.Addr())
			out = append(out, web.Transfer{MAC: mac, Device: v.Devices[mac].Name, Transfer: t})
		}
		return out
	}
	running, past := w.tftp.Transfers(ctx)
	return named(running), named(past)
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
	metricHTTPRefused   = "everboot_http_refused_total"  // label reason
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
		for result, n := range map[string]uint64{"script": s.Scripts, "wait": s.Waits, "file": s.Files, "not_found": s.NotFound, "bad": s.Bad, "foreign": s.Foreign, "renewed": s.Renewed} {
			send(metricHTTPRequests, "HTTP boot requests by result.", prometheus.CounterValue, float64(n), "result", result)
		}
		send(metricHTTPRefused, "HTTP boot connections that were closed at once, by reason.", prometheus.CounterValue, float64(s.Refused), "reason", "per_client")
	}
}
