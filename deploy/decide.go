package deploy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// grantBatch bounds the permits of one fact, so that an entry stays small.
const grantBatch = 500

// Decide holds all policy: given the committed state, the leader's view of the
// fleet and FSM time, it returns the facts that follow, in order. It changes
// nothing. The caller proposes them as one entry and asks again until Decide
// returns none; then it waits for a change or for NextWake.
func Decide(s *State, f Fleet, now Time) []Event {
	d := &decision{
		s: s, now: now, down: map[string]bool{}, hosts: map[string]bool{}, ledgers: map[*Group]*ledger{},
		revertBegins: map[*Group]bool{}, illOf: map[*Group]map[Digest]bool{},
	}
	for _, h := range f.Down {
		d.down[h] = true
	}
	d.membership(f)
	d.unreachable(f)
	d.quarantine()
	d.drains()
	d.forget(f)
	d.freezes()
	for _, dep := range s.open {
		d.deployment(dep)
	}
	d.grants()
	d.catchUps()
	d.suspect()
	return d.out
}

// decision collects the facts of one call of Decide.
type decision struct {
	s            *State
	now          Time
	down         map[string]bool
	hosts        map[string]bool // granted in this call, for the host mutex
	ledgers      map[*Group]*ledger
	illOf        map[*Group]map[Digest]bool
	past         []Digest        // revisions that the ways back of the last revert set lead past
	revertBegins map[*Group]bool // a revert set begins: what newer deployments go back to changes
	forward      []openWave      // waves that may be granted permits forward
	backward     []openWave      // waves with targets to take back
	out          []Event
}

// openWave is a wave that permits may be granted to in this decision.
type openWave struct {
	dep  *Deployment
	wave int
}

func (d *decision) emit(e Event) {
	if r, ok := e.(RollbackStarted); ok {
		d.revertBegins[d.s.group(d.s.Deployments[r.Deployment])] = true
	}
	d.out = append(d.out, e)
}

// ledger returns the ledger of a group for this decision.
func (d *decision) ledger(g *Group) *ledger {
	if d.ledgers[g] == nil {
		d.ledgers[g] = d.s.ledger(g, d.hosts)
	}
	return d.ledgers[g]
}

func (d *decision) deployment(dep *Deployment) {
	ended := d.endTasks(dep) || d.revertBegins[d.s.group(dep)]
	switch dep.Status {
	case DeploymentStatusPending:
		d.start(dep)
	case DeploymentStatusRunning:
		if !ended {
			d.run(dep)
		}
	case DeploymentStatusPaused:
		if !ended {
			d.paused(dep)
		}
	case DeploymentStatusStopping:
		if !ended && dep.held() == 0 {
			d.emit(DeploymentEnded{Deployment: dep.ID, Status: dep.stopsAs(), Cause: dep.Cause})
		}
	case DeploymentStatusRollingBack:
		if !ended {
			d.rollback(dep)
		}
	case DeploymentStatusSucceeded, DeploymentStatusRolledBack, DeploymentStatusStopped, DeploymentStatusCancelled,
		DeploymentStatusTakenOver, DeploymentStatusSuperseded:
	}
}

// start makes a pending deployment live: as many are live as may be, none older
// waits or is in its way, and the first wave is free.
func (d *decision) start(dep *Deployment) {
	g := d.s.group(dep)
	if d.overdue(dep) || dep.Preempt && !d.preempt(dep, g) {
		return
	}
	if !dep.Held && len(d.s.startHolds(dep, g)) == 0 {
		d.emit(DeploymentStarted{Deployment: dep.ID})
	}
}

// preempt takes over every older deployment once people approved, and reports
// whether none is left.
func (d *decision) preempt(dep *Deployment, g *Group) bool {
	for _, name := range dep.Config.PreGates {
		if gate := dep.Config.gate(name); gate != nil && gate.Approval != nil && !dep.approved(gate) {
			return false
		}
	}
	free := true
	for _, o := range g.open {
		if o.Seq < dep.Seq {
			free = false
			if o.TakenBy == "" {
				d.emit(TakenOver{Deployment: o.ID, By: dep.ID})
			}
		}
	}
	return free
}

