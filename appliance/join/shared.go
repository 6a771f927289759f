package join

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Bundle is what the new node gets.
type Bundle struct {
	Site  string `json:"site"`
	Node  string `json:"node"`  // who gives it
	Peers []Peer `json:"peers"` // the other appliances, as they are told of now; the giver first
	// Config is the giver's configuration (TOML) without what is its own. A secret in it is named "file:NAME", by its file in Files;
	// "state:PATH" is a path in the folder of the state.
	Config string            `json:"config"`
	Files  map[string][]byte `json:"files"`
	// VIP are the floating addresses, for the certificate.
	VIP []netip.Prefix `json:"vip"`
}

// Peer is another appliance.
type Peer struct {
	Address netip.Addr `json:"address"`
}

// own are the keys of a configuration that are a node's own, each a path.
var own = [][]string{
	{"node"}, {"interface"}, {"state"},
	{"peers", "addresses"},
	{"vip", "priority"},
	{"http", "certificate"}, {"http", "key"},
}

// ownOfGroup are those of a [[vip.group]]. The interface is left out where it is the node's, which is the default.
var ownOfGroup = []string{"priority", "interface"}

const (
	secretPrefix = "file:"
	// statePrefix stands for the folder of the state, which is a node's own.
	statePrefix = "state:"
	// maxFile has room for the CHAP secrets of ten thousand devices.
	maxFile = 1 << 20
)

// shared takes what is its own out of a node's configuration, whose state stands in that folder, and reads the files with its secrets. The interface
// of each group is the node's (joinable).
func shared(text []byte, state string) (rest string, files map[string][]byte, err error) {
	var config map[string]any
	if err := toml.Unmarshal(text, &config); err != nil {
		return "", nil, err
	}
	for _, path := range own {
		remove(config, path)
	}
	if vip, ok := config["vip"].(map[string]any); ok {
		groups, _ := vip["group"].([]any)
		for _, g := range groups {
			if group, ok := g.(map[string]any); ok {
				for _, key := range ownOfGroup {
					delete(group, key)
				}
			}
		}
	}
	files, from := map[string][]byte{}, map[string]string{}
	err = eachString(config, func(value string) (string, error) {
		if inside, ok := strings.CutPrefix(value, filepath.Clean(state)+"/"); ok {
			return statePrefix + inside, nil
		}
		path, ok := strings.CutPrefix(value, secretPrefix)
		if !ok {
			return value, nil
		}
		name := filepath.Base(path)
		if !isFileName(name) || slices.Contains(ownNames, name) || name == authorityFile || name == authorityKey {
			return "", fmt.Errorf("%s: a secret with this name cannot be given to another node, for it has a file of its own there: rename it", path)
		}
		if other, taken := from[name]; taken && other != path {
			return "", fmt.Errorf("%s and %s have the same name: rename one", other, path)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("reading a secret: %w; run this as root", err)
		}
		if len(content) > maxFile {
			return "", fmt.Errorf("%s has more than %d bytes: that is no secret", path, maxFile)
		}
		files[name], from[name] = content, path
		return secretPrefix + name, nil
	})
	if err != nil {
		return "", nil, err
	}
	left, err := toml.Marshal(config)
	return string(left), files, err
}

func remove(table map[string]any, path []string) {
	for _, key := range path[:len(path)-1] {
		next, ok := table[key].(map[string]any)
		if !ok {
			return
		}
		table = next
	}
	delete(table, path[len(path)-1])
}

// eachString replaces every string in a table.
func eachString(value any, replace func(string) (string, error)) error {
	var err error
	set := func(v any, put func(any)) error {
		s, ok := v.(string)
		if !ok {
			return eachString(v, replace)
		}
		if s, err = replace(s); err != nil {
			return err
		}
		put(s)
		return nil
	}
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := set(v[key], func(n any) { v[key] = n }); err != nil {
				return err
			}
		}
	case []any:
		for i := range v {
			if err := set(v[i], func(n any) { v[i] = n }); err != nil {
				return err
			}
		}
	}
	return nil
}

