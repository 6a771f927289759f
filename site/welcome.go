package site

// MaxWelcomed is how many devices without a name a collection may have before it takes no more strangers in: MACs can be made up. Who gives
// them names, or removes them, makes room.
const MaxWelcomed = 1000

// Welcome returns what a machine that the site does not know becomes when it asks where to boot from: a device of the first collection, by name, that
// takes strangers in. It returns false if the site knows it already, or if no collection takes it.
func Welcome(v *View, mac MAC) (Device, bool) {
	if _, known := v.Devices[mac]; known {
		return Device{}, false
	}
	name := welcoming(v)
	d := Device{MAC: mac, Collection: name}
	if name == "" || d.Check() != nil {
		return Device{}, false
	}
	n := 0
	for _, known := range v.Devices {
		if known.Collection == name && known.Name == "" {
			n++
		}
	}
	return d, n < MaxWelcomed
}

// welcoming returns the collection that takes strangers in; empty: none does.
func welcoming(v *View) string {
	first := ""
	for name, c := range v.Collections {
		if c.AutoAdd && (first == "" || name < first) {
			first = name
		}
	}
	return first
}
