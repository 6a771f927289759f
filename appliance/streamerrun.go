package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"

	"everboot/site/consul"
	"everboot/site/embedded"
	"everboot/streamer"
	"everboot/streamer/tgt"
	"everboot/vip"
)

// RunStreamer runs a streamer's agent until ctx ends.
func RunStreamer(ctx context.Context, cfg *StreamerConfig, log *slog.Logger) error {
	if err := errors.Join(cfg.checkHost()...); err != nil {
		return err
	}
	token, err := cfg.Registry.Token.Read()
	if err != nil {
		return err
	}
	registrar, err := cfg.registrar(token, log.With("room", "registry"))
	if err != nil {
		return err
	}
	defer registrar.Close()
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return fmt.Errorf("making the state folder: %w", err)
	}
	return cfg.withAddresses(ctx, log.With("room", "vip"), func(ctx context.Context) error { return cfg.serve(ctx, registrar, log) })
}

// serve runs the agent.
func (c *StreamerConfig) serve(ctx context.Context, registrar streamer.Registrar, log *slog.Logger) error {
	engine, err := tgt.New(c.engineConfig(), log.With("room", "tgt"))
	if err != nil {
		return err
	}
	agent, err := streamer.NewAgent(streamer.AgentConfig{
		Node: c.Node, Site: c.Site, Addresses: c.ISCSI.Addresses, Power: c.ISCSI.Power, StorePath: c.Store.Path,
		StoreShared: c.Store.Shared, VRIDs: c.ISCSI.VRIDs,
	}, engine, registrar, log.With("room", "streamer"))
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

func (c *StreamerConfig) engineConfig() tgt.Config {
	return tgt.Config{Addresses: c.ISCSI.Addresses, State: c.State}
}

// closingRegistrar is what both registries give a streamer's agent.
type closingRegistrar interface {
	streamer.Registrar
	Close()
}

func (c *StreamerConfig) registrar(token string, log *slog.Logger) (closingRegistrar, error) {
	if c.Registry.Kind == "consul" {
		return consul.NewRegistrar(consul.RegistrarConfig{Config: consul.Config{Address: c.Registry.Address, Token: token, Site: c.Site, Log: log}})
	}
	return embedded.NewClient(embedded.ClientConfig{Addresses: c.Registry.Addresses, Token: token, Log: log})
}

// checkHost looks whether this host is ready for the agent.
func (c *StreamerConfig) checkHost() []error {
	var found []error
	add := func(err error) {
		if err != nil {
			found = append(found, err)
		}
	}
	_, err := c.Registry.Token.Read()
	add(err)
	if _, err := exec.LookPath("tgtd"); err != nil {
		add(errors.New("tgtd is not installed; run: apt-get install tgt && systemctl disable --now tgt"))
	}
	if info, err := os.Stat(c.Store.Path); err != nil || !info.IsDir() {
		add(fmt.Errorf("store.path %s is no folder; make it and put replicas at %s/VDISK/VERSION/disk.raw", c.Store.Path, c.Store.Path))
	}
	configs, err := c.vipConfigs()
	add(err)
	for _, v := range configs {
		for _, err := range vip.Check(v) {
			add(err)
		}
	}
	for _, a := range c.ISCSI.Addresses {
		if len(c.ISCSI.VRIDs) > 0 {
			break // they are not here yet
		}
		add(checkListen("iscsi.addresses", a.String()))
	}
	return found
}
