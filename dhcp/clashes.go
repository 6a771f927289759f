package dhcp

import (
	"maps"
	"net/netip"
	"time"

	"everboot/dhcp/leases"
)

const (
	// clashMemory is how long a clash that pages tell of is remembered after it was told last. A peer's pages are read again each few seconds while it writes.
	clashMemory = 10 * time.Minute
	// maxClashes bounds how many are; what is told of beyond is as if it had been told before.
	maxClashes = 4096
)

// clash is one address that two clients were given.
type clash struct {
	address     netip.Addr
	here, there leases.Client
}

// clashes are those that pages told of lately. The zero value is ready.
type clashes map[clash]time.Time

// news reports whether a clash was not told before.
func (m *clashes) news(now time.Time, c clash) bool {
	if *m == nil {
		*m = make(clashes)
	}
	old := func(_ clash, told time.Time) bool { return now.Sub(told) > clashMemory }
	told, known := (*m)[c]
	if !known {
		maps.DeleteFunc(*m, old)
		if len(*m) >= maxClashes {
			return false
		}
	}
	(*m)[c] = now
	return !known || old(c, told)
}
