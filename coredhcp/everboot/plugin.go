// Package everboot is a plugin for coredhcp: a coredhcp that somebody runs already tells targets where to boot from (siaddr, file, options 66,
// 67, 43 and 60) by the health of an everboot site, exactly as an appliance's own DHCP would, and gives them their addresses as before.
//
// It stands before the plugin that gives addresses (file ends the list where it knows the client), and without nbp. Its arguments say whom to ask:
//
//	everboot: http://198.18.0.2:8667 http://198.18.0.3:8667 token=file:/etc/coredhcp/everboot.token
//	everboot: consul=127.0.0.1:8500 site=berlin boot=198.18.0.10 token=file:/etc/coredhcp/consul.token
//
// With the first the appliances decide, asked one after the other until one answers. With the second the site is read from Consul, and the
// plugin itself probes the boot address and the streamers. Who cannot be asked offers nothing: a target without boot options tries again
// or starts from its disk, one that is sent to a dead server waits.
package everboot

import (
	"context"
	"time"

	"github.com/coredhcp/coredhcp/handler"
	"github.com/coredhcp/coredhcp/logger"
	"github.com/coredhcp/coredhcp/plugins"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"everboot/dhcp"
	"everboot/site"
)

// Plugin is what coredhcp registers.
var Plugin = plugins.Plugin{Name: "everboot", Setup4: setup}

const (
	// patience is how long a client's answer may wait for the decision: firmware repeats a DISCOVER after 4 s.
	patience = time.Second
	// atOnce bounds how many decisions are waited for: coredhcp starts a goroutine for each packet, without bound.
	atOnce = 64
)

// decider says where a client boots from. An error means that nobody can say.
type decider func(ctx context.Context, q site.BootRequest) (site.Offer, site.Reason, error)

func setup(args ...string) (handler.Handler4, error) {
	c, err := parse(args)
	if err != nil {
		return nil, err
	}
	log := logger.GetLogger("plugins/everboot")
	decide, err := c.open(context.Background()) // coredhcp has no word for the end of a plugin
	if err != nil {
		return nil, err
	}
	places := make(chan struct{}, atOnce)
	return func(q, p *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, bool) {
		ask, ok := dhcp.BootRequestOf(q)
		if !ok || p == nil {
			return p, false
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			log.Warningf("%s: no boot options: %d others wait for theirs", ask.MAC, atOnce)
			return p, false
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		offer, reason, err := decide(ctx, ask)
		switch {
		case err != nil:
			log.Warningf("%s: no boot options: %v", ask.MAC, err)
		case reason != site.Offered:
			log.Infof("%s: no boot options: %s", ask.MAC, reason.Text())
		default:
			dhcp.PutBoot(p, q, offer)
			log.Infof("%s: %s from %s", ask.MAC, offer.File, offer.Server)
		}
		return p, false
	}, nil
}
