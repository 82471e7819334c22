package control

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/near"
)

// groups returns all groups that may be known, by key.
func groups(st seen) []*deploy.Group {
	var out []*deploy.Group
	for _, k := range slices.Sorted(maps.Keys(st.Groups)) {
		if g := st.Groups[k]; st.sight.Sees(g.App, g.Name) {
			out = append(out, g)
		}
	}
	return out
}

// revisions returns an application's revisions, newest first.
func revisions(st seen, app string) []*deploy.Revision {
	if !st.sight.SeesApp(app) {
		return nil
	}
	out := slices.Collect(maps.Values(st.Revisions[app]))
	slices.SortFunc(out, func(a, b *deploy.Revision) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

// revision resolves what a person calls a revision: a name, a prefix of at
// least 7 characters of a name or digest, @current, @previous or @stable.
func revision(st seen, g *deploy.Group, name string) (*deploy.Revision, error) {
	if strings.HasPrefix(name, "@") {
		return alias(st, g, name)
	}
	all := revisions(st, g.App)
	var found []*deploy.Revision
	for _, r := range all {
		if slices.Contains(r.Names, name) || string(r.Digest) == name {
			return r, nil
		}
		if len(name) >= 7 && matchesPrefix(r, name) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, refuse(deploy.Invalid, "%q is the beginning of %d revisions of %s; write more of it", name,
			len(found), g.App)
	case len(all) == 0:
		return nil, refuse(deploy.NotFound,
			"application %s has no revision yet; push one with `dctl revisions push`", g.App)
	}
	var names []string
	for _, r := range all {
		names = append(names, r.Names...)
	}
	return nil, refuse(deploy.NotFound, "no revision %q of %s%s", name, g.App, suggest(name, names))
}

func matchesPrefix(r *deploy.Revision, name string) bool {
	return slices.ContainsFunc(r.Names, func(n string) bool { return strings.HasPrefix(n, name) }) ||
		strings.HasPrefix(strings.TrimPrefix(string(r.Digest), "sha256:"), name)
}

func alias(st seen, g *deploy.Group, name string) (*deploy.Revision, error) {
	sealed := st.Sealed(g)
	current := st.Commonest(g)
	var d deploy.Digest
	switch name {
	case "@current":
		d = current
	case "@stable":
		if len(sealed) > 0 {
			d = sealed[0]
		}
	case "@previous":
		d = before(sealed, current)
	default:
		return nil, refuse(deploy.Invalid, "unknown alias %s; there are @current, @previous and @stable", name)
	}
	if r := st.Revisions[g.App][d]; r != nil {
		return r, nil
	}
	return nil, refuse(deploy.NotFound, "group %s of %s has no %s revision", g.Name, g.App,
		strings.TrimPrefix(name, "@"))
}

// before returns the newest sealed revision that is not the given one.
func before(sealed []deploy.Digest, current deploy.Digest) deploy.Digest {
	for _, d := range sealed {
		if d != current {
			return d
		}
	}
	return ""
}

// suggest names up to three of the names that are closest to what was typed.
func suggest(typed string, names []string) string {
	type close struct {
		name string
		d    int
	}
	var all []close
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if d := near.Distance(typed, n); d <= max(2, len(typed)/2) || commonPrefix(typed, n) >= 4 {
			all = append(all, close{n, d})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].d < all[j].d })
	var out []string
	for _, n := range all[:min(3, len(all))] {
		out = append(out, n.name)
	}
	if len(out) == 0 {
		return ""
	}
	return "; near ones are " + strings.Join(out, ", ")
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// deployment finds a deployment by id or unique prefix, or the newest of an
// application.
func deployment(st seen, id, app, grp string) (*deploy.Deployment, error) {
	if d := st.Deployments[id]; d != nil && st.sight.Sees(d.App, d.Group) {
		return d, nil
	}
	var found []*deploy.Deployment
	for _, d := range newest(st) {
		if id == "" && app != "" && d.App == app && (grp == "" || d.Group == grp) {
			return d, nil
		}
		if id != "" && strings.HasPrefix(strings.ToLower(d.ID), strings.ToLower(id)) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, refuse(deploy.Invalid, "%q is the beginning of %d deployments; write more of it", id, len(found))
	case id == "":
		return nil, refuse(deploy.NotFound, "no deployment of %q yet%s", app, st.perhaps())
	}
	gone := ""
	if st.Dropped > 0 {
		gone = ", if it is not among the oldest, which coordinators keep no longer"
	}
	return nil, refuse(deploy.NotFound, "no deployment %q; see `dctl history`%s%s", id, gone, st.perhaps())
}

// newest returns all deployments that may be known, newest first.
func newest(st seen) []*deploy.Deployment {
	var out []*deploy.Deployment
	for _, d := range st.Deployments {
		if st.sight.Sees(d.App, d.Group) {
			out = append(out, d)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Seq > out[j].Seq })
	return out
}

// host finds a host by id or name.
func host(st seen, name string) (*deploy.Host, error) {
	found := st.named(name)
	if len(found) == 1 {
		return st.Hosts[found[0]], nil
	}
	if len(found) > 1 {
		return nil, refuse(deploy.Invalid, "%d hosts are called %s; say which by its id: %s", len(found), name,
			strings.Join(found, ", "))
	}
	var names []string
	for _, h := range st.Hosts {
		if st.host(h) {
			names = append(names, h.Name)
		}
	}
	return nil, refuse(deploy.NotFound, "no host %q%s%s", name, suggest(name, names), st.perhaps())
}
