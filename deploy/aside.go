package deploy

import (
	"fmt"
	"time"
)

// Asides: a new host gets what its wave runs (birth), and one that was lost,
// offline, skipped or changed by hand is caught up with (late task). Both are
// outside of every wave: they delay none, and a late task obeys the permit rule.
const (
	asideTries = 3                // then the target is left alone and listed
	asideRetry = 10 * time.Minute // doubled with each failure
)

// sortAside puts the target among those that have an aside, or may need one.
func (s *State) sortAside(g *Group, t *Target) {
	if t.Open && t.Aside != AsideNone {
		g.asides[t.Host] = struct{}{}
	}
	if t.mayStray(g) {
		g.strays[t.Host] = struct{}{}
	} else if len(g.strays) > 0 {
		delete(g.strays, t.Host)
	}
}

// mayStray is a cheap upper bound of stray: false for every target that a
// deployment is about to change, has just changed, or that waits for a person.
// What it rests on changes between remove and add alone.
func (t *Target) mayStray(g *Group) bool {
	w, placed := g.place[t.Host]
	if !placed || t.Open || t.Permit != PermitNone || t.Away || t.Quarantined || t.Drift != "" {
		return false
	}
	born := t.Running != "" || t.EverHealthy
	active, fresh, planned := false, Digest(""), false
	for _, d := range g.open {
		if w < len(d.Waves) && d.Waves[w].Status.active() {
			active, fresh = true, d.Revision
		}
		task := d.Tasks[t.Host]
		if task == nil || task.gone() {
			continue
		}
		switch {
		case task.Status == TaskWaiting && d.Waves[task.Wave].Status.waits():
			planned = true
		case !task.Status.Terminal(), task.Status == TaskSettled && t.Running == d.Revision:
			return false
		case task.Status.Failure() && task.Status != TaskLost, task.Intend:
			return false
		case task.Status == TaskSkipped && d.Waves[task.Wave].Status.active():
			return false // caught up with after the seal
		case d.Status != DeploymentStatusRunning:
			return false
		}
	}
	good := g.lastGoodWave(w, nil)
	if !born {
		return good != "" || active
	}
	if planned && !active && g.Bad[t.Running] == "" {
		return false // a deployment comes to it; nobody pulls it back first, unless what it runs is bad
	}
	return good != "" && t.Running != good || active && t.Running != fresh
}

// active reports whether the wave is being given the revision.
func (w WaveStatus) active() bool { return w == WaveStatusDeploying || w == WaveStatusBaking }

// waits reports whether the wave has not been entered.
func (w WaveStatus) waits() bool { return w == WaveStatusPending || w == WaveStatusHeld }

// want is the revision that a target without a task should run: what its wave
// is being given, once one target took it; else the wave's last good revision.
// A wave that is still deploying takes a tenth more than it planned.
func (g *Group) want(t *Target) Digest {
	w, ok := g.place[t.Host]
	if !ok {
		return ""
	}
	for i := len(g.open) - 1; i >= 0; i-- {
		d := g.open[i]
		if w >= len(d.Waves) || d.Status != DeploymentStatusRunning || d.Scoped != nil || d.waves[w].tasks[TaskSettled] == 0 {
			continue
		}
		room := len(g.Layout.Waves[w].Hosts)*10 <= d.waves[w].total()*11
		if st := d.Waves[w].Status; st == WaveStatusBaking || st == WaveStatusDeploying && room {
			return d.Revision
		}
	}
	return g.lastGoodWave(w, nil)
}

// stray says what a target needs aside of every deployment, and toward what.
func (g *Group) stray(t *Target) (Aside, Digest) {
	goal := g.want(t)
	switch {
	case goal == "" || goal == t.Running || !t.mayStray(g):
		return AsideNone, ""
	case t.Running == "" && !t.EverHealthy:
		return AsideBirth, goal
	}
	return AsideLate, goal
}

