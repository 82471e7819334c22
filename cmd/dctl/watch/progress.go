package watch

import (
	"slices"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// Progress is what a watch has learnt so far.
type Progress struct {
	Deployment *controlv1.Deployment
	Records    []*controlv1.Record
	keep       bool                         // keep all records, not only failures
	failures   map[string]*controlv1.Record // the last of each host
	gates      []*controlv1.Record          // that failed
	Lost       error                        // nil while connected
	Shown      bool                         // line by line, so that the end need not repeat it
	cause      string                       // that was told last
}

// Of is what there is to know of a deployment by its state and its records.
func Of(d *controlv1.Deployment, records []*controlv1.Record) *Progress {
	p := newProgress(false)
	p.add(Update{Deployment: d, Records: records})
	return p
}

func newProgress(keep bool) *Progress {
	return &Progress{keep: keep, failures: map[string]*controlv1.Record{}}
}

func (s *Progress) add(u Update) {
	s.Lost = u.Lost
	if u.Deployment != nil {
		s.Deployment = u.Deployment
	}
	for _, r := range u.Records {
		s.note(r)
	}
}

func (s *Progress) note(r *controlv1.Record) {
	if s.keep {
		s.Records = append(s.Records, r)
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

// Failed returns the last failure of each host, in the order of their times.
func (s *Progress) Failed() []*controlv1.Record {
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

// Over reports whether a watch has nothing more to wait for: the deployment
// has ended, or only a person can move it.
func Over(d *controlv1.Deployment) bool {
	return d.Terminal || d.Status == "paused" && d.Decision
}
