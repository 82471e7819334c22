package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/groundswell/groundswell/deploy"
)

// doubts says what a deploy.yaml asks for that this cluster cannot give: groups
// without a host, hosts that two groups want, approvals that nobody can give.
func (s *Service) doubts(st seen, defs []deploy.GroupDefined) []string {
	var out []string
	taken := map[string]string{} // host → the first group that selects it
	for i := range defs {
		d := &defs[i]
		var shared []string
		matched, other := 0, ""
		for _, id := range slices.Sorted(maps.Keys(st.Hosts)) {
			h := st.Hosts[id]
			if !s.o.Match(d.App, d.Selector, h) {
				continue
			}
			matched++
			switch first := taken[id]; {
			case first == "":
				taken[id] = d.Group
			case st.host(h): // a warning names no host that is hidden
				shared, other = append(shared, h.Name), first
			}
		}
		switch {
		case matched == 0:
			out = append(out, fmt.Sprintf("group %s has no host: no enrolled host matches %s; `dctl hosts list` and "+
				"`dctl hosts show HOST` show labels", d.Group, d.Selector))
		case len(shared) > 0:
			out = append(out, fmt.Sprintf("groups %s and %s both select %s; a host is in one group of an "+
				"application, the one that had it first", other, d.Group, few(shared)))
		}
		out = append(out, s.unapproved(d)...)
	}
	return out
}

// unapproved names the approvals of a group for which there are too few people.
func (s *Service) unapproved(d *deploy.GroupDefined) []string {
	var out []string
	for _, g := range d.Config.Gates {
		if g.Approval == nil || g.Approval.Group == "" {
			continue
		}
		if have, want := s.o.Approvers(g.Approval.Group), max(g.Approval.Count, 1); have < want {
			out = append(out, fmt.Sprintf("gate %s of group %s asks for %d of the approvers %s, of whom there are "+
				"%d: it can never pass; list people under `teams` in access.yaml", g.Name, d.Group, want, g.Approval.Group, have))
		}
	}
	return out
}

// few names the first of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
