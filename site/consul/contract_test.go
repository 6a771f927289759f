package consul_test

import (
	"context"

	"everboot/site"
	"everboot/site/consul"
	"everboot/site/embedded"
)

// What appliance and streamer want of a registry. Both registries have it.
type (
	registry interface {
		Run(ctx context.Context, changed func(site.Content, site.Registry)) error
		Put(ctx context.Context, kind site.Kind, key string, value []byte) error
		Add(ctx context.Context, kind site.Kind, key string, value []byte) error
		Delete(ctx context.Context, kind site.Kind, key string) error
	}
	announcer interface {
		Announce(ctx context.Context, s site.Streamer) (wanted site.StreamerState, err error)
		Withdraw(ctx context.Context, name string) error
	}
)

var (
	_ registry  = (*consul.Registry)(nil)
	_ registry  = (*embedded.Registry)(nil)
	_ announcer = (*consul.Registrar)(nil)
	_ announcer = (*embedded.Client)(nil)
	_ announcer = (*embedded.Registry)(nil)
)
