package deploy

import (
	"cmp"
	"maps"
	"slices"
)

// Revision is one immutable bundle of an application.
type Revision struct {
	App     string   `json:"app"`
	Name    string   `json:"name"`
	Names   []string `json:"names,omitempty"` // all names it was registered under, oldest first
	Digest  Digest   `json:"digest"`
	Size    int64    `json:"size"`
	Files   int64    `json:"files"`
	Message string   `json:"message,omitempty"`
	Actor   string   `json:"actor,omitempty"`
	At      int64    `json:"at"` // wall
	Index   uint64   `json:"index"`
	// Ancestry names the newest ancestors, children first; it may be cut off.
	Ancestry []string `json:"ancestry,omitempty"`
	Unsafe   bool     `json:"unsafe,omitempty"` // never rolled back without a person
}

// RevisionName returns the newest name of a digest, or its short form.
func (s *State) RevisionName(app string, d Digest) string {
	if r := s.Revisions[app][d]; r != nil {
		return r.Name
	}
	return d.Short()
}

// sortedRevisions returns the revisions by digest.
func sortedRevisions(m map[Digest]*Revision) []*Revision {
	out := slices.Collect(maps.Values(m))
	slices.SortFunc(out, func(a, b *Revision) int { return cmp.Compare(a.Digest, b.Digest) })
	return out
}

func (s *State) revisionsPruned(e RevisionsPruned) error {
	if s.Rules < 3 {
		return refuse(Conflict, "not every coordinator knows how to prune revisions; upgrade them all")
	}
	pruned, needed := 0, s.Needed(e.App)
	for _, d := range e.Digests {
		if s.Revisions[e.App][d] != nil && needed[d] == "" {
			delete(s.Revisions[e.App], d)
			for _, g := range s.groupsOf(e.App) {
				delete(g.Grades, d) // no history names it; a mark of a bad one stays
			}
			pruned++
		}
	}
	if len(s.Revisions[e.App]) == 0 {
		delete(s.Revisions, e.App)
	}
	return changed(pruned, "revision", "prune")
}

// Needed returns the revisions of an application that must stay, each with what needs
// it: a host that runs it or is to run it; a history, of which every line is a way back,
// the last good revision and its predecessor among them; a deployment in flight that
// brings, leaves or names it; and the newest deployment of a group, which a rollback
// would take back.
func (s *State) Needed(app string) map[Digest]string {
	out := map[Digest]string{}
	need := func(by string, all ...Digest) {
		for _, d := range all {
			if d != "" && out[d] == "" {
				out[d] = by
			}
		}
	}
	for _, g := range s.groupsOf(app) {
		for _, seal := range g.History {
			need("it is in the history of group "+g.Name, seal.Revision)
		}
		for _, t := range g.list {
			need("host "+s.hostName(t.Host)+" runs it, or is to", t.Running, t.Desired)
			for _, seal := range t.Seals {
				need("it is in the history of host "+s.hostName(t.Host), seal.Revision)
			}
		}
		if d := s.Deployments[g.Last]; d != nil {
			need("deployment "+d.ID+" is the newest of group "+g.Name, d.Revision, d.Leaves)
		}
		for _, d := range g.open {
			by := "deployment " + d.ID + " is in flight"
			need(by, d.Revision, d.From, d.Leaves)
			need(by, d.Fixes...)
			need(by, d.Without...)
			for _, task := range sorted(d.Tasks) {
				need(by, task.Goal)
			}
		}
	}
	return out
}
