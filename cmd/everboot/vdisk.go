package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"everboot/site"
)

func vdiskCommand(api *apiFlags) *cobra.Command {
	c := objectCommand(api, vdiskObject)
	c.Short = "Build vDisks; list, set and remove the site's"
	c.AddCommand(vdiskBuildCommand())
	set, _, _ := c.Find([]string{"set"})
	set.Example = "  everboot vdisk set debian --kernel debian/vmlinuz --initrd debian/initrd.img\n  everboot vdisk set debian --pin 1=DIGEST"
	return c
}

// pin returns the versions with NUMBER=DIGEST pinned.
func pin(versions []site.Version, text string) ([]site.Version, error) {
	number, digest, ok := strings.Cut(text, "=")
	n, err := parseVersion(number)
	if !ok || err != nil || n == 0 {
		return nil, fmt.Errorf("%q is not NUMBER=DIGEST", text)
	}
	d, err := site.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(slices.Clone(versions), func(v site.Version) bool { return v.Number == n })
	kept = append(kept, site.Version{Number: n, Digest: d})
	slices.SortFunc(kept, func(a, b site.Version) int { return cmp.Compare(a.Number, b.Number) })
	return kept, nil
}