// forNode makes a node's configuration and its files out of what it got. giver is the address of who gave it, own its own.
func (b Bundle) forNode(n Node, own, giver netip.Addr) (config []byte, files map[string][]byte, err error) {
	files = map[string][]byte{}
	for name, content := range b.Files {
		// Whoever knows the line is believed, but a name is no path.
		if !isFileName(name) || slices.Contains(ownNames, name) || len(content) > maxFile {
			return nil, nil, fmt.Errorf("%s sent a file %q, which no appliance has: it has another version of everboot", b.Node, name)
		}
		files[name] = content
	}
	var table map[string]any
	if err := toml.Unmarshal([]byte(b.Config), &table); err != nil || table == nil {
		return nil, nil, fmt.Errorf("%s sent a configuration that cannot be read (%v): it has another version of everboot", b.Node, err)
	}
	err = eachString(table, func(value string) (string, error) {
		if name, ok := strings.CutPrefix(value, secretPrefix); ok {
			if _, sent := files[name]; !sent {
				return "", fmt.Errorf("%s sent no file %q: it has another version of everboot", b.Node, name)
			}
			return secretPrefix + filepath.Join(n.Folder, name), nil
		}
		if inside, ok := strings.CutPrefix(value, statePrefix); ok && filepath.IsLocal(inside) {
			return filepath.Join(n.State, inside), nil
		}
		if host, port, err := net.SplitHostPort(value); err == nil && host == giver.String() { // where it listens
			return net.JoinHostPort(own.String(), port), nil
		}
		return value, nil
	})
	if err != nil {
		return nil, nil, err
	}
	table["node"], table["interface"], table["state"] = n.Name, n.Interface, n.State
	var peers []string
	for _, p := range b.peersOf(own) {
		peers = append(peers, p.Address.String())
	}
	section(table, "peers")["addresses"] = peers
	if len(b.VIP) > 0 {
		section(table, "vip")["priority"] = n.Priority
	}
	if _, ok := files[authorityKey]; ok {
		section(table, "http")["certificate"] = filepath.Join(n.Folder, certificateFile)
		section(table, "http")["key"] = filepath.Join(n.Folder, certificateKey)
	}
	config, err = toml.Marshal(table)
	head := "# Made by `everboot join`, from the configuration of " + b.Node + ". This node's own are: node, interface, state, peers.addresses, vip.priority,\n" +
		"# http.certificate and http.key. See docs/configuration.md.\n"
	return append([]byte(head), config...), files, err
}

// peersOf are the others of the node with this address. It may stand among them itself: it was made anew, or joined once before in vain.
func (b Bundle) peersOf(own netip.Addr) []Peer {
	var others []Peer
	for _, p := range b.Peers {
		if p.Address != own && !slices.Contains(others, p) {
			others = append(others, p)
		}
	}
	return others
}

// ownNames are the files that each node makes for itself.
var ownNames = []string{certificateFile, certificateKey}

// isFileName tells whether a secret may have that name beside a configuration.
func isFileName(name string) bool {
	return name != "" && name == filepath.Base(name) && !strings.HasPrefix(name, ".") && filepath.Ext(name) != ".toml"
}

func section(table map[string]any, name string) map[string]any {
	if s, ok := table[name].(map[string]any); ok {
		return s
	}
	s := map[string]any{}
	table[name] = s
	return s
}

var errAddresses = errors.New("the line `addresses = […]` of [peers] was not found")

// withPeer adds an address to peers.addresses in the text of a configuration, and leaves the rest as somebody wrote it.
func withPeer(text string, peer netip.Addr) (string, error) {
	lines := strings.SplitAfter(text, "\n")
	inPeers := false
	for i, line := range lines {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "[") {
			inPeers = strings.HasPrefix(trimmed, "[peers]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !inPeers || !ok || strings.TrimSpace(key) != "addresses" {
			continue
		}
		list, rest, ok := strings.Cut(value, "]")
		inside, isList := strings.CutPrefix(strings.TrimSpace(list), "[")
		if !ok || !isList {
			return "", errAddresses
		}
		if inside = strings.TrimRight(strings.TrimSpace(inside), ","); inside != "" {
			inside += ", "
		}
		lines[i] = fmt.Sprintf("%s= [%s%q]%s", key, inside, peer, rest)
		return strings.Join(lines, ""), nil
	}
	return "", errAddresses
}