// run moves a running deployment on: failures first, then waves in order. It
// follows its own facts through the waves, so that one entry seals a wave,
// opens the next and grants its first permits.
func (d *decision) run(dep *Deployment) {
	if d.asked(dep) || d.failures(dep) || d.overdue(dep) {
		return
	}
	if dep.ScopeRevert != nil {
		d.revertScope(dep)
		return
	}
	if dep.AskAgain != 0 {
		if d.s.unanswered(dep) == "" {
			d.emit(GatesAnswered{Deployment: dep.ID})
		}
		return
	}
	if limit := dep.Config.Timeouts.Deployment; limit > 0 && d.now.Sub(dep.LimitFrom) >= limit {
		d.pause(dep, fmt.Sprintf("not done within %s", limit))
		return
	}
	status := make([]WaveStatus, len(dep.Waves))
	for i := range dep.Waves {
		status[i] = dep.Waves[i].Status
	}
	for i := range dep.Waves {
		if status[i].waits() {
			if !dep.enteredBy(i, status) {
				break
			}
			status[i] = d.enter(dep, i)
		}
		if status[i] == WaveStatusDeploying {
			status[i] = d.complete(dep, i)
		}
		if status[i] == WaveStatusDeploying {
			d.forward = append(d.forward, openWave{dep, i})
		}
		if status[i] == WaveStatusBaking {
			status[i] = d.seal(dep, i)
		}
	}
	d.finish(dep, status)
}

// paused acts on gates that fail meanwhile, goes on taking back a scope, and ends
// a decision that nobody took, and an approval that nobody gave.
func (d *decision) paused(dep *Deployment) {
	switch {
	case d.asked(dep) || d.overdue(dep):
	case d.verdicts(dep):
	case dep.ScopeRevert != nil:
		d.revertScope(dep)
	case dep.Decision && dep.DecideBy > 0 && d.now >= dep.DecideBy:
		cause := dep.Cause + "; nobody decided in time"
		if items, any := d.revertSet(dep, everything); any {
			d.rollbackAll(dep, cause, items)
		} else {
			d.emit(DeploymentPaused{Deployment: dep.ID, Cause: cause + "; no last good revision"})
		}
	}
}

// finish ends a deployment whose waves have all passed.
func (d *decision) finish(dep *Deployment, status []WaveStatus) {
	sealed := 0
	for _, st := range status {
		if !st.Passed() {
			return
		}
		if st == WaveStatusSealed {
			sealed++
		}
	}
	end := DeploymentEnded{Deployment: dep.ID, Status: DeploymentStatusSucceeded, Cause: d.remainder(dep)}
	if sealed == 0 {
		end.Status, end.Cause = DeploymentStatusStopped, "no target left"+semicolon(d.remainder(dep))
	}
	d.emit(end)
}

// remainder names who was left out of a deployment that ends, and who does not
// serve in it; "" when there is nobody.
func (d *decision) remainder(dep *Deployment) string {
	var out, down []string
	fleet := d.s.group(dep).usage("")
	for i := range dep.Waves {
		n := dep.waves[i].tasks
		left := n[TaskSkipped] + n[TaskBroken] + n[TaskFailed] + n[TaskLost] + n[TaskStageFailed]
		if left == 0 && fleet.serving == fleet.members {
			continue
		}
		for _, h := range dep.Waves[i].Hosts {
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			if t == nil || task.gone() {
				continue
			}
			if task.Status == TaskSkipped {
				out = append(out, fmt.Sprintf("%s (%s)", d.s.hostName(h), task.Cause))
			} else if why := t.silence(task); why != "" {
				down = append(down, fmt.Sprintf("%s (%s)", d.s.hostName(h), why))
			}
		}
	}
	text := ""
	if len(out) > 0 {
		text = "left out: " + few(out)
	}
	if len(down) > 0 {
		text += semicolon("not serving: " + few(down))
	}
	return strings.TrimPrefix(text, "; ")
}

// semicolon puts a text after another.
func semicolon(text string) string {
	if text == "" {
		return ""
	}
	return "; " + text
}

