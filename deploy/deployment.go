package deploy

import (
	"fmt"
	"slices"
)

// Deployment is one revision travelling through one group.
type Deployment struct {
	ID        string           `json:"id"`
	Seq       uint64           `json:"seq"`
	App       string           `json:"app"`
	Group     string           `json:"group"`
	Revision  Digest           `json:"revision"`
	RevName   string           `json:"rev_name"`
	From      Digest           `json:"from,omitempty"` // what most targets ran
	FromName  string           `json:"from_name,omitempty"`
	Config    Config           `json:"config"`
	Waves     []Wave           `json:"waves"`
	Tasks     map[string]*Task `json:"tasks"` // by host
	Status    DeploymentStatus `json:"status"`
	Cause     string           `json:"cause,omitempty"`
	Decision  bool             `json:"decision,omitempty"` // paused by a failure, waits for a person
	RevertSet bool             `json:"revert,omitempty"`   // the revert set is committed
	Attempt   int              `json:"attempt,omitempty"`  // rises with each retry
	Inverse   bool             `json:"inverse,omitempty"`
	// of an inverse deployment: the one that it takes back; "": all go to Revision
	Undoes string `json:"undoes,omitempty"`
	// of an inverse deployment: the revision of the one that it takes back
	Leaves Digest `json:"leaves,omitempty"`
	Undone bool   `json:"undone,omitempty"` // an inverse deployment took it back
	// a permit of it was granted: targets may run its revision
	Granted   bool     `json:"granted,omitempty"`
	Asked     string   `json:"asked,omitempty"` // who wants all of it back, and why; "" nobody
	Redeploy  bool     `json:"redeploy,omitempty"`
	Repair    bool     `json:"repair,omitempty"` // see DeploymentCreated
	Seed      uint64   `json:"seed"`
	Actor     string   `json:"actor,omitempty"`
	Person    string   `json:"person,omitempty"` // who the actor counts as, for four eyes
	Reason    string   `json:"reason,omitempty"`
	CreatedAt Time     `json:"created_at"`
	EndedAt   Time     `json:"ended_at,omitempty"`
	Created   int64    `json:"created"` // wall
	Ended     int64    `json:"ended,omitempty"`
	Failures  int      `json:"failures"`            // tasks that count against the total budget
	GateFail  string   `json:"gate_fail,omitempty"` // the gate that failed, until a retry
	Records   []Record `json:"records,omitempty"`
	Pruned    bool     `json:"pruned,omitempty"` // ended long ago: tasks, hosts and records are dropped
	Pack      Digest   `json:"pack,omitempty"`   // object of the history's store that has these
	StartedAt Time     `json:"started_at,omitempty"`
	// start of timeouts.deployment, moved on by pauses, anew at a retry
	LimitFrom Time `json:"limit_from,omitempty"`
	// gates must answer after this, before anything goes on
	AskAgain        Time       `json:"ask_again,omitempty"`
	DecideBy        Time       `json:"decide_by,omitempty"` // the decision's end; 0 waits for ever
	Fixes           []Digest   `json:"fixes,omitempty"`     // revisions whose rollback does not revoke this one
	Without         []Digest   `json:"without,omitempty"`   // revisions that it is known not to contain
	Preempt         bool       `json:"preempt,omitempty"`
	Emergency       string     `json:"emergency,omitempty"` // by whom, and why; see goesPast
	TakenBy         string     `json:"taken_by,omitempty"`  // the newer deployment that takes over
	ScopeRevert     *Reversion `json:"scoped,omitempty"`    // an open revert set that is not of all
	RequestedRevert *Reversion `json:"requested,omitempty"` // a scope that a person wants back
	Approvals       []Approval `json:"approvals,omitempty"`
	Promoted        []string   `json:"promoted,omitempty"` // holds that count as passed, see holdKey
	Suspect         string     `json:"suspect,omitempty"`  // what was seen after it succeeded
	Held            bool       `json:"held,omitempty"`     // paused before it started
	PausedAt        Time       `json:"paused_at,omitempty"`

	order map[string]int // host -> position in its wave; derived
	waves []*progress    // derived
}

