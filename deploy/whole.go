package deploy

import (
	"cmp"
	"slices"
)

// Ended deployments keep their tasks and records, by which people see what happened,
// up to so many bytes of all groups together: the oldest lose them first. What a
// rollback must know is in the outline, which stays, and in the group's history.
const (
	wholeBytes   = 128 << 20
	wholeOutline = 8 << 10 // about what a deployment takes beside its tasks
	wholeTask    = 1 << 10 // about what a task takes with its records
)

// wholes are the ended deployments that have their tasks, in the order of their ends;
// derived. Both are functions of what the deployments hold, so that a replica that
// has read a snapshot drops the same ones.
type wholes struct {
	list  []*Deployment
	bytes int
}

func (d *Deployment) weight() int { return wholeOutline + wholeTask*len(d.Tasks) }

func byEnd(a, b *Deployment) int {
	return cmp.Or(cmp.Compare(a.EndedAt, b.EndedAt), cmp.Compare(a.Seq, b.Seq))
}

// add counts a deployment that has ended and is whole.
func (w *wholes) add(d *Deployment) {
	if !d.Status.Terminal() || d.Pruned {
		return
	}
	if at, found := slices.BinarySearchFunc(w.list, d, byEnd); !found {
		w.list = slices.Insert(w.list, at, d)
		w.bytes += d.weight()
	}
}

func (w *wholes) remove(d *Deployment) {
	if at, found := slices.BinarySearchFunc(w.list, d, byEnd); found {
		w.list = slices.Delete(w.list, at, at+1)
		w.bytes -= d.weight()
	}
}

// rewrite returns a copy of a deployment that has ended, which takes its place, to be
// changed: but for what gates answer of the newest of a group, nothing of what has
// ended is changed in place, as an image may share it. One in flight is returned itself.
func (s *State) rewrite(d *Deployment) *Deployment {
	if !d.Status.Terminal() {
		return d
	}
	c := *d
	s.Deployments[d.ID] = &c
	if at, found := slices.BinarySearchFunc(s.whole.list, d, byEnd); found {
		s.whole.list[at] = &c
	}
	if at, found := slices.BinarySearchFunc(s.outlines, d, byEnd); found {
		s.outlines[at] = &c
	}
	if g := s.group(d); g != nil {
		if at, found := slices.BinarySearchFunc(g.all, d, bySeq); found {
			g.all[at] = &c
		}
	}
	return &c
}

// outline drops tasks, hosts and records of an ended deployment.
func (s *State) outline(d *Deployment) {
	s.whole.remove(d)
	d = s.rewrite(d)
	d.Pruned, d.Tasks, d.Records, d.Waves = true, nil, nil, slices.Clone(d.Waves)
	for i := range d.Waves {
		d.Waves[i].Hosts, d.Waves[i].Watch = nil, nil
	}
	d.derive()
	s.addOutline(d)
}

// addOutline counts one.
func (s *State) addOutline(d *Deployment) {
	if at, found := slices.BinarySearchFunc(s.outlines, d, byEnd); !found {
		s.outlines = slices.Insert(s.outlines, at, d)
	}
}

// outlineOldest drops what is too much. The newest of a group stays, and the one that
// its gates may go on watching.
func (s *State) outlineOldest() {
	for i := 0; s.whole.bytes > wholeBytes && i < len(s.whole.list); {
		d := s.whole.list[i]
		if g := s.group(d); g != nil && (g.Last == d.ID || g.newestEnded() == d) {
			i++
			continue
		}
		s.outline(d)
	}
}

// newestEnded returns the youngest of the group's deployments that have ended.
func (g *Group) newestEnded() *Deployment {
	for _, d := range slices.Backward(g.all) {
		if d.Status.Terminal() {
			return d
		}
	}
	return nil
}
