package journal

import (
	"slices"

	"github.com/groundswell/groundswell/agent/task"
)

// Target is what the journal knows of one application on this host. A value
// is a copy that the caller may keep.
type Target struct {
	App string
	// Records are for task.Next. They begin with a Base.
	Records []task.Record
	// LastGood is the newest revision that ran validated here, and Previous
	// the one before it; pruning never takes either.
	LastGood, Previous string

	reserved uint64 // report counters up to this one may have been used
	counter  uint64 // the last one used since opening
}

// State is what the records come to.
func (t Target) State() task.State {
	s, err := task.Replay(t.Records)
	if err != nil { // only a damaged record, and those have checksums
		return task.State{Next: task.Step{Kind: task.KindWait}}
	}
	return s
}

func newTarget(app string) *Target {
	return &Target{App: app, Records: []task.Record{{Base: &task.Base{}}}}
}

func (t *Target) apply(e entry) {
	if e.Record != nil {
		t.record(*e.Record)
	}
	if e.LastGood != nil && *e.LastGood != t.LastGood {
		t.Previous, t.LastGood = t.LastGood, *e.LastGood
	}
	t.reserved = max(t.reserved, e.Counter)
}

// record appends and, when a generation was closed, forgets the way there.
func (t *Target) record(r task.Record) {
	if r.Base != nil {
		t.Records = nil
	}
	t.Records = append(t.Records, r)
	if r.End == nil {
		return
	}
	if s := t.State(); s.Assignment.Generation == s.Base.Generation && !s.Open && s.Base.Result != task.ResultNone {
		t.Records = []task.Record{{Base: &s.Base}}
	}
}

// entries is the target in its shortest form.
func (t *Target) entries() []entry {
	var all []entry
	for i := range t.Records {
		all = append(all, entry{App: t.App, Record: &t.Records[i]})
	}
	for _, revision := range []string{t.Previous, t.LastGood} {
		if revision != "" {
			all = append(all, entry{App: t.App, LastGood: &revision})
		}
	}
	return append(all, entry{App: t.App, Counter: t.reserved})
}

func (t *Target) clone() Target {
	c := *t
	c.Records = slices.Clone(t.Records)
	return c
}
