package deploy

import (
	"fmt"
	"slices"
	"time"
)

// Catch-ups: a new host gets what its wave runs (birth), and one that was lost,
// offline, skipped or changed by hand is caught up with (late task). Both are
// outside of every wave: they delay none, and a late task obeys the permit rule.
const (
	catchUpTries = 3                // then the target is left alone and listed
	catchUpRetry = 10 * time.Minute // doubled with each failure
)

// sortBehind puts the target among those that have a catch-up, or may need one.
func (s *State) sortBehind(g *Group, t *Target) {
	if t.Open && t.CatchUp != CatchUpNone {
		g.catchingUp[t.Host] = struct{}{}
	}
	g.setBehind(t, t.mayBeBehind(g))
}

// setBehind puts the target among those that may need a catch-up, or takes it away.
func (g *Group) setBehind(t *Target, on bool) {
	if on && !t.behind {
		g.behind[t.Host] = struct{}{}
	} else if t.behind && !on {
		delete(g.behind, t.Host)
	}
	t.behind = on
}

// catchUpsGranted applies grants that belong to no deployment.
func (s *State) catchUpsGranted(e PermitsGranted) error {
	g := s.Groups[GroupKey(e.App, e.Group)]
	if g == nil {
		return refuse(NotFound, "no group %s of %s", e.Group, e.App)
	}
	frozen := s.Frozen(g) != nil
	x := terms{
		concurrent: e.Concurrent, maxZones: e.MaxZones, floors: e.Floors,
		exclusive: !g.Config.Capacity.SharedHost,
	}
	granted := 0
	for _, item := range e.Items {
		t := s.Target(item.Host, e.App)
		if t == nil || t.group != g || item.Gen != t.Gen+1 || s.Now < t.RetryAt || !t.HasStaged(item.Goal) {
			continue
		}
		if kind, goal := g.catchUp(t); kind != e.CatchUp || goal != item.Goal || frozen && !t.goesBack(g) {
			continue
		}
		led := s.ledger(g, nil)
		if e.CatchUp == CatchUpBirth {
			if item.Kind != PermitConditional || led.mutex(t, x) != nil {
				continue
			}
		} else if kind, err := led.admit(t, x); err != nil || kind != item.Kind {
			continue
		}
		s.update(t, func() {
			t.Gen, t.Open, t.Permit, t.Desired = item.Gen, true, item.Kind, item.Goal
			t.Deployment, t.GrantedAt, t.CatchUp = "", s.Now, e.CatchUp
			t.RetryAt = s.Now.Add(e.RetryAfter << min(t.Tries, 10))
		})
		granted++
	}
	return changed(granted, "target", "bring up to date")
}

// catchUpsEnded applies the loss of catch-ups, and staging for them that failed,
// which is tried again like they are.
func (s *State) catchUpsEnded(e TasksEnded) error {
	ended := 0
	for _, item := range e.Items {
		t := s.Target(item.Host, e.App)
		if t != nil && t.Group == e.Group && item.Status == TaskStageFailed && t.StageFailed != "" &&
			t.Gen == item.Gen && t.Permit == PermitNone {
			s.update(t, func() {
				t.stageAgain()
				t.RetryAt = s.Now.Add(catchUpRetry << min(t.Tries, 10))
				s.catchUpFailed(t, item.Cause)
			})
			ended++
			continue
		}
		if t == nil || t.Group != e.Group || t.CatchUp == CatchUpNone || t.Permit == PermitNone ||
			item.Status != TaskLost || item.Gen != t.Gen || t.Counter > item.Counter {
			continue
		}
		s.update(t, func() {
			t.Permit, t.Health = PermitNone, HealthUnknown // the generation stays open
			s.catchUpFailed(t, item.Cause)
		})
		ended++
	}
	return changed(ended, "target", "end")
}

// catchUpResult applies the result of a catch-up. It runs in update.
func (s *State) catchUpResult(t *Target, kind CatchUp, r *Report) {
	if r.Result == ResultDone && t.Running == t.Desired && t.Health == HealthHealthy {
		t.Tries, t.RetryAt = 0, 0
		s.caughtUp(t)
		return
	}
	cause := r.Result.String()
	if r.Failure != nil {
		cause = r.Failure.Event + ": " + r.Failure.Message
	}
	s.birthFailed(t, kind)
	s.catchUpFailed(t, cause)
}

// caughtUp gives a target that was brought up to date its place: in the wave
// that is being given the revision it is evidence, sealed with it and taken back
// with it like all others; else it inherits the line of history that it was
// brought up by. It runs in update.
func (s *State) caughtUp(t *Target) {
	g := t.group
	w, placed := t.wave()
	for _, d := range slices.Backward(g.open) {
		if !placed || d.Inverse || d.Revision != t.Running || w >= len(d.Waves) || !d.Status.Live() ||
			d.Status == DeploymentStatusRollingBack {
			continue
		}
		st, task := d.Waves[w].Status, d.Tasks[t.Host]
		if !st.active() && st != WaveStatusSealed {
			continue
		}
		if d.adopts(g, t) {
			d.plan(t.Host, w, s.Now, s.Wall)
			task = d.Tasks[t.Host]
		}
		switch task.Status {
		case TaskWaiting, TaskLost, TaskSkipped, TaskCancelled:
			task.Gen = t.Gen
			s.moveTask(d, t.Host, task, TaskSettled, "brought up to date", nil)
		case TaskGranted, TaskSettled, TaskFailed, TaskBroken, TaskStageFailed, TaskGone, TaskReverting, TaskReverted, TaskLeft:
		}
		if st == WaveStatusSealed {
			t.Seals = sealed(t.Seals, Seal{Deployment: d.ID, Revision: d.Revision, At: s.Now})
		}
		return
	}
	for _, line := range slices.Backward(g.History) {
		if line.Revision == t.Running && (line.Wave == "" || placed && line.Wave == g.Layout.Waves[w].Name) {
			if g.newest(seals{list: t.Seals, own: true}, nil) != line.Revision {
				t.Seals = sealed(t.Seals, Seal{Deployment: line.Deployment, Revision: line.Revision, At: s.Now})
			}
			return
		}
	}
}

// catchUpFailed counts a try; after the last one the target is left alone.
func (s *State) catchUpFailed(t *Target, cause string) {
	if t.Tries++; t.Tries < catchUpTries {
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
func (s *State) birthFailed(t *Target, kind CatchUp) {
	w, ok := t.wave()
	if kind != CatchUpBirth || !ok {
		return
	}
	for _, d := range t.group.open {
		if w < len(d.Waves) && d.Revision == t.Desired && d.Waves[w].Status.active() {
			d.Waves[w].Extra++
			d.Failures++
		}
	}
}
