package dhcp

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/coredhcp/coredhcp/config"
	"github.com/coredhcp/coredhcp/handler"
	"github.com/coredhcp/coredhcp/logger"
	"github.com/coredhcp/coredhcp/plugins"
	"github.com/coredhcp/coredhcp/server"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/sirupsen/logrus"
)

// pluginName is the name of our plugin in coredhcp's list.
const pluginName = "everboot"

// frames hands a Server's function to coredhcp: the one variable of this package that changes. It has to be: coredhcp's list of plugins
// belongs to the process, panics when a name is registered twice, and gives a plugin nothing but words. So the plugin is registered
// once, its argument is the number of the Server that is starting, and the entry is here only while server.Start runs.
var frames struct {
	register sync.Once
	mu       sync.Mutex
	last     int
	starting map[string]func(*dhcpv4.DHCPv4)
}

// startFrame makes coredhcp listen on port 67 of an interface and call receive for each message, from many goroutines. The sockets are
// opened by the calling thread, in its network namespace. Every message is answered by us, if at all: coredhcp's own way of sending takes
// siaddr for the source of an offer, which is the VIP and perhaps another node's, or 0.0.0.0 without boot options; opens a socket for
// each; and leaves the source of renewals to the routing table.
func startFrame(link string, receive func(*dhcpv4.DHCPv4)) (*server.Servers, error) {
	frames.register.Do(registerPlugin)
	frames.mu.Lock()
	frames.last++
	number := strconv.Itoa(frames.last)
	if frames.starting == nil {
		frames.starting = make(map[string]func(*dhcpv4.DHCPv4))
	}
	frames.starting[number] = receive
	frames.mu.Unlock()
	defer func() {
		frames.mu.Lock()
		delete(frames.starting, number)
		frames.mu.Unlock()
	}()
	cfg := config.New()
	cfg.Server4 = &config.ServerConfig{
		Addresses: []net.UDPAddr{{IP: net.IPv4zero, Port: dhcpv4.ServerPort, Zone: link}},
		Plugins:   []config.PluginConfig{{Name: pluginName, Args: []string{number}}},
	}
	return server.Start(cfg)
}

// registerPlugin also silences coredhcp's log, which writes several lines a message; what it could say of value comes back
// as errors.
func registerPlugin() {
	l := logger.GetLogger(pluginName).Logger
	l.SetLevel(logrus.PanicLevel)
	l.SetOutput(io.Discard)
	// The error is of a nil plugin only.
	_ = plugins.RegisterPlugin(&plugins.Plugin{Name: pluginName, Setup4: setup})
}

func setup(args ...string) (handler.Handler4, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("plugin %s: started by hand; everboot starts it itself", pluginName)
	}
	frames.mu.Lock()
	receive, ok := frames.starting[args[0]]
	frames.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("plugin %s: no server %q is starting", pluginName, args[0])
	}
	// receive only queues: coredhcp starts a goroutine for each packet, without bound, and so each ends at once.
	return func(req, _ *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, bool) {
		receive(req)
		return nil, true
	}, nil
}
