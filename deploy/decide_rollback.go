package deploy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// revertSet lists where each target in scope that the deployment touched goes,
// newest waves first, and whether any target in scope has a last good revision.
// A target that joined with the revision is one of them. One that another
// deployment is changing, or that a newer one has settled, is that one's to
// move; one that was left out on purpose keeps what it runs.
func (d *decision) revertSet(dep *Deployment, in func(wave int, t *Target) bool,
	bad ...Digest,
) (items []RevertGoal, anyGood bool) {
	g := d.s.group(dep)
	d.past = nil
	for i := range slices.Backward(dep.Waves) {
		for _, h := range dep.Waves[i].Hosts {
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			if t == nil || task == nil || task.gone() || task.Wave != i || !in(i, t) || dep.overtaken(g, t) ||
				t.Declared {
				continue
			}
			goal := d.goal(dep, t, bad)
			anyGood = anyGood || goal != ""
			if task.mustMove(t, goal, dep) {
				items = append(items, RevertGoal{Host: h, Goal: goal})
			}
		}
	}
	for _, t := range g.list {
		if !dep.adopts(g, t) || !t.movesTo(dep.Revision) || !in(t.place-1, t) || dep.overtaken(g, t) {
			continue
		}
		goal := d.goal(dep, t, bad)
		anyGood = anyGood || goal != ""
		if goal != t.Running || t.Open {
			items = append(items, RevertGoal{Host: t.Host, Goal: goal})
		}
	}
	return items, anyGood
}

// goal is where a target goes when the deployment is undone: its last good
// revision without the deployment's own lines and without the revision itself
// unless it was there before, nor anything that turns bad with it.
// What the way leads past is noted in d.past.
func (d *decision) goal(dep *Deployment, t *Target, bad []Digest) Digest {
	back, past := d.goalPast(dep, t, bad)
	if past != "" && !slices.Contains(d.past, past) {
		d.past = append(d.past, past)
	}
	return back
}

func (d *decision) goalPast(dep *Deployment, t *Target, bad []Digest) (back, past Digest) {
	g := t.group
	if dep.Inverse {
		return dep.backTo(g, t)
	}
	isBad := func(seal Seal) bool { return slices.Contains(bad, seal.Revision) }
	shaky := func(r Digest) bool { return d.ill(g)[r] }
	back, past = g.wayBack(t, func(seal Seal) bool { return seal.Deployment != dep.ID && !isBad(seal) }, shaky)
	if back == dep.Revision && !dep.Redeploy {
		return g.wayBack(t, func(seal Seal) bool { return seal.Revision != dep.Revision && !isBad(seal) }, shaky)
	}
	return back, past
}

// ill lists the revisions that most of the group's targets that run them say
// they are not well on: no way back leads to them while a proven one is there.
// What is proven is not doubted for an incident.
func (d *decision) ill(g *Group) map[Digest]bool {
	if d.illOf[g] != nil {
		return d.illOf[g]
	}
	well, unwell := map[string]int{}, map[string]int{}
	for _, t := range g.list {
		if t.Open || t.Quarantined {
			continue
		}
		well[string(t.Running)] += count(t.Health == HealthHealthy)
		unwell[string(t.Running)] += count(t.Health == HealthUnhealthy)
	}
	out := map[Digest]bool{}
	for r, n := range sorted(unwell) {
		out[Digest(r)] = n > 0 && n >= well[r] && g.Grades[Digest(r)] != GradeProven
	}
	d.illOf[g] = out
	return out
}

// rollbackAll takes the whole deployment back, marks its revision bad, and with
// it every newer one that contains it (R6, R8). Declared repairs survive (R7).
func (d *decision) rollbackAll(dep *Deployment, cause string, items []RevertGoal) {
	g := d.s.group(dep)
	bad := []Digest{dep.Revision}
	var revoked []*Deployment
	if !dep.Inverse {
		for _, o := range g.open {
			if o.Seq > dep.Seq && o.contains(bad) {
				revoked, bad = append(revoked, o), append(bad, o.Revision)
			}
		}
	}
	if len(revoked) > 0 {
		items, _ = d.revertSet(dep, everything, bad...)
	}
	isBad := func(o *Deployment) bool { // what ran nowhere was not judged: its store may have been away
		return dep.Granted && !o.Inverse && !g.sealedBefore(o.Revision, o.ID)
	}
	d.emit(RollbackStarted{
		Deployment: dep.ID, Cause: cause, Bad: isBad(dep), Scope: ScopeAll, Past: d.past,
		Items: items,
	})
	for _, o := range revoked {
		if o.RevertSet {
			continue
		}
		items, _ := d.revertSet(o, everything, bad...)
		d.emit(RollbackStarted{
			Deployment: o.ID, Cause: "revoked by the rollback of " + dep.RevName, Bad: isBad(o), Scope: ScopeAll, RevokedBy: dep.ID, Past: d.past, Items: items,
		})
	}
}