// Reversion is a revert set narrower than the deployment.
type Reversion struct {
	Scope string `json:"scope"`
	Zone  string `json:"zone,omitempty"`
	Wave  string `json:"wave,omitempty"`
	Cause string `json:"cause"`
	Then  string `json:"then,omitempty"`
	Until Time   `json:"until,omitempty"`
}

// Approval is one person's yes to a gate.
type Approval struct {
	Gate   string `json:"gate"`
	Actor  string `json:"actor"`
	Person string `json:"person,omitempty"` // who the actor counts as
	Reason string `json:"reason,omitempty"`
	Wall   int64  `json:"wall"`
}

// derive builds the deployment's indexes from its waves; tasks are counted by
// State.add as targets are.
func (d *Deployment) derive() {
	d.order = make(map[string]int, len(d.Tasks))
	d.waves = make([]*progress, len(d.Waves))
	for i := range d.Waves {
		d.waves[i] = &progress{}
		for j, h := range d.Waves[i].Hosts {
			d.order[h] = j
			t := d.Tasks[h]
			if t != nil && (t.gone() || d.Status.Terminal()) {
				d.waves[i].leave(t) // no target of the state counts it
			}
		}
	}
}

// watched reports whether gates go on asking about the deployment, which
// succeeded: it is the newest of its group, not suspected, and watchAfter runs.
func (d *Deployment) watched(g *Group, now Time) bool {
	return g != nil && g.Last == d.ID && d.Status == DeploymentStatusSucceeded && !d.Inverse && !d.Pruned &&
		d.Suspect == "" &&
		g.Grades[d.Revision] == GradeNone && now.Sub(d.EndedAt) < d.Config.WatchAfter
}

// deserted reports whether no target of the wave is left that could act: none is
// to come, and none that settled gives evidence.
func (d *Deployment) deserted(i int) bool {
	p := d.waves[i]
	return p.open() == 0 && p.evidence == 0 && p.failures+d.Waves[i].Extra <= d.Waves[i].Budget
}

// reopens reports whether a target that was left out by no person's name can
// act again, in a wave that has nobody else.
func (d *Deployment) reopens(t *Target, task *Task) bool {
	w := &d.Waves[task.Wave]
	return task.Status == TaskSkipped && !task.Named && !task.Intend && !t.Away && !t.Quarantined && w.Status.waits() &&
		d.forward()
}

// adopts reports whether a target that has no task in the deployment could get
// one: it joined after the waves were planned.
func (d *Deployment) adopts(g *Group, t *Target) bool {
	w, placed := t.wave()
	task := d.Tasks[t.Host]
	return placed && !d.Inverse && w < len(d.Waves) && (task == nil || task.Status == TaskGone)
}

// revertTries is how often a target is put into the same revert set: one that
// gives no result is left to its late task and listed.
const revertTries = 3

// straggles reports whether a target that can be reached still runs what the
// deployment takes back, and could go to the goal. A nil task is one to be made.
func (d *Deployment) straggles(g *Group, t *Target, task *Task, goal Digest) bool {
	if t.Away || t.Declared || goal == "" || t.Running == goal && !t.Open ||
		t.Open && t.Permit != PermitNone && t.Desired == goal { // it is on its way there
		return false
	}
	if task != nil {
		if task.Reverts >= revertTries {
			return false
		}
		switch task.Status {
		case TaskGranted, TaskReverting, TaskBroken, TaskLeft:
			return false
		case TaskWaiting, TaskSettled, TaskFailed, TaskStageFailed, TaskLost, TaskGone, TaskSkipped, TaskCancelled, TaskReverted:
		}
	}
	if d.Inverse {
		return t.Running != "" && (d.Leaves == "" || t.movesTo(d.Leaves))
	}
	return t.movesTo(d.Revision)
}

// forward reports whether the deployment may still give its revision to hosts.
func (d *Deployment) forward() bool {
	return d.Status == DeploymentStatusPending || d.Status == DeploymentStatusRunning ||
		d.Status == DeploymentStatusPaused
}

