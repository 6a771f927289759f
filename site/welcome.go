package site

// MaxWelcomed is how many devices without a name a collection may have before it takes no more strangers in: MACs can be made up. Who gives
// them names, or removes them, makes room.
const MaxWelcomed = 1000

// Welcome returns what a machine that the site does not know becomes when it asks where to boot from: a device of the collection that its boot medium
// was made for, or else of the first collection, by name, that takes strangers in. It returns false if the site knows it already, or if no collection
// takes it.
func Welcome(v *View, mac MAC, medium string) (Device, bool) {
	if _, known := v.Devices[mac]; known {
		return Device{}, false
	}
	name := medium
	if !v.Collections[medium].AutoAdd {
		name = welcoming(v)
	}
	d := Device{MAC: mac, Collection: name}
	if name == "" || d.Check() != nil {
		return Device{}, false
	}
	return d, nameless(v, name) < MaxWelcomed
}

// WelcomesNoMore returns the collection that would take strangers in, but has MaxWelcomed devices without a name; empty: there is none.
func WelcomesNoMore(v *View) string {
	if name := welcoming(v); name != "" && nameless(v, name) >= MaxWelcomed {
		return name
	}
	return ""
}

func nameless(v *View, collection string) (n int) {
	for _, d := range v.Devices {
		if d.Collection == collection && d.Name == "" {
			n++
		}
	}
	return n
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
