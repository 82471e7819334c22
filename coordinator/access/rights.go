package access

import (
	"maps"
	"slices"
)

// Rights are what one person may. The zero value may nothing.
type Rights struct {
	everything bool
	grants     []*grant
}

// Everything is what a break-glass credential may, and everybody in a cluster
// without a document.
func Everything() Rights { return Rights{everything: true} }

// Of returns what a person may.
func (d *Document) Of(person string) Rights {
	if d == nil {
		return Everything()
	}
	return Rights{grants: slices.Concat(d.grants[person], d.grants[All])}
}

// May reports whether these rights allow a verb. An empty application is every one,
// of those that come too; an empty group is every one of the application.
func (r Rights) May(v Verb, app, group string) bool {
	if !IsVerb(v) {
		return false
	}
	return r.everything || slices.ContainsFunc(r.grants, func(g *grant) bool { return g.gives(v, app, group) })
}

// Some reports whether a verb is allowed in at least one group of an application.
func (r Rights) Some(v Verb, app string) bool {
	if !IsVerb(v) {
		return false
	}
	return r.everything || slices.ContainsFunc(r.grants, func(g *grant) bool {
		return g.verbs[v] && (g.applications == nil || g.applications[app])
	})
}

// Anywhere reports whether a verb is allowed on at least something.
func (r Rights) Anywhere(v Verb) bool {
	if !IsVerb(v) {
		return false
	}
	return r.everything || slices.ContainsFunc(r.grants, func(g *grant) bool { return g.verbs[v] })
}

// Fleet reports whether all hosts may be seen: whoever sees every application does,
// and whoever may do something to hosts or to the cluster.
func (r Rights) Fleet() bool {
	return r.May(View, "", "") || slices.ContainsFunc(Verbs(),
		func(v Verb) bool { return OfFleet(v) && r.May(v, "", "") })
}

func (g *grant) gives(v Verb, app, group string) bool {
	return g.verbs[v] && (g.applications == nil || app != "" && g.applications[app]) &&
		(g.groups == nil || group != "" && g.groups[group])
}

// Admins lists who may change the document, in order; All is every operator.
func (d *Document) Admins() []string { return d.holders(Access, "", "") }

// holders lists who is given a verb.
func (d *Document) holders(v Verb, app, group string) (out []string) {
	for _, p := range slices.Sorted(maps.Keys(d.grants)) {
		if slices.ContainsFunc(d.grants[p], func(g *grant) bool { return g.gives(v, app, group) }) {
			out = append(out, p)
		}
	}
	return out
}

// In lists the teams of a person, in order.
func (d *Document) In(person string) (out []string) {
	if d == nil {
		return nil
	}
	for _, team := range slices.Sorted(maps.Keys(d.Teams)) {
		if slices.Contains(d.Teams[team], person) {
			out = append(out, team)
		}
	}
	return out
}

// Right is a verb on a group of an application; empty names are as in May.
type Right struct {
	Verb       Verb
	App, Group string
	AnyGroup   bool // it is enough to have it in one, whichever
}

// Has reports whether these rights hold that one.
func (r Rights) Has(what Right) bool {
	if what.AnyGroup {
		return r.Some(what.Verb, what.App)
	}
	return r.May(what.Verb, what.App, what.Group)
}

// Exceeds returns a right that rights have and others lack: who makes a credential
// for somebody else could use it.
func Exceeds(rights, others Rights) (Right, bool) {
	apps, groups := named(rights, others)
	for _, app := range apps {
		for _, group := range groups {
			for _, v := range Verbs() {
				if what := (Right{Verb: v, App: app, Group: group}); rights.Has(what) && !others.Has(what) {
					return what, true
				}
			}
		}
	}
	return Right{}, false
}

// named lists the applications and groups that rights name; "" stands for all that
// they do not, of which they say the same.
func named(all ...Rights) (apps, groups []string) {
	a, g := map[string]bool{"": true}, map[string]bool{"": true}
	for _, r := range all {
		for _, grant := range r.grants {
			maps.Copy(a, grant.applications)
			maps.Copy(g, grant.groups)
		}
	}
	return slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(g))
}
