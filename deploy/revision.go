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
