package image

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

const (
	defaultMirror   = "http://deb.debian.org/debian"
	defaultSecurity = "http://deb.debian.org/debian-security"
)

// aptSources returns the sources of a build, one a line.
func aptSources(ctx context.Context, c VDiskConfig) (string, error) {
	mirror, security := c.Mirror, ""
	if mirror == "" {
		mirror, security = defaultMirror, defaultSecurity
		// This machine may have its reasons to use another mirror. One without apt-get gets the default.
		const format = "$(LABEL)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)"
		if out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", format, "Created-By: Packages").Output(); err == nil {
			mirror, security = pickMirrors(string(out), c.Suite)
		}
	}
	lines := []string{fmt.Sprintf("deb %s %s main", mirror, c.Suite)}
	if security != "" {
		lines = append(lines, fmt.Sprintf("deb %s %s-security main", security, c.Suite))
	}
	return strings.Join(lines, "\n"), ctx.Err()
}

// pickMirrors reads "label|codename|component|URI" lines of apt-get indextargets. The mirror that serves the suite is best,
// but any of Debian's mirrors has all suites. Without a security archive among the sources none is used.
func pickMirrors(targets, suite string) (mirror, security string) {
	for line := range strings.Lines(targets) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 4 || fields[2] != "main" {
			continue
		}
		label, codename, uri := fields[0], fields[1], strings.TrimRight(fields[3], "/")
		switch {
		case label == "Debian" && (mirror == "" || codename == suite):
			mirror = uri
		case label == "Debian-Security" && (security == "" || codename == suite+"-security"):
			security = uri
		}
	}
	if mirror == "" {
		return defaultMirror, defaultSecurity
	}
	return mirror, security
}
