package consul

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Leases that DHCP gave stand beside the objects of the site, below leases/. They are no content: nobody watches them, and no view has them.
const leasesFolder = "leases/"

// beatKey is where a node that writes pages says that it does.
const beatKey = "beat"

func (r *Registry) leasePath(node netip.Addr) string {
	return "everboot/" + r.cfg.Site + "/" + leasesFolder + node.String() + "/"
}

// PutPage writes a page of the leases that a node knows; nil takes it away. A page has 512 KiB at most.
func (r *Registry) PutPage(ctx context.Context, node netip.Addr, page string, value []byte) error {
	path := r.leasePath(node) + page
	o := new(api.WriteOptions).WithContext(ctx)
	var err error
	if value == nil {
		_, err = r.client.KV().Delete(path, o)
	} else {
		_, err = r.client.KV().Put(&api.KVPair{Key: path, Value: value}, o)
	}
	return r.cfg.explain("writing "+path, err)
}

// Beat says that a node writes its pages. The time differs from beat to beat: Consul takes the same value for no change.
func (r *Registry) Beat(ctx context.Context, node netip.Addr, at time.Time) error {
	return r.PutPage(ctx, node, beatKey, []byte(at.UTC().Format(time.RFC3339Nano)))
}

// Beats returns a number that is another one after each Beat of the node; 0: it has never written.
func (r *Registry) Beats(ctx context.Context, node netip.Addr) (uint64, error) {
	path := r.leasePath(node) + beatKey
	pair, _, err := r.client.KV().Get(path, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil || pair == nil {
		return 0, r.cfg.explain("reading "+path, err)
	}
	return pair.ModifyIndex, nil
}

// Pages returns the pages of a node, by name.
func (r *Registry) Pages(ctx context.Context, node netip.Addr) (map[string][]byte, error) {
	path := r.leasePath(node)
	pairs, _, err := r.client.KV().List(path, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return nil, r.cfg.explain("reading "+path, err)
	}
	pages := make(map[string][]byte)
	for _, p := range pairs {
		if name := strings.TrimPrefix(p.Key, path); name != beatKey && name != "" {
			pages[name] = p.Value
		}
	}
	return pages, nil
}
