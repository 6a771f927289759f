package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"

	"everboot/appliance/keep"
	"everboot/appliance/peers"
	"everboot/dhcp"
	"everboot/internal/ports"
	"everboot/site"
	"everboot/tftp"
	"everboot/vip"
)

// RunGuard is the process that `everboot appliance` starts as; argv starts its worker. On a host that Check has something to say about it
// starts nothing and changes nothing.
func RunGuard(ctx context.Context, cfg *Config, argv []string, log *slog.Logger) error {
	if err := errors.Join(cfg.checkHost()...); err != nil {
		return err
	}
	counter, err := cfg.openCounter(log)
	if err != nil {
		return err
	}
	defer func() { // nobody advertises any more
		if err := counter.Close(); err != nil {
			log.Warn("closing the count of advertisements", "error", err)
		}
	}()
	g := &Guard{Counter: counter.Memory(), Worker: argv, Release: func() error { return nil }, Keep: keep.NewHolder(log), Log: log}
	if len(cfg.VIP.Addresses) > 0 {
		configs, err := cfg.keyedVIPs(counter)
		if err != nil {
			return err
		}
		addresses, err := vip.NewGuards(configs, log.With("room", "vip"))
		if err != nil {
			return err
		}
		defer addresses.Close()
		g.Release, g.Patience = addresses.Release, vip.Patience(configs...)
	}
	debug.FreeOSMemory() // what it took to read and check the configuration; a guard never needs it again
	return g.Run(ctx)
}

// FlushVIP takes the floating addresses away from this host, where an appliance that is gone left them.
func FlushVIP(cfg *Config, log *slog.Logger) error {
	if len(cfg.VIP.Addresses) == 0 {
		return nil
	}
	counter, err := cfg.openCounter(log)
	if err != nil {
		log.Warn("the clock alone counts the advertisements", "error", err) // the addresses must go all the same
	} else {
		defer counter.Close()
	}
	configs, err := cfg.keyedVIPs(counter)
	if err != nil {
		return err
	}
	all, err := vip.NewGuards(configs, log.With("room", "vip"))
	if err != nil {
		return err
	}
	err = errors.Join(all.Release(), all.Close())
	restoreRefusals(cfg.VIP.floating())
	return err
}

// Check reads a configuration file of either kind and looks whether this host is ready for it. The error says what is wrong with the file; the
// findings are what to mend on the host, and with segment for some seconds also what else answers there that should not. Nothing is changed.
func Check(ctx context.Context, path string, segment bool) (findings []error, err error) {
	if isStreamer(path) {
		c, err := LoadStreamer(path)
		if err != nil {
			return nil, err
		}
		return c.checkHost(), nil
	}
	c, err := Load(path)
	if err != nil {
		return nil, err
	}
	if findings = c.checkHost(); segment {
		findings = append(findings, c.checkSegment(ctx)...)
	}
	return findings, nil
}

// isStreamer reports whether the file has a table that only streamers have.
func isStreamer(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	var tables map[string]any
	if toml.Unmarshal(text, &tables) != nil {
		return false
	}
	_, iscsi := tables["iscsi"]
	_, store := tables["store"]
	return iscsi || store
}

// checkHost looks at what the configuration needs of this host: secrets, the network, ports.
func (c *Config) checkHost() []error {
	found := c.checkSecrets()
	own, err := c.OwnAddress()
	if err != nil {
		found = append(found, err)
	} else {
		found = append(found, c.checkAddress(own)...)
	}
	if c.serves6() {
		found = append(found, c.checkDHCP6()...)
	}
	if c.TFTP.Enabled || c.HTTP.Enabled {
		found = append(found, tftp.CheckFiles(c.filesConfig())...)
	}
	if c.TFTP.Enabled {
		found = append(found, tftp.Check(c.tftpConfig())...)
	}
	if c.HTTP.Enabled {
		found = append(found, tftp.CheckHTTP(c.httpConfig(nil))...)
	}
	if c.Director.Enabled {
		found = append(found, checkListen("director.listen", c.Director.Listen))
	}
	found = append(found, checkListen("api.listen", c.API.Listen))
	return slices.DeleteFunc(found, func(err error) bool { return err == nil })
}

// checkSecrets reads what stands in files of their own. Some of what it returns is nil.
func (c *Config) checkSecrets() []error {
	_, token := c.API.Token.Read()
	_, peer := c.Peers.Key.Read()
	_, registry := c.Registry.Token.Read()
	_, media := c.mediaKey()
	found := []error{token, peer, registry, media}
	if !c.VIP.Key.IsZero() {
		_, err := c.vrrpKey()
		found = append(found, err)
	}
	if !c.Director.CHAP.IsZero() {
		_, err := readCHAP(c.Director.CHAP.path)
		found = append(found, err)
	}
	return found
}

// checkAddress tries what the rooms do with this node's own address.
func (c *Config) checkAddress(own netip.Addr) []error {
	var found []error
	if !own.IsValid() {
		return nil
	}
	if len(c.VIP.Addresses) > 0 {
		for _, g := range c.vipConfigs() {
			found = append(found, vip.Check(g)...)
		}
	}
	if c.Peers.shares() {
		if cfg, err := c.peersConfig(own); err == nil { // what is wrong with the key has been said
			found = append(found, cfg.Validate(), tryListen("the peer channel", net.JoinHostPort(own.String(), strconv.Itoa(peers.DefaultPort)), "stop it"))
		}
	}
	if c.serves4() {
		content := c.Content()
		found = append(found, dhcp.Check(c.dhcpConfig(own), site.Merge(site.Empty(c.Site, ""), &content, site.Registry{}, site.Observed{}, time.Time{}))...)
	}
	return found
}

// checkListen tries whether the TCP address of a configuration key can be listened at.
func checkListen(key, address string) error {
	return tryListen(key, address, "stop it, or change "+key)
}

// tryListen tries whether a TCP address can be listened at. The error names who has it, and says the remedy.
func tryListen(what, address, remedy string) error {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s %s: %w; %s has the port: %s", what, address, err, ports.Owner("tcp", port(address)), remedy)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, address, err)
	}
	return l.Close()
}
