package deploy

import "math/bits"

// bitset is a set of positions of a wave's hosts, iterated in order.
type bitset []uint64

func (b bitset) set(i int, on bool) {
	if on {
		b[i/64] |= 1 << (i % 64)
	} else {
		b[i/64] &^= 1 << (i % 64)
	}
}

// each calls f with every member in order until f returns false.
func (b bitset) each(f func(int) bool) {
	for w, word := range b {
		for word != 0 {
			i := bits.TrailingZeros64(word)
			if !f(w*64 + i) {
				return
			}
			word &^= 1 << i
		}
	}
}

func (b bitset) empty() bool {
	for _, w := range b {
		if w != 0 {
			return false
		}
	}
	return true
}

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

// progress counts a wave's tasks, so that a decision costs what changed and
// not the size of the fleet. It is derived from tasks and targets.
type progress struct {
	tasks     [taskStatuses]int
	failures  int    // tasks that count against the wave's budget
	settledUp int    // settled tasks whose target is healthy on the revision
	sick      bitset // settled tasks whose target is unhealthy
	sicks     int
	waiting   bitset // waiting tasks, not staged
	stuck     bitset // waiting tasks whose staging failed or whose host is unreachable
	same      bitset // waiting tasks whose target runs the revision already and serves
	ready     bitset // waiting tasks, staged, target serves
	weak      bitset // waiting tasks, staged, target does not serve
	reverting bitset // reverting tasks without a permit
	granted   bitset // tasks whose target holds a permit
	permits   int
	oldest    Time   // no permit is older; a lower bound, exact when the set was empty
	away      bitset // open tasks, and permits, whose host is unreachable
	aways     int
}

func newProgress(n int) *progress {
	return &progress{
		sick: newBitset(n), waiting: newBitset(n), ready: newBitset(n), weak: newBitset(n),
		reverting: newBitset(n), granted: newBitset(n), stuck: newBitset(n), same: newBitset(n),
		away: newBitset(n),
	}
}

// leave counts a task that has no target any more.
func (p *progress) leave(t *Task) {
	p.tasks[t.Status]++
	if t.Counted && t.Status != TaskGone {
		p.failures++
	}
}

// total is the number of tasks of the wave.
func (p *progress) total() int {
	n := 0
	for _, c := range p.tasks {
		n += c
	}
	return n
}

// covered reports whether 95 % of the settled targets say that they are healthy.
func (p *progress) covered() bool { return p.settledUp*100 >= p.tasks[TaskSettled]*95 }

// open is the number of tasks that are not terminal.
func (p *progress) open() int {
	return p.tasks[TaskWaiting] + p.tasks[TaskGranted] + p.tasks[TaskReverting]
}

// derive builds the deployment's indexes from its waves; tasks are counted by
// State.count as targets are.
func (d *Deployment) derive() {
	d.order = make(map[string]int, len(d.Tasks))
	d.waves = make([]*progress, len(d.Waves))
	for i := range d.Waves {
		d.waves[i] = newProgress(len(d.Waves[i].Hosts))
		for j, h := range d.Waves[i].Hosts {
			d.order[h] = j
			t := d.Tasks[h]
			if t != nil && (t.gone() || d.Status.Terminal()) {
				d.waves[i].leave(t) // no target of the state counts it
			}
		}
	}
}

// Progress is the count of a wave's tasks, for status and plans.
type Progress struct {
	Total, Waiting, Granted, Settled, Failed, Reverting, Reverted, Gone, Skipped int
}

// Progress returns the counts of wave i.
func (d *Deployment) Progress(i int) Progress {
	t := d.waves[i].tasks
	return Progress{
		Total: d.waves[i].total(), Waiting: t[TaskWaiting], Granted: t[TaskGranted],
		Settled:   t[TaskSettled],
		Failed:    t[TaskFailed] + t[TaskBroken] + t[TaskStageFailed] + t[TaskLost],
		Reverting: t[TaskReverting], Reverted: t[TaskReverted],
		Gone: t[TaskGone], Skipped: t[TaskSkipped] + t[TaskLeft] + t[TaskCancelled],
	}
}

// count adds (+1) or removes (-1) everything that the target contributes to
// the counters of its group and of the open deployment that holds it. Every
// change of a target or of its task happens between a -1 and a +1: see touch.
func (s *State) count(t *Target, by int) {
	if h := s.Hosts[t.Host]; h != nil {
		h.touched = s.Index
	}
	g := s.Groups[GroupKey(t.App, t.Group)]
	if g == nil {
		return
	}
	for _, zone := range []string{"", t.Zone} {
		u := g.usage(zone)
		u.members += by
		if t.EverHealthy {
			u.registered += by
		}
		if t.Serving() {
			u.serving += by
		}
		if t.Permit != PermitNone {
			u.permits += by
		}
		if t.Zone == "" {
			break
		}
	}
	for _, d := range s.open {
		if d.App == t.App && d.Group == t.Group {
			d.count(t, by)
		}
	}
}

func (d *Deployment) count(t *Target, by int) {
	task := d.Tasks[t.Host]
	if task == nil || task.gone() {
		return
	}
	p, i, on := d.waves[task.Wave], d.order[t.Host], by > 0
	p.tasks[task.Status] += by
	if task.Counted {
		p.failures += by
	}
	switch task.Status {
	case TaskSettled:
		if t.Health == HealthUnhealthy {
			p.sick.set(i, on)
			p.sicks += by
		}
		if t.Health == HealthHealthy && t.Running == d.Revision {
			p.settledUp += by
		}
	case TaskWaiting:
		if t.StageFailed == d.Revision || t.Away {
			p.stuck.set(i, on)
		}
		switch {
		case t.Running == d.Revision && t.Serving() && !d.Redeploy:
			p.same.set(i, on)
		case !t.HasStaged(d.Revision):
			p.waiting.set(i, on)
		case t.Serving():
			p.ready.set(i, on)
		default:
			p.weak.set(i, on)
		}
	case TaskReverting:
		if t.Permit == PermitNone {
			p.reverting.set(i, on)
		}
	case TaskGranted, TaskFailed, TaskBroken, TaskStageFailed, TaskLost, TaskGone,
		TaskSkipped, TaskCancelled, TaskReverted, TaskLeft:
	}
	if t.Permit != PermitNone {
		if on && (p.permits == 0 || t.GrantedAt < p.oldest) {
			p.oldest = t.GrantedAt
		}
		p.granted.set(i, on)
		p.permits += by
	}
	if t.Away && (t.Permit != PermitNone || !task.Status.Terminal()) {
		p.away.set(i, on)
		p.aways += by
	}
}

// touch changes a target, or a task of an open deployment that holds it, and
// keeps the counters true.
func (s *State) touch(t *Target, change func()) {
	s.count(t, -1)
	change()
	s.count(t, +1)
}
