package site

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Observed is what an appliance itself sees: its own probes, and who it is.
type Observed struct {
	Boot       BootService
	Appliances []Appliance
	Streamers  map[string]Check // by name
	// Wishes are what the operator wants of streamers and the registry does not know, because it is away: they count.
	Wishes map[string]StreamerState
}

// Merge makes the next view of the previous one, of what the registry says now, and of what we see ourselves. A nil content
// means that the registry has nothing to say: what it said before stays.
//
// A shorter answer of the registry never takes away what still works: a streamer that the registry no longer names stays in
// the view, unregistered, for as long as our own probe finds it up; and a Consul that was emptied takes away nothing
// until it has got back what it lost. The Epoch rises only if something changed.
func Merge(prev *View, content *Content, reg Registry, seen Observed, now time.Time) *View {
	next := &View{
		Site: prev.Site, Epoch: prev.Epoch + 1, Built: now, FromDisk: prev.FromDisk && content == nil,
		Registry: reg, Boot: seen.Boot, Appliances: seen.Appliances,
		Devices: prev.Devices, Collections: prev.Collections, VDisks: prev.VDisks,
	}
	next.Registry.Emptied = prev.Registry.Emptied && reg.Kind == prev.Registry.Kind
	if content != nil {
		devices := index(content.Devices, func(d Device) MAC { return d.MAC })
		collections := index(content.Collections, func(c Collection) string { return c.Name })
		vdisks := index(content.VDisks, func(d VDisk) string { return d.Name })
		next.Registry.Emptied = next.Registry.Emptied && !restored(prev, content) || emptied(prev, content, reg)
		if next.Registry.Emptied {
			next.Registry.Error = "it lost what it said of the site, which goes on with that: restore Consul's data, or put it in again"
			devices, collections, vdisks = over(prev.Devices, devices), over(prev.Collections, collections), over(prev.VDisks, vdisks)
		}
		next.Devices, next.Collections, next.VDisks = devices, collections, vdisks
	}
	next.Streamers = mergeStreamers(prev, content, seen)
	next.VDisks = adoptDigests(prev.VDisks, next)
	return next
}

// emptied reports whether a Consul that said something of the site says nothing at all now: somebody wiped it, or set it up anew. That is never what
// an operator wants of a site at work. An embedded registry is the configuration file, and right when it is empty.
func emptied(prev *View, c *Content, reg Registry) bool {
	return reg.Kind == "consul" && len(c.Devices)+len(c.Collections)+len(c.VDisks) == 0 && len(prev.Devices)+len(prev.Collections) > 0
}

// restored reports whether the registry has got back what it lost: nearly all, for a backup may be some days old, and not just a part, for it may
// be put in again object by object.
func restored(prev *View, c *Content) bool {
	back := 0
	for _, d := range c.Devices {
		if _, kept := prev.Devices[d.MAC]; kept {
			back++
		}
	}
	for _, group := range c.Collections {
		if _, kept := prev.Collections[group.Name]; kept {
			back++
		}
	}
	return back*10 >= (len(prev.Devices)+len(prev.Collections))*9
}

// over returns what was kept with what is said now laid over it.
func over[K comparable, T any](kept, now map[K]T) map[K]T {
	m := maps.Clone(kept)
	if m == nil {
		m = make(map[K]T)
	}
	maps.Copy(m, now)
	return m
}

func index[K comparable, T any](list []T, key func(T) K) map[K]T {
	m := make(map[K]T, len(list))
	for _, t := range list {
		m[key(t)] = t
	}
	return m
}

func mergeStreamers(prev *View, content *Content, seen Observed) map[string]Streamer {
	streamers := make(map[string]Streamer)
	for name, s := range prev.Streamers {
		if content != nil {
			s.Registered = false
		}
		streamers[name] = s
	}
	if content != nil {
		for _, s := range content.Streamers {
			s.Registered = true
			streamers[s.Name] = s
		}
	}
	for name, s := range streamers {
		s.Check = seen.Streamers[name]
		if wish, ok := seen.Wishes[name]; ok {
			s.State = wish
		}
		if !s.Registered && content != nil && s.Check.Health == Down {
			delete(streamers, name)
			continue
		}
		streamers[name] = s
	}
	return streamers
}

// adoptDigests gives a digest to every version that has none pinned: the one that it had before, else the one that most
// streamers of the site announce (of equally many the lowest, so that appliances agree). Once adopted it stays, so that a replica that
// differs later is never picked. Versions that only streamers know are added the same way.
func adoptDigests(prev map[string]VDisk, next *View) map[string]VDisk {
	vdisks := maps.Clone(next.VDisks)
	if vdisks == nil {
		vdisks = make(map[string]VDisk)
	}
	type version struct {
		vdisk  string
		number int
	}
	votes := make(map[version]map[Digest]int)
	for _, s := range next.Streamers {
		for _, r := range s.Replicas {
			if s.Site != next.Site {
				continue
			}
			k := version{r.VDisk, r.Version}
			if votes[k] == nil {
				votes[k] = make(map[Digest]int)
			}
			votes[k][r.Digest]++
		}
	}
	for k, candidates := range votes {
		d := vdisks[k.vdisk]
		d.Name = k.vdisk
		d.Versions = slices.Clone(d.Versions)
		i := slices.IndexFunc(d.Versions, func(v Version) bool { return v.Number == k.number })
		if i < 0 {
			d.Versions = append(d.Versions, Version{Number: k.number})
			i = len(d.Versions) - 1
		}
		if d.Versions[i].Digest == "" {
			d.Versions[i].Digest, d.Versions[i].Adopted = adopt(prev[k.vdisk], k.number, candidates), true
		}
		slices.SortFunc(d.Versions, func(a, b Version) int { return cmp.Compare(a.Number, b.Number) })
		vdisks[k.vdisk] = d
	}
	keepAdopted(prev, vdisks)
	return vdisks
}

func adopt(prev VDisk, number int, votes map[Digest]int) Digest {
	for _, v := range prev.Versions {
		if v.Number == number && v.Adopted {
			return v.Digest
		}
	}
	var best Digest
	for d, n := range votes {
		if best == "" || n > votes[best] || n == votes[best] && d < best {
			best = d
		}
	}
	return best
}

// keepAdopted carries adopted digests over a time in which nobody announces the version.
func keepAdopted(prev, vdisks map[string]VDisk) {
	for name, old := range prev {
		for _, v := range old.Versions {
			if !v.Adopted {
				continue
			}
			d := vdisks[name]
			d.Name = name
			i := slices.IndexFunc(d.Versions, func(w Version) bool { return w.Number == v.Number })
			switch {
			case i < 0:
				d.Versions = append(slices.Clone(d.Versions), v)
				slices.SortFunc(d.Versions, func(a, b Version) int { return cmp.Compare(a.Number, b.Number) })
			case d.Versions[i].Digest == "":
				d.Versions = slices.Clone(d.Versions)
				d.Versions[i] = v
			default:
				continue
			}
			vdisks[name] = d
		}
	}
}

// Empty returns the view of a site of which nothing is known yet.
func Empty(siteName, registryKind string) *View {
	return &View{
		Site: siteName, Registry: Registry{Kind: registryKind},
		Devices: map[MAC]Device{}, Collections: map[string]Collection{}, VDisks: map[string]VDisk{}, Streamers: map[string]Streamer{},
	}
}

// BootAddress returns the address that targets boot from: the first VIP, or the node's own address where there is none.
func BootAddress(vips []netip.Prefix, own netip.Addr) netip.Addr {
	if len(vips) > 0 {
		return vips[0].Addr()
	}
	return own
}