// asked starts the rollback of a scope that a person wants back.
func (d *decision) asked(dep *Deployment) bool {
	a := dep.RequestedRevert
	if a == nil {
		return false
	}
	var waves []int
	items, _ := d.revertSet(dep, func(w int, t *Target) bool {
		st := dep.Waves[w].Status
		return (st.active() || st == WaveStatusSealed || st == WaveStatusReverted) &&
			(a.Zone == "" || t.Zone == a.Zone) && (a.Wave == "" || dep.Waves[w].Name == a.Wave)
	})
	for _, item := range items {
		w := d.s.group(dep).target(item.Host).place - 1 // of one that joined, and has no task yet
		if task := dep.Tasks[item.Host]; task != nil {
			w = task.Wave
		}
		if !slices.Contains(waves, w) {
			waves = append(waves, w)
		}
	}
	slices.Sort(waves)
	d.emit(RollbackStarted{
		Deployment: dep.ID, Cause: a.Cause, Scope: a.Scope, Then: ThenPause, Waves: waves, Until: d.decideBy(dep), Past: d.past, Items: items,
	})
	return true
}

// revertScope moves an open revert set on; when it is done its waves are
// reverted, and the deployment pauses or rolls back whole.
func (d *decision) revertScope(dep *Deployment) {
	if d.reverted(dep) {
		return
	}
	d.restage(dep)
	open := false
	for i := range slices.Backward(dep.Waves) {
		if dep.Waves[i].Status == WaveStatusReverting {
			d.backward = append(d.backward, openWave{dep, i})
			p := dep.waves[i]
			open = open || p.tasks[TaskReverting] > 0 || dep.Waves[i].Status == WaveStatusReverting && p.permits > 0
		}
	}
	if open {
		return
	}
	for i := range dep.Waves {
		if dep.Waves[i].Status == WaveStatusReverting {
			d.emit(WaveReverted{Deployment: dep.ID, Wave: i})
		}
	}
	if dep.ScopeRevert.Then == ThenAll {
		items, _ := d.revertSet(dep, everything)
		d.rollbackAll(dep, dep.ScopeRevert.Cause, items)
		return
	}
	d.emit(DeploymentPaused{Deployment: dep.ID, Cause: dep.ScopeRevert.Cause + d.notBack(dep), Until: d.decideBy(dep)})
}

// notBack lists the targets of reverting waves that did not go back.
func (d *decision) notBack(dep *Deployment) string {
	var out []string
	for i := range dep.Waves {
		if dep.Waves[i].Status != WaveStatusReverting {
			continue
		}
		for _, h := range dep.Waves[i].Hosts {
			if task := dep.Tasks[h]; task.Goal != "" && (task.Status == TaskBroken || task.Status == TaskLost) ||
				task.Status == TaskLeft {
				out = append(out, fmt.Sprintf("%s %s", d.s.hostName(h), task.Status))
			}
		}
	}
	return notBack(out)
}

func notBack(hosts []string) string {
	if len(hosts) == 0 {
		return ""
	}
	more := ""
	if len(hosts) > 20 {
		more = fmt.Sprintf(" and %d more", len(hosts)-20)
	}
	return "; not back: " + strings.Join(hosts[:min(len(hosts), 20)], ", ") + more
}

// rollback moves the revert set of a whole deployment on: no gate, window or
// bake can hold it, the floor and the rate of the rollback policy do.
func (d *decision) rollback(dep *Deployment) {
	if !dep.RevertSet {
		items, _ := d.revertSet(dep, everything)
		cause := dep.Cause
		if cause == "" {
			cause = "rollback requested"
		}
		d.rollbackAll(dep, cause, items)
		return
	}
	if d.reverted(dep) {
		return
	}
	d.restage(dep)
	open := 0
	for i := range slices.Backward(dep.Waves) {
		open += dep.waves[i].tasks[TaskReverting]
		d.backward = append(d.backward, openWave{dep, i})
	}
	if open > 0 || dep.held() > 0 {
		return
	}
	if items := d.stragglers(dep); len(items) > 0 {
		d.emit(RevertExtended{Deployment: dep.ID, Items: items})
		return
	}
	d.endRollback(dep)
}

