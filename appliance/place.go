package appliance

import (
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// placedError is what is wrong with one of several tables of the same name in a configuration file.
type placedError struct {
	table string // such as "dhcp.subnet"
	index int    // which of them, from 0
	err   error
}

func (e *placedError) Error() string { return e.err.Error() }
func (e *placedError) Unwrap() error { return e.err }

// in returns an error about a table.
func in(table string, index int, err error) error { return &placedError{table, index, err} }

// place returns the file and, if it can be told, the line where the table begins: [[dhcp.subnet]].
func (e *placedError) place(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return path
	}
	if lines := tableLines(text, e.table); e.index < len(lines) {
		return fmt.Sprintf("%s:%d", path, lines[e.index])
	}
	return path
}

// tableLines returns the lines of all [[name]] of a TOML file that can be read.
func tableLines(text []byte, name string) (lines []int) {
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		node := p.Expression()
		if node.Kind != unstable.ArrayTable {
			continue
		}
		var key []string
		var first *unstable.Node
		for k := node.Key(); k.Next(); {
			if first == nil {
				first = k.Node()
			}
			key = append(key, string(k.Node().Data))
		}
		if strings.Join(key, ".") == name {
			lines = append(lines, p.Shape(first.Raw).Start.Line)
		}
	}
	return lines
}