// asides grants what strays need, group by group.
func (d *decision) asides() {
	for _, g := range sorted(d.s.Groups) {
		if len(g.asides) > 0 {
			d.asidesLost(g)
		}
		if len(g.strays) == 0 || d.s.frozen(g) != nil || d.took[g] {
			continue // or a revert set begins, and what targets should run changes
		}
		led, x := d.ledger(g), d.groupTerms(g)
		var births, late []Grant
		var unstaged []TaskEnd
		for host := range sorted(g.strays) {
			t := d.s.Target(host, g.App)
			kind, goal := g.stray(t)
			if kind == AsideNone || d.now < t.RetryAt || d.down[host] {
				continue
			}
			if !t.HasStaged(goal) {
				if t.StageFailed == goal {
					unstaged = append(unstaged, TaskEnd{Host: host, Status: TaskStageFailed, Gen: t.Gen, Counter: t.Counter, Cause: "the bundle could not be staged"})
				}
				continue
			}
			grant := Grant{Host: host, Gen: t.Gen + 1, Kind: PermitConditional, Goal: goal}
			if kind == AsideBirth {
				if led.mutex(t, x) == nil {
					led.hosts[host] = led.hosts[host] || x.exclusive
					births = append(births, grant)
				}
				continue
			}
			permit, err := led.admit(t, x)
			if err != nil {
				continue
			}
			led.take(t, permit, x)
			grant.Kind = permit
			late = append(late, grant)
		}
		if len(unstaged) > 0 {
			d.emit(TasksEnded{App: g.App, Group: g.Name, Items: unstaged})
		}
		d.emitAside(g, AsideBirth, x, births)
		d.emitAside(g, AsideLate, x, late)
	}
}

func (d *decision) emitAside(g *Group, kind Aside, x terms, items []Grant) {
	if len(items) > 0 {
		d.emit(PermitsGranted{
			App: g.App, Group: g.Name, Wave: -1, Aside: kind, RetryAfter: asideRetry,
			Concurrent: x.concurrent, MaxZones: x.maxZones, Floors: x.floors, Items: items,
		})
	}
}

// asidesLost ends the permits of asides that nobody will report on.
func (d *decision) asidesLost(g *Group) {
	var items []TaskEnd
	limits := g.Config.Timeouts
	for host := range sorted(g.asides) {
		t := d.s.Target(host, g.App)
		if t.Permit != PermitNone && (d.away(host, limits.LostAfter) || d.now.Sub(t.GrantedAt) >= limits.Task) {
			items = append(items, TaskEnd{Host: host, Status: TaskLost, Gen: t.Gen, Counter: t.Counter, Cause: "no result"})
		}
	}
	if len(items) > 0 {
		d.emit(TasksEnded{App: g.App, Group: g.Name, Items: items})
	}
}

// asidesGranted applies grants that belong to no deployment.
func (s *State) asidesGranted(e PermitsGranted) error {
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	if f := s.frozen(g); f != nil {
		return refuse(Conflict, "a freeze by %s holds every grant", f.Actor)
	}
	x := terms{concurrent: e.Concurrent, maxZones: e.MaxZones, floors: e.Floors, exclusive: !g.Config.Capacity.SharedHost}
	granted := 0
	for _, item := range e.Items {
		t := s.Target(item.Host, e.App)
		if t == nil || t.group != g || item.Gen != t.Gen+1 || s.Now < t.RetryAt || !t.HasStaged(item.Goal) {
			continue
		}
		if kind, goal := g.stray(t); kind != e.Aside || goal != item.Goal {
			continue
		}
		led := s.ledger(g, nil)
		if e.Aside == AsideBirth {
			if item.Kind != PermitConditional || led.mutex(t, x) != nil {
				continue
			}
		} else if kind, err := led.admit(t, x); err != nil || kind != item.Kind {
			continue
		}
		s.touch(t, func() {
			t.Gen, t.Open, t.Permit, t.Desired = item.Gen, true, item.Kind, item.Goal
			t.Deployment, t.GrantedAt, t.Aside = "", s.Now, e.Aside
			t.RetryAt = s.Now.Add(e.RetryAfter << min(t.Tries, 10))
		})
		granted++
	}
	return changed(granted, "target", "bring up to date")
}

