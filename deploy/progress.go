package deploy

import "math/bits"

// bitset is a set of positions of a wave's hosts, iterated in order. It grows
// with the positions that are set.
type bitset []uint64

func (b *bitset) set(i int, on bool) {
	for len(*b) <= i/64 {
		*b = append(*b, 0)
	}
	if on {
		(*b)[i/64] |= 1 << (i % 64)
	} else {
		(*b)[i/64] &^= 1 << (i % 64)
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

// progress counts a wave's tasks, so that a decision costs what changed and
// not the size of the fleet. It is derived from tasks and targets.
type progress struct {
	targets   []*Target // by position; of a host that departed, nil or one that is no target any more
	tasks     [taskStatuses]int
	failures  int    // tasks that count against the wave's budget
	evidence  int    // settled tasks whose host is not quarantined
	settledUp int    // of these, whose target is healthy on the revision
	sick      bitset // of these, whose target is unhealthy on the revision
	sickCount int
	unstaged  int    // waiting tasks without a verified copy
	waiting   bitset // the same
	// tasks that wait and cannot stage, or whose host is unreachable; that go back and cannot stage
	stuck            bitset
	runsIt           bitset // waiting tasks whose target runs the revision already and serves
	stagedServing    bitset // waiting tasks, staged, target serves
	stagedNotServing bitset // waiting tasks, staged, target does not serve
	failed           bitset // tasks that failed
	reverting        bitset // reverting tasks without a permit
	granted          bitset // tasks whose target holds a permit
	permits          int
	oldest           Time   // no permit is older; a lower bound, exact when the set was empty
	away             bitset // open tasks, and permits, whose host is unreachable
	awayCount        int
	vanished         bitset // settled tasks whose host is unreachable
}

// put notes the target of a position of the wave.
func (p *progress) put(at int, t *Target) {
	for len(p.targets) <= at {
		p.targets = append(p.targets, nil)
	}
	p.targets[at] = t
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

// planned is the number of tasks that are meant to take the revision.
func (p *progress) planned() int {
	return p.total() - p.tasks[TaskGone] - p.tasks[TaskSkipped] - p.tasks[TaskCancelled]
}

// staged is the number of planned tasks that hold a copy or had one.
func (p *progress) staged() int { return p.planned() - p.unstaged - p.tasks[TaskStageFailed] }

// covered reports whether 95 % of the settled targets say that they are healthy.
func (p *progress) covered() bool { return p.settledUp*100 >= p.evidence*95 }

// open is the number of tasks that are not terminal.
func (p *progress) open() int {
	return p.tasks[TaskWaiting] + p.tasks[TaskGranted] + p.tasks[TaskReverting]
}

// counted is what a target adds to the counters of its group. It is kept, so
// that exactly that is taken away again whatever changed meanwhile.
type counted struct {
	zone       string
	domains    []string // of quorum groups
	registered bool
	serving    bool
	unhealthy  bool
	permit     bool // counts against the limits
	tasks      [8]countedTask
	n          int // tasks used
	more       []countedTask
}

// countedTask is what a target adds to the counters of one open deployment.
type countedTask struct {
	p        *progress
	at       int
	status   TaskStatus
	failure  bool
	seen     bool // settled, and its host is not quarantined
	up       bool
	sick     bool
	stuck    bool
	kind     waitKind
	reverts  bool
	permit   bool
	away     bool
	vanished bool
}

// waitKind says in which set a waiting task is.
type waitKind byte

const (
	waitNone waitKind = iota
	waitRunsIt
	waitUnstaged
	waitServing
	waitNotServing
)

// add counts everything that the target contributes to the counters of its
// group and of the open deployments that hold it. Every change of a target or
// of its tasks happens between a remove and an add: see update.
func (s *State) add(t *Target) {
	s.touch(t.host)
	g := t.group
	if g == nil {
		return
	}
	c := t.added
	if c == nil {
		c = &counted{}
		t.added = c
	}
	c.zone, c.registered, c.serving = t.Zone, t.EverHealthy, t.Serving()
	c.unhealthy, c.permit = t.Health == HealthUnhealthy, t.Permit != PermitNone && t.CatchUp != CatchUpBirth
	c.n, c.more, c.domains = 0, nil, nil
	for _, q := range g.quorums {
		if key := q.domain(t.host); key != "" {
			c.domains = append(c.domains, key)
		}
	}
	for _, d := range g.open {
		if task := d.Tasks[t.Host]; task != nil && !task.gone() {
			one := d.contribution(t, task)
			one.apply(+1)
			one.p.put(one.at, t)
			if c.n < len(c.tasks) {
				c.tasks[c.n] = one
				c.n++
			} else {
				c.more = append(c.more, one)
			}
			if one.permit {
				one.p.oldest = one.p.since(t.GrantedAt)
			}
		}
	}
	g.tally(c, +1)
	s.sortBehind(g, t)
}

// since lowers the bound of the oldest permit.
func (p *progress) since(at Time) Time {
	if p.permits == 1 || at < p.oldest {
		return at
	}
	return p.oldest
}

// remove takes away what add counted.
func (s *State) remove(t *Target) {
	s.touch(t.host)
	c := t.added
	if t.group == nil || c == nil {
		return
	}
	for i := range c.n {
		c.tasks[i].apply(-1)
	}
	for i := range c.more {
		c.more[i].apply(-1)
	}
	t.group.tally(c, -1)
	t.group.setBehind(t, false)
	delete(t.group.catchingUp, t.Host)
}

// tally counts a target in its group and its zone.
func (g *Group) tally(c *counted, by int) {
	for _, zone := range [2]string{"", c.zone} {
		u := g.counts(zone)
		u.members += by
		u.registered += by * count(c.registered)
		u.serving += by * count(c.serving)
		u.unhealthy += by * count(c.unhealthy)
		u.permits += by * count(c.permit)
		if c.zone == "" {
			break
		}
	}
	for _, key := range c.domains {
		u := g.counts(key)
		u.registered += by * count(c.registered)
		u.serving += by * count(c.serving)
	}
}

// contribution says where a task counts in its wave.
func (d *Deployment) contribution(t *Target, task *Task) countedTask {
	c := countedTask{p: d.waves[task.Wave], at: d.order[t.Host], status: task.Status, failure: task.Counted}
	switch task.Status {
	case TaskSettled:
		on := t.Running == d.Revision
		c.seen, c.vanished = !t.Quarantined, t.Away
		c.up = c.seen && on && t.Health == HealthHealthy
		c.sick = c.seen && on && t.Health == HealthUnhealthy && t.Permit == PermitNone
	case TaskWaiting:
		goal := task.goal(d)
		c.stuck = t.StageFailed == goal || t.Away || t.Quarantined
		switch {
		case task.Phase == 0 && t.proved(d.Revision) && !d.Redeploy:
			c.kind = waitRunsIt
		case !d.ready(t, task):
			c.kind = waitUnstaged
		case t.Serving():
			c.kind = waitServing
		default:
			c.kind = waitNotServing
		}
	case TaskReverting:
		c.reverts = t.Permit == PermitNone
		c.stuck = c.reverts && t.StageFailed == task.Goal
	case TaskGranted, TaskFailed, TaskBroken, TaskStageFailed, TaskLost, TaskGone,
		TaskSkipped, TaskCancelled, TaskReverted, TaskLeft:
	}
	c.permit = t.Permit != PermitNone && t.Deployment == d.ID
	c.away = t.Away && (c.permit || !task.Status.Terminal())
	return c
}

func (c *countedTask) apply(by int) {
	p, on := c.p, by > 0
	p.tasks[c.status] += by
	if c.failure {
		p.failures += by
	}
	if c.status.Failure() {
		p.failed.set(c.at, on)
	}
	if c.seen {
		p.evidence += by
	}
	if c.up {
		p.settledUp += by
	}
	if c.sick {
		p.sick.set(c.at, on)
		p.sickCount += by
	}
	if c.stuck {
		p.stuck.set(c.at, on)
	}
	switch c.kind {
	case waitNone:
	case waitRunsIt:
		p.runsIt.set(c.at, on)
	case waitUnstaged:
		p.waiting.set(c.at, on)
		p.unstaged += by
	case waitServing:
		p.stagedServing.set(c.at, on)
	case waitNotServing:
		p.stagedNotServing.set(c.at, on)
	}
	if c.reverts {
		p.reverting.set(c.at, on)
	}
	if c.permit {
		p.granted.set(c.at, on)
		p.permits += by
	}
	if c.vanished {
		p.vanished.set(c.at, on)
	}
	if c.away {
		p.away.set(c.at, on)
		p.awayCount += by
	}
}

// update changes a target, or a task of an open deployment that holds it, and
// keeps the counters true.
func (s *State) update(t *Target, change func()) {
	s.remove(t)
	change()
	s.add(t)
}

// recount counts every target of the group anew, after a change of what they
// are counted for.
func (s *State) recount(g *Group, change func()) {
	for _, t := range g.list {
		s.remove(t)
	}
	change()
	for _, t := range g.list {
		s.add(t)
	}
}