// stragglers are reachable targets that run what is being taken back, although
// the set is done: they joined with it, or were away.
func (d *decision) stragglers(dep *Deployment) []RevertGoal {
	var out []RevertGoal
	g := d.s.group(dep)
	for _, t := range g.list {
		task := dep.Tasks[t.Host]
		if d.down[t.Host] || task == nil && !dep.adopts(g, t) || dep.overtaken(g, t) {
			continue
		}
		if goal := d.goal(dep, t, nil); dep.straggles(g, t, task, goal) {
			out = append(out, RevertGoal{Host: t.Host, Goal: goal})
		}
	}
	return out
}

// restageAfter is how long after a failure the bundle of a way back is fetched
// again, doubled up to sixteen times; without end, for there is no other way.
const restageAfter = 30 * time.Second

// restages is when the target may fetch again what it failed to stage.
func (t *Target) restages() Time { return t.StageFailedAt.Add(restageAfter << min(t.StageTries, 4)) }

// restage lets targets that go back fetch once more what they could not.
func (d *decision) restage(dep *Deployment) {
	var hosts []string
	for i := range dep.Waves {
		dep.waves[i].stuck.each(func(j int) bool {
			h := dep.Waves[i].Hosts[j]
			if t := d.s.Target(h, dep.App); dep.Tasks[h].Status == TaskReverting && d.now >= t.restages() {
				hosts = append(hosts, h)
			}
			return true
		})
	}
	if len(hosts) > 0 {
		d.emit(StagingRetried{App: dep.App, Group: dep.Group, Hosts: hosts})
	}
}

// reverted ends the reverting tasks that need no permit: targets that are back
// already, and hosts that are away, which are listed and converge on return.
func (d *decision) reverted(dep *Deployment) bool {
	var items []TaskEnd
	for i := range dep.Waves {
		dep.waves[i].reverting.each(func(j int) bool {
			h := dep.Waves[i].Hosts[j]
			t, task := d.s.Target(h, dep.App), dep.Tasks[h]
			switch {
			case t.Running == task.Goal && t.Serving():
				items = append(items, TaskEnd{
					Host: h, Status: TaskReverted, Counter: t.Counter,
					Cause: "runs it already",
				})
			case d.away(h, dep.Config.Timeouts.LostAfter):
				items = append(items, TaskEnd{
					Host: h, Status: TaskLost, Gen: t.Gen, Counter: t.Counter,
					Cause: "unreachable",
				})
			}
			return true
		})
	}
	if len(items) > 0 {
		d.emit(TasksEnded{Deployment: dep.ID, Items: items})
	}
	return len(items) > 0
}

// wentTo names the revision that most targets of a rollback went back to.
func (d *decision) wentTo(dep *Deployment) string {
	goals := map[string]int{}
	for _, t := range d.s.group(dep).list {
		if task := dep.Tasks[t.Host]; task != nil && task.Goal != "" {
			goals[string(task.Goal)]++
		}
	}
	if goal := commonest(goals); goal != "" {
		return d.s.RevisionName(dep.App, goal)
	}
	if dep.Inverse {
		return dep.RevName
	}
	return cmp.Or(dep.FromName, "what was there before")
}

// endRollback ends a rollback and lists who is not back.
func (d *decision) endRollback(dep *Deployment) {
	var list []string
	back := 0
	for i := range dep.Waves {
		n := dep.waves[i].tasks
		back += n[TaskReverted]
		for _, st := range []TaskStatus{TaskBroken, TaskLost, TaskLeft} {
			for _, h := range dep.Waves[i].Hosts {
				if task := dep.Tasks[h]; n[st] > 0 && task != nil && task.Status == st {
					list = append(list, fmt.Sprintf("%s %s", d.s.hostName(h), st))
				}
			}
		}
	}
	cause := dep.Cause
	if dep.Asked != "" {
		cause = fmt.Sprintf("rolled back to %s, as asked %s", d.wentTo(dep), dep.Asked)
	}
	end := DeploymentEnded{Deployment: dep.ID, Status: DeploymentStatusRolledBack, Cause: cause + notBack(list)}
	switch {
	case dep.Inverse:
		end.Status = DeploymentStatusSucceeded
	case back == 0 && len(list) > 0:
		end.Status = DeploymentStatusStopped
	}
	d.emit(end)
}
