// Package golden compares what a test got with files in testdata. With -update the files are written again, to be read in git diff.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the files in testdata with what the code does now")

// Compare fails the test if got is not what testdata/NAME holds.
func Compare(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; see it with -update and git diff. Got:\n%s", path, got)
	}
}

// Traces plays each testdata/*.txt. Lines that begin in the first column are what happened, comments and empty lines too: line is given one after
// the other. Indented lines are what the machine did; what line writes to out, its own line included, must be the file again.
func Traces(t *testing.T, begin func(out *strings.Builder) (line func(string) error)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("looking for traces: %v, %d found", err, len(files))
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			play := begin(&out)
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, " ") {
					continue
				}
				if err := play(strings.TrimRight(line, "\n")); err != nil {
					t.Fatalf("line %q: %v", line, err)
				}
			}
			Compare(t, name, out.String())
		})
	}
}