// asidesEnded applies the loss of asides, and staging for them that failed,
// which is tried again like they are.
func (s *State) asidesEnded(e TasksEnded) error {
	ended := 0
	for _, item := range e.Items {
		t := s.Target(item.Host, e.App)
		if t != nil && t.Group == e.Group && item.Status == TaskStageFailed && t.StageFailed != "" && t.Gen == item.Gen && t.Permit == PermitNone {
			s.touch(t, func() {
				t.StageFailed, t.StageReason = "", nil
				t.RetryAt = s.Now.Add(asideRetry << min(t.Tries, 10))
				s.asideFailed(t, item.Cause)
			})
			ended++
			continue
		}
		if t == nil || t.Group != e.Group || t.Aside == AsideNone || t.Permit == PermitNone ||
			item.Status != TaskLost || item.Gen != t.Gen || t.Counter > item.Counter {
			continue
		}
		s.touch(t, func() {
			t.Permit, t.Health = PermitNone, HealthUnknown // the generation stays open
			s.asideFailed(t, item.Cause)
		})
		ended++
	}
	return changed(ended, "target", "end")
}

// asideResult applies the result of an aside. It runs in touch.
func (s *State) asideResult(t *Target, kind Aside, r *Report) {
	if r.Result == ResultDone && t.Running == t.Desired && t.Health == HealthHealthy {
		t.Tries, t.RetryAt = 0, 0
		return
	}
	cause := r.Result.String()
	if r.Failure != nil {
		cause = r.Failure.Event + ": " + r.Failure.Message
	}
	s.birthFailed(t, kind)
	s.asideFailed(t, cause)
}

// asideFailed counts a try; after the last one the target is left alone.
func (s *State) asideFailed(t *Target, cause string) {
	if t.Tries++; t.Tries < asideTries {
		return
	}
	t.Drift = fmt.Sprintf("%d tries failed: %s", t.Tries, cause)
	if t.Running == "" {
		t.host.Quarantine = "it could not be brought to what its wave runs; " + t.Drift
		t.Quarantined = true
	}
}

// birthFailed lets the failure of a birth count against the wave that is being
// given the revision.
func (s *State) birthFailed(t *Target, kind Aside) {
	w, ok := t.group.place[t.Host]
	if kind != AsideBirth || !ok {
		return
	}
	for _, d := range t.group.open {
		if w < len(d.Waves) && d.Revision == t.Desired && d.Waves[w].Status.active() {
			d.Waves[w].Extra++
			d.Failures++
		}
	}
}

// frozen returns the freeze that holds the group's grants, or nil.
func (s *State) frozen(g *Group) *Freeze {
	for i := range s.Freezes {
		f := &s.Freezes[i]
		if (f.App == "" || f.App == g.App) && (f.Group == "" || f.Group == g.Name) {
			return f
		}
	}
	return nil
}

// Drifted is a target that does not run what its wave asks.
type Drifted struct {
	Host  string
	Runs  Digest
	Wants Digest
	Why   string // why nothing is done about it; "" when it is being brought up to date
}

// Drift lists the group's targets that do not run what their wave asks and that
// no deployment in flight is about to change.
func (s *State) Drift(g *Group) []Drifted {
	var out []Drifted
	for _, h := range g.Hosts() {
		t := g.target(h)
		want := g.want(t)
		if want == t.Running && t.Drift != "" { // left out on purpose, and so was its wave
			want = newestGood(g, g.Succeeded, nil)
		}
		if want == "" || want == t.Running || t.Permit != PermitNone {
			continue
		}
		x := Drifted{Host: h, Runs: t.Running, Wants: want, Why: t.Drift}
		switch {
		case t.Away:
			x.Why = "unreachable"
		case t.Quarantined:
			x.Why = t.host.Quarantine
		case t.Open:
			x.Why = "its last generation has no result"
		case x.Why == "" && !t.mayStray(g):
			continue // a deployment decides
		}
		out = append(out, x)
	}
	return out
}
