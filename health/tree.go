package health

import (
	"fmt"
	"slices"
	"strings"

	"everboot/site"
)

// Node is a check with those that depend on it.
type Node struct {
	Result
	Dependants []Node `json:"dependants,omitempty"`
}

// Tree arranges results, as Status returns them, under what they depend on. One that depends on several stands under the last of them only.
func Tree(results []Result) []Node {
	children := make(map[string][]Result)
	for _, r := range results {
		parent := ""
		if n := len(r.DependsOn); n > 0 {
			parent = r.DependsOn[n-1]
		}
		children[parent] = append(children[parent], r)
	}
	var build func(parent string) []Node
	build = func(parent string) []Node {
		var nodes []Node
		for _, r := range children[parent] {
			nodes = append(nodes, Node{Result: r, Dependants: build(r.Name)})
		}
		slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
		return nodes
	}
	return build("")
}

// Format writes a tree for a person, one check a line, dependants indented.
func Format(nodes []Node) string {
	var b strings.Builder
	var write func(nodes []Node, indent string)
	write = func(nodes []Node, indent string) {
		for _, n := range nodes {
			health := string(n.Check.Health)
			if n.Check.Health == site.Unknown {
				health = "not known yet"
			}
			fmt.Fprintf(&b, "%s%s: %s", indent, n.Name, health)
			if n.Check.Reason != "" {
				fmt.Fprintf(&b, " (%s)", n.Check.Reason)
			} else if n.Error != "" {
				fmt.Fprintf(&b, " (last probe: %s)", n.Error)
			}
			b.WriteByte('\n')
			write(n.Dependants, indent+"  ")
		}
	}
	write(nodes, "")
	return b.String()
}