// few lists the first names of many.
func few(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// endTasks ends tasks that nobody will report on: unreachable or silent hosts,
// failed staging, targets that run the revision already.
func (d *decision) endTasks(dep *Deployment) bool {
	var items []TaskEnd
	for i := range dep.Waves {
		items = append(items, d.lost(dep, i)...)
		if dep.Status == DeploymentStatusRunning && dep.ScopeRevert == nil &&
			dep.Waves[i].Status == WaveStatusDeploying {
			items = append(items, d.unstaged(dep, i)...)
			items = append(items, d.settled(dep, i)...)
		}
	}
	if len(items) == 0 {
		return false
	}
	d.emit(TasksEnded{Deployment: dep.ID, Items: items})
	return true
}

// lost finds granted tasks whose host is away or has been silent for too long.
func (d *decision) lost(dep *Deployment, i int) []TaskEnd {
	var out []TaskEnd
	p, limits := dep.waves[i], dep.Config.Timeouts
	if dep.Waves[i].Status.active() {
		p.vanished.each(func(j int) bool {
			h := dep.Waves[i].Hosts[j]
			if t := d.s.Target(h, dep.App); d.away(h, limits.LostAfter) {
				out = append(out, TaskEnd{
					Host: h, Status: TaskLost, Gen: t.Gen, Counter: t.Counter,
					Cause: fmt.Sprintf("unreachable for %s after it took the revision", limits.LostAfter),
				})
			}
			return true
		})
	}
	if p.permits == 0 || p.awayCount == 0 && d.now < p.oldest.Add(limits.Task) {
		return out
	}
	p.granted.each(func(j int) bool {
		h := dep.Waves[i].Hosts[j]
		t := d.s.Target(h, dep.App)
		end := TaskEnd{Host: h, Status: TaskLost, Gen: t.Gen, Counter: t.Counter}
		switch {
		case d.away(h, limits.LostAfter):
			end.Cause = fmt.Sprintf("unreachable for %s", limits.LostAfter)
		case d.now.Sub(t.GrantedAt) >= limits.Task:
			end.Cause = fmt.Sprintf("no result within %s", limits.Task)
		default:
			return true
		}
		out = append(out, end)
		return true
	})
	return out
}

// away reports whether the host has been unreachable for that long and the
// leader still sees it so.
func (d *decision) away(host string, lostAfter time.Duration) bool {
	h := d.s.Hosts[host]
	return h != nil && h.Unreachable && d.down[host] && d.now.Sub(h.DownSince) >= lostAfter
}

// unstaged says why the target does not have what it was to stage.
func (t *Target) unstaged() string {
	if f := t.StageReason; f != nil && (f.Event == "Warmup" || f.Event == "Taste") {
		return "its " + strings.ToLower(f.Event) + " failed, before anything was taken out of service"
	}
	return "the bundle could not be staged"
}

// unstaged finds waiting tasks that cannot be staged.
func (d *decision) unstaged(dep *Deployment, i int) []TaskEnd {
	var out []TaskEnd
	p, w, limits := dep.waves[i], &dep.Waves[i], dep.Config.Timeouts
	end := func(h, cause string) {
		out = append(out, TaskEnd{
			Host: h, Status: TaskStageFailed, Counter: d.s.Target(h, dep.App).Counter,
			Cause: cause,
		})
	}
	p.stuck.each(func(j int) bool {
		h := w.Hosts[j]
		switch {
		case dep.Tasks[h].Status != TaskWaiting:
		case d.s.Target(h, dep.App).Quarantined:
			out = append(out, TaskEnd{
				Host: h, Status: TaskSkipped, Counter: d.s.Target(h, dep.App).Counter,
				Cause: "kept out: " + d.s.Target(h, dep.App).keptOut(),
			})
		case d.s.Target(h, dep.App).StageFailed == dep.Tasks[h].goal(dep):
			end(h, d.s.Target(h, dep.App).unstaged())
		case d.away(h, limits.LostAfter):
			end(h, fmt.Sprintf("unreachable for %s", limits.LostAfter))
		}
		return true
	})
	if d.now.Sub(w.StartedAt) < limits.Stage {
		return out
	}
	p.waiting.each(func(j int) bool {
		h := w.Hosts[j]
		if d.now.Sub(max(dep.Tasks[h].Since, w.StartedAt)) >= limits.Stage &&
			!slices.ContainsFunc(out, func(e TaskEnd) bool { return e.Host == h }) {
			end(h, fmt.Sprintf("not staged within %s", limits.Stage))
		}
		return true
	})
	return out
}

// settled finds waiting tasks whose target already runs the revision.
func (d *decision) settled(dep *Deployment, i int) []TaskEnd {
	var out []TaskEnd
	dep.waves[i].runsIt.each(func(j int) bool {
		h := dep.Waves[i].Hosts[j]
		out = append(out, TaskEnd{
			Host: h, Status: TaskSettled, Counter: d.s.Target(h, dep.App).Counter, Cause: "runs the revision already",
		})
		return true
	})
	return out
}
