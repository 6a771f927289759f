// Command stock is coredhcp as its generator makes it, with everboot's plugin among the others; `range`, which needs cgo, is left out. It
// shows how to build one, and the tests run it.
package main

import (
	"log"
	"os"

	"github.com/coredhcp/coredhcp/config"
	"github.com/coredhcp/coredhcp/plugins"
	"github.com/coredhcp/coredhcp/plugins/dns"
	"github.com/coredhcp/coredhcp/plugins/file"
	"github.com/coredhcp/coredhcp/plugins/leasetime"
	"github.com/coredhcp/coredhcp/plugins/netmask"
	"github.com/coredhcp/coredhcp/plugins/router"
	"github.com/coredhcp/coredhcp/plugins/serverid"
	"github.com/coredhcp/coredhcp/server"

	"everboot/coredhcp/everboot"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: stock CONFIG")
	}
	c, err := config.Load(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range []*plugins.Plugin{&dns.Plugin, &file.Plugin, &leasetime.Plugin, &netmask.Plugin, &router.Plugin, &serverid.Plugin, &everboot.Plugin} {
		if err := plugins.RegisterPlugin(p); err != nil {
			log.Fatal(err)
		}
	}
	s, err := server.Start(c)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(s.Wait())
}