// held is the number of permits that the deployment holds.
func (dep *Deployment) held() int {
	n := 0
	for i := range dep.waves {
		n += dep.permits(i)
	}
	return n
}

// permits is the number of permits held in wave i.
func (d *Deployment) permits(i int) int { return d.waves[i].permits }

// stopsAs is how a stopping deployment ends.
func (dep *Deployment) stopsAs() DeploymentStatus {
	if dep.TakenBy != "" {
		return DeploymentStatusTakenOver
	}
	return DeploymentStatusStopped
}

// sealedAny reports whether a wave of the deployment is sealed.
func (d *Deployment) sealedAny() bool {
	return slices.ContainsFunc(d.Waves, func(w Wave) bool { return w.Status == WaveStatusSealed })
}

// endable reports whether the deployment, as it is now, may end so: a request
// or a report may have come between Decide and this fact.
func (d *Deployment) endable(to DeploymentStatus) bool {
	switch d.Status {
	case DeploymentStatusRunning:
		sealed, passed := 0, 0
		for i := range d.Waves {
			sealed += count(d.Waves[i].Status == WaveStatusSealed)
			passed += count(d.Waves[i].Status.Passed())
		}
		return passed == len(d.Waves) && d.ScopeRevert == nil &&
			(to == DeploymentStatusSucceeded && sealed > 0 || to == DeploymentStatusStopped && sealed == 0)
	case DeploymentStatusStopping:
		return to == d.stopsAs()
	case DeploymentStatusRollingBack:
		for _, p := range d.waves {
			if p.tasks[TaskReverting] > 0 {
				return false
			}
		}
		return d.RevertSet && (to == DeploymentStatusRolledBack || to == DeploymentStatusStopped ||
			to == DeploymentStatusSucceeded && d.Inverse)
	case DeploymentStatusPending, DeploymentStatusPaused, DeploymentStatusSucceeded, DeploymentStatusRolledBack,
		DeploymentStatusStopped, DeploymentStatusCancelled, DeploymentStatusTakenOver, DeploymentStatusSuperseded:
	}
	return false
}

// contains reports whether the deployment's revision holds what any of the bad
// ones brought: presumed of every later one, unless it is declared to repair it
// or its history says that it does not.
func (dep *Deployment) contains(bad []Digest) bool {
	for _, b := range bad {
		if !slices.Contains(dep.Fixes, b) && !slices.Contains(dep.Without, b) {
			return true
		}
	}
	return false
}

// overtaken reports whether another deployment is changing the target, or a
// newer one has.
func (dep *Deployment) overtaken(g *Group, t *Target) bool {
	if dep.claimed(g, t, TaskGranted) || dep.claimed(g, t, TaskReverting) {
		return true
	}
	for _, o := range g.open {
		if task := o.Tasks[t.Host]; o.Seq > dep.Seq && task != nil && !task.gone() && task.Status == TaskSettled &&
			t.Running == o.Revision {
			return true
		}
	}
	return false
}

// claimed reports whether another deployment's task of the target has that
// status: while one grants or takes back, the target is that one's to move.
func (dep *Deployment) claimed(g *Group, t *Target, by TaskStatus) bool {
	if len(g.open) == 1 && g.open[0] == dep { // one that has ended is in none
		return false
	}
	for _, o := range g.open {
		if o == dep {
			continue
		}
		if task := o.Tasks[t.Host]; task != nil && !task.gone() && task.Status == by {
			return true
		}
	}
	return false
}

// shadowed reports whether a newer deployment is active in the wave: what its
// gates see is that one's doing.
func (dep *Deployment) shadowed(g *Group, i int) bool {
	for _, o := range g.open {
		if o.Seq > dep.Seq && i < len(o.Waves) && o.Status.Live() {
			switch o.Waves[i].Status {
			case WaveStatusDeploying, WaveStatusBaking, WaveStatusSealed, WaveStatusReverting:
				return true
			case WaveStatusPending, WaveStatusHeld, WaveStatusSkipped, WaveStatusReverted:
			}
		}
	}
	return false
}

