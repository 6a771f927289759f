package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"

	"everboot/site"
)

// conformance runs libiscsi's tests directly against a streamer, and through the director.
func conformance(s *stage) error {
	// Some tests have two initiators, one of which reserves the disk: that means something on one streamer only.
	if err := s.only("s2"); err != nil {
		return err
	}
	failures := map[string][]string{}
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
		for _, failed := range regexp.MustCompile(`(?m)Suite (\S+), Test (\S+) had failures`).FindAllStringSubmatch(out, -1) {
			failures[at.name] = append(failures[at.name], failed[1]+"."+failed[2])
		}
		if len(failures[at.name]) == 0 {
			return fmt.Errorf("iscsi-test-cu %s names no failed test, and tgtd fails some: the program prints otherwise than it did", at.name)
		}
		row("iscsi-test-cu, "+at.name, "%s tests, %s run, %s passed, %s failed", passed[1], passed[2], passed[3], passed[4])
	}
	differ := fmt.Sprintf("the same %d tests fail", len(failures["direct"]))
	if !slices.Equal(failures["direct"], failures["director"]) {
		differ = fmt.Sprintf("they differ: %v and %v", failures["direct"], failures["director"])
	}
	row("directly and through the director", "%s", differ)
	return nil
}
