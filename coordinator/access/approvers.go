package access

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// OfApprovers writes the first document of a cluster whose configuration listed
// approvers: its teams are those, and everybody may what they could.
func OfApprovers(approvers map[string][]string) []byte {
	var b strings.Builder
	b.WriteString("# Made of the approvers of coordinator.yaml. Everybody is admin, as before:\n" +
		"# narrow that with `dctl access apply`.\nversion: 1\nteams:\n")
	for _, team := range slices.Sorted(maps.Keys(approvers)) {
		fmt.Fprintf(&b, "  %q: [", team)
		for i, p := range approvers[team] {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%q", p)
		}
		b.WriteString("]\n")
	}
	fmt.Fprintf(&b, "rules:\n  - people: [%q]\n    role: admin\n    applications: [%q]\n", All, All)
	return []byte(b.String())
}