// newerIn returns a newer deployment that is in wave i, or has sealed it, and nil
// for none. This one had sealed the wave before it was taken back there. While the
// newer one is in it this one waits; once it has sealed the wave, the wave is its.
func (d *Deployment) newerIn(g *Group, i int) *Deployment {
	for _, o := range slices.Backward(g.open) {
		if o.Seq > d.Seq && i < len(o.Waves) &&
			(o.Waves[i].Status.judged() || o.Waves[i].Status == WaveStatusReverting) {
			return o
		}
	}
	return nil
}

// sealedBy returns the newer deployment to which a wave that waits, without work
// under way, is left: it has sealed it, and is not going back.
func (d *Deployment) sealedBy(g *Group, i int) *Deployment {
	o, n := d.newerIn(g, i), d.waves[i].tasks
	if o == nil || n[TaskGranted]+n[TaskReverting] > 0 || !d.Waves[i].Status.waits() ||
		o.Waves[i].Status != WaveStatusSealed || o.Status == DeploymentStatusRollingBack {
		return nil
	}
	return o
}

// giveBack opens the waves that older deployments, which go on, left to one that
// takes them back now: nobody has judged them any more.
func (s *State) giveBack(d *Deployment, taken func(wave int) bool) {
	for _, o := range s.group(d).open {
		for i := range o.Waves {
			if w := &o.Waves[i]; w.LeftTo == d.ID && taken(i) && o.forward() {
				w.LeftTo = ""
				s.enterAgain(o, i)
			}
		}
	}
}

// enterAgain makes a wave wait to be entered once more, and with it those behind it
// that are being given the revision.
func (s *State) enterAgain(d *Deployment, i int) {
	s.reopen(d, i, WaveStatusPending)
	for j := range d.Waves {
		if d.Waves[j].Status.active() && !d.entered(j) {
			s.setWave(d, j, WaveStatusPending, "an earlier wave comes first again")
		}
	}
}

// quorum returns how many planned targets behind wave i's barrier are staged,
// how many must be, and how many are planned.
func (dep *Deployment) quorum(i int) (have, need, planned int) {
	for j, p := range dep.waves {
		if j == i || dep.Config.Stage.Barrier == "deployment" {
			have, planned = have+p.staged(), planned+p.planned()
		}
	}
	share := dep.Config.Stage.Quorum
	if share == (Share{}) {
		share = Percent(100)
	}
	return have, min(share.Up(planned), planned), planned
}

// parallel is the number of zone waves that are open together.
func (dep *Deployment) parallel() int {
	n := 0
	for i := range dep.Waves {
		if w := &dep.Waves[i]; w.Zone != "" && w.Status == WaveStatusDeploying {
			n++
		}
	}
	return n
}

// entered reports whether every wave of the batches before wave i has passed.
func (d *Deployment) entered(i int) bool {
	status := make([]WaveStatus, i)
	for j := range status {
		status[j] = d.Waves[j].Status
	}
	return d.enteredBy(i, status)
}

// enteredBy is entered for waves in the given statuses.
func (d *Deployment) enteredBy(i int, status []WaveStatus) bool {
	for j := range i {
		if d.Waves[j].Batch < d.Waves[i].Batch && !status[j].Passed() {
			return false
		}
	}
	return true
}

// orderHolds is R2 and R3: no overtaking, and nothing new behind one that halts.
func (s *State) orderHolds(dep *Deployment, g *Group, wave int) []Hold {
	var out []Hold
	if o := dep.newerIn(g, wave); o != nil {
		out = append(out, Hold{
			Kind: "order", Name: o.ID,
			Text: fmt.Sprintf("%s (%s) is in wave %s", o.RevName, o.ID, o.Waves[wave].Name),
		})
	}
	for _, o := range g.open {
		if o.Seq >= dep.Seq {
			break
		}
		switch {
		case o.Status != DeploymentStatusRunning || o.ScopeRevert != nil:
			status := o.Status.String()
			if o.ScopeRevert != nil {
				status = "reverting " + o.ScopeRevert.Scope
			}
			out = append(out, Hold{
				Kind: "order", Name: o.ID,
				Text: fmt.Sprintf("%s (%s) is %s", o.RevName, o.ID, status),
			})
		case wave < len(o.Waves) && !o.Waves[wave].Status.Passed():
			out = append(out, Hold{
				Kind: "order", Name: o.ID,
				Text: fmt.Sprintf("%s (%s) has not sealed wave %s", o.RevName, o.ID, o.Waves[wave].Name),
			})
		}
	}
	return out
}

