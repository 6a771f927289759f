package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"everboot/site"
)

// conformance runs libiscsi's tests directly against a streamer, and through the director.
func conformance(s *stage) error {
	// Some tests have two initiators, one of which reserves the disk: that means something on one streamer only.
	if err := s.only("s2"); err != nil {
		return err
	}
	counts, failures := map[string]string{}, map[string][]string{}
	for _, at := range []struct{ name, portal string }{{"direct", addresses["s2"] + ":3260"}, {"director", portal}} {
		ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
		out, _ := s.host["targets"].Run(ctx, "iscsi-test-cu", "-i", site.InitiatorName(mac(1)), "-I", site.InitiatorName(mac(2)), "-n", "-t", "ALL",
			"iscsi://"+at.portal+"/"+s.iqn+"/1") // its exit code says that some test failed, as some do on a read-only disk
		cancel()
		if err := os.WriteFile(s.path("iscsi-test-cu-"+at.name+".log"), []byte(out), 0o644); err != nil {
			return err
		}
		passed := regexp.MustCompile(`(?m)^\s+tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)`).FindStringSubmatch(out)
		if passed == nil {
			return fmt.Errorf("iscsi-test-cu %s says: %s", at.name, out[max(0, len(out)-500):])
		}
		for _, line := range strings.Split(out, "\n") {
			if test, ok := strings.CutPrefix(strings.TrimSpace(line), "Test: "); ok && strings.Contains(test, "FAILED") {
				name, _, _ := strings.Cut(test, " ")
				failures[at.name] = append(failures[at.name], name)
			}
		}
		counts[at.name] = passed[3]
		row("iscsi-test-cu, "+at.name, "%s tests, %s run, %s passed, %s failed", passed[1], passed[2], passed[3], passed[4])
	}
	differ := "the same tests fail"
	if counts["direct"] != counts["director"] || !slices.Equal(failures["direct"], failures["director"]) {
		differ = fmt.Sprintf("they differ: %v and %v", failures["direct"], failures["director"])
	}
	row("directly and through the director", "%s", differ)
	return nil
}
