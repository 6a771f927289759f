package consul

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"everboot/site"
)

// entry is one key below a folder.
type entry struct {
	key   string // without the folder
	value []byte
	index uint64 // at which it was last written
}

// problem is an entry that cannot be read.
type problem struct {
	kind  site.Kind
	key   string
	index uint64
	text  string
}

// part is what one folder says.
type part struct {
	content  site.Content                  // of its kind alone
	wishes   map[string]site.StreamerState // of KindStreamerState
	problems []problem
}

// readFolder reads the entries of a kind; it leaves out those that cannot be read.
func readFolder(kind site.Kind, siteName string, entries []entry) part {
	p := part{wishes: make(map[string]site.StreamerState)}
	for _, e := range entries {
		if e.key == "" { // the folder itself: some of Consul's tools make such a key
			continue
		}
		if err := p.add(kind, siteName, e); err != nil {
			p.problems = append(p.problems, problem{kind, e.key, e.index, err.Error()})
		}
	}
	return p
}

func (p *part) add(kind site.Kind, siteName string, e entry) error {
	switch kind {
	case kindStreamer:
		s, err := readStreamer(siteName, e)
		if err != nil {
			return err
		}
		p.content.Streamers = append(p.content.Streamers, s)
	case site.KindStreamerState:
		want, err := readWish(e.key, e.value)
		if err != nil {
			return err
		}
		p.wishes[e.key] = want
	default:
		return p.content.AddObject(kind, e.key, e.value)
	}
	return nil
}

func readStreamer(siteName string, e entry) (site.Streamer, error) {
	var s site.Streamer
	if err := json.Unmarshal(e.value, &s); err != nil {
		return s, fmt.Errorf("reading the announcement of streamer %s: %w", e.key, err)
	}
	if s.Name != e.key {
		return s, fmt.Errorf("the announcement of streamer %q stands at the key of %q", s.Name, e.key)
	}
	s.Registered, s.Check = false, site.Check{} // not the streamer's to say
	return s, site.CheckStreamer(s, siteName)
}

func readWish(name string, value []byte) (site.StreamerState, error) {
	if err := site.CheckObject(site.KindStreamerState, name, value); err != nil {
		return "", err
	}
	var want site.StreamerState
	err := json.Unmarshal(value, &want)
	return want, err
}

// answers is the last answer of each folder, and of the catalog.
type answers struct {
	parts map[site.Kind]part
	alive map[string]bool          // streamers whose service is there and not critical
	known map[string]site.Streamer // what was announced, for as long as the streamer is in the content
}

// content joins the answers, sorted by key.
func (a *answers) content() site.Content {
	c := site.Content{
		Devices:     a.parts[site.KindDevice].content.Devices,
		Collections: a.parts[site.KindCollection].content.Collections,
		VDisks:      a.parts[site.KindVDisk].content.VDisks,
	}
	announced := make(map[string]site.Streamer)
	for _, s := range a.parts[kindStreamer].content.Streamers {
		announced[s.Name] = s
	}
	for name, s := range a.known {
		if _, there := announced[name]; !there && a.alive[name] {
			announced[name] = s
		}
	}
	a.known = announced
	for name, s := range announced {
		s.State = site.Effective(s.State, a.parts[site.KindStreamerState].wishes[name])
		c.Streamers = append(c.Streamers, s)
	}
	slices.SortFunc(c.Streamers, func(a, b site.Streamer) int { return cmp.Compare(a.Name, b.Name) })
	return c
}

// problems returns what cannot be read, by kind and key.
func (a *answers) problems() []problem {
	var list []problem
	for _, k := range kinds {
		list = append(list, a.parts[k].problems...)
	}
	return list
}

// kinds are the folders of a site.
var kinds = []site.Kind{site.KindDevice, site.KindCollection, site.KindVDisk, site.KindStreamerState, kindStreamer}

// warning names up to three problems in one line, or is empty.
func warning(problems []problem) string {
	if len(problems) == 0 {
		return ""
	}
	const shown = 3
	var texts []string
	for _, p := range problems[:min(shown, len(problems))] {
		texts = append(texts, fmt.Sprintf("%s/%s: %s", p.kind, p.key, p.text))
	}
	if more := len(problems) - shown; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%d keys left out: %s", len(problems), strings.Join(texts, "; "))
}