// startHolds says why a pending deployment does not start.
func (s *State) startHolds(dep *Deployment, g *Group) []Hold {
	live := 0
	var first *Deployment
	for _, o := range g.open {
		if o.Seq >= dep.Seq {
			break
		}
		if first == nil {
			first = o
		}
		if o.Status == DeploymentStatusPending {
			return []Hold{{Kind: "order", Name: o.ID, Text: fmt.Sprintf("%s (%s) has not started", o.RevName, o.ID)}}
		}
		live++
	}
	if limit := dep.Config.InFlight.Limit(); live >= limit {
		return []Hold{{Kind: "order", Name: first.ID, Text: fmt.Sprintf(
			"waits for the end of %s (%s), which is %s: %d of at most %d deployments in flight", first.RevName, first.ID,
			first.Status, live, limit)}}
	}
	return s.orderHolds(dep, g, 0)
}

// Behind returns the deployment that another waits for, nil for none.
func (s *State) Behind(dep *Deployment) *Deployment {
	g := s.group(dep)
	if g == nil || dep.Status != DeploymentStatusPending && dep.Status != DeploymentStatusRunning {
		return nil
	}
	holds := s.startHolds(dep, g)
	if dep.Status == DeploymentStatusRunning {
		i := slices.IndexFunc(dep.Waves, func(w Wave) bool { return w.Status.waits() })
		if i < 0 {
			return nil
		}
		holds = s.orderHolds(dep, g, i)
	}
	for _, h := range holds {
		if o := s.Deployments[h.Name]; o != nil {
			return o
		}
	}
	return nil
}

// rehearsable reports whether some target of the wave has another good revision
// to go back to; without one a rehearsal is left out.
func (dep *Deployment) rehearsable(g *Group, i int) bool {
	for _, h := range dep.Waves[i].Hosts {
		if t, task := g.target(h), dep.Tasks[h]; t != nil && task != nil && !task.Status.Terminal() &&
			dep.rehearsalGoal(t) != "" {
			return true
		}
	}
	return false
}

// rehearsalGoal is the revision that a rehearsal goes back to, or "".
func (dep *Deployment) rehearsalGoal(t *Target) Digest {
	back, _ := t.group.wayBack(t, func(seal Seal) bool {
		return seal.Deployment != dep.ID &&
			seal.Revision != dep.Revision
	}, nil)
	return back
}

// prefetches reports whether the target of a waiting task may fetch now: all of
// the fleet at once, a wave once it is entered, or only the next targets that
// could be granted a permit.
func (d *Deployment) prefetches(t *Target, task *Task) bool {
	w := &d.Waves[task.Wave]
	switch d.Config.Stage.Prefetch {
	case "wave":
		return w.Status == WaveStatusDeploying
	case "none":
		p := d.waves[task.Wave]
		if w.Status != WaveStatusDeploying || t.group == nil {
			return false
		}
		ahead, limit := 0, 2*max(1, d.Config.Capacity.MaxConcurrent.Down(t.group.usage("").members))
		for _, set := range []bitset{p.waiting, p.stagedServing, p.stagedNotServing} {
			set.each(func(j int) bool {
				if j < d.order[t.Host] {
					ahead++
				}
				return ahead < limit
			})
		}
		return ahead < limit
	}
	return true
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

// Progress is the count of a wave's tasks, for status and plans.
type Progress struct {
	Total, Waiting, Granted, Settled, Failed, Reverting, Reverted, Gone, Skipped int
}
