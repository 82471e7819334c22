package main

import (
	"slices"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// story is what a watch has learnt so far.
type story struct {
	deployment *controlv1.Deployment
	records    []*controlv1.Record
	keep       bool                         // keep all records, not only failures
	failures   map[string]*controlv1.Record // the last of each host
	gates      []*controlv1.Record          // that failed
	lost       error                        // nil while connected
	told       bool                         // line by line, so that the end need not repeat it
	cause      string                       // that was told last
}

func newStory(keep bool) *story {
	return &story{keep: keep, failures: map[string]*controlv1.Record{}}
}

func (s *story) add(u update) {
	s.lost = u.lost
	if u.deployment != nil {
		s.deployment = u.deployment
	}
	for _, r := range u.records {
		s.note(r)
	}
}

func (s *story) note(r *controlv1.Record) {
	if s.keep {
		s.records = append(s.records, r)
	}
	switch {
	case r.Subject == "gate" && r.To == "fail":
		s.gates = append(s.gates, r)
	case r.Subject == "task" && bad(r):
		s.failures[r.Host] = r
	}
}

// bad reports whether a record tells of a failure of a host.
func bad(r *controlv1.Record) bool {
	switch r.To {
	case "failed", "broken", "stage-failed", "lost":
		return true
	}
	return r.Failure != nil
}

// failed returns the last failure of each host, in the order of their times.
func (s *story) failed() []*controlv1.Record {
	var out []*controlv1.Record
	for _, r := range s.failures {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *controlv1.Record) int {
		if a.Index != b.Index {
			return int(int64(a.Index) - int64(b.Index))
		}
		if a.Host < b.Host {
			return -1
		}
		return 1
	})
	return out
}
